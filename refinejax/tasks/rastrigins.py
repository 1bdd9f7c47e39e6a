"""Rastrigin functions: a quadratic with many local minima."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from refinejax._core import Problem, Scalar
from refinejax.tasks.distribution import Number


class Rastrigin(Problem):
    """f(x) = ½‖Ax − b‖² − α Σ cᵢ cos(2πxᵢ) + αn.

    Attributes:
        matrix: A, shape (n, n).
        target: b, shape (n,).
        weights: c, shape (n,).
        height: α.
    """

    matrix: Float[Array, "n n"]
    target: Float[Array, " n"]
    weights: Float[Array, " n"]
    height: Any

    def __call__(self, params: Float[Array, " n"]) -> Scalar:
        """Return the loss."""
        bowl = jnp.sum((self.matrix @ params - self.target) ** 2) / 2
        waves = self.weights @ jnp.cos(2 * jnp.pi * params)
        return bowl + self.height * (params.size - waves)


class Rastrigins(struct.PyTreeNode):
    """The family of Cao et al. (2019, arXiv:1911.03787, eq. 13): A, b, c and starts normal.

    Attributes:
        height: α, 10 in the paper; 0 leaves a quadratic, so that a curriculum can begin there.
        size: n; static.
    """

    height: Number = 10.0
    size: int = struct.field(pytree_node=False, default=2)

    def sample(self, key: PRNGKeyArray) -> Rastrigin:
        """Draw A, b and c."""
        one, two, three = jax.random.split(key, 3)
        n = self.size
        return Rastrigin(
            jax.random.normal(one, (n, n)),
            jax.random.normal(two, (n,)),
            jax.random.normal(three, (n,)),
            jnp.float32(self.height),
        )

    def objective(self, task: Rastrigin) -> Rastrigin:
        """Return the loss."""
        return task

    def initial(self, task: Rastrigin, key: PRNGKeyArray) -> Float[Array, " n"]:
        """Return a start."""
        return jax.random.normal(key, task.target.shape)
