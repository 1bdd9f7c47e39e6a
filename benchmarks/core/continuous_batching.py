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
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.core._lanes import (
    FACTOR,
    MEDIAN,
    RARITY,
    Case,
    chunked,
    engine,
    looped,
    make_case,
    whole,
)
from benchmarks.evidence import EVIDENCE, Claim, comparisons, faster
from benchmarks.harness import Data, Options, Timing, environment, note, race, ratio, spread, timed
from benchmarks.render import Block, Table, machine, multiple, over_seeds, plus_minus
from refinejax.batch.plan import make_plan

LANES = (8, 16, 32, 64, 128)
CHUNKS = (4, 8, 16, 32, 64, 128, 256)
GOALS = {"tail": 3.0, "even": 0.9}
PROBLEMS = {"phase": "64 × 64 phase map", "tiny": "3-param quadratic"}
TAILS = {"tail": "1 in 50 needs 20 ×", "even": "all the same"}
WAYS = {"whole": "`vmap` of all", "chunks": "chunks", "best chunks": "the best chunks"}


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


def measure(options: Options) -> dict[str, Any]:
    """Take all measurements."""
    quick, seeds = options.quick, options.seeds
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
    """Time the first call of engine and peer with nothing compiled, less the second call."""
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


def rows(data: Data) -> Iterator[Block]:
    """Show how many times faster the engine is than each other way, and the sweeps."""
    yield Table.of(map(_row, data["summary"]))
    yield _note(data)
    yield _counts(data)
    for part in ("lanes", "chunks"):
        yield Table.of(_sweep(part, [sweep[part] for sweep in data["sweeps"]]))
    yield "Sweeps: time in units of the fastest, by lanes of the engine and by chunk size."


def _row(row: Mapping[str, Any]) -> dict[str, str]:
    gain = row["gain"]
    style, size = row["best"].split()
    return {
        "problem": PROBLEMS[row["problem"]],
        "steps": TAILS[row["tail"]],
        "samples": f"{row['batch']:,}",
        "over `vmap` of all": multiple(gain["whole"]),
        f"over chunks of {row['lanes']}": multiple(gain["chunks"]),
        "over the best chunks": f"{multiple(gain['best chunks'])} ({style} {size})",
        "possible over all": f"{row['ideal']['mean']:.1f} ×",
        "engine, µs a step": plus_minus(row["micros"]),
    }


def _note(data: Data) -> str:
    count = max(row["gain"]["whole"]["n"] for row in data["summary"])
    compiled = "; ".join(
        f"{PROBLEMS[row['problem']]} {row['engine']:.1f} s and {row['whole']:.1f} s"
        for row in data["compile"]
    )
    return (
        f"Above 1 the engine is faster. {machine(data)}; {over_seeds(count)} where a ± stands, "
        f"else 1. Compilation of engine and `vmap`, not in the times: {compiled}."
    )


def _sweep(part: str, sweeps: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    lines: dict[str, dict[str, str]] = {}
    for sweep in sweeps:
        title = f"{PROBLEMS[sweep['problem']]}, {TAILS[sweep['tail']]}"
        for size, relative in sweep["relative"].items():
            lines.setdefault(size, {part: size})[title] = f"{relative:.2f}"
    return list(lines.values())


def _counts(data: Data) -> str:
    """Count the problems on which the engine is faster, slower or undecided."""
    counts: dict[str, list[int]] = {}
    for part, times in _times(data).items():
        for claim in faster(part, "engine", times):
            for peer, one in comparisons(claim, data).items():
                row = counts.setdefault(peer, [0, 0, 0])
                row[0 if one.interval[0] > 0 else 1 if one.interval[1] < 0 else 2] += 1
    said = [
        f"{WAYS[peer]}: faster in {row[0]}, slower in {row[1]}, undecided in {row[2]} of {sum(row)}"
        for peer, row in counts.items()
    ]
    return f"{EVIDENCE} The engine against {'; '.join(said)}." if said else ""


def _times(data: Data) -> dict[str, dict[str, list[float]]]:
    """Return problem → way → time of each seed in units of the engine's."""
    found: dict[str, dict[str, list[float]]] = {}
    for case in data["cases"]:
        part = f"{case['problem']}, {case['tail']}, {case['batch']} samples"
        ways = found.setdefault(part, {"engine": []})
        ways["engine"].append(1.0)
        for way, gain in case["gain"].items():
            ways.setdefault(way, []).append(gain)
    return found


def claims(data: Data) -> Iterator[Claim]:
    """Claim that the engine is faster than the fastest way of cutting a batch into chunks."""
    for part, times in _times(data).items():
        rivals = {name: times[name] for name in ("engine", "best chunks") if name in times}
        yield from faster(part, "engine", rivals)
