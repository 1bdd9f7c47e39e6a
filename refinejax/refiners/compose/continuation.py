"""One refiner along a sequence of problems, from easy to exact."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from refinejax._checks import check_count, check_some
from refinejax._core import Evaluations, Params, Refiner, Scalar, State, Status, Stop, as_problem
from refinejax._lane import UNLIMITED, Lane, advance, rules_for, start
from refinejax._trees import as_pytree, select


class ContinuationMemory(struct.PyTreeNode):
    """What `Continuation` remembers.

    Attributes:
        stage: the number of the stage that is on.
        lane: of the refiner, on the objective of that stage.
        spent: evaluations in earlier stages, and of the objective itself.
        last_progress: the progress of the last step in the last stage; infinite before.
    """

    stage: Int[Array, ""]
    lane: Lane
    spent: Evaluations
    last_progress: tuple[Scalar, Scalar]


class Continuation(Refiner):
    """Refine an easy problem first, then harder ones from where that ended, at last the exact one.

    Stage k of n minimizes ``schedule(objective, t)`` with t = k/(n − 1), from the best point of the
    stage before; the last stage minimizes the objective itself, whatever the schedule says of
    t = 1 (it is never asked). A stage ends when a stopping rule is met in it or after ``steps``;
    the last one ends as the driver says. The loss of every state is of the objective itself,
    so that the result is the best point seen, and never worse than the start.

    ``schedule`` gets the problem as its user wrote it, also where it is refined in the scaled
    coordinates of a space, and returns it with other leaves. A record of time ``t``, its beginning
    first (NaN has no weight)::

        def opening(problem, progress):
            seen = t <= 0.1 + 0.9 * progress
            return problem.replace(observation=jnp.where(seen, problem.observation, jnp.nan))

        Continuation(LevenbergMarquardt(), opening)

    For the scale of a robust loss, or of the noise beside a prior, there is `Geometric`. Bounds
    and space must stay. For grids of different shapes see `thinned`.

    A step costs one of the refiner and, before the last stage, one loss. Where a stage begins it
    also costs an ``init``; under ``vmap``, and in the batch engine, every step costs all three,
    since each sample may be at another stage.

    References: Allgower and Georg (1990), Numerical Continuation Methods, ch. 1 (the embedding
    algorithm); Blake and Zisserman (1987), Visual Reconstruction, ch. 3 (graduated non-convexity).

    Attributes:
        refiner: the method.
        schedule: (objective, t) → the objective at progress t, 0 ≤ t < 1, with the same structure,
            shapes and dtypes. A function (static: a new lambda compiles anew) or a pytree with
            ``__call__``.
        num_stages: how many, the exact one included; static.
        steps: most steps in each stage but the last.
        stop: ends the stages but the last; by default the driver's rules, but for their target.

    Raises:
        ValueError: if the schedule cannot be called, ``num_stages`` is below 1 or ``steps`` below
            0; in ``init``, if it changes the structure or a shape of the objective.
    """

    refiner: Refiner
    schedule: Callable[[Any, Any], Any]
    num_stages: int = struct.field(pytree_node=False, default=5)
    steps: int | Array = 20
    stop: Stop | None = None

    def __post_init__(self) -> None:
        """Check the arguments; let a plain function stand for a pytree."""
        if not callable(self.schedule):
            raise ValueError(
                f"schedule: expected a function (objective, t) -> objective, got {self.schedule!r}"
            )
        object.__setattr__(self, "schedule", as_pytree(self.schedule))
        check_some("num_stages", self.num_stages, "stages")
        if isinstance(self.steps, int):
            check_count("steps", self.steps)

    @property
    def uses_derivatives(self) -> bool:
        """Whether the refiner does."""
        return self.refiner.uses_derivatives

    def init(self, objective: Any, params: Params, key: PRNGKeyArray) -> State[Params]:
        """Start the first stage, and evaluate the objective itself."""
        stage = jnp.int32(0)
        lane = self._start(objective, stage, params, key, 0)
        none = Evaluations(jnp.int32(0), jnp.int32(0))
        unknown = super().progress(lane.state, lane.state)
        return self._state(objective, ContinuationMemory(stage, lane, none, unknown))

    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Take one step of the stage that is on, or of the next if that has ended."""
        del key  # the lane carries its own
        memory: ContinuationMemory = state.memory
        lane = memory.lane
        ended = ~lane.running & ~self._last(memory.stage)
        stage = memory.stage + ended.astype(jnp.int32)
        spent = memory.spent.plus(lane.evaluations.where(ended))
        lane = jax.lax.cond(
            ended,
            lambda: self._start(objective, stage, lane.best_params, lane.key, lane.steps),
            lambda: lane,
        )
        rules = self._rules(stage, lane.best_params)
        moved = advance(self.refiner, self._at(objective, stage), rules, lane)
        last_progress = self.refiner.progress(lane.state, moved.state)
        unknown = super().progress(lane.state, moved.state)
        last_progress = select(self._last(stage), last_progress, unknown)
        return self._state(objective, ContinuationMemory(stage, moved, spent, last_progress))

    def _start(self, objective: Any, stage: Array, params: Any, key: Any, steps: Any) -> Lane:
        rules = self._rules(stage, params)
        end = jnp.where(self._last(stage), UNLIMITED, steps + self.steps)
        return start(self.refiner, self._at(objective, stage), rules, params, key, end, steps=steps)

    def _state(self, objective: Any, memory: ContinuationMemory) -> State:
        """Return the state, with the loss of the objective itself."""
        here = memory.lane.state
        loss = jax.lax.cond(
            self._last(memory.stage),
            lambda: here.loss,
            lambda: objective(here.params).astype(here.loss.dtype),
        )
        exact = jnp.where(self._last(memory.stage), 0, 1)
        memory = memory.replace(spent=memory.spent.plus(Evaluations(exact, 0)))
        return State(here.params, loss, memory)

    def _at(self, objective: Any, stage: Array) -> Any:
        """Return the objective of a stage."""
        objective, last = as_problem(objective), self._last(stage)
        t = jnp.where(last, 0, stage) / float(max(self.num_stages - 1, 1))
        eased = objective.map_problem(lambda problem: self.schedule(problem, t))
        return _unless(last, objective, eased)

    def _last(self, stage: Array) -> Bool[Array, ""]:
        return stage == self.num_stages - 1

    def _rules(self, stage: Array, params: Any) -> Stop:
        """Return the rules by which a stage ends: none for the last, that is the driver's."""
        early, never = rules_for(self.stop, params), rules_for(Stop.never(), params)
        return select(self._last(stage), never, early)

    def with_stop(self, stop: Stop) -> "Continuation":
        """Let stages end by the driver's rules, if there are none of their own.

        But for their target, which is a loss of the objective itself.
        """
        rules = stop.replace(target=None)
        own = rules if self.stop is None else self.stop
        return self.replace(refiner=self.refiner.with_stop(rules), stop=own)

    def evaluations(self, before: State | None, after: State) -> Evaluations:
        """Return the evaluations of the stages' problems and of the objective itself."""
        total = _total(after.memory)
        return total if before is None else total.minus(_total(before.memory))

    def in_last_stage(self, state: State) -> Bool[Array, ""]:
        """Return whether the last stage is on."""
        memory: ContinuationMemory = state.memory
        return self._last(memory.stage) & self.refiner.in_last_stage(memory.lane.state)

    def optimality(self, objective: Any, state: State) -> Scalar:
        """Return the optimality of the last stage; infinite before."""
        known = self.refiner.optimality(objective, state.memory.lane.state)
        return jnp.where(self.in_last_stage(state), known, jnp.inf).astype(state.loss.dtype)

    def progress(self, before: State, after: State) -> tuple[Scalar, Scalar]:
        """Return the progress of the last step in the last stage."""
        del before
        return after.memory.last_progress

    def status(self, state: State) -> Int[Array, ""]:
        """Return the status of the last stage; ``NONFINITE`` if it cannot begin."""
        memory: ContinuationMemory = state.memory
        own = self.refiner.status(memory.lane.state)
        lost = memory.lane.status == Status.NONFINITE_START
        own = jnp.where(lost, int(Status.NONFINITE), own)
        return jnp.where(self._last(memory.stage), own, int(Status.RUNNING))


