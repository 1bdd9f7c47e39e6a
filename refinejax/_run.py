"""The drivers for one sample: `run` takes a number of steps, `run_until` stops by itself.

Both track the best point. What they share, one sample on its way, is a `Lane`; the batch engine and
the refiners that contain others (`Sequential`, `Restarts`, `Continuation`) advance lanes too, so
that all of them stop by the same rules.
"""

import functools
from collections.abc import Callable
from typing import Any, Generic

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from refinejax._checks import as_key, as_stop, check_params, check_refiner, check_scalar
from refinejax._core import (
    Params,
    Refiner,
    Result,
    Scalar,
    State,
    Status,
    Stop,
    as_objective,
    coordinates,
)
from refinejax._trees import select, structure_hash

UNLIMITED = 2**31 - 2  # more steps than any run takes
_START = 2**31 - 1  # step keys are fold_in(key, step); no step reaches this number


class Lane(struct.PyTreeNode, Generic[Params]):
    """One sample on its way.

    Attributes:
        state: the refiner's state.
        best_params, best_loss: the best point so far.
        initial_loss: the loss at the start.
        steps: steps taken; also the number of the next step's key.
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
    steps: Any = 0,
) -> Lane[Params]:
    """Evaluate the start. ``stop`` must be resolved; ``steps`` counts those taken before."""
    steps = jnp.asarray(steps, jnp.int32)
    state = refiner.init(objective, params, init_key(key, steps))
    optimal = refiner.optimality(objective, state) <= stop.gradient
    verdict = refiner.status(state)
    status = _first(
        (~jnp.isfinite(state.loss), Status.NONFINITE_START),
        (state.loss <= stop.target, Status.TARGET_REACHED),
        (refiner.in_last_stage(state) & optimal, Status.CONVERGED_GRAD),
        (verdict != Status.RUNNING, verdict),
        (steps >= max_steps, Status.MAX_STEPS),
    )
    return Lane(
        state=state,
        best_params=state.params,
        best_loss=state.loss,
        initial_loss=state.loss,
        steps=steps,
        idle=jnp.int32(0),
        status=status,
        key=key,
        max_steps=jnp.asarray(max_steps, jnp.int32),
    )


def init_key(key: PRNGKeyArray, steps: Any) -> PRNGKeyArray:
    """Return the key for ``init`` of a refiner that begins after ``steps`` steps of others."""
    return jax.random.fold_in(key, _START - steps)


def step(refiner: Refiner, objective: Any, stop: Stop, lane: Lane[Params]) -> Lane[Params]:
    """Take one step, keep the best point, and judge."""
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
        idle=idle,
    )
    return moved.replace(status=_judge(refiner, objective, stop, before, moved, final))


def _judge(
    refiner: Refiner, objective: Any, stop: Stop, before: State, lane: Lane, final: Array
) -> Int[Array, ""]:
    after = lane.state
    decrease, length = refiner.progress(before, after)
    excess = (after.loss - lane.best_loss) / jnp.abs(lane.initial_loss)
    verdict = refiner.status(after)
    return _first(
        (verdict < 0, verdict),
        (lane.best_loss <= stop.target, Status.TARGET_REACHED),
        (final & (refiner.optimality(objective, after) <= stop.gradient), Status.CONVERGED_GRAD),
        (final & (decrease <= stop.loss), Status.CONVERGED_LOSS),
        (final & (length <= stop.step), Status.CONVERGED_STEP),
        (verdict > 0, verdict),
        (final & (stop.divergence >= 0) & (excess > stop.divergence), Status.DIVERGED),
        ((stop.patience >= 0) & (lane.idle >= stop.patience), Status.STALLED),
        (lane.steps >= lane.max_steps, Status.MAX_STEPS),
    )


def advance(refiner: Refiner, objective: Any, stop: Stop, lane: Lane[Params]) -> Lane[Params]:
    """Take one step if the lane is running; else leave it as it is (for use under ``vmap``)."""
    stepped = step(refiner, objective, stop, lane)
    kept = select(lane.running, stepped.replace(key=None), lane.replace(key=None))
    return kept.replace(key=lane.key)


def run(
    refiner: Refiner,
    objective: Any,
    params: Params,
    key: Any = None,
    *,
    num_steps: int,
    record: Callable[[State], Any] | None = None,
) -> Result[Params]:
    """Take exactly ``num_steps`` steps and return the best point. Differentiable where steps are.

    Args:
        refiner: the method.
        objective: a scalar function of the params, or an object as in `Objective`.
        params: where to start; any pytree of floating arrays. The dtype stays.
        key: a PRNG key or seed, for refiners that draw random numbers.
        num_steps: how many steps; static.
        record: function of the state (with ``params`` in their own units) whose values at the start
            and after each step make up ``result.trace``; static. By default the loss.

    Returns:
        `Result` with ``trace`` of leading length ``num_steps + 1``. ``status`` is ``MAX_STEPS``
        unless the refiner came to a verdict of its own. ``state`` is the last one.

    Raises:
        ValueError: for ``num_steps`` below 0, non-floating params, an objective that is not
            callable or gives no scalar, or what is no refiner.
    """
    check_refiner(refiner)
    check_count("num_steps", num_steps)
    objective = as_objective(objective)
    return _run(
        refiner,
        objective,
        check_params(params),
        as_key(key),
        num_steps=num_steps,
        record=_loss if record is None else record,
        classes=structure_hash(refiner, objective),
    )


def run_until(
    refiner: Refiner,
    objective: Any,
    params: Params,
    key: Any = None,
    *,
    max_steps: int,
    stop: Stop | None = None,
) -> Result[Params]:
    """Step until a stopping rule is met. Not reverse-mode differentiable (use `run`).

    Args:
        refiner: the method.
        objective: a scalar function of the params, or an object as in `Objective`.
        params: where to start; any pytree of floating arrays. The dtype stays.
        key: a PRNG key or seed, for refiners that draw random numbers.
        max_steps: the most steps to take; another number does not recompile.
        stop: when to stop; `Stop()` by default.

    Returns:
        `Result`, without a trace.

    Raises:
        ValueError: for ``max_steps`` below 0, non-floating params, an objective that is not
            callable or gives no scalar, or what is no refiner.
    """
    check_refiner(refiner)
    check_count("max_steps", max_steps)
    params = check_params(params)
    rules = as_stop(stop).resolve(jnp.result_type(*jax.tree.leaves(params)))
    objective, key = as_objective(objective), as_key(key)
    classes = structure_hash(refiner, objective)
    return _run_until(refiner, objective, params, key, max_steps, rules, classes=classes)


@functools.partial(jax.jit, static_argnames=("num_steps", "record", "classes"))
def _run(
    refiner: Refiner,
    objective: Any,
    params: Params,
    key: PRNGKeyArray,
    *,
    num_steps: int,
    record: Callable[[State], Any],
    classes: int,
) -> Result[Params]:
    del classes
    check_scalar(objective, params)
    space = coordinates(objective)
    dtype = jnp.result_type(*jax.tree.leaves(params))
    refiner, rules = refiner.with_stop(Stop().resolve(dtype)), Stop.never().resolve(dtype)
    lane = start(refiner, space.objective, rules, space.encode(params), key, num_steps + 1)

    def note(state: State) -> Any:
        return record(state.replace(params=space.decode(state.params)))

    def body(lane: Lane, _: None) -> tuple[Lane, Any]:
        lane = step(refiner, space.objective, rules, lane)
        return lane, note(lane.state)

    end, notes = jax.lax.scan(body, lane, length=num_steps)
    trace = jax.tree.map(
        lambda one, rest: jnp.concatenate([jnp.asarray(one)[None], rest]), note(lane.state), notes
    )
    verdict = refiner.status(end.state)
    status = _first(
        (~jnp.isfinite(end.best_loss), Status.NONFINITE_START),
        (verdict != Status.RUNNING, verdict),
        (jnp.bool_(True), Status.MAX_STEPS),
    )
    return _result(end.replace(status=status), space.decode, trace)


@functools.partial(jax.jit, static_argnames="classes")
def _run_until(
    refiner: Refiner,
    objective: Any,
    params: Params,
    key: PRNGKeyArray,
    max_steps: Array,
    stop: Stop,
    *,
    classes: int,
) -> Result[Params]:
    del classes
    check_scalar(objective, params)
    space = coordinates(objective)
    refiner = refiner.with_stop(stop)
    lane = start(refiner, space.objective, stop, space.encode(params), key, max_steps)
    end = jax.lax.while_loop(
        lambda lane: lane.running, functools.partial(step, refiner, space.objective, stop), lane
    )
    return _result(end, space.decode, None)


def _result(lane: Lane, decode: Callable[[Any], Any], trace: Any) -> Result:
    return Result(
        params=decode(lane.best_params),
        loss=lane.best_loss,
        initial_loss=lane.initial_loss,
        steps=lane.steps,
        status=lane.status,
        state=lane.state,
        trace=trace,
    )


def _loss(state: State) -> Scalar:
    return state.loss


def _first(*cases: tuple[Array, Any]) -> Int[Array, ""]:
    """Return the status of the first case that holds, else ``RUNNING``."""
    conditions, statuses = zip(*cases, strict=True)
    values = [jnp.asarray(int(s) if isinstance(s, Status) else s, jnp.int32) for s in statuses]
    return jnp.select(conditions, values, jnp.int32(Status.RUNNING))


def _positive(tolerance: Any) -> Array:
    return jnp.maximum(tolerance, 0)


def check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < 0:
        raise ValueError(f"{name}: expected an integer of 0 or more, got {value!r}")
