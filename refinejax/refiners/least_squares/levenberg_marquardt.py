"""Levenberg–Marquardt for many small least-squares problems at once."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray

from refinejax._core import Evaluations, Params, Scalar, State, bounds_of
from refinejax._trees import project, select
from refinejax.problems.normal import curvature, residual_of
from refinejax.refiners.convergence import count_nonfinite
from refinejax.refiners.least_squares.linear_algebra import nonzero, predicted_decrease, root
from refinejax.refiners.least_squares.matrix_free import (
    damped_step,
    model_without_matrix,
    products,
)
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

_LARGEST = 1e12  # λ beyond which a step is 0
_NEUTRAL = 0.25  # gain ratio at which λ stays
_NONFINITE_GROWTH = 8.0  # largest factor on λ after trials that ended in NaN
_WEAKEST = 32  # ε: relative strength of a direction that the data still determine
_ROUNDING = 8  # ε of the loss that rounding hides, as in `Stop.loss`


class LMMemory(struct.PyTreeNode):
    """What `LevenbergMarquardt` remembers.

    Attributes:
        gradient: of the loss, shape (n,).
        model: the quadratic model; None where only products with its matrix are formed.
        scaling: the diagonal of D, the largest √diag(M) so far, shape (n,).
        radius: the largest ‖Dx‖ so far.
        damping: λ.
        growth: factor on λ at the next rejection.
        nonfinite: trials in a row that ended in NaN or infinity.
        last_progress: relative decrease and step length of the last trial (see `Refiner.progress`).
    """

    gradient: Float[Array, " n"]
    model: WhitenedModel | None
    scaling: Float[Array, " n"]
    radius: Scalar
    damping: Scalar
    growth: Scalar
    nonfinite: Int[Array, ""]
    last_progress: Float[Array, "2"]


class Proposal(NamedTuple):
    """A step to try.

    Attributes:
        step: shape (n,).
        predicted: decrease of the quadratic model along it (without acceleration).
        promised: decrease that a step without damping and of any length predicts.
        factor: by which the radius shortened the step; 1 if it did not.
        evaluate: params → (model there, whitened model, decrease that the old matrix predicts from
            there).
    """

    step: Float[Array, " n"]
    predicted: Scalar
    promised: Scalar
    factor: Scalar
    evaluate: Callable[[Any], tuple[QuadraticModel, WhitenedModel | None, Scalar]]


class LevenbergMarquardt(LeastSquares):
    """Damped Gauss–Newton steps: min gᵀs + ½ sᵀ(M + λD²)s, g and M as in `problems.normal`.

    A step costs one pass of normal equations at the trial point, and a solve of n × n. D² is
    diag(M), each entry the largest so far (Moré 1978, eq. 6.3), which makes the iteration
    independent of the scale of the params; no step is longer than the params were, ‖Ds‖ ≤ max ‖Dx‖,
    or eight times what such a step was that went well. A step cut short is never the end of a fit.
    λ follows the gain ratio ϱ of actual and predicted decrease (Nielsen 1999, IMM-REP-1999-05,
    eq. 2.4–2.5, with its fixed point at ϱ = ¼, not ½: less zigzag in curved valleys): it falls to a
    third at best, and grows by 2, 4, 8 … where the loss does not fall.

    The matrix is kept in whitened coordinates (see `quadratic_model`), as accurate as a QR
    factorization of J. Where a step predicts a decrease that rounding of the loss hides, the
    gradient decides, and the fit ends where that no longer falls.

    Above ``largest`` params no matrix is formed: D is one number, the curvature along the gradient,
    and the system is solved by a fixed number of conjugate gradients on products with M. Needs an
    objective with a residual, or with ``curvature``.

    Bounds: params at a bound that descent presses against are held; the model is minimized within
    the bounds (`minimize_within`, whose passes over the n × n matrix depend on the data), and the
    gain ratio is for this step (projected LM, Kanzow, Yamashita and Fukushima 2004). A robust loss
    is minimized by its reweighted normal equations. A trial that ends in NaN is rejected.

    Attributes:
        damping: the first λ, relative to D. 1e-3 where the start is good; 1 where it is not.
        acceleration: whether to add the second-order correction of the residual along the step
            (geodesic acceleration, Transtrum and Sethna 2012, arXiv:1201.5885, eq. 6–8, 15); a step
            then costs two passes more. Needs an objective with a residual; static.
        largest: most params for which the matrix is formed; static.
        iterations: conjugate gradients a step above that; static.

    Raises:
        ValueError: in ``init``, for an objective without a residual or normal equations.
    """

    damping: Any = 1e-3
    acceleration: bool = struct.field(pytree_node=False, default=False)
    largest: int = struct.field(pytree_node=False, default=100)
    iterations: int = struct.field(pytree_node=False, default=30)
    positive: ClassVar[tuple[str, ...]] = ("damping", "iterations")

    def init(self, objective: Any, params: Params, key: PRNGKeyArray) -> State[Params]:
        """Form the normal equations (one pass)."""
        del key
        start: Any = project(params, bounds_of(objective))
        model, whitened = self._first(objective, start)
        dtype = model.loss.dtype
        memory = LMMemory(
            gradient=model.gradient,
            model=whitened,
            scaling=model.scaling,
            radius=scaled_norm(start, model.scaling),
            damping=jnp.asarray(self.damping, dtype),
            growth=jnp.asarray(2.0, dtype),
            nonfinite=jnp.int32(0),
            last_progress=jnp.full((2,), jnp.inf, dtype),
        )
        return State(start, model.loss, memory)

    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Try a step; keep it if the loss is lower."""
        del key
        x, unravel = ravel_pytree(state.params)
        propose = self._by_products if state.memory.model is None else self._by_matrix
        proposal = propose(objective, state)
        low, high = flat_bounds(objective, state.params, x)
        end = jnp.clip(x + proposal.step.astype(x.dtype), low, high)
        model, whitened, remaining = proposal.evaluate(unravel(end))
        shortened = proposal.factor < 1
        promised = jnp.where(shortened, jnp.inf, proposal.promised)
        trial = compare(state, model, proposal.predicted, x, end - x, promised)
        # Of a step cut to a share f the model predicts f(2 − f) of the whole decrease.
        remaining = remaining * proposal.factor * (2 - proposal.factor)
        after = _accept_or_reject(state, unravel(end), model, whitened, trial, remaining)
        radius = reach(after.memory.radius, trial, shortened)
        return after.replace(memory=after.memory.replace(radius=radius))

    def _first(self, objective: Any, params: Any) -> tuple[QuadraticModel, WhitenedModel | None]:
        if ravel_pytree(params)[0].size > self.largest:
            apply = curvature(objective, params)
            if apply is not None:
                return model_without_matrix(objective, params, apply), None
        loss, whitened = first_model(objective, params)
        return whitened.at(loss), whitened

    def _by_matrix(self, objective: Any, state: State) -> Proposal:
        """Minimize the damped model within the bounds, by its matrix."""
        model = damped_model(objective, state, state.memory.damping)
        factor = shortening(state.memory, model.step)
        velocity = model.step * factor
        predicted, product = model.predicted(velocity)
        scaling, least = nonzero(state.memory.scaling), least_damping(state.loss.dtype)
        promised = model.decrement(scaling, least)

        def evaluate(params: Any) -> tuple[QuadraticModel, WhitenedModel, Scalar]:
            return model.evaluate(objective, params)

        if self.acceleration:
            correction = model.solve(-_second_order(objective, state, velocity, product))
            velocity = _accelerated(state.memory, velocity, correction)
        return Proposal(velocity, predicted, promised, factor, evaluate)

    def _by_products(self, objective: Any, state: State) -> Proposal:
        """Minimize the damped model within the bounds, by products with its matrix."""
        memory: LMMemory = state.memory
        apply = products(objective, state.params)
        velocity, solve = damped_step(objective, state, apply, self.iterations)
        factor = shortening(memory, velocity)
        velocity = velocity * factor
        product = apply(velocity).astype(velocity.dtype)
        predicted = predicted_decrease(memory.gradient, product, velocity)
        # sᵀMs against sᵀD²s tells how much of the curvature along the step is damping.
        added = memory.damping * jnp.sum(jnp.square(memory.scaling * velocity))
        curved = velocity @ product
        promised = predicted * (1 + added / jnp.where(curved > 0, curved, added))

        def evaluate(params: Any) -> tuple[QuadraticModel, None, Scalar]:
            model = model_without_matrix(objective, params, products(objective, params))
            return model, None, jnp.zeros_like(state.loss)

        if self.acceleration:
            change = _second_order(objective, state, velocity, velocity @ product)
            velocity = _accelerated(memory, velocity, solve(-change))
        return Proposal(velocity, predicted, promised, factor, evaluate)

    def evaluations(self, before: State | None, after: State) -> Evaluations:
        """Return one pass, or three of a step with acceleration.

        Without a matrix, loss, gradient and products are linearized one by one.
        """
        passes = 1 if after.memory.model is not None else 2 if before is None else 3
        passes += 2 if self.acceleration and before is not None else 0
        return Evaluations(passes, passes)

    def optimality(self, objective: Any, state: State) -> Scalar:
        """Return the largest cosine between the residual and a column of J·R⁻¹.

        About the relative offset of Bates and Watts (1981), as those columns are nearly orthogonal.
        Of J where no matrix is formed. Params held at bounds are left out.
        """
        model = state.memory.model
        if model is None:
            return super().optimality(objective, state)
        return max_cosine(objective, state, model.gradient, root(jnp.diagonal(model.matrix)))


