"""Judge every comparison with a peer as an experiment: is the difference more than luck?

``python -m benchmarks.claims LOG`` puts the measurements of all benchmarks on record as runs,
judges each comparison over its seeds, and leaves a log for ``refinejax experiments table`` (or
``log``). `judged` is that table, for the documentation.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.catalog import find
from benchmarks.evidence import Claim, groups
from benchmarks.harness import RESULTS, Data
from refinejax.experiments import Experiment, Log, decide, progress_table


def write(path: Path, results: Path = RESULTS) -> None:
    """Put all measurements on record in the log ``path``, and judge every comparison."""
    log = Log(path)
    for name, benchmark in find().items():
        data = benchmark.read(results)
        claims = benchmark.load().claims(data)
        asked = [one for claim in claims for one in _record(log, name, claim, data)]
        for number, experiment in enumerate(asked, 1):
            log.add(Experiment(id=f"{name} {number}", **experiment))
            decide(log, f"{name} {number}")


def _record(log: Log, benchmark: str, claim: Claim, data: Data) -> Iterator[dict[str, Any]]:
    """Put the runs of a claim on record; yield an experiment for each peer that ran its seeds."""
    decided, *guards = claim.metrics
    own = claim.metrics[decided].get(claim.ours, ())
    if len(own) < 2:  # one seed says nothing
        return
    found = groups(benchmark, claim, data)
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
    """Return the progress table over all of them, folded, under the number of each verdict."""
    with tempfile.TemporaryDirectory() as folder:
        log = Log(Path(folder) / "log.jsonl")
        write(log.path, results)
        records = log.read()
    verdicts = [records.verdict(e.id) for e in records.experiments]
    counts = {name: verdicts.count(name) for name in ("KEEP", "INCONCLUSIVE", "REVERT")}
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    title = f"<summary>{len(verdicts)} comparisons: {said}</summary>"
    return f"<details>\n{title}\n\n{progress_table(records)}\n\n</details>"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the log; return 2 if the file exists."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path, metavar="LOG", help="file of JSON lines, a new one")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of JSON files")
    options = parser.parse_args(arguments)
    if options.log.exists():
        print(f"{options.log}: the file exists; name a new one", file=sys.stderr)
        return 2
    write(options.log, options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
