"""The implicit meta-gradient: of where the inner problem ends, not of the way there."""

import jax
import optax
from flax import struct
from jax.scipy.sparse.linalg import cg
from jaxtyping import PRNGKeyArray, PyTree

from refinejax._core import Scalar
from refinejax.meta.adaptation import Adaptation, Learner, adapt
from refinejax.meta.estimator import EachTask
from refinejax.tasks.distribution import judge


class Implicit(EachTask):
    """iMAML: the gradient of f(φ*(θ)) with φ* = argmin g(φ) + ½λ‖φ − θ‖².

    (I + ∇²g(φ)/λ)⁻¹ ∇f(φ), by conjugate gradients (Rajeswaran et al. 2019, arXiv:1909.04630, eq. 6
    and algorithm 2), with g the objective, f the query and λ ``inner.proximal``. φ is where the
    refiner ends: the error of the gradient follows the error of φ. Memory does not grow with the
    steps.

    Attributes:
        iterations: of conjugate gradients; static.

    Raises:
        ValueError: for an inner loop that is no `Adaptation` of all params with a ``proximal`` and
            a given refiner, only the last loss counting.
    """

    iterations: int = struct.field(pytree_node=False, default=5)

    def __post_init__(self) -> None:
        """Check the inner loop."""
        super().__post_init__()
        inner = self.inner
        fits = isinstance(inner, Adaptation) and inner.learned is None and not inner.adapts
        if not fits or inner.proximal is None or inner.whole:
            raise ValueError(
                "inner: expected an Adaptation(tasks, refiner, proximal=λ), without learned=, "
                "adapts= and weights="
            )

    def one(self, meta: Learner, task: PyTree, key: PRNGKeyArray) -> tuple[Scalar, Learner]:
        """Return loss and gradient of one task."""
        inner: Adaptation = self.inner
        params = adapt(inner, meta, task, key)
        loss, slope = jax.value_and_grad(judge(inner.tasks, task))(params)
        gradient = jax.grad(inner.tasks.objective(task))

        def product(vector: PyTree) -> PyTree:
            curved = jax.jvp(gradient, (params,), (vector,))[1]
            return optax.tree.add_scale(vector, 1 / inner.proximal, curved)

        solved = cg(product, slope, maxiter=self.iterations)[0]
        return loss, Learner(solved)
