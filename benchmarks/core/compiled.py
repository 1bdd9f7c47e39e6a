"""What does `keep_compiled` save the second process?

A process begins, refines phase maps (`benchmarks.metalens.populations`) and ends; then another one
does the same. Both are fresh and keep their compiled programs in the same folder, which is empty
for the first. The first call traces and compiles, or reads compiled programs; its time beyond that
of a later call is the cost of beginning. *Whole* is the process from its start to its end, with
imports.

Each repeat, in the place of seeds, has a folder of its own.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks import lens as small_lens
from benchmarks.evidence import Claim, faster, ratios
from benchmarks.harness import Data, Options, environment, note, spread
from benchmarks.metalens import populations
from benchmarks.render import Block, Table, machine, plus_minus
from refinejax.compiled import keep_compiled

COUNT = 32  # maps: few, as it is the beginning that counts


def _coarse(maps: small_lens.Maps) -> np.ndarray:
    return populations.ours(maps, populations.COARSE)


JOBS: dict[str, Callable[[small_lens.Maps], np.ndarray]] = {
    "CMA-ES on 16 × 16 pixels": _coarse,
    "CMA-ES, then LM": populations.hybrid,
}


def _calls(name: str, folder: str) -> tuple[float, float]:
    """Return the seconds of the first call and of the second, in this process."""
    keep_compiled(folder)
    maps, times = small_lens.simulate(COUNT, 0), []
    for _ in range(2):
        begin = time.perf_counter()
        JOBS[name](maps)
        times.append(time.perf_counter() - begin)
    return times[0], times[1]


def process(name: str, folder: str) -> dict[str, float]:
    """Return the times of a job in a process of its own [s]."""
    context, start = multiprocessing.get_context("spawn"), time.perf_counter()
    with context.Pool(1) as pool:
        first, again = pool.apply(_calls, (name, folder))
        pool.close()
        pool.join()
    whole = time.perf_counter() - start - again
    return {"begin": first - again, "call": again, "whole": whole}


def measure(options: Options) -> dict[str, Any]:
    quick, seeds = options.quick, options.seeds
    rows = []
    for name in list(JOBS)[: 1 if quick else None]:
        taken: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
        for repeat in range(seeds):
            note(f"{name}, repeat {repeat}")
            with tempfile.TemporaryDirectory() as folder:
                for state in taken:
                    taken[state].append(process(name, folder))
        rows.append({"job": name, "maps": COUNT, **_compare(taken)})
    settings = {"seeds": seeds, "quick": quick}
    return {"environment": environment(), "settings": settings, "rows": rows}


def _compare(taken: Mapping[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return the seconds of each, and the ratio of the second process to the first."""
    numbers: dict[str, Any] = {}
    for what in ("begin", "whole"):
        each = {state: [row[what] for row in rows] for state, rows in taken.items()}
        numbers |= {f"{what}_{state}": spread(values) for state, values in each.items()}
        pairs = zip(each["warm"], each["cold"], strict=True)
        numbers[f"{what}_ratio"] = spread([warm / cold for warm, cold in pairs])
    return numbers


def rows(data: Data) -> Iterator[Block]:
    """Show what the programs of a first process save the second."""
    yield Table.of(
        {
            "fresh processes with `keep_compiled`": row["job"],
            "first begins in, s": plus_minus(row["begin_cold"]),
            "second, s": plus_minus(row["begin_warm"]),
            "ratio": plus_minus(row["begin_ratio"]),
            "ratio of the whole process": plus_minus(row["whole_ratio"]),
        }
        for row in data["rows"]
    )
    count = data["settings"]["seeds"]
    repeats = "once" if count == 1 else f"{count} times, mean ± standard deviation over them"
    yield (
        f"{data['rows'][0]['maps']} phase maps. To begin: the time of the first call beyond a "
        "later one, for tracing, and for compiling or reading compiled programs. The whole process "
        f"includes Python, imports and one call. {machine(data)}, {repeats}."
    )


def claims(data: Data) -> Iterator[Claim]:
    """Claim that a process begins sooner with programs that an earlier one compiled."""
    for row in data["rows"]:
        warm = ratios(row["begin_ratio"])
        times = {"nothing kept": [1.0] * len(warm), "compiled before": warm}
        yield from faster(f"begin {row['job']}", "compiled before", times)
