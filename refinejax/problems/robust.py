"""Losses that bound the influence of outliers, as wrappers of a least-squares problem."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, PyTree

from refinejax._core import Coordinates, Problem, Scalar
from refinejax._trees import Bounds
from refinejax.problems.inverse import InverseProblem
from refinejax.problems.normal import Normal, Product
from refinejax.problems.scaled import scaled_coordinates


def huber(z: Array) -> Array:
    """Return ρ(z) = z for z ≤ 1, 2√z − 1 beyond: quadratic, then linear (Huber 1964).

    Args:
        z: squared residuals in units of the scale, (r/s)².
    """
    return jnp.where(z <= 1, z, 2 * jnp.sqrt(jnp.maximum(z, 1)) - 1)


def cauchy(z: Array) -> Array:
    """Return ρ(z) = ln(1 + z), the negative log-likelihood of Cauchy noise, up to a factor.

    Args:
        z: squared residuals in units of the scale, (r/s)².
    """
    return jnp.log1p(z)


def tukey(z: Array) -> Array:
    """Return ρ(z) = (1 − (1 − z)³)/3 for z ≤ 1, ⅓ beyond: outliers lose all influence.

    Beaton and Tukey (1974), the biweight.

    Args:
        z: squared residuals in units of the scale, (r/s)².
    """
    z = jnp.minimum(z, 1)
    return z * (1 - z * (1 - z / 3))  # the same, without cancellation for small z


class Robust(Problem):
    """A least-squares problem with a robust loss: mean of s²·ρ((r/s)²), plus the prior.

    The convention of ``scipy.optimize.least_squares``: r is the problem's residual (in units of its
    noise), ρ a function with ρ(z) ≈ z for small z (`huber`, `cauchy`; `tukey`), and s where
    outliers begin. Usual for 95 % efficiency under Gaussian noise: s = 1.345 (Huber), 2.385
    (Cauchy), 4.685 (Tukey).

    Attributes:
        problem: an `InverseProblem`.
        rho: ρ; static.
        scale: s, in units of the noise.
    """

    problem: InverseProblem
    rho: Callable[[Array], Array] = struct.field(pytree_node=False, default=huber)
    scale: Any = 1.345

    def __call__(self, params: PyTree) -> Scalar:
        """Return the robust loss."""
        residuals = jax.tree.leaves(self.problem.residual(params))
        squares = [self.scale**2 * self.rho((jnp.abs(r) / self.scale) ** 2) for r in residuals]
        penalties = jnp.stack([jnp.sum(s) for s in squares])
        return self.problem.total(jnp.sum(penalties), params)

    def predict(self, params: PyTree) -> PyTree:
        """Return the observation that ``params`` would give.

        Args:
            params: of one sample, a pytree.
        """
        return self.problem.predict(params)

    def weights(self, params: PyTree) -> PyTree:
        """Return ρ′((r/s)²) per pixel, the weights of iteratively reweighted least squares.

        Args:
            params: of one sample, a pytree.
        """
        slope = jax.vmap(jax.grad(self.rho))

        def weigh(r: Array) -> Array:
            weights = slope((jnp.abs(r).ravel() / self.scale) ** 2).reshape(r.shape)
            return jnp.maximum(weights, 0)  # their root is taken; rounding may leave −1e-17

        return jax.tree.map(weigh, self.problem.residual(params))

    def normal(self, params: PyTree, basis: Array | None = None) -> Normal:
        """Return the quadratic model of the loss, with the weights of `weights` (ρ″ left out).

        With ``basis`` as a function of z, params + basis·z.
        """
        return self.problem.reweighted(params, self._weigh, basis)

    def curvature(self, params: PyTree) -> Product:
        """Return v → M v for the matrix of `normal`."""
        return self.problem.reweighted_curvature(params, self._weigh)

    def _weigh(self, r: Array) -> tuple[Array, Array]:
        z = (r / self.scale) ** 2
        penalty, push = jax.jvp(self.rho, (z,), (jnp.ones_like(z),))
        return self.scale**2 * penalty, jnp.maximum(push, 0)

    @property
    def bounds(self) -> Bounds | None:
        """The bounds of the problem."""
        return self.problem.bounds

    @property
    def reorder(self) -> bool:
        """As the problem's."""
        return self.problem.reorder

    def coordinates(self) -> Coordinates:
        """Return the problem's scaled coordinates."""
        return scaled_coordinates(self, self.problem.space, self.problem.scale)

    def batch_axes(self) -> "Robust":
        """As the problem's; a single scale is shared."""
        scale = 0 if jnp.ndim(self.scale) else None
        return self.replace(problem=self.problem.batch_axes(), scale=scale)
