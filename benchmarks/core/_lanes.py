"""The batches of `continuous_batching`, and the ways to refine them: engine, `vmap`, chunks."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array

from refinejax import (
    Execution,
    Gradient,
    InverseProblem,
    Refiner,
    State,
    Status,
    Stop,
    run_batch,
    run_until,
)
from refinejax.physics.metalens.lens import LOWER, UPPER, phase, wrapped_phase
from refinejax.physics.phase import wrapped_difference

MEDIAN, FACTOR, RARITY = 20, 20, 50  # median steps; a slow sample's multiple; one in RARITY is slow


class Job(struct.PyTreeNode):
    """A problem and the number of steps that it is to take."""

    problem: Any
    count: Any

    def __call__(self, params: Array) -> Array:
        """Return the loss of the problem."""
        return self.problem(params)


class Counted(Refiner):
    """Steps of another refiner, done after as many as the job says."""

    refiner: Refiner

    def init(self, objective: Job, params: Any, key: Any) -> State:
        """Begin with all steps to go."""
        first = self.refiner.init(objective.problem, params, key)
        return State(first.params, first.loss, (first, jnp.asarray(objective.count, jnp.int32)))

    def step(self, objective: Job, state: State, key: Any) -> State:
        """Take a step: one less to go."""
        before, left = state.memory
        after = self.refiner.step(objective.problem, before, key)
        return State(after.params, after.loss, (after, left - 1))

    def status(self, state: State) -> Array:
        """Converged when none are left."""
        done = state.memory[1] <= 0
        return jnp.where(done, int(Status.CONVERGED_STEP), int(Status.RUNNING))


class Case(NamedTuple):
    """A batch: job and starts with a leading sample axis (NumPy)."""

    job: Job
    params: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """Steps that each sample takes."""
        return self.job.count

    def rows(self, begin: int, end: int) -> "Case":
        """Return some of the samples."""
        cut = functools.partial(_cut, rows=slice(begin, end))
        return Case(jax.tree.map(cut, self.job), self.params[begin:end])


def _cut(leaf: Any, rows: slice) -> Any:
    return leaf[rows] if np.ndim(leaf) else leaf


class Quadratic(struct.PyTreeNode):
    """Half the squared distance from a point, axes weighted 1, 2, 3."""

    center: Any

    def __call__(self, params: Array) -> Array:
        """Return the loss."""
        return 0.5 * jnp.sum(jnp.arange(1.0, 4.0) * (params - self.center) ** 2)


FORWARD = functools.partial(phase, size=64)
OBSERVE = jax.jit(jax.vmap(functools.partial(wrapped_phase, size=64)))


def make_case(problem: str, tail: str, batch: int, seed: int) -> Case:
    """Draw a batch of ``problem`` whose step counts are distributed as ``tail`` says."""
    random = np.random.default_rng(seed)
    counts = step_counts(tail, batch, random)
    if problem == "tiny":
        center = random.standard_normal((batch, 3)).astype(np.float32)
        return Case(Job(Quadratic(center), counts), np.zeros_like(center))
    lower, width = np.array(LOWER), np.array(UPPER) - np.array(LOWER)
    truth = lower + random.uniform(0.1, 0.9, (batch, 5)) * width
    start = truth + 1e-4 * random.standard_normal((batch, 5)) * width
    observed = np.asarray(OBSERVE(truth.astype(np.float32)))
    phases = InverseProblem(FORWARD, observed, difference=wrapped_difference)
    return Case(Job(phases, counts), start.astype(np.float32))


def step_counts(tail: str, batch: int, random: np.random.Generator) -> np.ndarray:
    """Return how many steps each sample takes."""
    counts = np.full(batch, MEDIAN)
    if tail == "tail":
        counts = np.round(MEDIAN * np.exp(0.25 * random.standard_normal(batch)))
        slow = random.choice(batch, max(1, round(batch / RARITY)), replace=False)
        counts[slow] = FACTOR * MEDIAN
    return counts.astype(np.int32)


REFINER = Counted(Gradient(optax.adam, {"learning_rate": 1e-4}))
LIMIT = FACTOR * MEDIAN


def one(job: Job, params: Any, number: Any) -> tuple[Array, Array, Array]:
    """Refine one sample: what all peers are made of."""
    key = jax.random.fold_in(jax.random.key(0), number)
    result = run_until(REFINER, job, params, key, max_steps=LIMIT, stop=Stop.never())
    return result.params, result.loss, result.steps


@jax.jit
def whole(case: Case, numbers: Array) -> Any:
    """Refine all at once."""
    return jax.vmap(one, in_axes=(axes(case.job), 0, 0))(case.job, case.params, numbers)


@functools.partial(jax.jit, static_argnames="size")
def mapped(case: Case, numbers: Array, *, size: int) -> Any:
    """Refine ``size`` at a time, in one program."""
    leaves, structure = jax.tree.flatten(case.job)
    own = [bool(np.ndim(leaf)) for leaf in leaves]

    def lane(part: Any) -> Any:
        mine, params, number = part
        rest = iter(mine)
        full = [next(rest) if o else leaf for o, leaf in zip(own, leaves, strict=True)]
        return one(jax.tree.unflatten(structure, full), params, number)

    batched = [leaf for o, leaf in zip(own, leaves, strict=True) if o]
    return jax.lax.map(lane, (batched, case.params, numbers), batch_size=size)


def axes(job: Any) -> Any:
    """Return 0 for leaves with a sample axis, None for single numbers."""
    return jax.tree.map(lambda leaf: 0 if jnp.ndim(leaf) else None, job)


def looped(case: Case, size: int) -> Any:
    """Refine ``size`` at a time, one program call after the other."""
    batch = len(case.params)
    numbers = np.arange(batch, dtype=np.int32)
    edges = range(0, batch, size)
    parts = [whole(case.rows(i, i + size), numbers[i : i + size]) for i in edges]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def engine(case: Case, lanes: int | None = None) -> Any:
    """Refine with the batch engine."""
    result = run_batch(
        REFINER,
        case.job,
        case.params,
        max_steps=LIMIT,
        stop=Stop.never(),
        execution=Execution(lanes=lanes),
    )
    return result.params, result.loss, result.steps


def chunked(case: Case, style: str, size: int) -> Callable[[], Any]:
    """Return a peer that refines ``size`` samples at a time."""
    numbers = np.arange(len(case.params), dtype=np.int32)
    if style == "loop":
        return lambda: looped(case, size)
    return lambda: mapped(case, numbers, size=size)
