"""Levenberg–Marquardt for many small least-squares problems at once."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray

from refinejax._core import Params, Scalar, State, Status, bounds_of, offer, project, select
from refinejax.problems.normal import Product, residual_of
from refinejax.refiners.dense import Solve, conjugate_gradients, solve_reduced
from refinejax.refiners.least_squares import (
    REFUSALS,
    LeastSquares,
    Model,
    Trial,
    box,
    judge,
    minimize,
    nonzero,
    products,
    promise,
    quadratic,
    room,
    sizes,
    slope,
)

_MOST = 1e12  # λ beyond which a step is nothing
_NEUTRAL = 0.25  # gain ratio at which λ stays
_ROUNDING = 8  # ε of the loss that mean nothing, as in `Stop.loss`


class Memory(struct.PyTreeNode):
    """What `LevenbergMarquardt` remembers.

    Attributes:
        gradient: of the loss, shape (n,).
        matrix: Gauss–Newton matrix, shape (n, n); None where only its products are formed.
        size: the largest √diag(matrix) so far, shape (n,).
        damping: λ.
        growth: factor on λ at the next refusal.
        lost: trials in a row that ended in NaN or infinity.
        pace: relative decrease and step length of the last trial (see `Refiner.progress`).
    """

    gradient: Float[Array, " n"]
    matrix: Float[Array, "n n"] | None
    size: Float[Array, " n"]
    damping: Scalar
    growth: Scalar
    lost: Int[Array, ""]
    pace: Float[Array, "2"]


class LevenbergMarquardt(LeastSquares):
    """Damped Gauss–Newton steps: min gᵀs + ½ sᵀ(M + λD)s, g and M as in `problems.normal`.

    A step costs one pass of normal equations at the trial point, and a solve of n × n. D is
    diag(M), each entry the largest so far (Moré 1978, eq. 6.3), which makes the iteration
    independent of the scale of the params; no step is longer than the params, ‖Ds‖ ≤ ‖Dx‖ (as the
    first of MINPACK's). λ follows the gain ratio ϱ of actual and predicted decrease (Nielsen 1999,
    IMM-REP-1999-05, eq. 2.4–2.5, with its fixed point at ϱ = ¼, not ½: less zigzag in curved
    valleys): it falls to a third at best, and grows by 2, 4, 8 … where the loss does not fall.
    Where a step promises less than the loss can resolve, the model is trusted.

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
        model = self._model(objective, inside)
        dtype = model.loss.dtype
        memory = Memory(
            gradient=model.gradient,
            matrix=model.matrix,
            size=model.size,
            damping=jnp.asarray(self.damping, dtype),
            growth=jnp.asarray(2.0, dtype),
            lost=jnp.int32(0),
            pace=jnp.full((2,), jnp.inf, dtype),
        )
        return State(inside, model.loss, memory)

    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Try a step; keep it if the loss is lower."""
        del key
        x, unravel = ravel_pytree(state.params)
        velocity, bent, move = self._propose(objective, state)
        ends = jnp.clip(x + move.astype(x.dtype), *box(objective, state.params, x))
        model = self._model(objective, unravel(ends))
        promised = promise(state.inner.gradient, bent, velocity)
        trial = judge(state, model, promised, x, ends - x)
        return _settle(state, unravel(ends), model, trial)

    def _model(self, objective: Any, params: Any) -> Model:
        count = ravel_pytree(params)[0].size
        if count <= self.largest or not _has_products(objective):
            return quadratic(objective, params)
        return slope(objective, params)

    def _system(self, objective: Any, state: State) -> tuple[Array, Product, Product, Solve]:
        """Return scale, v → M v, and of the damped, scaled matrix: z → A z and z → A⁻¹ z."""
        memory: Memory = state.inner
        matrix = memory.matrix
        if matrix is None:
            scale = nonzero(memory.size)
            apply = products(objective, state.params, state.loss.dtype)

            def damped(z: Array, /) -> Array:
                return apply(z / scale) / scale + memory.damping * z

            return scale, apply, damped, conjugate_gradients(damped, self.iterations)
        scale = nonzero(sizes(matrix))
        weight = memory.damping * (nonzero(memory.size) / scale) ** 2
        unit = matrix / scale[:, None] / scale[None, :] + jnp.diag(weight)
        return scale, lambda v: matrix @ v, lambda z: unit @ z, solve_reduced(unit)

    def _propose(self, objective: Any, state: State) -> tuple[Array, Array, Array]:
        """Minimize the damped model in the box; return the step, M times it, and what to try."""
        memory: Memory = state.inner
        scale, apply, damped, solver = self._system(objective, state)
        inside = room(objective, state, scale)
        velocity = minimize(solver, damped, memory.gradient / scale, inside) / scale
        velocity = velocity * self._shorten(state, velocity)
        bent = apply(velocity)
        if not self.acceleration:
            return velocity, bent, velocity
        bend = _bend(objective, state, velocity, bent) / scale
        turn = solver(-bend, ~inside.held) / scale
        weights = jnp.square(nonzero(memory.size))
        short = 4 * (weights @ turn**2) <= 0.75**2 * (weights @ velocity**2)
        return velocity, bent, velocity + jnp.where(short, 0.5 * turn, 0)

    def _shorten(self, state: State, velocity: Array) -> Scalar:
        """Return the factor that makes a step as long as the params at most."""
        x, _ = ravel_pytree(state.params)
        weights = jnp.square(state.inner.size)
        longest, length = weights @ jnp.square(x), weights @ jnp.square(velocity)
        long = (length > longest) & (longest > 0)
        ratio = jnp.where(long, longest, 1) / jnp.where(long, length, 1)
        return jnp.sqrt(ratio).astype(velocity.dtype)

    def verdict(self, state: State) -> Int[Array, ""]:
        """``NONFINITE`` after 30 trials in a row that ended in NaN."""
        lost = state.inner.lost >= REFUSALS
        return jnp.where(lost, jnp.int32(Status.NONFINITE), jnp.int32(Status.RUNNING))


def _has_products(objective: Any) -> bool:
    """Whether M times a vector can be had: not where only the matrix itself is supplied."""
    if offer(objective, "curvature") is not None:
        return True
    return offer(objective, "normal") is None and offer(objective, "residual") is not None


def _settle(state: State, ends: Any, model: Model, trial: Trial) -> State:
    """Accept or refuse a trial, and adapt the damping."""
    memory: Memory = state.inner
    dtype = state.loss.dtype
    floor = _ROUNDING * jnp.finfo(dtype).eps * jnp.abs(state.loss)
    level = (trial.promised > 0) & (trial.promised <= floor) & (trial.gained >= -floor)
    accepted = trial.finite & ((trial.gained > 0) | level)
    ratio = trial.gained / jnp.where(trial.promised > 0, trial.promised, 1)
    factor = jnp.clip(1 - ((ratio - _NEUTRAL) / (1 - _NEUTRAL)) ** 3, 1 / 3, 2)
    damping = memory.damping * jnp.where(accepted, factor, memory.growth)
    old = (state.params, state.loss, memory.gradient, memory.matrix, memory.size)
    new = (ends, model.loss, model.gradient, model.matrix, jnp.maximum(memory.size, model.size))
    params, loss, gradient, matrix, largest = select(accepted, new, old)
    kept = Memory(
        gradient=gradient,
        matrix=matrix,
        size=largest,
        damping=jnp.minimum(damping, _MOST),
        growth=jnp.where(accepted, 2, jnp.minimum(2 * memory.growth, _MOST)).astype(dtype),
        lost=jnp.where(trial.finite, 0, memory.lost + 1),
        pace=trial.pace,
    )
    return State(params, loss, kept)


def _bend(objective: Any, state: State, velocity: Array, bent: Array) -> Array:
    """Return 2c·Jᵀr″(v, v), what the bend of the residual along v adds to the gradient.

    The factor 2c of the normal equations is vᵀMv/|Jv|².
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
    return (pulled * (velocity @ bent) / jnp.where(power > 0, power, 1)).astype(velocity.dtype)
