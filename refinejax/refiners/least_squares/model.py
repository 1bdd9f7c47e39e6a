"""What Levenberg–Marquardt and Gauss–Newton share."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from refinejax._core import Refiner, Scalar, State
from refinejax._trees import bounds_of, broadcast_like
from refinejax.problems.normal import Product, curvature, normal_equations
from refinejax.refiners.least_squares.dense import (
    Solve,
    minimize_within,
    project_within,
    solve_reduced,
)

REFUSALS = 30  # in a row that ended in NaN, before the verdict is NONFINITE


class LeastSquares(Refiner):
    """A method that keeps gradient and progress of its last trial in ``state.memory``."""

    def optimality(self, objective: Any, state: State) -> Scalar:
        """Largest cosine between the residual and a column of J, but for params held at bounds."""
        return cosine(objective, state, state.memory.gradient, state.memory.size)

    def progress(self, before: State, after: State) -> tuple[Scalar, Scalar]:
        """Decrease, promised and actual, and length of the last trial, relative to loss and params.

        A refused trial counts too: where even the model promises less than rounding, no step will
        do better.
        """
        del before
        decrease, length = after.memory.last_progress
        return decrease, length


def cosine(objective: Any, state: State, gradient: Array, size: Array) -> Scalar:
    """Return the largest cosine between the residual and columns of these lengths.

    That is, |Jᵀr|/(|J||r|) as MINPACK's ``gtol`` has it (Moré 1978, eq. 8.2), from the gradient
    2c·Jᵀr, lengths √(2c)·|J| and loss c·|r|². Infinite where params are not finite.
    """
    x, _ = ravel_pytree(state.params)
    low, high = box(objective, state.params, x)
    slope = state.memory.gradient
    held = ((x <= low) & (slope > 0)) | ((x >= high) & (slope < 0))
    lengths = size * jnp.sqrt(2 * jnp.abs(state.loss))
    cosines = jnp.abs(gradient) / jnp.where(lengths > 0, lengths, 1)
    cosines = jnp.where(held | (gradient == 0), 0, cosines)
    return jnp.max(jnp.where(jnp.isfinite(x), cosines, jnp.inf)).astype(state.loss.dtype)


class Model(struct.PyTreeNode):
    """A quadratic model of the loss, all in the dtype of the loss.

    Attributes:
        loss, gradient, matrix: as in `Normal`; the matrix is None where only products are formed.
        size: √diag M, or one number that stands for all of them, shape (n,).
    """

    loss: Scalar
    gradient: Float[Array, " n"]
    matrix: Any
    size: Float[Array, " n"]


class Trial(NamedTuple):
    """A step tried.

    Attributes:
        finite: whether there is a quadratic model at its end.
        gained: decrease of the loss.
        promised: decrease of the quadratic model.
        last_progress: larger of the two, relative to the loss, without damping; relative length of
            the step.
    """

    finite: Bool[Array, ""]
    gained: Scalar
    promised: Scalar
    last_progress: Float[Array, "2"]


def judge(
    state: State, model: Model, promised: Scalar, x: Array, move: Array, damping: Any = 0.0
) -> Trial:
    """Compare the ends of a step.

    ``damping`` relative to the matrix says how much more an undamped step promises. A step that
    promises nothing says nothing of convergence.
    """
    leaves = [leaf for leaf in (model.loss, model.gradient, model.matrix) if leaf is not None]
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
    gained = state.loss - model.loss
    whole = jnp.abs(state.loss)
    decrease = jnp.maximum(promised * (1 + damping), gained) / jnp.where(whole > 0, whole, 1)
    decrease = jnp.where(promised > 0, decrease, jnp.inf)
    x, move = jax.lax.stop_gradient((x, move))  # the derivative of a norm of 0 is NaN
    length = jnp.linalg.norm(move) / (jnp.linalg.norm(x) + 1e-30)
    last_progress = jnp.stack([decrease, length.astype(decrease.dtype)])
    last_progress = jax.lax.stop_gradient(jnp.where(finite, last_progress, jnp.inf))
    return Trial(finite, gained, promised, last_progress)


def quadratic(objective: Any, params: Any) -> Model:
    """Return the quadratic model by normal equations."""
    model = normal_equations(objective, params)
    gradient, matrix = (leaf.astype(model.loss.dtype) for leaf in (model.gradient, model.matrix))
    return Model(model.loss, gradient, matrix, sizes(matrix))


def slope(objective: Any, params: Any) -> Model:
    """Return the quadratic model without its matrix; its size is the curvature along g."""
    loss, gradient = jax.value_and_grad(objective)(params)
    gradient = ravel_pytree(gradient)[0].astype(loss.dtype)
    power = gradient @ gradient
    bent = products(objective, params, loss.dtype)(gradient)
    mean = gradient @ bent / jnp.where(power > 0, power, 1)
    return Model(loss, gradient, None, jnp.full_like(gradient, root(mean)))


def products(objective: Any, params: Any, dtype: Any) -> Product:
    """Return v → M v at ``params``, in ``dtype``."""
    apply = curvature(objective, params)
    return lambda v: apply(v).astype(dtype)


def predicted_decrease(gradient: Array, bent: Array, move: Array) -> Scalar:
    """Return −gᵀs − ½ sᵀMs, given M s."""
    return -(gradient @ move) - 0.5 * move @ bent


def sizes(matrix: Float[Array, "n n"]) -> Float[Array, " n"]:
    """Return the lengths of the columns of J, up to a factor."""
    return root(jnp.diagonal(matrix))


def root(x: Array) -> Array:
    """Return √x, 0 where x is not positive, and derivatives that are not NaN."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def nonzero(size: Array) -> Array:
    """Put 1 for a param that nothing depends on."""
    return jnp.where(size > 0, size, 1)