def _accept_or_reject(
    state: State,
    params: Any,
    model: QuadraticModel,
    whitened: WhitenedModel | None,
    trial: Trial,
    remaining: Scalar,
) -> State:
    """Accept or reject a trial, and adapt the damping.

    A predicted decrease that rounding of the loss hides is judged by the gradient: by what the old
    matrix predicts from the new point (the natural monotonicity test, Deuflhard 2011, §3.3). Where
    that does not fall by half, the end is reached.
    """
    memory: LMMemory = state.memory
    dtype = state.loss.dtype
    floor = _resolution(state)
    hidden = (trial.predicted > 0) & (trial.predicted <= floor) & (jnp.abs(trial.actual) <= floor)
    better = (trial.actual > 0) | (hidden & (remaining <= trial.predicted))
    accepted = trial.finite & better
    undamped = trial.promised <= floor
    ended = hidden & undamped & (remaining > trial.predicted / 2) & (trial.actual <= 0)
    ratio = trial.actual / jnp.where(trial.predicted > 0, trial.predicted, 1)
    damping = memory.damping * jnp.where(
        accepted, damping_factor(jnp.where(hidden, 1, ratio)), memory.growth
    )
    old = (state.params, state.loss, memory.gradient, memory.model, memory.scaling)
    new = (params, model.loss, model.gradient, whitened, jnp.maximum(memory.scaling, model.scaling))
    params, loss, gradient, whitened, scaling = select(accepted, new, old)
    kept = LMMemory(
        gradient=gradient,
        model=whitened,
        scaling=scaling,
        radius=jnp.maximum(memory.radius, scaled_norm(params, scaling)),
        damping=jnp.clip(damping, least_damping(dtype), _LARGEST),
        growth=_growth(memory, accepted, trial.finite).astype(dtype),
        nonfinite=count_nonfinite(trial.finite, memory.nonfinite),
        last_progress=trial.last_progress.at[0].set(jnp.where(ended, 0, trial.last_progress[0])),
    )
    return State(params, loss, kept)


