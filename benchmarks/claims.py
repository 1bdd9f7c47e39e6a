"""Every comparison with a peer, as an experiment: is it more than luck?

``python -m benchmarks.claims LOG`` puts the measurements on record as runs, judges each comparison
over its seeds, and leaves a log for ``refinejax experiments table`` (or ``log``). The README's
table is that one.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks._common import RESULTS
from benchmarks._runs import (
    METRIC,
    Times,
    batching_times,
    groups,
    least_squares_times,
    ratios,
    spread_times,
)
from benchmarks._table_latent import PEERS, RIVALS
from refinejax.experiments import Experiment, Log, decide, progress_table


class Claim(NamedTuple):
    """One of our methods beside its peers, on one problem.

    Attributes:
        part: which problem of the benchmark.
        ours: name of our method among the peers.
        metrics: name → peer → values, seed by seed; the first decides, others are guards.
        direction: of all metrics, "lower" or "higher" is better.
    """

    part: str
    ours: str
    metrics: Mapping[str, Times]
    direction: Any = "lower"


def write(path: Path, results: Path = RESULTS) -> None:
    """Put all measurements on record in the log ``path``, and judge every comparison."""
    log = Log(path)
    for benchmark, find in CLAIMS.items():
        data = json.loads((results / f"{benchmark}.json").read_text())
        asked = [one for claim in find(data) for one in _record(log, benchmark, claim, data)]
        for number, experiment in enumerate(asked, 1):
            log.add(Experiment(id=f"{benchmark} {number}", **experiment))
            decide(log, f"{benchmark} {number}")


def _record(
    log: Log, benchmark: str, claim: Claim, data: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Put the runs of a claim on record; yield what is asked of each peer that ran its seeds."""
    decided, *guards = claim.metrics
    own = claim.metrics[decided].get(claim.ours, ())
    if len(own) < 2:  # one seed says nothing
        return
    found = groups(benchmark, claim.part, claim.metrics, data)
    log.add(*(run for group in found.values() for run in group.runs))
    for peer, group in found.items():
        if peer != claim.ours and len(group.runs) == len(own):
            yield {
                "hypothesis": f"{claim.ours} has the {claim.direction} {decided}",
                "change": f"{claim.part}: {claim.ours} in place of {peer}",
                "baseline": group.id,
                "candidate": found[claim.ours].id,
                "metric": decided,
                "direction": claim.direction,
                "guards": dict.fromkeys(guards, 0.0),
                "lower": guards if claim.direction == "lower" else (),
                "phase": "B",
            }


def judged(results: Path = RESULTS) -> str:
    """Return the progress table over all of them, and how many are kept, for the README."""
    with tempfile.TemporaryDirectory() as folder:
        log = Log(Path(folder) / "log.jsonl")
        write(log.path, results)
        records = log.read()
    verdicts = [records.verdict(e.id) for e in records.experiments]
    counts = {name: verdicts.count(name) for name in ("KEEP", "INCONCLUSIVE", "REVERT")}
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    title = f"<summary>{len(verdicts)} comparisons: {said}</summary>"
    return f"<details>\n{title}\n\n{progress_table(records)}\n\n</details>"


def _logs(values: Times) -> dict[str, list[float]]:
    return {peer: [math.log10(v) for v in found] for peer, found in values.items()}


def _timed(part: str, ours: str, times: Times) -> Iterator[Claim]:
    if times:
        yield Claim(part, ours, {METRIC: _logs(times)})


def _least_squares(data: Mapping[str, Any]) -> Iterator[Claim]:
    for part, name in (("pointwise", "pixel by pixel"), ("image", "an image")):
        yield from _timed(name, data[part][0]["peer"], least_squares_times(data, part))


def _batching(data: Mapping[str, Any]) -> Iterator[Claim]:
    """Against the fastest way of cutting a batch into chunks."""
    for part, times in batching_times(data).items():
        rivals = {name: times[name] for name in ("engine", "best chunks") if name in times}
        yield from _timed(part, "engine", rivals)


def _rows(key: str, ours: str, part: str, besides: Sequence[str] = ()) -> Any:
    """Return a function of the data: times of the peers, but for other ways of ours."""

    def find(data: Mapping[str, Any]) -> Iterator[Claim]:
        rows = [row for row in data[key] if row["peer"] not in besides]
        yield from _timed(part, ours, spread_times(rows))

    return find


