"""What refiners share when they tell the drivers how far they have come."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int

from refinejax._core import Scalar, Status, bounds_of
from refinejax._trees import pressing

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


def gradient_status(count: Int[Array, ""], largest: Scalar, loss: Scalar) -> Int[Array, ""]:
    """Return `nonfinite_status`; ``SINGULAR`` where no gradient but 0 has been seen.

    Args:
        count: of steps in a row that ended in NaN or infinity.
        largest: the largest component of all gradients so far.
        loss: where they are; a loss of 0 needs no slope.
    """
    flat = (largest == 0) & (loss != 0) & jnp.isfinite(loss)
    return jnp.where(flat, jnp.int32(Status.SINGULAR), nonfinite_status(count))


def free_gradient_norm(objective: Any, params: Any, grad: Any) -> Scalar:
    """Return the largest |∇| of params that are not held at a bound by descent.

    Args:
        objective: the problem, for its bounds.
        params: where, a pytree.
        grad: ∇, a pytree like the params.
    """
    bounds = bounds_of(objective)
    if bounds is not None:
        held = pressing(params, grad, bounds)
        grad = jax.tree.map(lambda g, h: jnp.where(h, 0, g), grad, held)
    return optax.tree.norm(grad, ord=jnp.inf)


def relative_gradient(norm: Scalar, largest: Scalar, loss: Scalar, params: Any) -> Scalar:
    """Return a norm of the gradient without its unit.

    That is relative to |loss|/‖x‖, as for least squares the cosine between residual and Jacobian
    is; where that is less than ε^¼ of the largest gradient so far, relative to this share of it,
    and where it is more than the largest gradient, relative to that.

    Infinite as long as no gradient but 0 has been seen, unless the loss is 0 as well: a start
    without slope is no minimum.

    Args:
        norm: of the gradient now.
        largest: of all gradients so far.
        loss: where the gradient is ``norm``.
        params: there, a pytree.
    """
    size = optax.tree.norm(params, ord=jnp.inf).astype(loss.dtype)
    slope = jnp.where(size > 0, jnp.abs(loss) / jnp.where(size > 0, size, 1), jnp.inf)
    share = float(jnp.finfo(loss.dtype).eps) ** 0.25
    unit = jnp.minimum(largest, jnp.maximum(slope, share * largest))
    flat = jnp.where(loss == 0, 0, jnp.inf)
    return jnp.where(largest > 0, norm / jnp.where(largest > 0, unit, 1), flat)


def relative_length(move: Array, x: Array) -> Scalar:
    """Return ‖move‖/‖x‖, without squares that leave the range of the dtype; 0 for 0/0.

    Args:
        move: a step, flat.
        x: where it begins, flat.
    """
    unit = jnp.maximum(jnp.max(jnp.abs(move)), jnp.max(jnp.abs(x)))
    unit = jnp.where(unit > 0, unit, 1)
    length = jnp.linalg.norm(move / unit)
    size = jnp.linalg.norm(x / unit)
    # A step from 0 is infinitely long, relative to where it began.
    unknown = jnp.where(length > 0, jnp.inf, 0)
    return jnp.where(size > 0, length / jnp.where(size > 0, size, 1), unknown)


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
