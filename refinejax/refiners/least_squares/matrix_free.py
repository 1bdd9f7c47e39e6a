"""Steps of least squares from products with the Gauss–Newton matrix, which is not formed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from refinejax._core import Scalar, State
from refinejax.problems.normal import Product, curvature
from refinejax.refiners.least_squares.linear_algebra import (
    Solve,
    StepBounds,
    never_worse,
    nonzero,
    root,
)
from refinejax.refiners.least_squares.quadratic_model import QuadraticModel, step_bounds

_PASSES = 3  # over the active set of a bounded quadratic


def model_without_matrix(objective: Any, params: Any, apply: Product) -> QuadraticModel:
    """Return the quadratic model without its matrix; its scaling is √ the curvature along g.

    Args:
        objective: the problem.
        params: where, a pytree of n numbers in all.
        apply: v → M·v there.
    """
    loss, gradient = jax.value_and_grad(objective)(params)
    gradient = ravel_pytree(gradient)[0].astype(loss.dtype)
    power = gradient @ gradient
    product = apply(gradient).astype(loss.dtype)
    mean = gradient @ product / jnp.where(power > 0, power, 1)
    return QuadraticModel(loss, gradient, None, jnp.full_like(gradient, root(mean)))


def products(objective: Any, params: Any) -> Product:
    """Return v → M·v.

    Args:
        objective: the problem.
        params: where.

    Raises:
        ValueError: if the objective gives its matrix alone, or has no residual.
    """
    apply = curvature(objective, params)
    if apply is None:
        raise ValueError("objective: gives its matrix alone, and no products with it")
    return apply


def damped_step(
    objective: Any, state: State, apply: Product, iterations: int
) -> tuple[Array, Callable[[Array], Array]]:
    """Return the minimizer of gᵀs + ½ sᵀ(M + λD²)s within the bounds, and its linear solver.

    Args:
        objective: the problem, for its bounds.
        state: ``state.memory`` has ``gradient``, ``scaling`` (the diagonal of D) and ``damping``.
        apply: v → M·v.
        iterations: of conjugate gradients.

    Returns:
        The step, shape (n,), and right → (M + λD²)⁻¹·right, 0 for params held at bounds.
    """
    memory: Any = state.memory
    scaling = nonzero(memory.scaling)

    def damped(z: Array, /) -> Array:
        return apply(z / scaling).astype(z.dtype) / scaling + memory.damping * z

    solver = conjugate_gradients(damped, iterations)
    bounds = step_bounds(objective, state, scaling)
    largest = scaling.size * (1 + memory.damping)
    step = minimize_within(solver, damped, memory.gradient / scaling, bounds, largest)
    return step / scaling, lambda right: solver(right / scaling, ~bounds.active) / scaling


def conjugate_gradients(apply: Callable[[Array], Array], iterations: int) -> Solve:
    """Return (right, free) → an approximate solution among the free entries, 0 in the others.

    For a matrix given by its products, by a fixed number of iterations (Hestenes and Stiefel 1952);
    those after convergence change nothing. Each iterate lowers the quadratic more than the last.

    Args:
        apply: v → A·v, A positive definite.
        iterations: how many.
    """

    def solver(right: Array, free: Array) -> Array:
        right = jnp.where(free, right, 0)
        power = jnp.vdot(right, right)
        end = power * jnp.finfo(right.dtype).eps ** 2

        def body(_: int, carry: tuple) -> tuple:
            x, rest, along, power = carry
            product = jnp.where(free, apply(along), 0)
            curvature = jnp.vdot(along, product)
            going = (power > end) & (curvature > 0)
            length = jnp.where(going, power / jnp.where(going, curvature, 1), 0)
            x, rest = x + length * along, rest - length * product
            after = jnp.where(going, jnp.vdot(rest, rest), power)
            share = after / jnp.where(going, power, 1)
            return x, rest, jnp.where(going, rest + share * along, along), after

        start = (jnp.zeros_like(right), right, right, power)
        return jax.lax.fori_loop(0, iterations, body, start)[0]

    return solver


def minimize_within(
    solver: Solve,
    apply: Callable[[Array], Array],
    gradient: Float[Array, " n"],
    bounds: StepBounds,
    curvature: Scalar,
) -> Float[Array, " n"]:
    """Return about the minimizer of gᵀs + ½ sᵀA s within the bounds, by products with A.

    All entries that change between free and bound do so at once, in three passes (the primal-dual
    active set method, Hintermüller, Ito and Kunisch 2002, algorithm 1). Entries that are outside
    then are projected.

    Args:
        solver: (right, free) → the solution among the free entries, 0 in the others.
        apply: s → A s.
        gradient: g.
        bounds: of s, low ≤ 0 ≤ high; active entries begin on their bound, at 0. Without them
            all others are free.
        curvature: not below the largest eigenvalue of A.
    """
    low, high, held = bounds
    if low is None or high is None:
        return solver(-gradient, ~held)

    def improve(_: int, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        down, up = carry[1:]
        fixed = jnp.where(down, low, jnp.where(up, high, 0))
        right = -gradient - apply(fixed)
        step = jnp.where(down | up, fixed, solver(right, ~(down | up)))
        force = -gradient - apply(step)
        below, above = jnp.where(down, force < 0, step < low), jnp.where(up, force > 0, step > high)
        return step, below, above

    begin = jnp.zeros_like(gradient), held & (low >= 0), held & (high <= 0)
    step, _, _ = jax.lax.fori_loop(0, _PASSES, improve, begin)
    return never_worse(step, apply, gradient, low, high, curvature)
