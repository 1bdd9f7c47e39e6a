"""The drivers for one sample: `run` takes a number of steps, `run_until` stops by itself."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from refinejax._checks import (
    as_key,
    as_stop,
    check_count,
    check_params,
    check_refiner,
    check_scalar,
)
from refinejax._core import (
    Params,
    Refiner,
    Result,
    Scalar,
    State,
    Status,
    Stop,
    as_problem,
)
from refinejax._gate import read_problem
from refinejax._lane import Lane, first_status, rules_for, start, step
from refinejax._marks import door, mark, mark_function
from refinejax._trees import structure_hash


@door
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
        objective: a scalar function of the params, or a `Problem`.
        params: where to start; any pytree of floating arrays. The dtype stays.
        key: a PRNG key or seed, for refiners that draw random numbers.
        num_steps: how many steps; static.
        record: function of the state (with ``params`` in their own units) whose values at the start
            and after each step make up ``result.trace``; static. By default the loss.

    Returns:
        `Result` with ``trace`` of leading length ``num_steps + 1``. ``status`` is ``MAX_STEPS``
        unless the refiner gave a status of its own. ``state`` is the last one.

    Raises:
        ValueError: for ``num_steps`` below 0, non-floating params, an objective that is not
            callable or gives no scalar, or something else than a refiner.
    """
    check_refiner(refiner)
    check_count("num_steps", num_steps)
    refiner, objective = mark(refiner), mark(read_problem(as_problem(objective)))
    return _run(
        refiner,
        objective,
        check_params(params),
        as_key(key),
        num_steps=num_steps,
        record=_loss if record is None else mark_function(record),
        classes=structure_hash(refiner, objective),
    )


@door
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
        objective: a scalar function of the params, or a `Problem`.
        params: where to start; any pytree of floating arrays. The dtype stays.
        key: a PRNG key or seed, for refiners that draw random numbers.
        max_steps: the most steps to take; another number does not recompile.
        stop: when to stop; `Stop()` by default.

    Returns:
        `Result`, without a trace.

    Raises:
        ValueError: for ``max_steps`` below 0, non-floating params, an objective that is not
            callable or gives no scalar, or something else than a refiner.
    """
    check_refiner(refiner)
    check_count("max_steps", max_steps)
    params = check_params(params)
    rules = rules_for(as_stop(stop), params)
    refiner, objective, key = mark(refiner), mark(read_problem(as_problem(objective))), as_key(key)
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
    space = as_problem(objective).coordinates()
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
    own = refiner.status(end.state)
    status = first_status(
        (~jnp.isfinite(end.best_loss), Status.NONFINITE_START),
        (own != Status.RUNNING, own),
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
    space = as_problem(objective).coordinates()
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
        evaluations=lane.evaluations.values,
        derivative_evaluations=lane.evaluations.derivatives,
        status=lane.status,
        state=lane.state,
        trace=trace,
    )


def _loss(state: State) -> Scalar:
    return state.loss
