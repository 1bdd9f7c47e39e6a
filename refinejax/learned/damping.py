"""Levenberg–Marquardt whose damping is learned."""

import math
from typing import Any

import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray

from refinejax._core import Params, Scalar, State, bounds_of
from refinejax._trees import project, select
from refinejax.networks.network import Network
from refinejax.refiners.convergence import count_nonfinite
from refinejax.refiners.least_squares.levenberg_marquardt import damping_factor, least_damping
from refinejax.refiners.least_squares.linear_algebra import dot, invert_upper, nonzero, root
from refinejax.refiners.least_squares.quadratic_model import (
    LeastSquares,
    QuadraticModel,
    WhitenedModel,
    damped_model,
    first_model,
    flat_bounds,
    max_cosine,
)
from refinejax.refiners.least_squares.radius import reach, scaled_norm, shortening
from refinejax.refiners.least_squares.trial import Trial, compare

OWN, SHARED = 5, 6  # numbers a network reads: of each param, and of all
_WIDEST = 8.0  # |log| of the factor on λ that a network can ask for
_FIRST = -2.0  # the first log λ where the network says 0
_PACE = 3.0  # change of log λ for 1 of the network
_MOST = 20.0  # |log λ| before the network has its say
_SMALL = 1e-2  # share of the loss below which what a step promises is small
_BARE = 1e-5  # λ of a step that is called undamped
_TINY = 1e-12


class LearnedDampingMemory(struct.PyTreeNode):
    """What `LearnedDamping` remembers.

    Attributes:
        gradient: of the loss, shape (n,).
        model: the quadratic model (see `quadratic_model`).
        scaling: the largest √diag(matrix) so far, shape (n,).
        radius: the largest ‖Dx‖ so far.
        level: log λ where the network says nothing.
        damping: log λ of the last trial, shape (n,).
        step: the last trial, in units in which its length is comparable with the residual, (n,).
        gain: of the last trial: actual over promised decrease.
        ratio: log of the loss after the last trial over that before.
        refused: trials in a row that were refused.
        nonfinite: trials in a row that ended in NaN or infinity.
        last_progress: relative decrease and step length of the last trial (see `Refiner.progress`).
    """

    gradient: Float[Array, " n"]
    model: WhitenedModel
    scaling: Float[Array, " n"]
    radius: Scalar
    level: Scalar
    damping: Float[Array, " n"]
    step: Float[Array, " n"]
    gain: Scalar
    ratio: Scalar
    refused: Int[Array, ""]
    nonfinite: Int[Array, ""]
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
        start: Any = project(params, bounds_of(objective))
        loss, whitened = first_model(objective, start)
        model = whitened.at(loss)
        zeros = jnp.zeros_like(model.gradient)
        zero = jnp.zeros_like(loss)
        memory = LearnedDampingMemory(
            gradient=model.gradient,
            model=whitened,
            scaling=model.scaling,
            radius=scaled_norm(start, model.scaling),
            level=jnp.full_like(loss, _FIRST),
            damping=zeros,
            step=zeros,
            gain=zero,
            ratio=zero,
            refused=jnp.int32(0),
            nonfinite=jnp.int32(0),
            last_progress=jnp.full((2,), jnp.inf, loss.dtype),
        )
        return State(start, loss, memory)

    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Try a step; keep it if the loss is lower."""
        del key
        x, unravel = ravel_pytree(state.params)
        log_damping, share = self.advise(objective, state)
        model = damped_model(objective, state, jnp.exp(log_damping))
        low, high = flat_bounds(objective, state.params, x)
        move = share * model.step
        factor = shortening(state.memory, move)
        move = move * factor
        end = jnp.clip(x + move.astype(x.dtype), low, high)
        move = (end - x).astype(state.loss.dtype)
        predicted, _ = model.predicted(move)
        after, whitened, _ = model.evaluate(objective, unravel(end))
        least = least_damping(state.loss.dtype)
        promised = model.decrement(nonzero(state.memory.scaling), least)
        promised = jnp.where(factor < 1, jnp.inf, promised)
        trial = compare(state, after, predicted, x, end - x, promised)
        new = _accept_or_reject(state, unravel(end), after, whitened, trial, (log_damping, move))
        radius = reach(new.memory.radius, trial, factor < 1)
        return new.replace(memory=new.memory.replace(radius=radius))

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
        """Return the largest cosine between the residual and a column of J·R⁻¹ (see LM)."""
        model = state.memory.model
        return max_cosine(objective, state, model.gradient, root(jnp.diagonal(model.matrix)))


def _read(objective: Any, state: State) -> tuple[Array, Array, Array, Scalar]:
    """Return what the network reads, and what share of the loss an undamped step promises."""
    memory: LearnedDampingMemory = state.memory
    size = nonzero(memory.scaling)
    whole = jnp.where(state.loss > 0, jnp.abs(state.loss), 1)
    unit = size / jnp.sqrt(2 * whole)
    bare = damped_model(objective, state, jnp.asarray(_BARE, state.loss.dtype))
    inverse = dot(bare.model.basis, invert_upper(bare.upper))
    spread = jnp.sqrt(jnp.sum(inverse**2, axis=1)) * size
    share = bare.predicted(bare.step)[0] / whole
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
    matrix = memory.model.plain()[1]
    lengths = nonzero(root(jnp.diagonal(matrix)))
    between = matrix / lengths[:, None] / lengths[None, :]
    return own, jnp.stack([jnp.asarray(s, own.dtype) for s in shared]), between, promised


def _signed_log(x: Array) -> Array:
    """Return sign(x)·log(1 + 100|x|)/5."""
    return jnp.sign(x) * jnp.log1p(100 * jnp.abs(x)) / 5


def _accept_or_reject(
    state: State,
    params: Any,
    model: QuadraticModel,
    whitened: WhitenedModel,
    trial: Trial,
    tried: tuple[Array, Array],
) -> State:
    """Accept or reject a trial, and note what it was."""
    memory: LearnedDampingMemory = state.memory
    log_damping, move = tried
    accepted = trial.finite & (trial.actual > 0)
    old = (state.params, state.loss, memory.gradient, memory.model, memory.scaling)
    largest = jnp.maximum(memory.scaling, model.scaling)
    new = (params, model.loss, model.gradient, whitened, largest)
    params, loss, gradient, whitened, scaling = select(accepted, new, old)
    whole = jnp.where(state.loss > 0, jnp.abs(state.loss), 1)
    gain = trial.actual / jnp.where(trial.predicted > 0, trial.predicted, 1)
    gain = jnp.where(trial.finite, jnp.clip(gain, -2, 2), -2)
    change = jnp.log(damping_factor(gain))
    harder = math.log(2) * (memory.refused + 1)
    ratio = jnp.log(jnp.where(model.loss > 0, model.loss, whole) / whole)
    kept = LearnedDampingMemory(
        gradient=gradient,
        model=whitened,
        scaling=scaling,
        radius=jnp.maximum(memory.radius, scaled_norm(params, scaling)),
        level=jnp.clip(memory.level + jnp.where(accepted, change, harder), -_MOST, _MOST),
        damping=log_damping,
        step=move * nonzero(memory.scaling) / jnp.sqrt(2 * whole),
        gain=gain,
        ratio=jnp.where(trial.finite, jnp.clip(ratio, -5, 5), 5),
        refused=jnp.where(accepted, 0, memory.refused + 1),
        nonfinite=count_nonfinite(trial.finite, memory.nonfinite),
        last_progress=trial.last_progress,
    )
    return State(params, loss, kept)
