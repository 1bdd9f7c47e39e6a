"""The unit of a loss: what a quasi-Newton method divides it by, so that no unit matters.

The first step of such a method, before it knows a curvature, and the squares of its gradients
depend on the unit of the loss. Divided by a power of two near the first gradient, all losses look
alike, to the last bit.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from refinejax._core import Scalar


def loss_unit(grad: Any) -> Scalar:
    """Return the power of two next below the norm of a gradient; 1 for 0 or NaN.

    In that unit the norm is from 1 to 2, where optax's L-BFGS takes a first step of length 1, as
    for every longer gradient.

    Args:
        grad: a pytree of floating arrays.
    """
    grad = jax.lax.stop_gradient(grad)
    largest = optax.tree.norm(grad, ord=jnp.inf)
    usable = (largest > 0) & jnp.isfinite(largest)
    largest = jnp.where(usable, largest, 1)
    norm = optax.tree.norm(jax.tree.map(lambda g: g / largest.astype(g.dtype), grad))
    _, one = jnp.frexp(largest)
    part = jnp.ldexp(largest, -one)  # ½ to 1, so that the product is no larger than √n
    _, two = jnp.frexp(part * norm.astype(part.dtype))
    limit = jnp.finfo(largest.dtype).maxexp - 2  # its inverse must be a normal number too
    exponent = jnp.where(usable, one + two - 1, 0)
    return jnp.ldexp(jnp.ones_like(largest), jnp.clip(exponent, -limit, limit))


def divided(objective: Callable[[Any], Scalar], unit: Scalar) -> Callable[[Any], Scalar]:
    """Return the objective in a unit of the loss.

    Args:
        objective: params → loss.
        unit: a power of two.
    """
    return lambda params: (lambda loss: loss / unit.astype(loss.dtype))(objective(params))
