"""Levenberg–Marquardt whose damping is learned."""

import math
from typing import Any

import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray

from refinejax._core import Params, Scalar, State, Status
from refinejax._trees import bounds_of, project, select
from refinejax.networks.network import Network
from refinejax.refiners.least_squares.damped import damped_model
from refinejax.refiners.least_squares.damping import reach_of, shortening
from refinejax.refiners.least_squares.dense import dot, invert_upper
from refinejax.refiners.least_squares.model import (
    REFUSALS,
    LeastSquares,
    Model,
    Trial,
    box,
    cosine,
    judge,
    nonzero,
    root,
)
from refinejax.refiners.least_squares.white import White, first_model, summary

OWN, SHARED = 5, 6  # numbers a network reads: of each param, and of all
_WIDEST = 8.0  # |log| of the factor on λ that a network can ask for
_FIRST = -2.0  # the first log λ where the network says 0
_NEUTRAL = 0.25  # gain ratio at which λ stays
_PACE = 3.0  # change of log λ for 1 of the network
_MOST = 20.0  # |log λ| before the network has its say
_SMALL = 1e-2  # share of the loss below which what a step promises is small
_BARE = 1e-5  # λ of a step that is called undamped
_TINY = 1e-12


class LearnedDampingMemory(struct.PyTreeNode):
    """What `LearnedDamping` remembers.

    Attributes:
        gradient: of the loss, shape (n,).
        white: the quadratic model (see `refiners.white`).
        size: the largest √diag(matrix) so far, shape (n,).
        reach: the largest ‖Dx‖ so far.
        level: log λ where the network says nothing.
        damping: log λ of the last trial, shape (n,).
        step: the last trial, in units in which its length is comparable with the residual, (n,).
        gain: of the last trial: actual over promised decrease.
        ratio: log of the loss after the last trial over that before.
        refused: trials in a row that were refused.
        lost: trials in a row that ended in NaN or infinity.
        last_progress: relative decrease and step length of the last trial (see `Refiner.progress`).
    """

    gradient: Float[Array, " n"]
    white: White
    size: Float[Array, " n"]
    reach: Scalar
    level: Scalar
    damping: Float[Array, " n"]
    step: Float[Array, " n"]
    gain: Scalar
    ratio: Scalar
    refused: Int[Array, ""]
    lost: Int[Array, ""]
    last_progress: Float[Array, "2"]


