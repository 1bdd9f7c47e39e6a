"""Random quadratics: the first test of learned optimizers."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from refinejax._core import Problem, Scalar
from refinejax.tasks.distribution import Number

LAWS = ("normal", "uniform")


class Quadratic(Problem):
    """f(x) = ‖Wx − y‖², the sum of squares.

    Attributes:
        matrix: W, shape (n, n).
        target: y, shape (n,).
    """

    matrix: Float[Array, "n n"]
    target: Float[Array, " n"]

    def __call__(self, params: Float[Array, " n"]) -> Scalar:
        """Return the loss."""
        return jnp.sum((self.matrix @ params - self.target) ** 2)


class Quadratics(struct.PyTreeNode):
    """Quadratics ‖Wx − y‖² with random W and y.

    By ``law="normal"`` all of W, y and the start are normal with variance 1 (Andrychowicz et al.
    2016, arXiv:1606.04474, §3.1); by ``"uniform"`` W and y are uniform on [0, 1] and the start is
    normal with standard deviation 0.01, as in the code of that paper.

    Attributes:
        scale: factor on W.
        size: n; static.
        law: "normal" or "uniform"; static.

    Raises:
        ValueError: for an unknown law.
    """

    scale: Number = 1.0
    size: int = struct.field(pytree_node=False, default=10)
    law: str = struct.field(pytree_node=False, default="normal")

    def __post_init__(self) -> None:
        """Check."""
        if self.law not in LAWS:
            raise ValueError(f"law: expected one of {', '.join(LAWS)}, got {self.law!r}")

    def sample(self, key: PRNGKeyArray) -> Quadratic:
        """Draw W and y."""
        draw = jax.random.normal if self.law == "normal" else jax.random.uniform
        one, other = jax.random.split(key)
        return Quadratic(self.scale * draw(one, (self.size, self.size)), draw(other, (self.size,)))

    def objective(self, task: Quadratic) -> Quadratic:
        """Return the loss."""
        return task

    def initial(self, task: Quadratic, key: PRNGKeyArray) -> Float[Array, " n"]:
        """Return a start."""
        std = 1.0 if self.law == "normal" else 0.01
        return std * jax.random.normal(key, task.target.shape)
