"""The lasso, and recovery of sparse vectors."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from refinejax._core import Problem, Scalar
from refinejax.tasks.distribution import Number


class Lasso(Problem):
    """f(x) = ½‖Ax − b‖² + λ‖x‖₁.

    Attributes:
        matrix: A, shape (m, n).
        observation: b, shape (m,).
        weight: λ.
        truth: the sparse vector b was made from, shape (n,).
    """

    matrix: Float[Array, "m n"]
    observation: Float[Array, " m"]
    weight: Any
    truth: Float[Array, " n"]

    def __call__(self, params: Float[Array, " n"]) -> Scalar:
        """Return the loss."""
        fit = jnp.sum((self.matrix @ params - self.observation) ** 2) / 2
        return fit + self.weight * jnp.sum(jnp.abs(params))


class SquaredError(Problem):
    """‖x − x*‖² / s: 1 on average for x = 0, so that 10·log₁₀ of its mean is the NMSE in dB.

    Attributes:
        truth: x*, shape (n,).
        scale: s, the mean of ‖x*‖².
    """

    truth: Float[Array, " n"]
    scale: Any

    def __call__(self, params: Float[Array, " n"]) -> Scalar:
        """Return the squared error."""
        return jnp.sum((params - self.truth) ** 2) / self.scale


class Lassos(struct.PyTreeNode):
    """Lassos with A anew in each task, its columns of length 1; starts at 0.

    A is normal before its columns are scaled; b = Ax* + noise, entries of x* are normal with
    probability ``density`` and else 0. With m = 25, n = 50, λ = 0.005 the minimization that
    Open-L2O compares on (Chen et al. 2022, arXiv:2103.12828, §4.2).

    Attributes:
        weight: λ.
        density: share of entries that are not 0.
        noise: standard deviation of the noise in b.
        rows, columns: m and n; static.
    """

    weight: Number = 0.005
    density: Number = 0.1
    noise: Number = 0.0
    rows: int = struct.field(pytree_node=False, default=25)
    columns: int = struct.field(pytree_node=False, default=50)

    def sample(self, key: PRNGKeyArray) -> Lasso:
        """Draw A, x* and the noise."""
        one, two = jax.random.split(key)
        matrix = dictionary(one, self.rows, self.columns)
        return _observe(two, matrix, self.density, self.noise, self.weight)

    def objective(self, task: Lasso) -> Lasso:
        """Return the loss."""
        return task

    def initial(self, task: Lasso, key: PRNGKeyArray) -> Float[Array, " n"]:
        """Return zeros."""
        del key
        return jnp.zeros_like(task.truth)


class SparseRecovery(struct.PyTreeNode):
    """Sparse vectors seen through one and the same A, judged by their distance from the truth.

    With A of 256 × 512 the benchmark of Open-L2O (Chen et al. 2022, arXiv:2103.12828, §4.1).

    Attributes:
        matrix: A, shape (m, n); see `dictionary`.
        weight: λ.
        density: share of entries that are not 0.
        noise: standard deviation of the noise in b.
    """

    matrix: Float[Array, "m n"]
    weight: Number = 0.1
    density: Number = 0.1
    noise: Number = 0.0

    def sample(self, key: PRNGKeyArray) -> Lasso:
        """Draw x* and the noise; A, which all share, is not copied."""
        task = _observe(key, self.matrix, self.density, self.noise, self.weight)
        return task.replace(matrix=None)

    def objective(self, task: Lasso) -> Lasso:
        """Return the loss."""
        return task.replace(matrix=self.matrix)

    def query(self, task: Lasso) -> SquaredError:
        """Return the squared error relative to its mean at 0."""
        return SquaredError(task.truth, self.density * task.truth.size)

    def initial(self, task: Lasso, key: PRNGKeyArray) -> Float[Array, " n"]:
        """Return zeros."""
        del key
        return jnp.zeros_like(task.truth)


def dictionary(key: PRNGKeyArray, rows: int, columns: int) -> Float[Array, "m n"]:
    """Return a normal matrix whose columns are scaled to length 1.

    Args:
        key: of the random numbers.
        rows: m.
        columns: n.
    """
    matrix = jax.random.normal(key, (rows, columns))
    return matrix / jnp.linalg.norm(matrix, axis=0)


def _observe(key: PRNGKeyArray, matrix: Array, density: Any, noise: Any, weight: Any) -> Lasso:
    one, two, three = jax.random.split(key, 3)
    rows, columns = matrix.shape
    chosen = jax.random.bernoulli(one, density, (columns,))
    truth = jnp.where(chosen, jax.random.normal(two, (columns,)), 0)
    observation = matrix @ truth + noise * jax.random.normal(three, (rows,))
    return Lasso(matrix, observation, jnp.float32(weight), truth)
