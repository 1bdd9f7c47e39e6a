"""What every benchmark needs: options, times, peak memory, a record of the machine, JSON, tables.

Times: the first call compiles; it is kept apart. After it the peers run in turns, so that a
disturbance hits all of them, and ratios are taken turn by turn: median of the ratios, not ratio of
the medians. Peak memory: how far the resident set of a fresh process grows beyond what it was after
imports and data, with compilation (``VmHWM`` of /proc where there is one, else ``ru_maxrss``).
"""

import argparse
import contextlib
import json
import math
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
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    *("refinejax", "jax", "jaxlib", "optax", "numpy", "scipy", "torch"),
    *("optimistix", "jaxopt", "optimagic", "evosax", "cma", "coco-experiment", "botorch"),
)


class Timing(NamedTuple):
    """Seconds of the first call, and of each later one: on the clock, and of all cores together."""

    first: float
    runs: list[float]
    cpu: list[float]

    @property
    def run(self) -> float:
        """Median run time [s]."""
        return statistics.median(self.runs)

    @property
    def compile(self) -> float:
        """What the first call took beyond a run [s]: tracing, compilation, warm-up."""
        return max(self.first - self.run, 0.0)


def make_parser(question: str | None) -> argparse.ArgumentParser:
    """Return the options that all benchmarks share."""
    parser = argparse.ArgumentParser(
        description=question, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="less of everything, within a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements there")
    parser.add_argument("--seeds", type=_positive, default=3, metavar="N", help="default 3")
    return parser


def script(
    question: str | None,
    measure: Callable[[bool, int], Mapping[str, Any]],
    report: Callable[[Any], None],
    arguments: Sequence[str] | None = None,
) -> None:
    """Run a benchmark as its command line says: measure(quick, seeds), report, write.

    Args:
        question: what it answers.
        measure: (quick, seeds) → what is written as JSON.
        report: prints that.
        arguments: of the command line; by default those of the process.
    """
    options = make_parser(question).parse_args(arguments)
    data = measure(options.quick, options.seeds)
    report(data)
    if options.json:
        write_json(options.json, data)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return number


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Call once and wait for the devices: (seconds, result)."""
    begun = time.perf_counter()
    result = jax.block_until_ready(function())
    return time.perf_counter() - begun, result


def race(
    peers: Mapping[str, Callable[[], Any]], repeats: int
) -> tuple[dict[str, Timing], dict[str, Any]]:
    """Warm each peer up, then run all in turns, ``repeats`` times: times and last results."""
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
    """Median of the ratios turn by turn."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (over seeds), smallest, largest, of how many, and each."""
    numbers = np.asarray(values, float)
    std = float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
    low, high = float(numbers.min()), float(numbers.max())
    mean = float(numbers.mean())
    sums = {"mean": mean, "std": std, "min": low, "max": high, "n": len(numbers)}
    return {**sums, "values": numbers.tolist()}


def plus_minus(value: Mapping[str, float], digits: int = 3, factor: float = 1.0) -> str:
    """Format a `spread` as mean ± standard deviation, to significant digits of the mean."""
    mean, std = factor * value["mean"], factor * value["std"]
    places = max(0, digits - 1 - math.floor(math.log10(abs(mean)))) if mean else 0
    text = f"{mean:.{min(places, 6)}f}"
    return text if value["n"] < 2 else f"{text} ± {std:.{min(places, 6)}f}"


def peak_memory(job: Callable[..., Callable[[], Any]], *args: Any) -> float:
    """Return the MiB that a fresh process needs beyond imports and data.

    Args:
        job: module-level function that prepares (imports, makes the data) and returns what is to be
            measured, a function without arguments.
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
    with contextlib.suppress(OSError):  # the peak so far then counts: that of the imports
        Path("/proc/self/clear_refs").write_text("5")


def _resident(field: str) -> float:
    """Resident memory of this process [MiB]: now (VmRSS) or at most (VmHWM)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
    except (OSError, StopIteration):
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def environment() -> dict[str, Any]:
    """Return versions and the kind of machine; nothing that names it."""
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


def show(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows as a table; the first column is left-aligned."""
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(rows[0] if rows else ()):
        table.add_column(name, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)


def note(text: str) -> None:
    """Say on stderr what is being measured."""
    print(text, file=sys.stderr, flush=True)