class LearnedDamping(LeastSquares):
    """Levenberg–Marquardt steps with damping and step length for each param from a network.

    A trial is x + σ∘s with s the minimizer of gᵀs + ½ sᵀ(M + DΛD)s within the bounds, D² = diag(M),
    each the largest so far: `LevenbergMarquardt` with a λ for each param. A network reads what
    Levenberg–Marquardt knows (of each param: cosine of its column with the residual, last step,
    last λ, how well the others determine it, the undamped step; of all: gain ratio, cost ratio,
    loss, what an undamped step promises, refusals, λ by the rule) and gives a factor on the λ that
    follows the rule of `LevenbergMarquardt`, and σ, from ½ to 2. No number it reads has a unit but
    for the loss, which an `InverseProblem` measures in its noise.

    A trial that makes things worse is refused. The rule makes up for bad advice: with refusals λ
    grows by 2, 4, 8 … and σ goes to 1, down to short steps along −D⁻²g, which lower the loss; where
    steps are too short, λ falls to a third each. Where what an undamped step promises is small
    beside the loss, λ falls with it and σ goes to 1: the end is Gauss–Newton, fast and
    exact.

    Attributes:
        network: (numbers of each param (n, 5), numbers of all (6,), cosines between columns of J
            (n, n)) → (n, 2).

    Raises:
        ValueError: in ``init``, for an objective without a residual or normal equations.
    """

    network: Network

    def init(self, objective: Any, params: Params, key: PRNGKeyArray) -> State[Params]:
        """Form the normal equations (one pass)."""
        del key
        inside: Any = project(params, bounds_of(objective))
        loss, white = first_model(objective, inside)
        model = summary(loss, white)
        zeros = jnp.zeros_like(model.gradient)
        zero = jnp.zeros_like(loss)
        memory = LearnedDampingMemory(
            gradient=model.gradient,
            white=white,
            size=model.size,
            reach=reach_of(inside, model.size),
            level=jnp.full_like(loss, _FIRST),
            damping=zeros,
            step=zeros,
            gain=zero,
            ratio=zero,
            refused=jnp.int32(0),
            lost=jnp.int32(0),
            last_progress=jnp.full((2,), jnp.inf, loss.dtype),
        )
        return State(inside, loss, memory)

    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Try a step; keep it if the loss is lower."""
        del key
        x, unravel = ravel_pytree(state.params)
        log_damping, share = self.advise(objective, state)
        model = damped_model(objective, state, jnp.exp(log_damping))
        low, high = box(objective, state.params, x)
        move = share * model.step
        move = move * shortening(state.memory, move)
        ends = jnp.clip(x + move.astype(x.dtype), low, high)
        move = (ends - x).astype(state.loss.dtype)
        promised, _ = model.promised(move)
        after, white, _ = model.evaluate(objective, unravel(ends))
        trial = judge(state, after, promised, x, ends - x)
        return _settle(state, unravel(ends), after, white, trial, (log_damping, move))

    def advise(self, objective: Any, state: State) -> tuple[Array, Array]:
        """Return log λ and σ for each param, shape (n,) each.

        Args:
            objective: of the task.
            state: of this refiner.
        """
        memory: LearnedDampingMemory = state.memory
        own, shared, cosines, promised = _read(objective, state)
        out = self.network(own, shared, cosines).astype(state.loss.dtype)
        gate = promised / (promised + _SMALL)
        log_damping = memory.level + _WIDEST * jnp.tanh(_PACE / _WIDEST * out[:, 0])
        # Times a number from ½ to 2; 1 where the way is clear or was refused.
        share = 2 ** (jnp.tanh(out[:, 1]) * gate * 0.5**memory.refused)
        return log_damping + jnp.log(gate), share

    def optimality(self, objective: Any, state: State) -> Scalar:
        """Largest cosine between the residual and what the model can still do (see LM)."""
        white = state.memory.white
        return cosine(objective, state, white.gradient, root(jnp.diagonal(white.matrix)))

    def status(self, state: State) -> Int[Array, ""]:
        """``NONFINITE`` after 30 trials in a row that ended in NaN."""
        lost = state.memory.lost >= REFUSALS
        return jnp.where(lost, jnp.int32(Status.NONFINITE), jnp.int32(Status.RUNNING))


def _read(objective: Any, state: State) -> tuple[Array, Array, Array, Scalar]:
    """Return what the network reads, and what share of the loss an undamped step promises."""
    memory: LearnedDampingMemory = state.memory
    size = nonzero(memory.size)
    whole = jnp.where(state.loss > 0, jnp.abs(state.loss), 1)
    unit = size / jnp.sqrt(2 * whole)
    bare = damped_model(objective, state, jnp.asarray(_BARE, state.loss.dtype))
    inverse = dot(bare.white.basis, invert_upper(bare.upper))
    spread = jnp.sqrt(jnp.sum(inverse**2, axis=1)) * size
    share = bare.promised(bare.step)[0] / whole
    known = jnp.isfinite(share) & jnp.all(jnp.isfinite(spread))
    promised = jnp.where(known, jnp.clip(share, _TINY, 1), 1)
    step = jnp.where(known, bare.step, 0)
    spread = jnp.where(known & (spread > 0), spread, 1 / _BARE)
    cosines = memory.gradient / size / jnp.sqrt(2 * whole)
    columns = (
        cosines,
        _signed_log(step * unit),
        _signed_log(memory.step),
        memory.damping / 10,
        jnp.log(spread) / 5,
    )
    shared = (
        jnp.clip(jnp.log(whole), -20, 20) / 5,
        jnp.log(promised) / 5,
        memory.gain,
        memory.ratio,
        jnp.log1p(memory.refused.astype(whole.dtype)),
        memory.level / 10,
    )
    own = jnp.stack(columns, axis=-1)
    matrix = memory.white.plain()[1]
    lengths = nonzero(root(jnp.diagonal(matrix)))
    between = matrix / lengths[:, None] / lengths[None, :]
    return own, jnp.stack([jnp.asarray(s, own.dtype) for s in shared]), between, promised


def _signed_log(x: Array) -> Array:
    """Return sign(x)·log(1 + 100|x|)/5."""
    return jnp.sign(x) * jnp.log1p(100 * jnp.abs(x)) / 5


def _settle(
    state: State,
    ends: Any,
    model: Model,
    white: White,
    trial: Trial,
    tried: tuple[Array, Array],
) -> State:
    """Accept or refuse a trial, and note what it was."""
    memory: LearnedDampingMemory = state.memory
    log_damping, move = tried
    accepted = trial.finite & (trial.gained > 0)
    old = (state.params, state.loss, memory.gradient, memory.white, memory.size)
    new = (ends, model.loss, model.gradient, white, jnp.maximum(memory.size, model.size))
    params, loss, gradient, white, size = select(accepted, new, old)
    whole = jnp.where(state.loss > 0, jnp.abs(state.loss), 1)
    gain = trial.gained / jnp.where(trial.promised > 0, trial.promised, 1)
    gain = jnp.where(trial.finite, jnp.clip(gain, -2, 2), -2)
    change = jnp.log(jnp.clip(1 - ((gain - _NEUTRAL) / (1 - _NEUTRAL)) ** 3, 1 / 3, 2))
    harder = math.log(2) * (memory.refused + 1)
    ratio = jnp.log(jnp.where(model.loss > 0, model.loss, whole) / whole)
    kept = LearnedDampingMemory(
        gradient=gradient,
        white=white,
        size=size,
        reach=jnp.maximum(memory.reach, reach_of(params, size)),
        level=jnp.clip(memory.level + jnp.where(accepted, change, harder), -_MOST, _MOST),
        damping=log_damping,
        step=move * nonzero(memory.size) / jnp.sqrt(2 * whole),
        gain=gain,
        ratio=jnp.where(trial.finite, jnp.clip(ratio, -5, 5), 5),
        refused=jnp.where(accepted, 0, memory.refused + 1),
        lost=jnp.where(trial.finite, 0, memory.lost + 1),
        last_progress=trial.last_progress,
    )
    return State(params, loss, kept)