def _compiled(data: Mapping[str, Any]) -> Iterator[Claim]:
    for row in data["rows"]:
        warm = ratios(row["begin_ratio"])
        times = {"nothing kept": [1.0] * len(warm), "compiled before": warm}
        yield from _timed(f"begin {row['job']}", "compiled before", times)


def _latent(data: Mapping[str, Any]) -> Iterator[Claim]:
    """Time a run; the loss of the best start may not be worse."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in data["speed"]:
        part = f"{row['samples']} × {row['restarts']}, {RIVALS[row['rival']]}"
        named = {**row, "peer": PEERS[row["peer"]].format(**data["settings"])}
        ways = [name for name in PEERS if name.startswith("ours")]
        for ours in [row["peer"]] if row["peer"] in ways else ways:
            rows.setdefault((part, PEERS[ours].format(**data["settings"])), []).append(named)
    for (part, ours), some in rows.items():
        if any(row["peer"] == ours for row in some):
            losses = {row["peer"]: row["loss"]["values"] for row in some}
            metrics = {METRIC: _logs(spread_times(some)), "loss": losses}
            yield Claim(part, ours, metrics)


def _meta_lens(data: Mapping[str, Any]) -> Iterator[Claim]:
    """Steps of learned damping beside others."""
    for kind in dict.fromkeys(row["kind"] for row in data["rows"]):
        steps = {
            row["method"]: row["steps"]["values"] for row in data["rows"] if row["kind"] == kind
        }
        yield Claim(f"{kind} lenses", "learned damping", {"log10 steps": _logs(steps)})


def _meta_digits(data: Mapping[str, Any]) -> Iterator[Claim]:
    """Steps of the learned rule to what tuned Adam reaches."""
    for network in dict.fromkeys(row["network"] for row in data["rows"]):
        rows = [row for row in data["rows"] if row["network"] == network]
        steps = {row["method"]: row["steps"]["values"] for row in rows}
        yield Claim(f"network {network}", "RNNprop, learned", {"log10 steps": _logs(steps)})


def _meta_speed(data: Mapping[str, Any]) -> Iterator[Claim]:
    for tasks, part in dict.fromkeys((row["tasks"], row["part"]) for row in data["rows"]):
        rows = [row for row in data["rows"] if (row["tasks"], row["part"]) == (tasks, part)]
        yield from _timed(f"{part}, {tasks} tasks", "refinejax", spread_times(rows))


def _meta_quadratics(data: Mapping[str, Any]) -> Iterator[Claim]:
    """Loss of the LSTM, as it is and annealed, beside tuned Adam and L-BFGS."""
    for law, methods in data["laws"].items():
        for ours in ("LSTM", "LSTM, annealed"):
            for steps in ("20", "100") if ours in methods else ():
                losses = {
                    name: methods[name][steps]["mean"]["values"]
                    for name in (ours, "Adam, tuned", "L-BFGS")
                    if name in methods
                }
                yield Claim(f"{law}, {steps} steps", ours, {"log10 loss": _logs(losses)})


def _meta_lista(data: Mapping[str, Any]) -> Iterator[Claim]:
    gaps = {name: found["values"] for name, found in data["lasso"].items()}
    yield Claim("lasso", "RNNprop, annealed", {"log10 gap": _logs(gaps)})


def _pipeline(data: Mapping[str, Any]) -> Iterator[Claim]:
    """Share of maps explained, of the cascade from the network's prediction on."""
    for noise in dict.fromkeys(row["noise"] for row in data["rows"]):
        solved = {
            row["way"]: row["solved"]["values"] for row in data["rows"] if row["noise"] == noise
        }
        yield Claim(f"noise {noise}", "predictor + cascade", {"solved": solved}, "higher")


CLAIMS = {
    "adam_tto": _rows("speed", "run_batch", "100 steps"),
    "compiled": _compiled,
    "continuous_batching": _batching,
    "latent": _latent,
    "least_squares": _least_squares,
    "meta_digits": _meta_digits,
    "meta_lens": _meta_lens,
    "meta_lista": _meta_lista,
    "meta_quadratics": _meta_quadratics,
    "meta_speed": _meta_speed,
    "metalens": _rows("speed", "cascade", "a map", ["cascade, with standard errors"]),
    "pipeline": _pipeline,
    "populations": _rows("rows", "refinejax", "a map", ["refinejax, 16 × 16 pixels"]),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path, metavar="LOG", help="file of JSON lines, a new one")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of JSON files")
    options = parser.parse_args(arguments)
    if options.log.exists():
        print(f"{options.log}: is there already; name a new file", file=sys.stderr)
        return 2
    write(options.log, options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
