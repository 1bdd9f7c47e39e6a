"""How a network reads a residual."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


@dataclass(frozen=True)
class Relative:
    """The residual over its root mean square: what there is to explain, whatever its size.

    Where the residual is 0 throughout, it is 0. For a residual of few numbers.
    """

    def __call__(self, residual: PyTree) -> Float[Array, " m"]:
        """Return the numbers in one array."""
        flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(residual)])
        mean = jnp.mean(flat**2)
        return flat * jnp.where(mean > 0, jax.lax.rsqrt(jnp.where(mean > 0, mean, 1)), 0)
