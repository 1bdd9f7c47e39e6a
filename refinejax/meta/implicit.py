"""The implicit meta-gradient: of where the inner problem ends, not of the way there."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.scipy.sparse.linalg import cg
from jaxtyping import PRNGKeyArray, PyTree

from refinejax._core import Scalar
from refinejax.meta.adaptation import Adaptation, Learner
from refinejax.meta.estimator import Fresh
from refinejax.problems.tasks import judge


class Implicit(Fresh):
    """iMAML: the gradient of f(φ*(θ)) with φ* = argmin g(φ) + ½λ‖φ − θ‖².

    (I + ∇²g(φ)/λ)⁻¹ ∇f(φ), by conjugate gradients (Rajeswaran et al. 2019, arXiv:1909.04630, eq. 6
    and algorithm 2), with g the objective, f the query and λ ``inner.proximal``. φ is where the
    refiner ends: the error of the gradient follows that of φ. Memory does not grow with the steps.

    Attributes:
        iterations: of conjugate gradients; static.

    Raises:
        ValueError: for an inner loop that is no `Adaptation` of all params with a ``proximal`` and
            a given refiner, only the last loss counting.
    """

    iterations: int = struct.field(pytree_node=False, default=5)

    def __post_init__(self) -> None:
        """Check the inner loop."""
        inner = self.inner
        fits = isinstance(inner, Adaptation) and inner.learned is None and not inner.adapts
        if not fits or inner.proximal is None or inner.whole:
            raise ValueError(
                "inner: expected an Adaptation(tasks, refiner, proximal=λ), without learned=, "
                "adapts= and weights="
            )

    def estimate(
        self, meta: PyTree, tasks: PyTree, keys: PRNGKeyArray
    ) -> tuple[Scalar, PyTree, Scalar]:
        """Return loss, gradient, and the share of parts that were finite."""

        def one(meta: Learner, part: Any) -> tuple[Scalar, Learner]:
            found = jax.vmap(self._one, in_axes=(None, 0, 0))(meta, *part)
            return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), found)

        return self.average(one, meta, (tasks, keys))

    def _one(self, meta: Learner, task: PyTree, key: PRNGKeyArray) -> tuple[Scalar, Learner]:
        inner: Adaptation = self.inner
        params = adapt(inner, meta, task, key)
        loss, slope = jax.value_and_grad(judge(inner.tasks, task))(params)
        gradient = jax.grad(inner.tasks.objective(task))

        def product(vector: PyTree) -> PyTree:
            curved = jax.jvp(gradient, (params,), (vector,))[1]
            return optax.tree.add_scale(vector, 1 / inner.proximal, curved)

        solved = cg(product, slope, maxiter=self.iterations)[0]
        return loss, Learner(solved)


def adapt(inner: Adaptation, meta: Learner, task: PyTree, key: PRNGKeyArray) -> PyTree:
    """Return the params after all steps of an adaptation."""
    first, run = jax.random.split(key)
    state = inner.begin(meta, task, first)

    def body(state: Any, key: PRNGKeyArray) -> tuple[Any, None]:
        return inner.advance(meta, task, state, key), None

    state, _ = jax.lax.scan(body, state, jax.random.split(run, inner.horizon))
    return inner.adapted(state)
