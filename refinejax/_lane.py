"""One sample under way, and how it takes a step: what all drivers share.

The batch engine and the refiners that contain others (`Sequential`, `Restarts`, `Continuation`)
advance lanes too, so that all of them stop by the same rules.
"""

import functools
from typing import Any, Generic

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from refinejax._core import Evaluations, Params, Refiner, Scalar, State, Status, Stop
from refinejax._trees import select

UNLIMITED = 2**31 - 2  # more steps than any run takes
_START = 2**31 - 1  # step keys are fold_in(key, step); no step reaches this number


class Lane(struct.PyTreeNode, Generic[Params]):
    """One sample on its way.

    Attributes:
        state: the refiner's state.
        best_params, best_loss: the best point so far.
        initial_loss: the loss at the start.
        steps: steps taken; also the number of the next step's key.
        evaluations: of the objective so far, each of int32.
        idle: steps since the best loss last improved by more than the tolerance.
        status: `Status.RUNNING` or how it ended.
        key: the sample's key.
        max_steps: where it ends at the latest.
    """

    state: State[Params]
    best_params: Params
    best_loss: Scalar
    initial_loss: Scalar
    steps: Int[Array, ""]
    evaluations: Evaluations
    idle: Int[Array, ""]
    status: Int[Array, ""]
    key: PRNGKeyArray
    max_steps: Int[Array, ""]

    @property
    def running(self) -> Bool[Array, ""]:
        """Whether it has not ended."""
        return self.status == Status.RUNNING


def start(
    refiner: Refiner,
    objective: Any,
    stop: Stop,
    params: Params,
    key: PRNGKeyArray,
    max_steps: Any,
    *,
    steps: Any = 0,
) -> Lane[Params]:
    """Return a lane at its start, evaluated.

    Args:
        refiner: the method.
        objective: the problem, in the coordinates of refinement.
        stop: rules, resolved.
        params: where to start, in the coordinates of refinement.
        key: of the sample.
        max_steps: the number of steps at which it ends at the latest, those before included.
        steps: taken before, by other refiners.
    """
    steps = jnp.asarray(steps, jnp.int32)
    state = refiner.init(objective, params, init_key(key, steps))
    optimal = refiner.optimality(objective, state) <= stop.gradient
    own = refiner.status(state)
    status = first_status(
        (~jnp.isfinite(state.loss), Status.NONFINITE_START),
        (state.loss <= stop.target, Status.TARGET_REACHED),
        (refiner.in_last_stage(state) & optimal, Status.CONVERGED_GRAD),
        (own != Status.RUNNING, own),
        (steps >= max_steps, Status.MAX_STEPS),
    )
    return Lane(
        state=state,
        best_params=state.params,
        best_loss=state.loss,
        initial_loss=state.loss,
        steps=steps,
        evaluations=Evaluations(*(jnp.int32(n) for n in refiner.evaluations(None, state))),
        idle=jnp.int32(0),
        status=status,
        key=key,
        max_steps=jnp.asarray(max_steps, jnp.int32),
    )


def init_key(key: PRNGKeyArray, steps: Any) -> PRNGKeyArray:
    """Return the key for ``init`` of a refiner that begins after ``steps`` steps of others.

    Args:
        key: of the sample.
        steps: taken before.
    """
    return jax.random.fold_in(key, _START - steps)


def step(refiner: Refiner, objective: Any, stop: Stop, lane: Lane[Params]) -> Lane[Params]:
    """Return the lane after a step, with the best point and the status.

    Args:
        refiner: the method.
        objective: the problem, in the coordinates of refinement.
        stop: rules, resolved.
        lane: a sample under way.
    """
    before = lane.state
    after = refiner.step(objective, before, jax.random.fold_in(lane.key, lane.steps))
    better = after.loss < lane.best_loss
    clearly = after.loss < lane.best_loss - _positive(stop.loss) * jnp.abs(lane.best_loss)
    final = refiner.in_last_stage(after)
    idle = jnp.where(clearly | ~final, 0, lane.idle + 1)
    moved = lane.replace(
        state=after,
        best_params=select(better, after.params, lane.best_params),
        best_loss=jnp.where(better, after.loss, lane.best_loss),
        steps=lane.steps + 1,
        evaluations=lane.evaluations.plus(refiner.evaluations(before, after)),
        idle=idle,
    )
    return moved.replace(status=_judge(refiner, objective, stop, before, moved, final))


def _judge(
    refiner: Refiner, objective: Any, stop: Stop, before: State, lane: Lane, final: Array
) -> Int[Array, ""]:
    after = lane.state
    decrease, length = refiner.progress(before, after)
    own = refiner.status(after)
    return first_status(
        (own < 0, own),
        (lane.best_loss <= stop.target, Status.TARGET_REACHED),
        (final & (refiner.optimality(objective, after) <= stop.gradient), Status.CONVERGED_GRAD),
        (final & (decrease <= stop.loss), Status.CONVERGED_LOSS),
        (final & (length <= stop.step), Status.CONVERGED_STEP),
        (own > 0, own),
        (final & _diverged(stop, lane), Status.DIVERGED),
        ((stop.patience >= 0) & (lane.idle >= stop.patience), Status.STALLED),
        (lane.steps >= lane.max_steps, Status.MAX_STEPS),
    )


def _diverged(stop: Stop, lane: Lane) -> Bool[Array, ""]:
    scale = jnp.maximum(jnp.abs(lane.initial_loss), jnp.abs(lane.best_loss))
    excess = (lane.state.loss - lane.best_loss) / jnp.where(scale > 0, scale, 1)
    return (stop.divergence >= 0) & (scale > 0) & (excess > stop.divergence)


def rules_for(stop: Stop | None, params: Any) -> Stop:
    """Return stopping rules, the default ones for None, resolved for the dtype of the params.

    Args:
        stop: rules, or None.
        params: a pytree of floating arrays.
    """
    return (stop or Stop()).resolve(jnp.result_type(*jax.tree.leaves(params)))


def total_evaluations(lanes: tuple[Lane, ...]) -> Evaluations:
    """Return the evaluations of several lanes in all.

    Args:
        lanes: lanes, with leading axes or without.
    """
    # jnp.sum makes 64-bit numbers of them where those are the default.
    add = functools.partial(jnp.sum, dtype=jnp.int32)
    counts = [jax.tree.map(add, lane.evaluations) for lane in lanes]
    return functools.reduce(Evaluations.plus, counts)


def advance(refiner: Refiner, objective: Any, stop: Stop, lane: Lane[Params]) -> Lane[Params]:
    """Return the lane after a step if it is running, else as it is; for use under ``vmap``.

    Args:
        refiner: the method.
        objective: the problem, in the coordinates of refinement.
        stop: rules, resolved.
        lane: a sample under way, or one that has ended.
    """
    stepped = step(refiner, objective, stop, lane)
    kept = select(lane.running, stepped.replace(key=None), lane.replace(key=None))
    return kept.replace(key=lane.key)


def first_status(*cases: tuple[Array, Any]) -> Int[Array, ""]:
    """Return the status of the first case that holds, else ``RUNNING``.

    Args:
        cases: pairs (condition, status).
    """
    conditions, statuses = zip(*cases, strict=True)
    values = [jnp.asarray(int(s) if isinstance(s, Status) else s, jnp.int32) for s in statuses]
    return jnp.select(conditions, values, jnp.int32(Status.RUNNING))


def _positive(tolerance: Any) -> Array:
    return jnp.maximum(tolerance, 0)
