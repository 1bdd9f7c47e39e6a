"""Ranks and order statistics of a population, without sorting where it is small.

XLA on CPU sorts 50 numbers in 5 µs, and compares all pairs of them in 0.5.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_PAIRS = 128  # the largest population of which all pairs are compared


class Order:
    """The order of losses; lives within a trace."""

    def __init__(self, losses: Float[Array, " p"]) -> None:
        self.losses = losses
        self.small = losses.shape[0] <= _PAIRS
        if self.small:
            self.below = jnp.sum(losses[None, :] < losses[:, None], axis=1)
            self.up_to = jnp.sum(losses[None, :] <= losses[:, None], axis=1)
        else:
            self.sorted = jnp.sort(losses)

    def at(self, index: Any) -> Array:
        """Return the loss of rank k in ascending order.

        Args:
            index: k, from 0.
        """
        if not self.small:
            return self.sorted[index]
        return jnp.max(
            jnp.where((self.below <= index) & (index < self.up_to), self.losses, -jnp.inf)
        )

    def ranks(self) -> Float[Array, " p"]:
        """Return the number of losses before each; equal ones share the mean of their ranks."""
        if not self.small:
            return jax.scipy.stats.rankdata(self.losses) - 1
        return (self.below + self.up_to - 1).astype(self.losses.dtype) / 2
