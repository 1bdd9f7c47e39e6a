"""Powers of two near a number: dividing by them changes no digit."""

import jax
import jax.numpy as jnp
from jaxtyping import Array


def power_of_two(values: Array) -> Array:
    """Return the power of two next above each value, without derivative; 1 for 0, NaN and ∞.

    Args:
        values: 0 or above, of any shape.
    """
    values = jax.lax.stop_gradient(values)
    usable = (values > 0) & jnp.isfinite(values)
    _, exponent = jnp.frexp(jnp.where(usable, values, 0.5))
    limit = jnp.finfo(values.dtype).maxexp - 2  # its inverse must be a normal number too
    return jnp.ldexp(jnp.ones_like(values), jnp.clip(exponent, -limit, limit))