class Box(NamedTuple):
    """Room for a step, in the coordinates of the step; None where there are no bounds.

    Attributes:
        low, high: least and greatest step.
        held: entries at a bound that the gradient presses against.
    """

    low: Float[Array, " n"] | None
    high: Float[Array, " n"] | None
    held: Bool[Array, " n"]

    def contains(self, step: Array) -> Bool[Array, ""]:
        """Whether a step stays inside."""
        if self.low is None or self.high is None:
            return jnp.bool_(True)
        return jnp.all((step >= self.low) & (step <= self.high))


def step_box(objective: Any, state: State, scale: Array) -> Box:
    """Return the box of steps from ``state``, times ``scale``."""
    x, _ = ravel_pytree(state.params)
    low, high = box(objective, state.params, x)
    gradient = state.memory.gradient
    held = ((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0))
    if bounds_of(objective) is None:
        return Box(None, None, held)
    return Box((low - x) * scale, (high - x) * scale, held)


def minimize(matrix: Array, gradient: Array, box: Box, needed: Any = True) -> Array:
    """Minimize gᵀs + ½ sᵀA s within the box; where nobody needs it, nearly."""
    if box.low is None or box.high is None:
        return solve_reduced(matrix)(-gradient, ~box.held)
    return minimize_within(matrix, gradient, box.low, box.high, box.held, needed)


def minimize_by_products(
    solver: Solve, apply: Product, gradient: Array, box: Box, curvature: Scalar
) -> Array:
    """Minimize gᵀs + ½ sᵀA s within the box, for A of no larger curvature."""
    if box.low is None or box.high is None:
        return solver(-gradient, ~box.held)
    return project_within(solver, apply, gradient, box.low, box.high, box.held, curvature)


def box(objective: Any, params: Any, x: Array) -> tuple[Array, Array]:
    """Return the bounds in flat coordinates."""
    bounds = bounds_of(objective)
    if bounds is None:
        return jnp.full_like(x, -jnp.inf), jnp.full_like(x, jnp.inf)

    def flatten(bound: Any) -> Array:
        full = jax.tree.map(
            lambda b, p: jnp.broadcast_to(jnp.asarray(b, p.dtype), p.shape),
            broadcast_like(bound, params),
            params,
        )
        return ravel_pytree(full)[0]

    return flatten(bounds[0]), flatten(bounds[1])