def least_damping(dtype: Any) -> float:
    """Return the λ that leaves out only directions which the data do not determine.

    Args:
        dtype: of the loss.
    """
    return float((_WEAKEST * jnp.finfo(dtype).eps) ** 2)


def damping_factor(ratio: Array) -> Array:
    """Return the factor on λ after an accepted trial, ⅓ to 2.

    Args:
        ratio: the gain ratio, actual over predicted decrease.
    """
    return jnp.clip(1 - ((ratio - _NEUTRAL) / (1 - _NEUTRAL)) ** 3, 1 / 3, 2)


def _growth(memory: LMMemory, accepted: Array, finite: Array) -> Array:
    """Return the factor on λ at the next rejection."""
    limited = jnp.minimum(2 * memory.growth, _NONFINITE_GROWTH)
    growth = jnp.where(finite, 2 * memory.growth, limited)
    return jnp.where(accepted, 2, jnp.minimum(growth, _LARGEST))


def _resolution(state: State) -> Scalar:
    """Return the error of the loss by rounding: of itself, and of the params or the prediction.

    The residual moves by ε‖Jx‖ at random from pixel to pixel, which averages out.
    """
    memory: LMMemory = state.memory
    whole = jnp.abs(state.loss)
    count = 1 if memory.model is None else jnp.maximum(memory.model.count, 1)
    noise = 2 * scaled_norm(state.params, memory.scaling) * root(whole / count)
    return jnp.finfo(state.loss.dtype).eps * (_ROUNDING * whole + noise)


def _accelerated(memory: LMMemory, velocity: Array, correction: Array) -> Array:
    """Return the step with half the second-order correction, where that is short."""
    weights = nonzero(memory.scaling)
    second, first = jnp.sum((weights * correction) ** 2), jnp.sum((weights * velocity) ** 2)
    short = 4 * second <= 0.75**2 * first
    return velocity + jnp.where(short, 0.5 * correction, 0)


def _second_order(objective: Any, state: State, velocity: Array, product: Scalar) -> Array:
    """Return 2c·Jᵀr″(v, v), the second-order change of the gradient along v.

    The factor 2c of the normal equations is ``product`` vᵀMv over |Jv|².
    """
    residual = residual_of(objective)
    flat, unravel = ravel_pytree(state.params)
    direction = velocity.astype(flat.dtype)

    def at(x: Array) -> Any:
        return residual(unravel(x))

    def along(x: Array) -> Any:
        return jax.jvp(at, (x,), (direction,))[1]

    first, second = jax.jvp(along, (flat,), (direction,))
    pulled = jax.vjp(at, flat)[1](jax.tree.map(jnp.conj, second))[0]
    power = sum(jnp.sum(jnp.abs(leaf) ** 2) for leaf in jax.tree.leaves(first))
    return (pulled * product / jnp.where(power > 0, power, 1)).astype(velocity.dtype)
