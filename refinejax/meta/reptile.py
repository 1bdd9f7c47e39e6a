"""Reptile: toward where the inner problems end."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PRNGKeyArray, PyTree

from refinejax._core import Scalar
from refinejax.meta.adaptation import Adaptation, Learner
from refinejax.meta.estimator import Fresh
from refinejax.meta.implicit import adapt
from refinejax.problems.tasks import judge


class Reptile(Fresh):
    """θ − φ, φ where a few steps on a task end, in place of a gradient.

    Nichol et al. (2018, arXiv:1803.02999), algorithm 1: descent along it with a rate ε is
    θ ← θ + ε(φ − θ). The loss that is reported is that of the query.

    Raises:
        ValueError: for an inner loop that is no `Adaptation` with a given refiner.
    """

    def __post_init__(self) -> None:
        """Check the inner loop."""
        if not isinstance(self.inner, Adaptation) or self.inner.learned is not None:
            raise ValueError("inner: expected an Adaptation(tasks, refiner), without learned=")

    def estimate(
        self, meta: PyTree, tasks: PyTree, keys: PRNGKeyArray
    ) -> tuple[Scalar, PyTree, Scalar]:
        """Return loss, direction, and the share of parts that were finite."""

        def one(meta: Learner, part: Any) -> tuple[Scalar, Learner]:
            found = jax.vmap(self._one, in_axes=(None, 0, 0))(meta, *part)
            return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), found)

        return self.average(one, meta, (tasks, keys))

    def _one(self, meta: Learner, task: PyTree, key: PRNGKeyArray) -> tuple[Scalar, Learner]:
        params = adapt(self.inner, meta, task, key)
        loss = judge(self.inner.tasks, task)(params)
        return loss, Learner(optax.tree.sub(meta.params, params))
