"""BFGS without a line search within a step: every step costs one gradient, on every lane."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from refinejax._core import Params, Refiner, Scalar, State, bounds_of
from refinejax._trees import pressing, project, select
from refinejax.refiners.convergence import (
    count_nonfinite,
    free_gradient_norm,
    gradient_status,
    relative_gradient,
    relative_length,
    smoothed_progress,
)
from refinejax.refiners.gradient.loss_unit import loss_unit

_DECREASE = 1e-4  # Armijo's constant: least decrease, relative to that along the slope
_CURVATURE = 0.1  # share of the curvature along a step that is left at least
_STUCK = 12  # rejected in a row before the matrix is dropped; as many again end it


class BFGSMemory(struct.PyTreeNode):
    """What `BFGS` remembers.

    Attributes:
        grad: the gradient at the current params, flat, in the unit of the loss.
        unit: of the loss, see `loss_unit`.
        largest: the largest component of all gradients so far.
        inverse: H, an estimate of the inverse of the Hessian.
        fresh: whether H is a multiple of the identity so far.
        length: α, a factor on the next step.
        rejected: steps rejected in a row.
        nonfinite: steps in a row that ended in NaN or infinity.
        last_progress: relative decrease and step length of late, shape (2,).
    """

    grad: Float[Array, " n"]
    unit: Scalar
    largest: Scalar
    inverse: Float[Array, "n n"]
    fresh: Bool[Array, ""]
    length: Scalar
    rejected: Int[Array, ""]
    nonfinite: Int[Array, ""]
    last_progress: Float[Array, "2"]


class BFGS(Refiner):
    """Quasi-Newton steps x − αH∇f, with one loss and gradient a step, for up to about 100 params.

    A line search takes as many evaluations as the slowest sample of a batch needs, in every step of
    all. Here a step without the sufficient decrease of Armijo's condition is rejected, and the next
    one is shorter, by the parabola through the known values; so lanes never wait for each other.
    H is updated with every accepted step (Nocedal and Wright 2006, Numerical Optimization,
    eq. 6.17, scaled at first by eq. 6.20). Where the curvature along a step is negative, or less
    than a tenth of what H had, as no line search by Wolfe would leave it, it is taken to be that
    tenth (Powell 1978; eq. 18.14–18.16): H stays positive definite, and plateaus are crossed in
    steps of growing length.

    Bounds are kept by projection. Params at a bound whose gradient points outward are held there
    during a step (two-metric projection, Bertsekas 1982, eq. 31–36).

    A step that ends in NaN or infinity is rejected too; after 30 of them in a row the status is
    ``NONFINITE``.

    Attributes:
        first: the longest first step, in the coordinates of refinement.
        longest: the longest of all steps, in the same unit: where the loss has plateaus, as for a
            network has, a long step may end on one of them.
    """

    first: Any = 1.0
    longest: Any = jnp.inf
    positive: ClassVar[tuple[str, ...]] = ("first", "longest")

    @property
    def unit_free(self) -> bool:
        """Yes: it divides the loss by a unit, see `loss_unit`."""
        return True

    def init(self, objective: Any, params: Params, key: PRNGKeyArray) -> State[Params]:
        """Evaluate loss and gradient."""
        del key
        start: Any = project(params, bounds_of(objective))
        loss, grad = jax.value_and_grad(objective)(start)
        unit = loss_unit(grad)
        flat = ravel_pytree(grad)[0] / unit
        memory = BFGSMemory(
            grad=flat,
            unit=unit.astype(loss.dtype),
            largest=optax.tree.norm(grad, ord=jnp.inf).astype(loss.dtype),
            inverse=self._begin(flat),
            fresh=jnp.bool_(True),
            length=jnp.ones((), flat.dtype),
            rejected=jnp.int32(0),
            nonfinite=jnp.int32(0),
            last_progress=jnp.full((2,), jnp.inf, flat.dtype),
        )
        return State(start, loss, memory)

    def _short(self, direction: Array) -> Array:
        """Return it no longer than the longest step."""
        power = jnp.sum(direction**2)
        long = power > jnp.square(self.longest)
        factor = self.longest / jnp.sqrt(jnp.where(long, power, 1))
        return direction * jnp.where(long, factor, 1).astype(direction.dtype)

    def _begin(self, grad: Array) -> Array:
        """Return a multiple of the identity with which the first step is short enough."""
        size = jnp.sqrt(jnp.sum(grad**2))
        scale = jnp.where(size > self.first, self.first / size, 1)
        scale = jnp.where(jnp.isfinite(scale), scale, 1).astype(grad.dtype)
        return scale * jnp.eye(grad.size, dtype=grad.dtype)

    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Try a step; accept or reject it."""
        del key
        memory: BFGSMemory = state.memory
        bounds = bounds_of(objective)
        x, unravel = ravel_pytree(state.params)
        free = jnp.ones(x.shape, bool)
        if bounds is not None:
            free = ~ravel_pytree(pressing(state.params, unravel(memory.grad), bounds))[0]
        slope = jnp.where(free, memory.grad, 0)
        direction = self._short(-jnp.where(free, memory.inverse @ slope, 0))
        trial = project(unravel(x + memory.length * direction), bounds)
        unit = memory.unit
        loss, grads = jax.value_and_grad(objective)(trial)
        grad = ravel_pytree(grads)[0] / unit.astype(x.dtype)
        before, reached = state.loss / unit, loss / unit
        move = ravel_pytree(trial)[0] - x
        predicted = jnp.sum(memory.grad * move)
        finite = jnp.isfinite(loss) & jnp.all(jnp.isfinite(grad))
        lower = reached <= before + _DECREASE * predicted.astype(loss.dtype)
        taken = finite & lower & (loss < state.loss)
        kept = select(taken, (trial, loss, grad), (state.params, state.loss, memory.grad))
        size = optax.tree.norm(grads, ord=jnp.inf).astype(loss.dtype)
        change = jnp.where(free & finite, grad - memory.grad, 0)  # of what may move
        inverse = _updated(memory, move, change, _hessian_step(slope, direction, move))
        after = BFGSMemory(
            grad=kept[2],
            unit=unit,
            largest=jnp.where(taken, jnp.maximum(memory.largest, size), memory.largest),
            inverse=jnp.where(taken, inverse, memory.inverse),
            fresh=memory.fresh & ~taken,
            length=jnp.where(taken, 1, self._shorter(memory, before, reached, predicted, finite)),
            rejected=jnp.where(taken, 0, memory.rejected + 1),
            nonfinite=count_nonfinite(finite, memory.nonfinite),
            last_progress=smoothed_progress(
                memory.last_progress, _progress(state.loss, loss, x, move), taken
            ),
        )
        return State(kept[0], kept[1], self._dropped(after, kept[2]))

    def _shorter(
        self, memory: BFGSMemory, before: Array, after: Array, predicted: Array, finite: Array
    ) -> Array:
        """Return α at the least of the parabola, but a tenth to a half of what it was."""
        rise = (after - before).astype(predicted.dtype) - predicted
        share = -predicted / jnp.where(finite & (rise > 0), 2 * rise, 1)
        share = jnp.where(finite & (rise > 0), jnp.clip(share, 0.1, 0.5), 0.1)
        return memory.length * share

    def _dropped(self, memory: BFGSMemory, grad: Array) -> BFGSMemory:
        """Drop the matrix where nothing comes of it: the next step is along the gradient."""
        drop = (memory.rejected == _STUCK) & (memory.nonfinite == 0)
        return memory.replace(
            inverse=jnp.where(drop, self._begin(grad), memory.inverse),
            fresh=memory.fresh | drop,
            length=jnp.where(drop, 1, memory.length).astype(memory.length.dtype),
        )

    def optimality(self, objective: Any, state: State) -> Scalar:
        """Return the largest free component of the gradient without unit (`relative_gradient`)."""
        grad = ravel_pytree(state.params)[1](state.memory.grad)
        norm = free_gradient_norm(objective, state.params, grad).astype(state.loss.dtype)
        norm = norm * state.memory.unit
        return relative_gradient(norm, state.memory.largest, state.loss, state.params)

    def progress(self, before: State, after: State) -> tuple[Scalar, Scalar]:
        """Decrease and step of late (see `Gradient`); 0 where steepest descent fails as well."""
        del before
        memory: BFGSMemory = after.memory
        decrease, length = memory.last_progress.astype(after.loss.dtype)
        stuck = (memory.rejected >= 2 * _STUCK) & (memory.nonfinite == 0)
        return jnp.where(stuck, 0, decrease), length

    def status(self, state: State) -> Int[Array, ""]:
        """Return ``NONFINITE`` or ``SINGULAR``, as `Gradient` does."""
        return gradient_status(state.memory.nonfinite, state.memory.largest, state.loss)


