"""Params in units in which their bounds are −1 and 1."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from refinejax.refiners.least_squares.quadratic_model import flat_bounds


class Units(struct.PyTreeNode):
    """x = middle + half·u; where bounds are infinite, x = u.

    Attributes:
        middle: of the bounds, shape (n,); 0 where they are infinite.
        half: half their distance, shape (n,); 1 where they are infinite or equal.
        unravel: from flat params to those of the objective; static.
    """

    middle: Float[Array, " n"]
    half: Float[Array, " n"]
    unravel: Callable[[Array], Any] = struct.field(pytree_node=False)

    def encode(self, params: Any) -> Float[Array, " n"]:
        """Return u, shape (n,).

        Args:
            params: those of the objective.
        """
        return (ravel_pytree(params)[0] - self.middle) / self.half

    def decode(self, u: Float[Array, " n"]) -> Any:
        """Return the params at u.

        Args:
            u: shape (n,).
        """
        return self.unravel(self.middle + self.half * u)


def units_of(objective: Any, params: Any) -> Units:
    """Return the units of an objective, by its bounds.

    Args:
        objective: with or without bounds.
        params: a point of it.
    """
    flat, unravel = ravel_pytree(params)
    low, high = flat_bounds(objective, params, flat)
    finite = jnp.isfinite(high - low)
    middle = jnp.where(finite, low + (high - low) / 2, 0)
    half = jnp.where(finite & (high > low), (high - low) / 2, 1)  # equal bounds: a fixed param
    return Units(middle, half, unravel)
