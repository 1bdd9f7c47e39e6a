"""One refiner after another."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from refinejax._checks import check_count
from refinejax._core import Evaluations, Params, Refiner, Scalar, Stage, State, Status, Stop
from refinejax._lane import UNLIMITED, Lane, advance, rules_for, start, total_evaluations
from refinejax._trees import is_key


class SequentialMemory(struct.PyTreeNode):
    """What `Sequential` remembers.

    Attributes:
        stage: the number of the stage that is on.
        lanes: one for each stage.
        last_progress: the progress of the last step in the last stage; infinite before.
    """

    stage: Int[Array, ""]
    lanes: tuple[Lane, ...]
    last_progress: tuple[Scalar, Scalar]


class Sequential(Refiner, init=False):
    """Refine by one method, then go on from its best point by the next.

    ``Sequential(RandomSearch(), Gradient(optax.lbfgs), steps=50)`` takes at most 50 steps of the
    first, then as many of the second as the driver allows. A stage also ends when a stopping rule
    is met in it; the last stage ends as the driver says.

    Under ``vmap`` a step costs as much as one step of every stage, since each sample may be at
    another one; the batch engine runs stage by stage and does not pay this.

    Attributes:
        chain: the refiners, given as positional arguments.
        steps: most steps with each refiner but the last: one number, or one for each.
        stop: ends the stages but the last; by default the driver's rules.

    Raises:
        ValueError: if there is no refiner, or ``steps`` has another number of entries or a negative
            one.
    """

    chain: tuple[Refiner, ...]
    steps: tuple[int | Array, ...]
    stop: Stop | None

    def __init__(
        self,
        *refiners: Refiner,
        steps: int | Array | tuple[int | Array, ...] = 100,
        stop: Stop | None = None,
        chain: tuple[Refiner, ...] | None = None,
    ) -> None:
        if chain is None:
            chain, steps = refiners, _check(refiners, steps)
        object.__setattr__(self, "chain", chain)
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "stop", stop)

    @property
    def uses_derivatives(self) -> bool:
        """Whether one of the refiners does."""
        return any(refiner.uses_derivatives for refiner in self.chain)

    def stages(self) -> tuple[Stage, ...]:
        """Return the refiners with their stopping rules and steps."""
        *first, last = self.chain
        early = [Stage(r, self.stop, n) for r, n in zip(first, self.steps, strict=True)]
        return (*early, Stage(last))

    def init(self, objective: Any, params: Params, key: PRNGKeyArray) -> State[Params]:
        """Start the first stage; the others have blank memories."""
        rules = self.rules(params)
        first = start(self.chain[0], objective, rules, params, key, self.end(0))
        blanks = [
            _blank(functools.partial(self._start, k, objective, rules), first, key)
            for k in range(1, len(self.chain))
        ]
        memory = SequentialMemory(
            jnp.int32(0), (first, *blanks), super().progress(first.state, first.state)
        )
        return State(first.state.params, first.state.loss, memory)

    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Take one step of the stage that is on, or of the next if that has ended."""
        del key  # each lane carries its own
        rules = self.rules(state.params)
        last = len(self.chain) - 1
        memory = state.memory
        for k in range(last):  # a stage with nothing to do at its start is passed by
            memory = self._follow(k, objective, rules, memory)
        stages = [functools.partial(self._step, k, objective, rules) for k in range(last + 1)]
        return jax.lax.switch(memory.stage, stages, memory)

    def _follow(
        self, k: int, objective: Any, rules: Stop, memory: SequentialMemory
    ) -> SequentialMemory:
        """Start stage k + 1 if stage k has ended."""
        lane = memory.lanes[k]
        return jax.lax.cond(
            (memory.stage == k) & ~lane.running,
            lambda: _put(memory, k + 1, self._start(k + 1, objective, rules, lane)),
            lambda: memory,
        )

    def _step(self, k: int, objective: Any, rules: Stop, memory: SequentialMemory) -> State:
        """Take one step of stage k."""
        last = k == len(self.chain) - 1
        before = memory.lanes[k]
        lane = advance(self.chain[k], objective, _never(rules) if last else rules, before)
        memory = _put(memory, k, lane)
        if last:
            memory = memory.replace(last_progress=self.chain[k].progress(before.state, lane.state))
        return State(lane.state.params, lane.state.loss, memory)

    def _start(self, k: int, objective: Any, rules: Stop, lane: Lane) -> Lane:
        """Start stage k from the best point of the lane before."""
        rules = _never(rules) if k == len(self.chain) - 1 else rules
        end = self.end(k, lane.steps)
        params, steps = lane.best_params, lane.steps
        return start(self.chain[k], objective, rules, params, lane.key, end, steps=steps)

    def end(self, k: int, steps: Any = 0) -> Any:
        """Return the number of the step at which stage k, begun at ``steps``, ends.

        Args:
            k: the number of the stage.
            steps: taken before it.
        """
        return UNLIMITED if k == len(self.chain) - 1 else steps + self.steps[k]

    def rules(self, params: Any) -> Stop:
        """Return the rules by which a stage but the last ends.

        Args:
            params: for their dtype.
        """
        return rules_for(self.stop, params)

    def with_stop(self, stop: Stop) -> "Sequential":
        """Let stages end by the driver's rules, if there are none of their own."""
        chain = tuple(refiner.with_stop(stop) for refiner in self.chain)
        return self.replace(chain=chain, stop=stop if self.stop is None else self.stop)

    def evaluations(self, before: State | None, after: State) -> Evaluations:
        """Return the evaluations of all stages."""
        total = total_evaluations(after.memory.lanes)
        return total if before is None else total.minus(total_evaluations(before.memory.lanes))

    def in_last_stage(self, state: State) -> Bool[Array, ""]:
        """Return whether the last stage is on, and in its own last stage."""
        memory: SequentialMemory = state.memory
        last = self.chain[-1].in_last_stage(memory.lanes[-1].state)
        return (memory.stage == len(self.chain) - 1) & last

    def optimality(self, objective: Any, state: State) -> Scalar:
        """Return the optimality of the last stage; infinite before."""
        memory: SequentialMemory = state.memory
        known = self.chain[-1].optimality(objective, memory.lanes[-1].state)
        return jnp.where(self.in_last_stage(state), known, jnp.inf).astype(state.loss.dtype)

    def progress(self, before: State, after: State) -> tuple[Scalar, Scalar]:
        """Return the progress of the last step in the last stage."""
        del before
        return after.memory.last_progress

    def status(self, state: State) -> Int[Array, ""]:
        """Return the status of the last stage."""
        memory: SequentialMemory = state.memory
        own = self.chain[-1].status(memory.lanes[-1].state)
        return jnp.where(memory.stage == len(self.chain) - 1, own, int(Status.RUNNING))


