"""What every benchmark needs: options, times, peak memory, a record of the machine, JSON.

Times: the first call compiles; it is kept apart. After it the peers run in turns, so that a
disturbance hits all of them, and ratios are taken turn by turn: median of the ratios, not ratio of
the medians. Peak memory: how far the resident set of a fresh process grows beyond its size after
imports and data, with compilation (``VmHWM`` of /proc where there is one, else ``ru_maxrss``).
"""

import contextlib
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    *("refinejax", "jax", "jaxlib", "optax", "numpy", "scipy", "torch"),
    *("optimistix", "jaxopt", "optimagic", "evosax", "cma", "coco-experiment", "botorch"),
)

Data = Mapping[str, Any]
"""The measurements of a benchmark: JSON with the keys "environment" and "settings"."""


class Options(NamedTuple):
    """How thoroughly to measure.

    Attributes:
        quick: measure less of everything, within about a minute, to see that it runs.
        seeds: number of seeds, 1 or more.
        models: folder that keeps the models a benchmark trains; by default none is kept.
    """

    quick: bool = False
    seeds: int = 3
    models: Path | None = None


class Timing(NamedTuple):
    """Seconds of the first call, and of each later one: wall time, and CPU time of all cores."""

    first: float
    runs: list[float]
    cpu: list[float]

    @property
    def run(self) -> float:
        """Median run time [s]."""
        return statistics.median(self.runs)

    @property
    def compile(self) -> float:
        """Time of the first call beyond a later one [s]: tracing, compilation, warm-up."""
        return max(self.first - self.run, 0.0)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Call once and wait for the devices: (seconds, result)."""
    begun = time.perf_counter()
    result = jax.block_until_ready(function())
    return time.perf_counter() - begun, result


def race(
    peers: Mapping[str, Callable[[], Any]], repeats: int
) -> tuple[dict[str, Timing], dict[str, Any]]:
    """Call each peer once, then all in turns, ``repeats`` times: times and last results."""
    first, results = {}, {}
    for name, peer in peers.items():
        first[name], results[name] = timed(peer)
    times = {name: Timing(first[name], [], []) for name in peers}
    names = list(peers)
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            busy = time.process_time()
            seconds, results[name] = timed(peers[name])
            times[name].runs.append(seconds)
            times[name].cpu.append(time.process_time() - busy)
    return times, results


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Return the median of the ratios turn by turn."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, standard deviation over seeds, extremes, number and the values themselves."""
    numbers = np.asarray(values, float)
    std = float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
    low, high = float(numbers.min()), float(numbers.max())
    mean = float(numbers.mean())
    sums = {"mean": mean, "std": std, "min": low, "max": high, "n": len(numbers)}
    return {**sums, "values": numbers.tolist()}


def spreads(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return the `spread` of every column of rows, a row a seed."""
    return {name: spread([row[name] for row in rows]) for name in rows[0]}


def peak_memory(job: Callable[..., Callable[[], Any]], *args: Any) -> float:
    """Return the MiB that a fresh process needs beyond imports and data.

    Args:
        job: module-level function that prepares (imports, makes the data) and returns the function
            without arguments to be measured.
        args: for ``job``; they are pickled.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak, (job, args))


def _peak(job: Callable[..., Callable[[], Any]], args: tuple[Any, ...]) -> float:
    measured = job(*args)
    _reset_peak()
    before = _resident("VmRSS")
    jax.block_until_ready(measured())
    return max(_resident("VmHWM") - before, 0.0)


def _reset_peak() -> None:
    with contextlib.suppress(OSError):  # then the peak of the imports counts too
        Path("/proc/self/clear_refs").write_text("5")


def _resident(field: str) -> float:
    """Return the resident memory of this process [MiB]: now (VmRSS) or at most (VmHWM)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
    except (OSError, StopIteration):
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def environment() -> dict[str, Any]:
    """Return versions and the kind of machine, and nothing that names the machine."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "packages": versions,
        "system": f"{platform.system()} {platform.machine()}",
        "device": jax.devices()[0].platform,
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "x64": bool(jax.config.read("jax_enable_x64")),
    }


def write_json(path: Path, data: Any) -> None:
    """Write ``path`` so that it never holds half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, indent=1, allow_nan=False) + "\n"
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def note(text: str) -> None:
    """Print progress on stderr."""
    print(text, file=sys.stderr, flush=True)
