"""What refiners share when they tell the drivers how far they have come."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int

from refinejax._core import Scalar, Status, bounds_of
from refinejax._trees import project

MAX_NONFINITE = 30  # steps in a row that ended in NaN or infinity, before the status is NONFINITE


def count_nonfinite(finite: Bool[Array, ""], count: Int[Array, ""]) -> Int[Array, ""]:
    """Return how many steps in a row ended in NaN or infinity, given how many did before.

    Args:
        finite: whether the last step ended in finite numbers.
        count: of such steps in a row before it.
    """
    return jnp.where(finite, 0, count + 1)


def nonfinite_status(count: Int[Array, ""]) -> Int[Array, ""]:
    """Return ``NONFINITE`` after `MAX_NONFINITE` such steps in a row, else ``RUNNING``.

    Args:
        count: of such steps in a row.
    """
    lost = count >= MAX_NONFINITE
    return jnp.where(lost, jnp.int32(Status.NONFINITE), jnp.int32(Status.RUNNING))


def projected_gradient_norm(objective: Any, params: Any, grad: Any) -> Scalar:
    """Return the largest component of P(x − ∇) − x, P the projection on the bounds.

    Args:
        objective: the problem, for its bounds.
        params: x, a pytree.
        grad: ∇, a pytree like the params.
    """
    bounds, moves = bounds_of(objective), grad
    if bounds is not None:
        ahead = jax.tree.map(jnp.subtract, params, grad)
        moves = jax.tree.map(jnp.subtract, project(ahead, bounds), params)
    return optax.tree.norm(moves, ord=jnp.inf)


def smoothed_progress(last: Array, now: tuple[Scalar, Scalar], accepted: Bool[Array, ""]) -> Array:
    """Return the largest relative decrease and step length of late, shape (2,).

    One short step says little in a narrow valley: a step counts a quarter as much at the next.

    Args:
        last: what this returned after the step before; infinite at first.
        now: relative decrease and length of this step.
        accepted: whether it was taken; else the result is ``last``.
    """
    decrease, length = now
    late = jnp.minimum(last, 1) / 4
    recent = jnp.maximum(jnp.stack([decrease.astype(late.dtype), length.astype(late.dtype)]), late)
    # The derivative of a norm of 0 is NaN.
    return jax.lax.stop_gradient(jnp.where(accepted, recent, last))
