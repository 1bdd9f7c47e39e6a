"""Damped quadratic models in a box: what Levenberg–Marquardt and its relatives minimize."""

from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from refinejax._core import Scalar, State
from refinejax.refiners.least_squares.dense import cholesky_upper, dot, reduced, solve_factored
from refinejax.refiners.least_squares.model import (
    Box,
    Model,
    minimize,
    nonzero,
    predicted_decrease,
    step_box,
)
from refinejax.refiners.least_squares.white import White, model_along, summary


class DampedModel(struct.PyTreeNode):
    """The model gᵀs + ½ sᵀ(M + DΛD)s around a state, and its minimizer.

    Attributes:
        step: the minimizer within the box, shape (n,).
        white: the model without damping, as a function of z = R·s.
        upper: U with UᵀU the damped matrix in z; what is held at a bound is taken out.
        held: what is held, as 0 or 1.
    """

    step: Float[Array, " n"]
    white: White
    upper: Float[Array, "n n"]
    held: Array

    def solve(self, right: Array) -> Array:
        """Return (M + DΛD)⁻¹·right, but for what is held."""
        return dot(self.white.basis, self._solve(dot(right, self.white.basis)))

    def _solve(self, right: Array) -> Array:
        return solve_factored(self.upper, jnp.where(self.held, 0, right))

    def promised(self, step: Array) -> tuple[Scalar, Scalar]:
        """Return by how much the undamped model falls along a step, and sᵀMs."""
        z = dot(self.white.triangle, step)
        bent = dot(self.white.matrix, z)
        return predicted_decrease(self.white.gradient, bent, z), z @ bent

    def evaluate(self, objective: Any, params: Any) -> tuple[Model, White, Scalar]:
        """Return the model around ``params``, round there, and what this one would still promise.

        The damped matrix of this one makes the next round (see `refiners.white`).
        """
        loss, white = model_along(objective, params, dot(self.upper, self.white.triangle))
        left = jnp.sum(jnp.where(self.held, 0, white.gradient) ** 2) / 2
        return summary(loss, white), white, left


def damped_model(objective: Any, state: State, damping: Array) -> DampedModel:
    """Return the damped model around a state.

    Args:
        objective: its bounds make the box.
        state: ``state.memory`` has ``gradient``, ``white`` and ``size``, the diagonal of D.
        damping: Λ, of shape (n,) for each param or () for all.
    """
    memory: Any = state.memory
    size = nonzero(memory.size)
    inside = step_box(objective, state, size)
    bounded = inside.low is not None
    white = memory.white.loosened(inside.held, size) if bounded else memory.white
    long = size[:, None] * white.basis
    added = dot(long.T, jnp.expand_dims(damping, -1) * long)
    upper = cholesky_upper(reduced(white.matrix + added, ~inside.held))
    model = DampedModel(white.gradient, white, upper, inside.held)
    step = dot(white.basis, model._solve(-white.gradient))
    if bounded:
        step = _within(white, damping, step, inside, size)
    return model.replace(step=step)


def _within(white: White, damping: Array, step: Array, inside: Box, size: Array) -> Array:
    """Return the step if it ends inside, else the minimizer within the box, by plain params."""
    gradient, matrix = white.plain()
    unit = matrix / size[:, None] / size[None, :]
    unit = unit + damping * jnp.eye(size.size, dtype=unit.dtype)
    within = inside.contains(step * size)
    other = minimize(unit, gradient / size, inside, ~within)
    return jnp.where(within, step, other / size)