def _hessian_step(slope: Array, direction: Array, move: Array) -> Array:
    """Return B·s, where the step s = −t·H·g was made with H = B⁻¹."""
    along = jnp.sum(move * direction)
    return -slope * jnp.sum(move**2) / jnp.where(along > 0, along, 1)


def _updated(memory: BFGSMemory, s: Array, y: Array, expected_change: Array) -> Array:
    """Return H after a step s along which the gradient changed by y, and not by B·s as expected."""
    expected, curvature = jnp.sum(s * expected_change), jnp.sum(s * y)
    less = expected - curvature
    damped = curvature < jnp.where(memory.fresh, 0, _CURVATURE) * expected
    share = jnp.where(damped, (1 - _CURVATURE) * expected / jnp.where(damped, less, 1), 1)
    y = share * y + (1 - share) * expected_change
    curvature, size = jnp.sum(s * y), jnp.sum(y**2)
    eps = jnp.finfo(s.dtype).eps
    usable = curvature > eps * jnp.sqrt(jnp.sum(s**2) * size)
    divisor = jnp.where(usable, curvature, 1)
    first = curvature / jnp.where(size > 0, size, 1)
    H = jnp.where(memory.fresh, first * jnp.eye(s.size, dtype=s.dtype), memory.inverse)
    Hy = H @ y
    across = jnp.outer(Hy, s)
    along = (1 + jnp.sum(y * Hy) / divisor) * jnp.outer(s, s)
    return jnp.where(usable, H + (along - across - across.T) / divisor, memory.inverse)


def _progress(before: Array, after: Array, x: Array, move: Array) -> tuple[Scalar, Scalar]:
    """Return the relative decrease of the loss and the relative length of the step."""
    return (before - after) / jnp.abs(before), relative_length(move, x)
