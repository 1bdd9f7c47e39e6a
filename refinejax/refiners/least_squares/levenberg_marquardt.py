"""Levenberg–Marquardt for many small least-squares problems at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Int, PRNGKeyArray

from refinejax._core import Params, Scalar, State, Status
from refinejax._trees import bounds_of, offer, project
from refinejax.problems.normal import residual_of
from refinejax.refiners.least_squares.damped import damped_model
from refinejax.refiners.least_squares.damping import LMMemory, reach_of, settle, shortening
from refinejax.refiners.least_squares.dense import conjugate_gradients
from refinejax.refiners.least_squares.model import (
    REFUSALS,
    LeastSquares,
    Model,
    box,
    cosine,
    judge,
    minimize_by_products,
    nonzero,
    predicted_decrease,
    products,
    root,
    slope,
    step_box,
)
from refinejax.refiners.least_squares.white import White, first_model, summary


class LevenbergMarquardt(LeastSquares):
    """Damped Gauss–Newton steps: min gᵀs + ½ sᵀ(M + λD²)s, g and M as in `problems.normal`.

    A step costs one pass of normal equations at the trial point, and a solve of n × n. D² is
    diag(M), each entry the largest so far (Moré 1978, eq. 6.3), which makes the iteration
    independent of the scale of the params; no step is longer than the params were, ‖Ds‖ ≤ max ‖Dx‖.
    λ follows the gain ratio ϱ of actual and predicted decrease (Nielsen 1999, IMM-REP-1999-05,
    eq. 2.4–2.5, with its fixed point at ϱ = ¼, not ½: less zigzag in curved valleys): it falls to a
    third at best, and grows by 2, 4, 8 … where the loss does not fall.

    The matrix is kept in coordinates in which it is round (see `refiners.white`), as accurate as a
    QR factorization of J. Where a step promises less than rounding lets the loss tell, it is judged
    by the gradient, and the fit ends where that no longer falls.

    Above ``largest`` params no matrix is formed: D is one number, the curvature along the gradient,
    and the system is solved by a fixed number of conjugate gradients on products with M. Needs an
    objective with a residual, or with ``curvature``.

    Bounds: params at a bound that the gradient presses against are held; the model is minimized
    within the box (`minimize_within`), and the gain ratio is that of the step within (projected LM,
    Kanzow, Yamashita and Fukushima 2004). A robust loss is minimized by its reweighted normal
    equations. A trial that ends in NaN or infinity is refused.

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

    def init(self, objective: Any, params: Params, key: PRNGKeyArray) -> State[Params]:
        """Form the normal equations (one pass)."""
        del key
        inside: Any = project(params, bounds_of(objective))
        model, white = self._begin(objective, inside)
        dtype = model.loss.dtype
        memory = LMMemory(
            gradient=model.gradient,
            white=white,
            size=model.size,
            reach=reach_of(inside, model.size),
            damping=jnp.asarray(self.damping, dtype),
            growth=jnp.asarray(2.0, dtype),
            lost=jnp.int32(0),
            last_progress=jnp.full((2,), jnp.inf, dtype),
        )
        return State(inside, model.loss, memory)

    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Try a step; keep it if the loss is lower."""
        del key
        x, unravel = ravel_pytree(state.params)
        propose = self._by_products if state.memory.white is None else self._by_matrix
        move, promised, evaluate = propose(objective, state)
        ends = jnp.clip(x + move.astype(x.dtype), *box(objective, state.params, x))
        model, white, left = evaluate(unravel(ends))
        trial = judge(state, model, promised, x, ends - x, state.memory.damping)
        return settle(state, unravel(ends), model, white, trial, left)

    def _begin(self, objective: Any, params: Any) -> tuple[Model, White | None]:
        count = ravel_pytree(params)[0].size
        if count > self.largest and _has_products(objective):
            return slope(objective, params), None
        loss, white = first_model(objective, params)
        return summary(loss, white), white

    def _by_matrix(self, objective: Any, state: State) -> tuple[Array, Scalar, Callable]:
        """Minimize the damped model in the box: what to try, what it promises, how to evaluate."""
        model = damped_model(objective, state, state.memory.damping)
        velocity = model.step * shortening(state.memory, model.step)
        promised, height = model.promised(velocity)

        def evaluate(params: Any) -> tuple[Model, White, Scalar]:
            return model.evaluate(objective, params)

        if not self.acceleration:
            return velocity, promised, evaluate
        turn = model.solve(-_bend(objective, state, velocity, height))
        return self._bent(state.memory, velocity, turn), promised, evaluate

    def _by_products(self, objective: Any, state: State) -> tuple[Array, Scalar, Callable]:
        """The same by products with the matrix."""
        memory: LMMemory = state.memory
        scale = nonzero(memory.size)
        apply = products(objective, state.params, state.loss.dtype)

        def damped(z: Array, /) -> Array:
            return apply(z / scale) / scale + memory.damping * z

        solver = conjugate_gradients(damped, self.iterations)
        inside = step_box(objective, state, scale)
        most = scale.size * (1 + memory.damping)
        velocity = minimize_by_products(solver, damped, memory.gradient / scale, inside, most)
        velocity = velocity / scale
        velocity = velocity * shortening(state.memory, velocity)
        bent = apply(velocity)
        promised = predicted_decrease(memory.gradient, bent, velocity)

        def evaluate(params: Any) -> tuple[Model, None, Scalar]:
            return slope(objective, params), None, jnp.zeros_like(state.loss)

        if not self.acceleration:
            return velocity, promised, evaluate
        bend = _bend(objective, state, velocity, velocity @ bent) / scale
        turn = solver(-bend, ~inside.held) / scale
        return self._bent(memory, velocity, turn), promised, evaluate

    @staticmethod
    def _bent(memory: LMMemory, velocity: Array, turn: Array) -> Array:
        """Add half the correction, where it is short."""
        weights = jnp.square(nonzero(memory.size))
        short = 4 * (weights @ turn**2) <= 0.75**2 * (weights @ velocity**2)
        return velocity + jnp.where(short, 0.5 * turn, 0)

    def optimality(self, objective: Any, state: State) -> Scalar:
        """Largest cosine between the residual and what the model can still do.

        About the relative offset of Bates and Watts (1981): the columns of J·R⁻¹ are nearly
        orthogonal. Those of J where no matrix is formed. Params held at bounds are left out.
        """
        white = state.memory.white
        if white is None:
            return cosine(objective, state, state.memory.gradient, state.memory.size)
        return cosine(objective, state, white.gradient, root(jnp.diagonal(white.matrix)))

    def status(self, state: State) -> Int[Array, ""]:
        """``NONFINITE`` after 30 trials in a row that ended in NaN."""
        lost = state.memory.lost >= REFUSALS
        return jnp.where(lost, jnp.int32(Status.NONFINITE), jnp.int32(Status.RUNNING))


def _has_products(objective: Any) -> bool:
    """Whether M times a vector can be had: not where only the matrix itself is supplied."""
    if offer(objective, "curvature") is not None:
        return True
    return offer(objective, "normal") is None and offer(objective, "residual") is not None


def _bend(objective: Any, state: State, velocity: Array, height: Scalar) -> Array:
    """Return 2c·Jᵀr″(v, v), what the bend of the residual along v adds to the gradient.

    The factor 2c of the normal equations is vᵀMv/|Jv|², ``height`` over the power of Jv.
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
    return (pulled * height / jnp.where(power > 0, power, 1)).astype(velocity.dtype)
