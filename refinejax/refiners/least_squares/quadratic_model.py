"""Quadratic models of the loss, and their minimizers within bounds.

The matrix M = 2c·JᵀJ of normal equations has the squared condition of J: what the data determine
less well than √ε of the best drowns in rounding. So a model is kept as a function of z = R·x, with
RᵀR about M, and the columns of J·R⁻¹, all of about one length, are formed along R⁻¹. Each step
brings R, upper triangular, up to date by the triangle of the matrix it solved.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from refinejax._core import Refiner, Scalar, State, Status, bounds_of
from refinejax._trees import broadcast_like
from refinejax.problems.normal import Normal, normal_equations
from refinejax.refiners.convergence import nonfinite_status
from refinejax.refiners.least_squares.linear_algebra import (
    StepBounds,
    cholesky_upper,
    dot,
    invert_upper,
    minimize_bounded,
    nonzero,
    predicted_decrease,
    reduced,
    root,
    solve_factored,
)
from refinejax.refiners.powers import power_of_two


class LeastSquares(Refiner):
    """A method whose memory has ``gradient``, ``scaling``, ``nonfinite`` and ``last_progress``."""

    @property
    def unit_free(self) -> bool:
        """Yes: steps solve J s = −r."""
        return True

    def optimality(self, objective: Any, state: State) -> Scalar:
        """Return the largest cosine between the residual and a column of J (see `max_cosine`)."""
        return max_cosine(objective, state, state.memory.gradient, state.memory.scaling)

    def progress(self, before: State, after: State) -> tuple[Scalar, Scalar]:
        """Return the progress of the last trial (see `Trial`), of a rejected one too."""
        del before
        decrease, length = after.memory.last_progress
        return decrease, length

    def status(self, state: State) -> Int[Array, ""]:
        """Return ``NONFINITE`` after 30 trials in a row that ended in NaN or infinity.

        ``SINGULAR`` where no param has had an effect so far: J = 0.
        """
        flat = jnp.all(state.memory.scaling == 0) & jnp.isfinite(state.loss)
        nonfinite = nonfinite_status(state.memory.nonfinite)
        return jnp.where(flat, jnp.int32(Status.SINGULAR), nonfinite)


def max_cosine(objective: Any, state: State, gradient: Array, scaling: Array) -> Scalar:
    """Return the largest cosine between the residual and columns of these lengths.

    That is |Jᵀr|/(|J||r|), as MINPACK's ``gtol`` has it (Moré 1978, eq. 8.2), from the gradient
    2c·Jᵀr, lengths √(2c)·|J| and loss c·|r|². Params at a bound that descent presses against do not
    count. Infinite where params are not finite, and where J = 0: no minimum can be told there.

    Args:
        objective: the problem, for its bounds.
        state: where; ``state.memory.gradient`` is the gradient by the flat params.
        gradient: 2c·Jᵀr for the columns, shape (n,).
        scaling: lengths √(2c)·|J| of the columns, shape (n,).
    """
    x, _ = ravel_pytree(state.params)
    active = _active(x, *flat_bounds(objective, state.params, x), state.memory.gradient)
    lengths = scaling * jnp.sqrt(2 * jnp.abs(state.loss))
    cosines = jnp.abs(gradient) / jnp.where(lengths > 0, lengths, 1)
    cosines = jnp.where(active | (gradient == 0), 0, cosines)
    known = jnp.isfinite(x) & jnp.any(scaling > 0)
    return jnp.max(jnp.where(known, cosines, jnp.inf)).astype(state.loss.dtype)


class QuadraticModel(struct.PyTreeNode):
    """A quadratic model of the loss, all in the dtype of the loss.

    Attributes:
        loss: the loss.
        gradient: by the flat params, shape (n,).
        matrix: M by the flat params or by z, shape (n, n); None where only products are formed.
        scaling: √diag M by the flat params, shape (n,); or one number that stands for all.
    """

    loss: Scalar
    gradient: Float[Array, " n"]
    matrix: Any
    scaling: Float[Array, " n"]


class WhitenedModel(struct.PyTreeNode):
    """A quadratic model of the loss as a function of z = R·x, in the dtype of the loss.

    Attributes:
        gradient: of the loss by z, shape (n,).
        matrix: the Gauss–Newton matrix in z, shape (n, n).
        triangle: R, upper triangular, shape (n, n).
        basis: R⁻¹.
        count: how many numbers the loss is the mean of.
    """

    gradient: Float[Array, " n"]
    matrix: Float[Array, "n n"]
    triangle: Float[Array, "n n"]
    basis: Float[Array, "n n"]
    count: Scalar

    def plain(self) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
        """Return gradient and matrix by x, with what rounding leaves of it."""
        return self.scaled(jnp.ones_like(self.gradient))

    def scaled(self, scaling: Float[Array, " n"]) -> tuple[Array, Array]:
        """Return gradient and matrix by x·scaling, with what rounding leaves of it.

        Args:
            scaling: above 0, shape (n,); lengths of columns of any unit.
        """
        triangle = self.triangle / scaling[None, :]
        matrix = dot(triangle.T, dot(self.matrix, triangle))
        return dot(self.gradient, triangle), matrix

    def at(self, loss: Scalar) -> QuadraticModel:
        """Return the model with gradient and scaling by x, and its matrix by z.

        Args:
            loss: where the model is formed.
        """
        unit = power_of_two(jnp.max(jnp.abs(self.triangle), axis=0))
        triangle = self.triangle / unit
        lengths = unit * root(jnp.sum(triangle * dot(self.matrix, triangle), axis=0))
        return QuadraticModel(loss, dot(self.gradient, self.triangle), self.matrix, lengths)

    def separated(self, active: Bool[Array, " n"], scaling: Float[Array, " n"]) -> "WhitenedModel":
        """Return the model in coordinates that do not mix active params with free ones.

        That is as it is, or by x/scaling where R mixes them.

        Args:
            active: params held at a bound.
            scaling: lengths of the columns of J, above 0.
        """
        mixed = jnp.any((active[:, None] != active[None, :]) & (self.triangle != 0))
        gradient, matrix = self.scaled(scaling)
        return WhitenedModel(
            jnp.where(mixed, gradient, self.gradient),
            jnp.where(mixed, matrix, self.matrix),
            jnp.where(mixed, jnp.diag(scaling), self.triangle),
            jnp.where(mixed, jnp.diag(1 / scaling), self.basis),
            self.count,
        )


def first_model(objective: Any, params: Any) -> tuple[Scalar, WhitenedModel]:
    """Return the loss, and the model with R the diagonal of the lengths of J's columns.

    Args:
        objective: a problem with a residual or normal equations.
        params: where.
    """
    x, _ = ravel_pytree(params)
    size = power_of_two(jnp.abs(x))  # squares of columns by x itself may leave the dtype's range
    model = normal_equations(objective, params, jnp.diag(size))
    gradient, matrix, count = _like(model)
    size = size.astype(matrix.dtype)
    scaling = nonzero(root(jnp.diagonal(matrix)))
    unit = matrix / scaling[:, None] / scaling[None, :]
    diagonal, inverse = jnp.diag(scaling / size), jnp.diag(size / scaling)
    return model.loss, WhitenedModel(gradient / scaling, unit, diagonal, inverse, count)


def model_along(objective: Any, params: Any, triangle: Array) -> tuple[Scalar, WhitenedModel]:
    """Return the loss, and the model as a function of z = R·x.

    Args:
        objective: a problem with a residual or normal equations.
        params: where.
        triangle: R, upper triangular, shape (n, n).
    """
    basis = invert_upper(triangle)
    model = normal_equations(objective, params, basis.astype(ravel_pytree(params)[0].dtype))
    gradient, matrix, count = _like(model)
    return model.loss, WhitenedModel(gradient, matrix, triangle, basis, count)


def _like(model: Normal) -> tuple[Array, Array, Array]:
    """Return gradient, matrix and count in the dtype of the loss."""
    dtype, count = model.loss.dtype, jnp.asarray(model.count, model.loss.dtype)
    return jnp.asarray(model.gradient, dtype), jnp.asarray(model.matrix, dtype), count


class DampedModel(struct.PyTreeNode):
    """The model gᵀs + ½ sᵀ(M + DΛD)s around a state, and its minimizer.

    Attributes:
        step: the minimizer within the bounds, shape (n,).
        model: the model without damping.
        upper: U with UᵀU the damped matrix in z; active params are taken out.
        active: params held at a bound.
    """

    step: Float[Array, " n"]
    model: WhitenedModel
    upper: Float[Array, "n n"]
    active: Bool[Array, " n"]

    def solve(self, right: Array) -> Array:
        """Return (M + DΛD)⁻¹·right, 0 for active params.

        Args:
            right: shape (n,).
        """
        return dot(self.model.basis, self._solve_whitened(dot(right, self.model.basis)))

    def _solve_whitened(self, right: Array) -> Array:
        return solve_factored(self.upper, jnp.where(self.active, 0, right))

    def predicted(self, step: Array) -> tuple[Scalar, Scalar]:
        """Return the decrease of the undamped model along a step, and sᵀMs.

        Args:
            step: s, shape (n,).
        """
        z = dot(self.model.triangle, step)
        product = dot(self.model.matrix, z)
        return predicted_decrease(self.model.gradient, product, z), z @ product

    def decrement(self, scaling: Array, damping: Any) -> Scalar:
        """Return ½gᵀM⁻¹g of the free params: the decrease that an undamped step predicts.

        Args:
            scaling: the diagonal of D, above 0, shape (n,).
            damping: λ for M + λD², so small that it leaves out undetermined directions alone.

        Returns:
            The decrease; infinite where the matrix is not positive definite.
        """
        free = ~self.active
        scaled = scaling[:, None] * self.model.basis
        matrix = self.model.matrix + damping * dot(scaled.T, scaled)
        gradient = jnp.where(free, self.model.gradient, 0)
        step = solve_factored(cholesky_upper(reduced(matrix, free)), gradient)
        decrease = gradient @ step / 2
        return jnp.where(jnp.isfinite(decrease), decrease, jnp.inf)

    def evaluate(self, objective: Any, params: Any) -> tuple[QuadraticModel, WhitenedModel, Scalar]:
        """Return the model around ``params``, and what this one's matrix predicts from there.

        The triangle of this one's damped matrix whitens the next.

        Args:
            objective: the problem.
            params: where.
        """
        loss, model = model_along(objective, params, dot(self.upper, self.model.triangle))
        remaining = jnp.sum(jnp.where(self.active, 0, model.gradient) ** 2) / 2
        return model.at(loss), model, remaining


def damped_model(objective: Any, state: State, damping: Array) -> DampedModel:
    """Return the damped model around a state, and its minimizer.

    Args:
        objective: its bounds bound the step.
        state: ``state.memory`` has ``gradient``, ``model`` and ``scaling``, the diagonal of D.
        damping: Λ, of shape (n,) for each param or () for all.
    """
    memory: Any = state.memory
    scaling = nonzero(memory.scaling)
    bounds = step_bounds(objective, state, scaling)
    bounded = bounds.low is not None
    model = memory.model.separated(bounds.active, scaling) if bounded else memory.model
    scaled = scaling[:, None] * model.basis
    added = dot(scaled.T, jnp.expand_dims(damping, -1) * scaled)
    upper = cholesky_upper(reduced(model.matrix + added, ~bounds.active))
    damped = DampedModel(model.gradient, model, upper, bounds.active)
    step = dot(model.basis, damped._solve_whitened(-model.gradient))
    if bounded:
        step = _bounded_step(model, damping, step, bounds, scaling)
    return damped.replace(step=step)


def step_bounds(objective: Any, state: State, scaling: Array) -> StepBounds:
    """Return the bounds of steps, times a scaling.

    Args:
        objective: the problem, for its bounds.
        state: where steps begin.
        scaling: shape (n,).
    """
    x, _ = ravel_pytree(state.params)
    low, high = flat_bounds(objective, state.params, x)
    active = _active(x, low, high, state.memory.gradient)
    if bounds_of(objective) is None:
        return StepBounds(None, None, active)
    return StepBounds((low - x) * scaling, (high - x) * scaling, active)


def flat_bounds(objective: Any, params: Any, x: Array) -> tuple[Array, Array]:
    """Return lower and upper bounds like the flat params, shape (n,); ±∞ for none.

    Args:
        objective: the problem, for its bounds.
        params: for the structure.
        x: the flat params.
    """
    bounds = bounds_of(objective)
    if bounds is None:
        return jnp.full_like(x, -jnp.inf), jnp.full_like(x, jnp.inf)

    def full(bound: Any, param: Any) -> Array:
        return jnp.broadcast_to(jnp.asarray(bound, param.dtype), param.shape)

    def flatten(bound: Any) -> Array:
        return ravel_pytree(jax.tree.map(full, broadcast_like(bound, params), params))[0]

    return flatten(bounds[0]), flatten(bounds[1])


def _active(x: Array, low: Array, high: Array, gradient: Array) -> Bool[Array, " n"]:
    """Return True where a param is at a bound and descent would take it outside."""
    return ((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0))


def _bounded_step(
    model: WhitenedModel, damping: Array, step: Array, bounds: StepBounds, scaling: Array
) -> Array:
    """Return the step if it stays within the bounds, else the minimizer there, by x·scaling."""
    gradient, unit = model.scaled(scaling)
    unit = unit + damping * jnp.eye(scaling.size, dtype=unit.dtype)
    within = bounds.contains(step * scaling)
    other = minimize_bounded(unit, gradient, bounds, ~within)
    return jnp.where(within, step, other / scaling)
