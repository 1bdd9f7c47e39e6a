"""What does `keep_compiled` save the second process?

A process begins, refines phase maps (`benchmarks.populations`) and ends; then another one does the
same. Both are fresh and keep their compiled programs in the same folder, which is empty for the
first. The first call traces and compiles, or reads what was compiled; what it takes beyond a later
call is the cost of beginning. *Whole* is the process from its start to its end, imports included.

Each repeat, in the place of seeds, has a folder of its own.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks import _lens, populations
from benchmarks._common import environment, note, plus_minus, script, show, spread
from refinejax.compiled import keep_compiled

COUNT = 32  # maps: few, as it is the beginning that counts


def _coarse(maps: _lens.Maps) -> np.ndarray:
    return populations.ours(maps, populations.COARSE)


JOBS: dict[str, Callable[[_lens.Maps], np.ndarray]] = {
    "CMA-ES on 16 × 16 pixels": _coarse,
    "CMA-ES, then LM": populations.hybrid,
}


def _calls(name: str, folder: str) -> tuple[float, float]:
    """Return the seconds of the first call and of the second, in this process."""
    keep_compiled(folder)
    maps, times = _lens.simulate(COUNT, 0), []
    for _ in range(2):
        begin = time.perf_counter()
        JOBS[name](maps)
        times.append(time.perf_counter() - begin)
    return times[0], times[1]


def process(name: str, folder: str) -> dict[str, float]:
    """Return what a job takes in a process of its own [s]."""
    context, start = multiprocessing.get_context("spawn"), time.perf_counter()
    with context.Pool(1) as pool:
        first, again = pool.apply(_calls, (name, folder))
        pool.close()
        pool.join()
    whole = time.perf_counter() - start - again
    return {"begin": first - again, "call": again, "whole": whole}


def measure(quick: bool, seeds: int) -> dict[str, Any]:
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


def report(data: Mapping[str, Any]) -> None:
    rows = [
        {
            "job": row["job"],
            "begin, s": f"{plus_minus(row['begin_cold'])}, {plus_minus(row['begin_warm'])}",
            "ratio": plus_minus(row["begin_ratio"]),
            "whole, s": f"{plus_minus(row['whole_cold'])}, {plus_minus(row['whole_warm'])}",
            "ratio of the whole": plus_minus(row["whole_ratio"]),
        }
        for row in data["rows"]
    ]
    show("The first process, and the second with what it kept", rows)


if __name__ == "__main__":
    script(__doc__, measure, report)
