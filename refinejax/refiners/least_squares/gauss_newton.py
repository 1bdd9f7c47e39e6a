"""Gauss–Newton with step halving."""

from typing import Any, ClassVar

import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from refinejax._core import Params, Scalar, State, Status, bounds_of
from refinejax._trees import project, select
from refinejax.problems.normal import normal_equations
from refinejax.refiners.convergence import count_nonfinite, nonfinite_status
from refinejax.refiners.least_squares.linear_algebra import (
    dot,
    least_pivot,
    minimize_bounded,
    nonzero,
    predicted_decrease,
    reduced,
    root,
)
from refinejax.refiners.least_squares.quadratic_model import (
    LeastSquares,
    QuadraticModel,
    flat_bounds,
    max_cosine,
    step_bounds,
)
from refinejax.refiners.least_squares.trial import Trial, compare


class GaussNewtonMemory(struct.PyTreeNode):
    """What `GaussNewton` remembers.

    Attributes:
        gradient: of the loss, shape (n,).
        matrix: Gauss–Newton matrix, shape (n, n).
        share: of the full step, tried next.
        singular: whether the last equations had no solution.
        nonfinite: trials in a row that ended in NaN or infinity.
        last_progress: relative decrease and step length of the last trial (see `Refiner.progress`).
    """

    gradient: Float[Array, " n"]
    matrix: Float[Array, "n n"]
    share: Scalar
    singular: Bool[Array, ""]
    nonfinite: Int[Array, ""]
    last_progress: Float[Array, "2"]


class GaussNewton(LeastSquares):
    """A share of undamped steps, min gᵀs + ½ sᵀM s, g and M as in `problems.normal`.

    The share is halved where the loss does not fall, and doubled, up to 1, where it does (damped
    Gauss–Newton; Deuflhard 2011, *Newton Methods for Nonlinear Problems*, §4.2; Björck 1996,
    *Numerical Methods for Least Squares Problems*, §9.2.1). One pass of normal equations a step.
    Quadratic convergence where the residual at the optimum is small; no way out of a place where
    the data do not determine the params, which ends as ``SINGULAR``: there, and from starts far
    off, `LevenbergMarquardt`.

    Bounds as in `LevenbergMarquardt`. A trial that ends in NaN or infinity is rejected.

    Attributes:
        share: of the first step.

    Raises:
        ValueError: in ``init``, for an objective without a residual or normal equations.
    """

    share: Any = 1.0
    positive: ClassVar[tuple[str, ...]] = ("share",)

    def init(self, objective: Any, params: Params, key: PRNGKeyArray) -> State[Params]:
        """Form the normal equations (one pass)."""
        del key
        start: Any = project(params, bounds_of(objective))
        model = _quadratic_model(objective, start)
        dtype = model.loss.dtype
        memory = GaussNewtonMemory(
            gradient=model.gradient,
            matrix=model.matrix,
            share=jnp.asarray(self.share, dtype),
            singular=jnp.bool_(False),
            nonfinite=jnp.int32(0),
            last_progress=jnp.full((2,), jnp.inf, dtype),
        )
        return State(start, model.loss, memory)

    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Try a share of the full step; keep it if the loss is lower."""
        del key
        memory: GaussNewtonMemory = state.memory
        x, unravel = ravel_pytree(state.params)
        velocity, singular = _full_step(objective, state)
        move = jnp.where(singular, 0, memory.share * velocity)
        end = jnp.clip(x + move.astype(x.dtype), *flat_bounds(objective, state.params, x))
        model = _quadratic_model(objective, unravel(end))
        predicted = predicted_decrease(memory.gradient, dot(memory.matrix, move), move)
        whole = predicted_decrease(memory.gradient, dot(memory.matrix, velocity), velocity)
        trial = compare(state, model, predicted, x, end - x, whole)
        return _accept_or_reject(state, unravel(end), model, trial, singular)

    def optimality(self, objective: Any, state: State) -> Scalar:
        """Return the largest cosine between the residual and a column of J (see `max_cosine`)."""
        scaling = root(jnp.diagonal(state.memory.matrix))
        return max_cosine(objective, state, state.memory.gradient, scaling)

    def status(self, state: State) -> Int[Array, ""]:
        """Return ``SINGULAR`` without a step to take; ``NONFINITE`` as for all least squares."""
        nonfinite = nonfinite_status(state.memory.nonfinite)
        return jnp.where(state.memory.singular, jnp.int32(Status.SINGULAR), nonfinite)


def _full_step(objective: Any, state: State) -> tuple[Array, Bool[Array, ""]]:
    """Minimize the model within the bounds, in coordinates of unit diagonal."""
    memory: GaussNewtonMemory = state.memory
    scale = nonzero(root(jnp.diagonal(memory.matrix)))
    unit = memory.matrix / scale[:, None] / scale[None, :]
    bounds = step_bounds(objective, state, scale)
    pivot = least_pivot(reduced(unit, ~bounds.active))
    least = scale.size * jnp.finfo(unit.dtype).eps
    singular = ~(pivot > least)  # NaN is no pivot either
    safe = jnp.where(singular, jnp.eye(scale.size, dtype=unit.dtype), unit)
    step = minimize_bounded(safe, memory.gradient / scale, bounds)
    return step / scale, singular


def _quadratic_model(objective: Any, params: Any) -> QuadraticModel:
    """Return the quadratic model by normal equations, in the dtype of the loss."""
    model = normal_equations(objective, params)
    gradient, matrix = (leaf.astype(model.loss.dtype) for leaf in (model.gradient, model.matrix))
    return QuadraticModel(model.loss, gradient, matrix, root(jnp.diagonal(matrix)))


def _accept_or_reject(
    state: State, params: Any, model: QuadraticModel, trial: Trial, singular: Bool[Array, ""]
) -> State:
    """Accept or reject a trial, and adapt the share."""
    memory: GaussNewtonMemory = state.memory
    accepted = trial.finite & (trial.actual > 0)
    old = (state.params, state.loss, memory.gradient, memory.matrix)
    new = (params, model.loss, model.gradient, model.matrix)
    params, loss, gradient, matrix = select(accepted, new, old)
    share = jnp.where(accepted, jnp.minimum(2 * memory.share, 1), memory.share / 2)
    kept = GaussNewtonMemory(
        gradient=gradient,
        matrix=matrix,
        share=jnp.where(singular, memory.share, share),
        singular=singular,
        nonfinite=count_nonfinite(trial.finite, memory.nonfinite),
        last_progress=jnp.where(singular, jnp.inf, trial.last_progress),
    )
    return State(params, loss, kept)
