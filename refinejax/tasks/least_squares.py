"""Random linear least-squares problems."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from refinejax.problems.inverse import InverseProblem
from refinejax.tasks.distribution import Number


class LinearData(struct.PyTreeNode):
    """Data of a linear problem.

    Attributes:
        matrix: A, shape (m, n).
        observation: Ax + noise, shape (m,).
        truth: x, shape (n,).
    """

    matrix: Float[Array, "m n"]
    observation: Float[Array, " m"]
    truth: Float[Array, " n"]


class LeastSquaresTasks(struct.PyTreeNode):
    """Least squares with normal A, whose columns are scaled from 1 to 1/√κ: conditions of κ or so.

    Truths and starts are standard normal.

    Attributes:
        noise: standard deviation of the observation.
        condition: κ.
        rows, columns: m and n; static.
    """

    noise: Number = 0.1
    condition: Number = 10.0
    rows: int = struct.field(pytree_node=False, default=20)
    columns: int = struct.field(pytree_node=False, default=10)

    def sample(self, key: PRNGKeyArray) -> LinearData:
        """Draw A, x and the noise."""
        one, two, three = jax.random.split(key, 3)
        scale = self.condition ** -jnp.linspace(0.0, 0.5, self.columns)
        matrix = scale * jax.random.normal(one, (self.rows, self.columns))
        truth = jax.random.normal(two, (self.columns,))
        scatter = self.noise * jax.random.normal(three, (self.rows,))
        return LinearData(matrix, matrix @ truth + scatter, truth)

    def objective(self, task: LinearData) -> InverseProblem:
        """Return the problem; its loss is the mean of squares."""
        return InverseProblem(_product, task.observation, context=task.matrix)

    def initial(self, task: LinearData, key: PRNGKeyArray) -> Float[Array, " n"]:
        """Return a start."""
        return jax.random.normal(key, task.truth.shape)


def _product(params: Float[Array, " n"], matrix: Float[Array, "m n"]) -> Float[Array, " m"]:
    return matrix @ params
