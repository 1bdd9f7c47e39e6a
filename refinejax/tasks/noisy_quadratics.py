"""Quadratics under gradient noise, where the best learning rate is known without a simulation."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from refinejax._core import Problem, Scalar
from refinejax.tasks.distribution import Number


class NoisyQuadratic(Problem):
    """f(x) = ½ Σᵢ hᵢ (xᵢ − cᵢ)²; `draw` gives it with other c, so that the gradient is noisy.

    Attributes:
        curvatures: h, shape (n,).
        noise: standard deviation of c, shape (n,).
        center: c, shape (n,).
    """

    curvatures: Float[Array, " n"]
    noise: Float[Array, " n"]
    center: Float[Array, " n"]

    def __call__(self, params: Float[Array, " n"]) -> Scalar:
        """Return the loss."""
        return jnp.sum(self.curvatures * (params - self.center) ** 2) / 2

    def draw(self, key: PRNGKeyArray) -> "NoisyQuadratic":
        """Return it as a minibatch shows it.

        Args:
            key: of the minimum.
        """
        return self.replace(center=self.noise * jax.random.normal(key, self.center.shape))


class NoisyQuadratics(struct.PyTreeNode):
    """Diagonal quadratics whose minimum moves from minibatch to minibatch, c ~ N(0, σ²).

    The model on which short horizons were found to ask for small learning rates (Wu et al. 2018,
    arXiv:1803.02021, §2). Curvatures h fall geometrically from 1 to 1/κ; starts are standard
    normal. Judged by the loss without noise.

    Attributes:
        noise: σ.
        condition: κ.
        size: n; static.
    """

    noise: Number = 0.5
    condition: Number = 10.0
    size: int = struct.field(pytree_node=False, default=5)

    def sample(self, key: PRNGKeyArray) -> NoisyQuadratic:
        """Return the quadratic: starts and noise differ, not it."""
        del key
        curvature = self.condition ** -jnp.linspace(0.0, 1.0, self.size)
        return NoisyQuadratic(curvature, jnp.full(self.size, self.noise), jnp.zeros_like(curvature))

    def objective(self, task: NoisyQuadratic) -> NoisyQuadratic:
        """Return the loss, of which minibatches can be drawn."""
        return task

    def query(self, task: NoisyQuadratic) -> NoisyQuadratic:
        """Return the loss without noise."""
        return task.replace(center=jnp.zeros_like(task.center))

    def initial(self, task: NoisyQuadratic, key: PRNGKeyArray) -> Float[Array, " n"]:
        """Return a start."""
        return jax.random.normal(key, task.curvatures.shape)

    def expected(self, rate: Any, steps: int) -> Scalar:
        """Return E of the mean loss over steps of x ← x − rate·∇, in closed form.

        E xᵢ² ← (1 − rate·hᵢ)² E xᵢ² + rate² hᵢ² σ², from 1 (Wu et al. 2018, equations 5 and 6).

        Args:
            rate: of gradient descent.
            steps: how many.
        """
        curvature = self.sample(jax.random.key(0)).curvatures
        shrink = (1 - rate * curvature) ** 2

        def advance(square: Array, _: None) -> tuple[Array, Array]:
            square = shrink * square + (rate * curvature * self.noise) ** 2
            return square, jnp.sum(curvature * square) / 2

        return jnp.mean(jax.lax.scan(advance, jnp.ones_like(curvature), length=steps)[1])
