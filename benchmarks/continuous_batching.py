"""What does continuous batching gain over vmap(while_loop), and what does it cost?

Two distributions of step counts, set exactly, sample by sample:

- *tail*: one sample in fifty needs twenty times the median (the others scatter around it by 25 %);
- *even*: every sample takes the same number of steps.

Two problems: *phase*, Adam on the loss and gradient of a 64 × 64 phase map (realistic work a step),
and *tiny*, Adam on a quadratic of three params (nothing but overhead). The same refiner, the same
stopping and the same starts for

- *engine*: `run_batch` with its default number of lanes, from NumPy to NumPy;
- *whole*: ``jit(vmap(run_until))`` on all samples at once;
- *chunks*: the same on as many samples at a time as the engine has lanes, in a Python loop;
- *best chunks*: the fastest chunk size, in a Python loop or in ``lax.map(batch_size=…)``, chosen
  for each problem and distribution in a sweep of its own.

The answers are compared. Numbers above 1 mean that the engine is faster.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array

from benchmarks._common import (
    Timing,
    environment,
    note,
    plus_minus,
    race,
    ratio,
    script,
    show,
    spread,
    timed,
)
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
from refinejax.batch.plan import make_plan
from refinejax.physics.metalens.lens import LOWER, UPPER, phase, wrapped_phase
from refinejax.physics.phase import wrapped_difference

MEDIAN, FACTOR, RARITY = 20, 20, 50
LANES = (8, 16, 32, 64, 128)
CHUNKS = (4, 8, 16, 32, 64, 128, 256)
GOALS = {"tail": 3.0, "even": 0.9}


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
        inner = self.refiner.init(objective.problem, params, key)
        return State(inner.params, inner.loss, (inner, jnp.asarray(objective.count, jnp.int32)))

    def step(self, objective: Job, state: State, key: Any) -> State:
        """Take a step: one less to go."""
        before, left = state.memory
        after = self.refiner.step(objective.problem, before, key)
        return State(after.params, after.loss, (after, left - 1))

    def verdict(self, state: State) -> Array:
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


def sweep_chunks(
    problem: str, tail: str, batch: int, sizes: Sequence[int], repeats: int
) -> dict[str, Any]:
    """Time each chunk size, in both styles; say which is the fastest."""
    case = make_case(problem, tail, batch, seed=100)
    peers = {
        f"{style} {size}": chunked(case, style, size)
        for style in ("loop", "lax.map")
        for size in sizes
    }
    times, _ = race(peers, repeats)
    best = min(times, key=lambda name: times[name].run)
    fastest = times[best].run
    relative = {name: timing.run / fastest for name, timing in times.items()}
    return {"problem": problem, "tail": tail, "batch": batch, "best": best, "relative": relative}


def sweep_lanes(
    problem: str, tail: str, batch: int, sizes: Sequence[int], repeats: int
) -> dict[str, Any]:
    """Time the engine with each number of lanes, relative to the fastest."""
    case = make_case(problem, tail, batch, seed=100)
    peers = {str(n): functools.partial(engine, case, n) for n in sizes}
    times, _ = race(peers, repeats)
    fastest = min(timing.run for timing in times.values())
    relative = {name: timing.run / fastest for name, timing in times.items()}
    return {"problem": problem, "tail": tail, "batch": batch, "relative": relative}


def compare(
    problem: str, tail: str, batch: int, seed: int, best: str, repeats: int
) -> dict[str, Any]:
    """Run engine and peers on one batch: check that they agree, return ratios."""
    case = make_case(problem, tail, batch, seed)
    style, size = best.split()
    lanes = default_lanes(batch)
    numbers = np.arange(batch, dtype=np.int32)
    peers = {
        "engine": lambda: engine(case),
        "whole": lambda: whole(case, numbers),
        "chunks": lambda: looped(case, lanes),
        "best chunks": chunked(case, style, min(int(size), batch)),
    }
    times, results = race(peers, repeats)
    agree(case, results)
    steps = int(case.counts.sum())
    return {
        "problem": problem,
        "tail": tail,
        "batch": batch,
        "seed": seed,
        "lanes": lanes,
        "best": best,
        "steps": steps,
        "fewest": batch * int(case.counts.max()) / steps,
        "micros": 1e6 * times["engine"].run / steps,
        "run": {name: timing.run for name, timing in times.items()},
        "gain": gains(times),
    }


def gains(times: dict[str, Timing]) -> dict[str, float]:
    """Return how many times as long as the engine each peer takes."""
    mine = times["engine"].runs
    return {name: ratio(t.runs, mine) for name, t in times.items() if name != "engine"}


def default_lanes(batch: int) -> int:
    """Return the number of lanes that the engine takes by itself."""
    return make_plan(None, batch, None).lanes


def agree(case: Case, results: dict[str, Any]) -> None:
    """Check that all peers took the steps they had to, and came to the same answers."""
    params, loss, _ = map(np.asarray, results["engine"])
    for name, (other, its_loss, steps) in results.items():
        np.testing.assert_array_equal(steps, case.counts, err_msg=name)
        np.testing.assert_allclose(other, params, rtol=1e-4, atol=1e-3, err_msg=name)
        np.testing.assert_allclose(its_loss, loss, rtol=0.05, atol=1e-4, err_msg=name)


def measure(quick: bool, seeds: int) -> dict[str, Any]:
    """Take all measurements."""
    timed(lambda: jnp.zeros(1) + 1)  # starts the backend
    sweeps, cases = [], []
    compiled = []
    for problem in ("phase", "tiny"):
        compiled.append(compile_times(problem))
        for tail in ("tail", "even"):
            note(f"{problem}, {tail}: tuning")
            sweeps.append(tune(problem, tail, quick))
            best = sweeps[-1]["chunks"]["best"]
            for batch in (256,) if quick else (256, 1024, 4096):
                cases += series(problem, tail, batch, best, quick, seeds)
    return {
        "environment": environment(),
        "settings": settings(quick),
        "summary": summarize(cases),
        "compile": compiled,
        "cases": cases,
        "sweeps": sweeps,
    }


def settings(quick: bool) -> dict[str, Any]:
    """Return what the measurements were taken with."""
    return {
        "median_steps": MEDIAN,
        "tail_factor": FACTOR,
        "tail_rarity": RARITY,
        "quick": quick,
        "default_lanes": default_lanes(4096),
        "goals": GOALS,
    }


def tune(problem: str, tail: str, quick: bool) -> dict[str, Any]:
    """Sweep lanes and chunk sizes."""
    repeats = 5 if problem == "tiny" else 1 if quick else 2
    chunks, lanes = ((8, 32), (8, 32)) if quick else (CHUNKS, LANES)
    return {
        "chunks": sweep_chunks(problem, tail, 128 if quick else 256, chunks, repeats),
        "lanes": sweep_lanes(problem, tail, 128 if quick else 1024, lanes, repeats),
    }


def compile_times(problem: str) -> dict[str, Any]:
    """Time the first call of engine and peer with nothing compiled, beyond that of the second."""
    case = make_case(problem, "even", 256, seed=0)
    numbers = np.arange(256, dtype=np.int32)
    seconds: dict[str, Any] = {"problem": problem}
    for name, peer in (("engine", lambda: engine(case)), ("whole", lambda: whole(case, numbers))):
        jax.clear_caches()
        first, second = timed(peer)[0], timed(peer)[0]
        seconds[name] = first - second
    return seconds


def series(
    problem: str, tail: str, batch: int, best: str, quick: bool, seeds: int
) -> list[dict[str, Any]]:
    """Compare over seeds."""
    rows = []
    for seed in range(count_seeds(problem, batch, quick, seeds)):
        note(f"{problem}, {tail}: {batch} samples, seed {seed}")
        repeats = repeats_for(problem, tail, batch, quick)
        rows.append(compare(problem, tail, batch, seed, best, repeats))
    return rows


def count_seeds(problem: str, batch: int, quick: bool, seeds: int) -> int:
    """Return how many seeds: one where a single run takes half a minute."""
    return 1 if quick or (problem == "phase" and batch == 4096) else seeds


def repeats_for(problem: str, tail: str, batch: int, quick: bool) -> int:
    """Return how often to time: less where a run takes seconds."""
    if problem == "tiny" or (tail == "even" and batch == 256):
        return 5
    if batch == 256:
        return 1 if quick else 3
    return 3 if tail == "even" else 1


def summarize(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the seeds together: mean and spread of each ratio."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for case in cases:
        groups.setdefault((case["problem"], case["tail"], case["batch"]), []).append(case)
    return [_summary(group) for group in groups.values()]


def _summary(group: list[dict[str, Any]]) -> dict[str, Any]:
    first = group[0]
    gain = {name: spread([case["gain"][name] for case in group]) for name in first["gain"]}
    return {
        **{name: first[name] for name in ("problem", "tail", "batch", "lanes", "best")},
        "gain": gain,
        "micros": spread([case["micros"] for case in group]),
        "ideal": spread([case["fewest"] for case in group]),
    }


def report(data: dict[str, Any]) -> None:
    """Print what was measured."""
    title = "Engine: times faster than vmap(while_loop)"
    show(title, [_row(row) for row in data["summary"]])
    show("Compile time, s", [_texts(part) for part in data["compile"]])
    for part in ("lanes", "chunks"):
        names = list(data["sweeps"][0][part]["relative"])
        columns = [sweep[part] for sweep in data["sweeps"]]
        rows = [
            {
                part: name,
                **{f"{c['problem']} {c['tail']}": f"{c['relative'][name]:.2f}" for c in columns},
            }
            for name in names
        ]
        show(f"{part}: time over that of the fastest", rows)


def _row(row: dict[str, Any]) -> dict[str, str]:
    return {
        "problem": f"{row['problem']} {row['tail']}",
        "B": str(row["batch"]),
        "ideal": f"{row['ideal']['mean']:.1f}",
        **{name: plus_minus(value) for name, value in row["gain"].items()},
        "µs/step": plus_minus(row["micros"]),
    }


def _texts(row: dict[str, Any]) -> dict[str, str]:
    return {k: v if isinstance(v, str) else f"{v:.2f}" for k, v in row.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    script(__doc__, measure, report, arguments)


if __name__ == "__main__":
    main()
