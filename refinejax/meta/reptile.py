"""Reptile: toward where the inner problems end."""

import optax
from jaxtyping import PRNGKeyArray, PyTree

from refinejax._core import Scalar
from refinejax.meta.adaptation import Adaptation, Learner, adapt
from refinejax.meta.estimator import EachTask
from refinejax.tasks.distribution import judge


class Reptile(EachTask):
    """θ − φ, φ where a few steps on a task end, in place of a gradient.

    Nichol et al. (2018, arXiv:1803.02999), algorithm 1: descent along it with a rate ε is
    θ ← θ + ε(φ − θ). The reported loss is the loss of the query.

    Raises:
        ValueError: for an inner loop that is no `Adaptation` with a given refiner, or one with
            weights: there is no loss whose weights they could be.
    """

    def __post_init__(self) -> None:
        """Check the inner loop."""
        super().__post_init__()
        inner = self.inner
        if not isinstance(inner, Adaptation) or inner.learned is not None or inner.whole:
            raise ValueError(
                "inner: expected an Adaptation(tasks, refiner), without learned= and weights="
            )

    def one(self, meta: Learner, task: PyTree, key: PRNGKeyArray) -> tuple[Scalar, Learner]:
        """Return loss and direction of one task."""
        params = adapt(self.inner, meta, task, key)
        loss = judge(self.inner.tasks, task)(params)
        return loss, Learner(optax.tree.sub(meta.params, params))