def _check(refiners: tuple[Refiner, ...], steps: Any) -> tuple[Any, ...]:
    if not refiners:
        raise ValueError("refiners: expected at least one, as Sequential(first, second)")
    for refiner in refiners:
        if not isinstance(refiner, Refiner):
            raise ValueError(f"refiners: expected instances of Refiner, got {refiner!r}")
    counts = steps if isinstance(steps, tuple) else (steps,) * (len(refiners) - 1)
    if len(counts) != len(refiners) - 1:
        raise ValueError(
            f"steps: expected {len(refiners) - 1} numbers, one for each stage but the last, "
            f"got {len(counts)}"
        )
    for count in counts:
        if not isinstance(count, Array):
            check_count("steps", count)
    return counts


def _never(rules: Stop) -> Stop:
    """Return rules that are never met: the last stage ends by the driver's."""
    return Stop.never().resolve(rules.loss.dtype)


def _put(memory: SequentialMemory, k: int, lane: Lane) -> SequentialMemory:
    lanes = (*memory.lanes[:k], lane, *memory.lanes[k + 1 :])
    return memory.replace(stage=jnp.int32(k), lanes=lanes)


def _blank(begin: Callable[[Lane], Lane], lane: Lane, key: PRNGKeyArray) -> Lane:
    """Return zeros with the structure of a lane that ``begin`` would return."""

    def zeros(leaf: jax.ShapeDtypeStruct) -> Array:
        if is_key(leaf):
            return jnp.broadcast_to(key, leaf.shape)
        return jnp.zeros(leaf.shape, leaf.dtype)

    return jax.tree.map(zeros, jax.eval_shape(begin, lane))
