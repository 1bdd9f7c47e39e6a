"""Wrapped phases: φ known up to a multiple of 2π, represented in [−π, π).

The multiple is taken off in two steps, x − k·A − k·B, with A + B = 2π and A so short that k·A is
exact (Cody & Waite 1980, Software Manual for the Elementary Functions). One step, x − k·fl(2π), is
wrong by k·1.7e-7 rad in float32, 3e-4 rad at 10⁴ rad, and takes no less time.
"""

import math

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

# 2π beyond float64: 2π = 2·math.pi + _TAU_TAIL up to 1e-32
_TAU_TAIL = 2.4492935982947064e-16


def _split_tau(dtype: jnp.dtype) -> tuple[float, float]:
    """A + B = 2π, with a third of the significand in A: k·A is exact for the k of common phases."""
    step = 2.0 ** (3 - (jnp.finfo(dtype).nmant + 1) // 3)
    high = step * round(math.tau / step)
    return high, (math.tau - high) + _TAU_TAIL


def _reduce(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The remainder x − 2π·round(x/2π), which rounding may leave an ulp outside of ±π."""
    high, low = _split_tau(x.dtype)
    turns = jnp.round(x * (1 / math.tau))
    return (x - turns * high) - turns * low


def wrap(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Wrap a phase to [−π, π).

        wrap(x) = x − 2π·⌊(x + π)/2π⌋

    The ends of the interval are the numbers nearest to ±π in the dtype of x, ±fl(π), though in
    float32 fl(π) > π: wrap(−fl(π)) = wrap(fl(π)) = −fl(π), fl(π) is never returned, values within
    [−fl(π), fl(π)) are returned bit for bit, and wrap(wrap(x)) = wrap(x). The turns that are taken
    off are those of the true 2π. The derivative is 1.

    Where x is so large that its neighbors in the dtype lie 2π apart (5e7 rad in float32), it holds
    no phase, and the result is some number in [−π, π). NaN and ±∞ give NaN.

    Args:
        x: phase, any shape [rad].

    Returns:
        The wrapped phase, of the shape and dtype of x [rad].
    """
    x = _floating(x)
    pi = jnp.asarray(math.pi, x.dtype)
    y = _reduce(x)
    y = jnp.where(y >= pi, y - 2 * pi, y)
    y = jnp.where(y < -pi, y + 2 * pi, y)
    return jnp.where(jnp.abs(y) > pi, jnp.zeros_like(y), y)


def wrapped_difference(
    prediction: Float[Array, "..."], observation: Float[Array, "..."]
) -> Float[Array, "..."]:
    """The residual of phases: the difference of least magnitude, modulo 2π.

        d − 2π·round(d/2π),  d = prediction − observation

    Either may be wrapped or not. The result lies within ±π up to rounding. Unlike `wrap`, this
    function does not make the interval half-open, since it runs once a pixel and step.
    NaN (a missing pixel) stays NaN. The derivative with respect to the prediction is 1.

    Args:
        prediction: phase, any shape [rad].
        observation: phase, of a shape that broadcasts with it [rad].

    Returns:
        The difference, of the common shape [rad].
    """
    return _reduce(_floating(jnp.subtract(prediction, observation)))


def phase_rmse(
    prediction: Float[Array, "..."],
    observation: Float[Array, "..."],
    axis: int | tuple[int, ...] | None = None,
) -> Float[Array, "..."]:
    """The root mean square of the wrapped difference, over the pixels that were observed [rad].

        √(Σ w·wrapped_difference² / Σ w),  w = 0 where the observation is NaN (missing), else 1

    NaN where nothing was observed, or where the prediction is NaN at an observed pixel.

    Args:
        prediction: phase, any shape [rad].
        observation: phase, of a shape that broadcasts with it [rad].
        axis: the axes to average over, for example (-2, -1) in a batch of images; None means all.

    Returns:
        The root mean square over those axes [rad].
    """
    missing = jnp.isnan(observation)
    # selected before the square: a derivative through the other branch would be NaN
    difference = jnp.where(missing, 0, wrapped_difference(prediction, observation))
    observed = jnp.broadcast_to(~missing, difference.shape).sum(axis=axis, dtype=difference.dtype)
    return jnp.sqrt(jnp.sum(difference**2, axis=axis) / observed)


def _floating(x: ArrayLike) -> Array:
    """An array of a floating dtype: integers become the default one, floats keep theirs."""
    return jnp.asarray(x, jnp.result_type(x, float))
