"""Levenberg–Marquardt for many small least-squares problems at once."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from refinejax._core import Params, Refiner, Scalar, State, Status, bounds_of, project, spread
from refinejax.problems.normal import Normal, normal_equations, residual_of
from refinejax.refiners.dense import solve, solve_within

_MOST = 1e12  # λ beyond which a step is nothing
_REFUSALS = 30  # in a row that ended in NaN, before the verdict is NONFINITE


class Memory(struct.PyTreeNode):
    """What `LevenbergMarquardt` remembers.

    Attributes:
        gradient: of the loss, shape (n,).
        matrix: Gauss–Newton matrix, shape (n, n).
        size: the largest √diag(matrix) so far, shape (n,).
        damping: λ.
        growth: factor on λ at the next refusal.
        lost: trials in a row that ended in NaN or infinity.
        pace: relative decrease and step length of the last trial (see `Refiner.progress`).
    """

    gradient: Float[Array, " n"]
    matrix: Float[Array, "n n"]
    size: Float[Array, " n"]
    damping: Scalar
    growth: Scalar
    lost: Int[Array, ""]
    pace: Float[Array, "2"]


class LevenbergMarquardt(Refiner):
    """Damped Gauss–Newton steps: min gᵀs + ½ sᵀ(M + λD)s, g and M as in `problems.normal`.

    A step costs one pass of normal equations at the trial point, and a solve of n × n. D is
    diag(M), each entry the largest so far (Moré 1978, eq. 6.3), which makes the iteration
    independent of the scale of the params. λ follows the gain ratio of actual and predicted
    decrease (Nielsen 1999, IMM-REP-1999-05, eq. 2.4–2.5): it falls to a third at best, and grows by
    2, 4, 8 … where the loss does not fall.

    Bounds: params at a bound that the gradient presses against are held; the model is minimized
    within the box (`solve_within`), and the gain ratio is that of the step within (projected LM,
    Kanzow, Yamashita and Fukushima 2004). A robust loss is minimized by its reweighted normal
    equations. A trial that ends in NaN or infinity is refused.

    Attributes:
        damping: the first λ, relative to D. 1e-3 where the start is good; 1 where it is not.
        acceleration: whether to add the second-order correction of the residual along the step
            (geodesic acceleration, Transtrum and Sethna 2012, arXiv:1201.5885, eq. 6–8, 15); a step
            then costs two passes more. Needs an objective with a residual; static.

    Raises:
        ValueError: in ``init``, for an objective without a residual or normal equations.
    """

    damping: Any = 1e-3
    acceleration: bool = struct.field(pytree_node=False, default=False)

    def init(self, objective: Any, params: Params, key: PRNGKeyArray) -> State[Params]:
        """Form the normal equations (one pass)."""
        del key
        inside: Any = project(params, bounds_of(objective))
        model = normal_equations(objective, inside)
        dtype = model.loss.dtype
        model = _cast(model, dtype)
        memory = Memory(
            gradient=model.gradient,
            matrix=model.matrix,
            size=_size(model.matrix),
            damping=jnp.asarray(self.damping, dtype),
            growth=jnp.asarray(2.0, dtype),
            lost=jnp.int32(0),
            pace=jnp.full((2,), jnp.inf, dtype),
        )
        return State(inside, model.loss, memory)

    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Try a step; keep it if the loss is lower."""
        del key
        memory: Memory = state.inner
        x, unravel = ravel_pytree(state.params)
        low, high = _box(objective, state.params, x)
        move = self._propose(objective, state, x, low, high)
        trial = jnp.clip(x + move.astype(x.dtype), low, high)
        move = trial - x
        model = _cast(normal_equations(objective, unravel(trial)), state.loss.dtype)
        return _settle(state, model, unravel(trial), _length(x, move), self._gain(memory, move))

    def _gain(self, memory: Memory, move: Array) -> Scalar:
        """Return the decrease that the quadratic model promises."""
        move = move.astype(memory.gradient.dtype)
        return -(memory.gradient @ move) - 0.5 * move @ (memory.matrix @ move)

    def _propose(
        self, objective: Any, state: State, x: Array, low: Array, high: Array
    ) -> Float[Array, " n"]:
        """Minimize the damped model within the bounds, in coordinates of unit diagonal."""
        memory: Memory = state.inner
        scale = _nonzero(_size(memory.matrix))
        damping = memory.damping * (_nonzero(memory.size) / scale) ** 2
        unit = memory.matrix / scale[:, None] / scale[None, :] + jnp.diag(damping)
        gradient = memory.gradient / scale
        held = ((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0))
        if bounds_of(objective) is None:
            velocity = solve(unit, -gradient)
        else:
            limits = (low - x) * scale, (high - x) * scale
            velocity = solve_within(unit, gradient, *limits, held)
        if not self.acceleration:
            return velocity / scale
        return self._accelerate(objective, state, unit, velocity, held, scale) / scale

    def _accelerate(
        self,
        objective: Any,
        state: State,
        unit: Array,
        velocity: Array,
        held: Bool[Array, " n"],
        scale: Array,
    ) -> Array:
        """Add half of the acceleration, unless it is long."""
        bend = jnp.where(held, 0, _bend(objective, state, velocity / scale) / scale)
        both = held[:, None] | held[None, :]
        reduced = jnp.where(both, jnp.eye(held.size, dtype=unit.dtype), unit)
        acceleration = solve(reduced, -bend)
        short = 2 * jnp.linalg.norm(acceleration) <= 0.75 * jnp.linalg.norm(velocity)
        return velocity + jnp.where(short, 0.5 * acceleration, 0)

    def optimality(self, objective: Any, state: State) -> Scalar:
        """Largest component of P(x − ∇) − x, P the projection on the bounds."""
        x, _ = ravel_pytree(state.params)
        low, high = _box(objective, state.params, x)
        ahead = jnp.clip(x - state.inner.gradient, low, high)
        moves = jnp.where(jnp.isfinite(x), ahead - x, jnp.inf)
        return jnp.max(jnp.abs(moves)).astype(state.loss.dtype)

    def progress(self, before: State, after: State) -> tuple[Scalar, Scalar]:
        """Decrease, promised and actual, and length of the last trial, relative to loss and params.

        A refused trial counts too: where even the model promises less than rounding, no step will
        do better.
        """
        del before
        decrease, length = after.inner.pace
        return decrease, length

    def verdict(self, state: State) -> Int[Array, ""]:
        """``NONFINITE`` after 30 trials in a row that ended in NaN."""
        lost = state.inner.lost >= _REFUSALS
        return jnp.where(lost, jnp.int32(Status.NONFINITE), jnp.int32(Status.RUNNING))


