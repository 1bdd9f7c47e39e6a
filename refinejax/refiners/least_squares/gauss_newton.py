"""Gauss–Newton with step halving."""

from typing import Any

import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from refinejax._core import Params, Scalar, State, Status
from refinejax._trees import bounds_of, project, select
from refinejax.refiners.least_squares.dense import dot, least_pivot, reduced
from refinejax.refiners.least_squares.model import (
    REFUSALS,
    LeastSquares,
    Model,
    Trial,
    box,
    cosine,
    judge,
    minimize,
    nonzero,
    predicted_decrease,
    quadratic,
    sizes,
    step_box,
)


class GaussNewtonMemory(struct.PyTreeNode):
    """What `GaussNewton` remembers.

    Attributes:
        gradient: of the loss, shape (n,).
        matrix: Gauss–Newton matrix, shape (n, n).
        share: of the full step, tried next.
        singular: whether the last equations had no solution.
        lost: trials in a row that ended in NaN or infinity.
        last_progress: relative decrease and step length of the last trial (see `Refiner.progress`).
    """

    gradient: Float[Array, " n"]
    matrix: Float[Array, "n n"]
    share: Scalar
    singular: Bool[Array, ""]
    lost: Int[Array, ""]
    last_progress: Float[Array, "2"]


class GaussNewton(LeastSquares):
    """A share of undamped steps, min gᵀs + ½ sᵀM s, g and M as in `problems.normal`.

    The share is halved where the loss does not fall, and doubled, up to 1, where it does (damped
    Gauss–Newton; Deuflhard 2011, *Newton Methods for Nonlinear Problems*, §4.2; Björck 1996,
    *Numerical Methods for Least Squares Problems*, §9.2.1). One pass of normal equations a step.
    Quadratic convergence where the residual at the optimum is small; no way out of a place where
    the data do not determine the params, which ends as ``SINGULAR``: there, and from starts far
    off, `LevenbergMarquardt`.

    Bounds as in `LevenbergMarquardt`. A trial that ends in NaN or infinity is refused.

    Attributes:
        share: of the first step.

    Raises:
        ValueError: in ``init``, for an objective without a residual or normal equations.
    """

    share: Any = 1.0

    def init(self, objective: Any, params: Params, key: PRNGKeyArray) -> State[Params]:
        """Form the normal equations (one pass)."""
        del key
        inside: Any = project(params, bounds_of(objective))
        model = quadratic(objective, inside)
        dtype = model.loss.dtype
        memory = GaussNewtonMemory(
            gradient=model.gradient,
            matrix=model.matrix,
            share=jnp.asarray(self.share, dtype),
            singular=jnp.bool_(False),
            lost=jnp.int32(0),
            last_progress=jnp.full((2,), jnp.inf, dtype),
        )
        return State(inside, model.loss, memory)

    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Try a share of the full step; keep it if the loss is lower."""
        del key
        memory: GaussNewtonMemory = state.memory
        x, unravel = ravel_pytree(state.params)
        velocity, singular = _full_step(objective, state)
        move = jnp.where(singular, 0, memory.share * velocity)
        ends = jnp.clip(x + move.astype(x.dtype), *box(objective, state.params, x))
        model = quadratic(objective, unravel(ends))
        promised = predicted_decrease(memory.gradient, dot(memory.matrix, move), move)
        trial = judge(state, model, promised, x, ends - x)
        return _settle(state, unravel(ends), model, trial, singular)

    def optimality(self, objective: Any, state: State) -> Scalar:
        """Largest cosine between the residual and a column of J, but for params held at bounds."""
        return cosine(objective, state, state.memory.gradient, sizes(state.memory.matrix))

    def status(self, state: State) -> Int[Array, ""]:
        """``SINGULAR`` without a step to take; ``NONFINITE`` after 30 trials that ended in NaN."""
        lost, singular = state.memory.lost >= REFUSALS, state.memory.singular
        verdict = jnp.where(lost, jnp.int32(Status.NONFINITE), jnp.int32(Status.RUNNING))
        return jnp.where(singular, jnp.int32(Status.SINGULAR), verdict)


def _full_step(objective: Any, state: State) -> tuple[Array, Bool[Array, ""]]:
    """Minimize the model in the box, in coordinates of unit diagonal."""
    memory: GaussNewtonMemory = state.memory
    size = sizes(memory.matrix)
    scale = nonzero(size)
    unit = memory.matrix / scale[:, None] / scale[None, :]
    inside = step_box(objective, state, scale)
    pivot = least_pivot(reduced(unit, ~inside.held))
    least = size.size * jnp.finfo(unit.dtype).eps
    singular = ~(pivot > least)  # NaN is no pivot either
    safe = jnp.where(singular, jnp.eye(size.size, dtype=unit.dtype), unit)
    step = minimize(safe, memory.gradient / scale, inside)
    return step / scale, singular


def _settle(
    state: State, ends: Any, model: Model, trial: Trial, singular: Bool[Array, ""]
) -> State:
    """Accept or refuse a trial, and adapt the share."""
    memory: GaussNewtonMemory = state.memory
    accepted = trial.finite & (trial.gained > 0)
    old = (state.params, state.loss, memory.gradient, memory.matrix)
    new = (ends, model.loss, model.gradient, model.matrix)
    params, loss, gradient, matrix = select(accepted, new, old)
    share = jnp.where(accepted, jnp.minimum(2 * memory.share, 1), memory.share / 2)
    kept = GaussNewtonMemory(
        gradient=gradient,
        matrix=matrix,
        share=jnp.where(singular, memory.share, share),
        singular=singular,
        lost=jnp.where(trial.finite, 0, memory.lost + 1),
        last_progress=jnp.where(singular, jnp.inf, trial.last_progress),
    )
    return State(params, loss, kept)
