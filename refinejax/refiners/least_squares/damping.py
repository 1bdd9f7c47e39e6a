"""How Levenberg–Marquardt judges a trial, and how it adapts its damping."""

from typing import Any

import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from refinejax._core import Scalar, State
from refinejax._trees import select
from refinejax.refiners.least_squares.model import Model, Trial, root
from refinejax.refiners.least_squares.white import White

_MOST = 1e12  # λ beyond which a step is nothing
_NEUTRAL = 0.25  # gain ratio at which λ stays
_FASTEST = (
    8.0  # factor on λ after trials that ended in NaN, which say nothing of how far to go back
)
_LEAST = 32  # ε: how much weaker than the best a direction may be and still be known
_ROUNDING = 8  # ε of the loss that mean nothing, as in `Stop.loss`


class LMMemory(struct.PyTreeNode):
    """What `LevenbergMarquardt` remembers.

    Attributes:
        gradient: of the loss, shape (n,).
        white: the quadratic model; None where only products with its matrix are formed.
        size: the largest √diag(matrix) so far, shape (n,).
        reach: the largest ‖Dx‖ so far.
        damping: λ.
        growth: factor on λ at the next refusal.
        lost: trials in a row that ended in NaN or infinity.
        last_progress: relative decrease and step length of the last trial (see `Refiner.progress`).
    """

    gradient: Float[Array, " n"]
    white: White | None
    size: Float[Array, " n"]
    reach: Scalar
    damping: Scalar
    growth: Scalar
    lost: Int[Array, ""]
    last_progress: Float[Array, "2"]


def settle(state: State, ends: Any, model: Model, white: Any, trial: Trial, left: Scalar) -> State:
    """Accept or refuse a trial, and adapt the damping.

    What a step promises and the loss cannot resolve is judged by the gradient: by what the old
    matrix would still promise there (the natural monotonicity test, Deuflhard 2011, §3.3). Where
    that does not fall by half, the end is reached.
    """
    memory: LMMemory = state.memory
    dtype = state.loss.dtype
    floor = _floor(state)
    level = (trial.promised > 0) & (trial.promised <= floor) & (jnp.abs(trial.gained) <= floor)
    better = (trial.gained > 0) | (level & (left <= trial.promised))
    accepted = trial.finite & better
    undamped = trial.promised * (1 + memory.damping) <= floor
    ended = level & undamped & (left > trial.promised / 2) & (trial.gained <= 0)
    ratio = trial.gained / jnp.where(trial.promised > 0, trial.promised, 1)
    ratio = jnp.where(level, 1, ratio)
    factor = jnp.clip(1 - ((ratio - _NEUTRAL) / (1 - _NEUTRAL)) ** 3, 1 / 3, 2)
    damping = memory.damping * jnp.where(accepted, factor, memory.growth)
    old = (state.params, state.loss, memory.gradient, memory.white, memory.size)
    new = (ends, model.loss, model.gradient, white, jnp.maximum(memory.size, model.size))
    params, loss, gradient, white, largest = select(accepted, new, old)
    least = (_LEAST * jnp.finfo(dtype).eps) ** 2
    kept = LMMemory(
        gradient=gradient,
        white=white,
        size=largest,
        reach=jnp.maximum(memory.reach, reach_of(params, largest)),
        damping=jnp.clip(damping, least, _MOST),
        growth=_growth(memory, accepted, trial.finite).astype(dtype),
        lost=jnp.where(trial.finite, 0, memory.lost + 1),
        last_progress=trial.last_progress.at[0].set(jnp.where(ended, 0, trial.last_progress[0])),
    )
    return State(params, loss, kept)


def _growth(memory: LMMemory, accepted: Array, finite: Array) -> Array:
    """Return the factor on λ at the next refusal."""
    faster = jnp.where(finite, 2 * memory.growth, jnp.minimum(2 * memory.growth, _FASTEST))
    return jnp.where(accepted, 2, jnp.minimum(faster, _MOST))


def reach_of(params: Any, size: Array) -> Scalar:
    """Return ‖Dx‖."""
    x, _ = ravel_pytree(params)
    return root(jnp.sum(jnp.square(size * x)))


def shortening(memory: Any, velocity: Array) -> Scalar:
    """Return the factor that makes a step as long as the params were at most, ‖Ds‖ ≤ max ‖Dx‖."""
    longest = jnp.square(memory.reach)
    length = jnp.square(memory.size) @ jnp.square(velocity)
    long = (length > longest) & (longest > 0)
    ratio = jnp.where(long, longest, 1) / jnp.where(long, length, 1)
    return jnp.sqrt(ratio).astype(velocity.dtype)


def _floor(state: State) -> Scalar:
    """Return how far the loss is known, for rounding: of itself, and of params or prediction.

    The residual moves by ε‖Jx‖ at random from pixel to pixel, which averages out.
    """
    memory: LMMemory = state.memory
    whole = jnp.abs(state.loss)
    count = 1 if memory.white is None else jnp.maximum(memory.white.count, 1)
    noise = 2 * reach_of(state.params, memory.size) * root(whole / count)
    return jnp.finfo(state.loss.dtype).eps * (_ROUNDING * whole + noise)