def _settle(state: State, model: Normal, trial: Any, length: Scalar, promised: Scalar) -> State:
    """Accept or refuse a trial, and adapt the damping."""
    memory: Memory = state.inner
    finite = jnp.isfinite(model.loss) & jnp.all(jnp.isfinite(model.gradient))
    finite &= jnp.all(jnp.isfinite(model.matrix))
    gained = state.loss - model.loss
    accepted = finite & (gained > 0)
    ratio = gained / jnp.where(promised > 0, promised, 1)
    factor = jnp.clip(1 - (2 * ratio - 1) ** 3, 1 / 3, 2)
    size = jnp.maximum(memory.size, _size(model.matrix))
    whole = jnp.abs(state.loss)
    decrease = jnp.where(finite, jnp.maximum(promised, gained), jnp.inf)
    relative = jnp.where(decrease <= 0, 0, decrease / jnp.where(whole > 0, whole, 1))
    pace = jnp.stack([relative, jnp.where(finite, length, jnp.inf)])
    damping = memory.damping * jnp.where(accepted, factor, memory.growth)
    dtype = state.loss.dtype
    kept = Memory(
        gradient=jnp.where(accepted, model.gradient, memory.gradient),
        matrix=jnp.where(accepted, model.matrix, memory.matrix),
        size=jnp.where(accepted, size, memory.size),
        damping=jnp.minimum(damping, _MOST),
        growth=jnp.where(accepted, 2, jnp.minimum(2 * memory.growth, _MOST)).astype(dtype),
        lost=jnp.where(finite, 0, memory.lost + 1),
        pace=jax.lax.stop_gradient(pace).astype(memory.pace.dtype),
    )
    params = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), trial, state.params)
    return State(params, jnp.where(accepted, model.loss, state.loss), kept)


def _cast(model: Normal, dtype: Any) -> Normal:
    return jax.tree.map(lambda leaf: leaf.astype(dtype), model)


def _size(matrix: Array) -> Array:
    """Return the lengths of the columns of J, up to a factor."""
    return jnp.sqrt(jnp.maximum(jnp.diagonal(matrix), 0))


def _nonzero(size: Array) -> Array:
    """Put 1 for a param that nothing depends on."""
    return jnp.where(size > 0, size, 1)


def _length(x: Array, move: Array) -> Scalar:
    return jnp.linalg.norm(move) / (jnp.linalg.norm(x) + 1e-30)


def _box(objective: Any, params: Any, x: Array) -> tuple[Array, Array]:
    """Return the bounds in flat coordinates."""
    bounds = bounds_of(objective)
    if bounds is None:
        return jnp.full_like(x, -jnp.inf), jnp.full_like(x, jnp.inf)

    def flatten(bound: Any) -> Array:
        full = jax.tree.map(
            lambda b, p: jnp.broadcast_to(jnp.asarray(b, p.dtype), p.shape),
            spread(bound, params),
            params,
        )
        return ravel_pytree(full)[0]

    return flatten(bounds[0]), flatten(bounds[1])


def _bend(objective: Any, state: State, velocity: Array) -> Array:
    """Return 2c·Jᵀr″(v, v), what the bend of the residual along ``velocity`` adds to the gradient.

    The factor 2c of the normal equations is vᵀMv/|Jv|².
    """
    residual = residual_of(objective)
    flat, unravel = ravel_pytree(state.params)

    def at(x: Array) -> Any:
        return residual(unravel(x))

    def slope(x: Array) -> Any:
        return jax.jvp(at, (x,), (velocity,))[1]

    along, second = jax.jvp(slope, (flat,), (velocity,))
    bent = jax.vjp(at, flat)[1](second)[0]
    power = sum(jnp.sum(jnp.abs(leaf) ** 2) for leaf in jax.tree.leaves(along))
    return bent * (velocity @ state.inner.matrix @ velocity) / jnp.where(power > 0, power, 1)