def _total(memory: ContinuationMemory) -> Evaluations:
    return memory.spent.plus(memory.lane.evaluations)


class Geometric(struct.PyTreeNode):
    """A schedule for one field of a problem: x(t) = x·factor^(1 − t), from factor·x to x.

    ``Continuation(LevenbergMarquardt(), Geometric("scale", 100.0))`` on a `Robust` problem is
    graduated non-convexity: all but least squares at first, then with more and more of the robust
    loss. ``Geometric("noise", 10.0)`` on a problem with a prior lets the prior lead.

    Attributes:
        field: name of the field; "problem.noise" for one of a problem within. Static.
        factor: positive; new values do not recompile.

    Raises:
        ValueError: when it is called, if the objective has no such field.
    """

    field: str = struct.field(pytree_node=False)
    factor: Any = 10.0

    def __call__(self, objective: Any, t: Any) -> Any:
        """Return the objective with the field multiplied by factor^(1 − t)."""
        return _replace(objective, self.field, self.factor ** (1 - t))


def _replace(objective: Any, path: str, ratio: Any) -> Any:
    name, _, rest = path.partition(".")
    if name not in getattr(objective, "__dataclass_fields__", ()):
        raise ValueError(f"field: expected one of {type(objective).__name__}'s, got {name!r}")
    value = getattr(objective, name)
    if rest:
        return objective.replace(**{name: _replace(value, rest, ratio)})
    return objective.replace(**{name: jax.tree.map(lambda x: x * ratio, value)})


def _unless(last: Bool[Array, ""], exact: Any, eased: Any) -> Any:
    """Return ``exact`` in the last stage, else ``eased``, leaf by leaf.

    Raises:
        ValueError: if they differ in more than the values of their leaves.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(exact)
    if jax.tree.structure(eased) != structure:
        raise ValueError(
            f"schedule: expected the objective with other leaves, in the structure\n{structure}\n"
            f"got\n{jax.tree.structure(eased)}\nas from objective.replace(noise=...); functions "
            "and sizes are static and must stay"
        )
    pairs = zip(leaves, jax.tree.leaves(eased), strict=True)
    return jax.tree.unflatten(structure, [_leaf(last, path, x, y) for (path, x), y in pairs])


def _leaf(last: Array, path: Any, exact: Any, eased: Any) -> Any:
    if eased is exact:
        return exact
    if jnp.shape(eased) != jnp.shape(exact):
        raise ValueError(
            f"schedule: expected shape {jnp.shape(exact)} for objective"
            f"{jax.tree_util.keystr(path)}, got {jnp.shape(eased)}; shapes must stay"
        )
    dtype = jnp.result_type(exact)
    eased = eased if jnp.result_type(eased) == dtype else jnp.asarray(eased, dtype)
    return jnp.where(last, exact, eased)
