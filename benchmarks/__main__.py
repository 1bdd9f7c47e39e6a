"""List the benchmarks, or run some: ``python -m benchmarks run core.least_squares --quick``."""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.catalog import Benchmark, find
from benchmarks.harness import Options, note, write_json
from benchmarks.render import to_terminal


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    run = commands.add_parser("run", help="measure, and print the tables")
    run.add_argument("names", nargs="*", metavar="NAME", help="by default all, one after another")
    run.add_argument("--quick", action="store_true", help="less of everything, within a minute")
    run.add_argument("--seeds", type=_positive, default=3, metavar="N", help="default 3")
    run.add_argument("--models", type=Path, metavar="DIR", help="keep trained models there")
    run.add_argument("--results", type=Path, metavar="DIR", help="write SUBJECT/NAME.json there")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return number


def show_list() -> None:
    """Print every benchmark's name and question."""
    table = Table("name", "question", box=None)
    for name, benchmark in find().items():
        table.add_row(name, benchmark.question)
    Console().print(table)


def run_one(benchmark: Benchmark, options: Options, results: Path | None) -> None:
    """Measure in this process, print the tables and write the measurements."""
    data = benchmark.load().measure(options)
    to_terminal(benchmark.blocks(data))
    if results is not None:
        write_json(benchmark.path(results), data)


def run_each(names: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Run benchmarks, each in a fresh process; return those that fail."""
    failed = []
    for name in names:
        note(f"== {name}")
        command = [sys.executable, "-m", "benchmarks", "run", name, *arguments]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 1 if a benchmark fails, 2 for a name that is none."""
    options = make_parser().parse_args(arguments)
    if options.command is None:
        show_list()
        return 0
    known = find()
    names = options.names or list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    if len(names) == 1:
        how = Options(options.quick, options.seeds, options.models)
        run_one(known[names[0]], how, options.results)
        return 0
    failed = run_each(names, _shared(options))
    for name in failed:
        print(f"failed: {name}", file=sys.stderr)
    return 1 if failed else 0


def _shared(options: argparse.Namespace) -> list[str]:
    """Return the options that every benchmark of a run gets, as on a command line."""
    shared = ["--seeds", str(options.seeds), *(["--quick"] if options.quick else [])]
    for name in ("models", "results"):
        folder = getattr(options, name)
        shared += [f"--{name}", str(folder)] if folder else []
    return shared


if __name__ == "__main__":
    sys.exit(main())
