"""`refinejax experiments`: records, verdicts and the page of a log of experiments."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from refinejax.commands.files import InputError, print_json
from refinejax.commands.options import EXIT_CODES, add_shared
from refinejax.experiments import (
    Log,
    Records,
    compare_tasks,
    decide,
    markdown,
    progress_table,
    write_markdown,
)
from refinejax.experiments.judge import corrected_p
from refinejax.experiments.records import from_json
from refinejax.experiments.text import action

_ABOUT = """\
Compare changes so that no change is kept by luck: runs paired by seed, verdicts, a log.

LOG is a file of JSON lines that is only added to. Groups of runs have ids, which follow from
config, revision, data, metric version and budget; experiments name their baseline by id.

  add      put runs, experiments and assumptions on record
  compare  judge an experiment, and put the decision on record
  log      write the page: protocol, progress, every experiment, assumptions
  table    the progress table
  tasks    two groups over several tasks, by the difference of their interquartile means
"""
_ADD = """\
Put records into LOG: JSON from FILE or standard input, one object, an array, or one on each line.

{"kind": "run", "name": "baseline", "seed": 1, "metrics": {"accuracy": 0.91}, "config": {...},
 "revision": "abc", "data": "hash", "metric_version": "1", "budget": {"steps": 1000}}
{"kind": "experiment", "id": "E1", "hypothesis": "...", "change": "...", "baseline": "GROUP ID",
 "candidate": "GROUP ID", "metric": "accuracy", "margin": 0.005, "looks": [3, 6, 10]}
{"kind": "assumption", "id": "A1", "choice": "...", "why": "...", "alternatives": "...",
 "notice": "..."}
"""


_TASKS = """\
Compare two groups over tasks × seeds, of metrics that are named task/METRIC: interquartile means
over all runs, their difference with a 95 % interval (bootstrap of seeds within each task), and the
chance that a run of the candidate is the better one. It speaks for other seeds on these tasks, not
for other tasks, and is no verdict: that is what compare gives, for one metric said beforehand.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the parts of the command, each with its options.

    Args:
        parser: of the command.
    """
    parser.description = _ABOUT
    parts = parser.add_subparsers(required=True, metavar="PART")
    adding = _part(parts, "add", _ADD, _add)
    adding.add_argument("file", metavar="FILE", nargs="?", default="-", help="default -: stdin")
    comparing = _part(parts, "compare", "Judge an experiment; the decision is recorded.", _compare)
    comparing.add_argument("experiment", metavar="ID", help="of the experiment")
    comparing.add_argument(
        "--drop-unmatched", action="store_true", help="leave out seeds that one group lacks"
    )
    writing = _part(parts, "log", "Write the page of the log, as Markdown.", _log)
    writing.add_argument("--output", metavar="FILE.md", type=Path, help="default: standard output")
    writing.add_argument("--title", default="Log", help="default Log")
    writing.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if FILE.md is not that page"
    )
    _part(parts, "table", "The progress table, as Markdown.", _table)
    many = _part(parts, "tasks", _TASKS, _tasks)
    many.add_argument("baseline", metavar="BASELINE", help="id of a group")
    many.add_argument("candidate", metavar="CANDIDATE", help="id of another")
    many.add_argument("metric", metavar="METRIC", help="of each task, without the task's name")
    many.add_argument("--lower", action="store_true", help="lower is better")


def _part(parts: Any, name: str, text: str, do: Any) -> Any:
    parser = parts.add_parser(name, description=text, epilog=EXIT_CODES)
    parser.add_argument("log", metavar="LOG", type=Path, help="file of JSON lines")
    add_shared(parser, "json")
    parser.set_defaults(part=do)
    return parser


def run(options: argparse.Namespace) -> int:
    """Run a part of the command.

    Args:
        options: of the command.

    Returns:
        The exit code: 1 if ``log --check`` finds another page.

    Raises:
        InputError: if a file cannot be read.
        ValueError: for records that do not fit the log.
    """
    return options.part(options)


def _add(options: argparse.Namespace) -> int:
    records = [from_json(content) for content in _contents(options.file)]
    Log(options.log).add(*records)
    groups = Log(options.log).read().groups
    if options.json:
        print_json(added=len(records), groups={g.id: g.name for g in groups.values()})
        return 0
    for group in groups.values():
        print(f"group {group.id}  {group.name}, seeds {', '.join(map(str, group.seeds))}")
    return 0


def _contents(file: str) -> list[Any]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from error
    try:
        content = json.loads(text)
    except ValueError:
        return [_line(line, n) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    return content if isinstance(content, list) else [content]


def _line(text: str, number: int) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(
            f"line {number}: not JSON ({error}); give one object, an array, or one object a line"
        ) from error


def _compare(options: argparse.Namespace) -> int:
    log = _existing(options.log)
    unmatched = "drop" if options.drop_unmatched else "refuse"
    found = decide(log, options.experiment, unmatched=unmatched)
    if options.json:
        print_json(experiment=options.experiment, action=action(found), **found.as_dict())
    else:
        print(found)
    return 0


def _log(options: argparse.Namespace) -> int:
    records = _existing(options.log).read()
    page = markdown(records, options.title)
    if options.check:
        return _check(options.output, page)
    if options.output is not None:
        write_markdown(records, options.output, options.title)
    if options.json:
        print_json(written=str(options.output)) if options.output else print_json(markdown=page)
    else:
        print(f"written: {options.output}" if options.output else page, end="\n")
    return 0


def _check(path: Path | None, page: str) -> int:
    if path is None:
        raise InputError("--check: which page? name it with --output FILE.md")
    if path.is_file() and path.read_text(encoding="utf-8") == page:
        return 0
    print(f"{path}: stale; write it with refinejax experiments log", file=sys.stderr)
    return 1


def _table(options: argparse.Namespace) -> int:
    records = _existing(options.log).read()
    if options.json:
        print_json(experiments=_progress(records))
    else:
        print(progress_table(records))
    return 0


def _tasks(options: argparse.Namespace) -> int:
    records = _existing(options.log).read()
    arms = [records.group(name) for name in (options.baseline, options.candidate)]
    found = compare_tasks(
        *(arm.tasks(options.metric) for arm in arms),
        direction="lower" if options.lower else "higher",
    )
    if options.json:
        print_json(metric=options.metric, **found._asdict())
        return 0
    low, high = found.interval
    print(f"{options.metric} over {len(found.tasks)} tasks, interquartile means of all runs:")
    for arm, mean in zip(arms, (found.baseline, found.candidate), strict=True):
        print(f"  {arm.name}: {mean:.6g}")
    print(f"difference, positive is better: {found.delta:+.4g}, 95 % [{low:+.4g}, {high:+.4g}]")
    print(f"a run of {arms[1].name} is better with probability {found.better:.2f}")
    print("mean difference by task:")
    for task, mean in found.means.items():
        print(f"  {task}: {mean:+.4g}")
    return 0


def _progress(records: Records) -> list[dict[str, Any]]:
    together = corrected_p(records)
    rows = []
    for e in records.experiments:
        row: dict[str, Any] = {"id": e.id, "phase": e.phase, "change": e.change, "metric": e.metric}
        for look in records.looks_at(e.id)[-1:]:
            numbers = {name: look.comparison[name] for name in ("mean", "interval", "p")}
            row |= {"verdict": look.verdict, "promote": look.promote, "seeds": list(look.seeds)}
            row |= numbers | {"p_holm": together[e.id]}
        rows.append(row)
    return rows


def _existing(path: Path) -> Log:
    if not path.is_file():
        raise InputError(f"{path}: no such file; begin a log with refinejax experiments add")
    return Log(path)
