"""Bounds for methods without: a smooth map of all space onto the box within them."""

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from refinejax._trees import Bounds, project

MARGIN = 0.05  # of the range: where, at each end, the map is not the identity


class BoundTransform(struct.PyTreeNode):
    """T: ℝⁿ → [lower, upper], the identity but for a margin a at each end.

    There T is a parabola that touches the bound at lower − a, with slope 0, and turns back inside
    beyond; with both ends finite T is periodic. A minimum on a face of the box, where the loss
    falls right up to the bound, thus becomes one in the open, and one inside stays as it is.

    This is the linear-quadratic transformation of pycma (``BoundTransform``), with a margin that
    follows the range.

    Attributes:
        lower, upper: flat, ±∞ for none.
        margin: a, for each param.
    """

    lower: Float[Array, " n"]
    upper: Float[Array, " n"]
    margin: Float[Array, " n"]

    @classmethod
    def of(cls, bounds: Bounds | None, params: object, std: Float[Array, " n"]) -> "BoundTransform":
        """Return the transform onto bounds.

        Args:
            bounds: (lower, upper) of the problem; None without.
            params: for the structure and dtypes.
            std: initial standard deviation, shape (n,): sets the margin where bounds are infinite.
        """

        def end(value: float) -> Array:
            far = jax.tree.map(lambda p: jnp.full_like(p, value), params)
            return ravel_pytree(project(far, bounds))[0]

        lower, upper = end(-jnp.inf), end(jnp.inf)
        width = upper - lower
        ranged = jnp.isfinite(width) & (width > 0)  # equal bounds: a fixed param
        return cls(lower, upper, MARGIN * jnp.where(ranged, width, std))

    def enter(self, y: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        """Return T(y).

        Args:
            y: coordinates without bounds, shape (…, n).
        """
        low, high = self.lower - self.margin, self.upper + self.margin
        y = self._fold(y, low, high)
        near_low, near_high = y < self.lower + self.margin, y > self.upper - self.margin
        x = jnp.where(near_low, self.lower + (y - low) ** 2 / (4 * self.margin), y)
        x = jnp.where(near_high, self.upper - (high - y) ** 2 / (4 * self.margin), x)
        return jnp.clip(x, self.lower, self.upper)

    def _fold(self, y: Array, low: Array, high: Array) -> Array:
        """Mirror y at the ends until it is between them; leave it alone where it is."""
        width = jnp.where(jnp.isfinite(high - low), high - low, 1)
        turned = jnp.mod(y - low, 2 * width)
        folded = low + width - jnp.abs(turned - width)
        once = jnp.where(y < low, 2 * low - y, 2 * high - y)  # where only one end is finite
        outside = (y < low) | (y > high)
        return jnp.where(outside, jnp.where(jnp.isfinite(high - low), folded, once), y)

    def leave(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """Return the y nearest to the middle with T(y) = x.

        Args:
            x: params within the bounds, shape (n,).
        """
        low, high = self.lower - self.margin, self.upper + self.margin
        up, down = jnp.maximum(x - self.lower, 0), jnp.maximum(self.upper - x, 0)
        y = jnp.where(up < self.margin, low + 2 * jnp.sqrt(self.margin * up), x)
        return jnp.where(down < self.margin, high - 2 * jnp.sqrt(self.margin * down), y)
