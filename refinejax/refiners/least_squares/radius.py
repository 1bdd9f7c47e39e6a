"""How far a least-squares step may go: no further than the params are from 0, at first."""

from typing import Any

import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool

from refinejax._core import Scalar
from refinejax.refiners.least_squares.linear_algebra import root
from refinejax.refiners.least_squares.trial import Trial

_WELL = 0.75  # gain ratio above which the radius grows
_REACH = 8.0  # how much further than a step that went well the next one may go


def scaled_norm(params: Any, scaling: Array) -> Scalar:
    """Return ‖Dx‖.

    Args:
        params: x, a pytree.
        scaling: the diagonal of D, shape (n,).
    """
    x, _ = ravel_pytree(params)
    return root(jnp.sum(jnp.square(scaling * x)))


def shortening(memory: Any, step: Array) -> Scalar:
    """Return the factor that makes a step no longer than the radius, ‖Ds‖ ≤ max ‖Dx‖.

    Args:
        memory: with ``scaling``, the diagonal of D, and ``radius``.
        step: s, shape (n,).
    """
    radius = jnp.square(memory.radius)
    length = jnp.sum(jnp.square(memory.scaling * step))
    long = (length > radius) & (radius > 0)
    ratio = jnp.where(long, radius, 1) / jnp.where(long, length, 1)
    return jnp.sqrt(ratio).astype(step.dtype)


def reach(radius: Scalar, trial: Trial, shortened: Bool[Array, ""]) -> Scalar:
    """Return the radius, larger where a step as long as it went as well as the model predicts.

    Where a fit begins near 0, its length says nothing of how far it has to go.

    Args:
        radius: after the trial.
        trial: the step.
        shortened: whether the step was as long as the radius allowed.
    """
    well = shortened & trial.finite & (trial.actual > _WELL * trial.predicted)
    return jnp.where(well, _REACH * radius, radius)
