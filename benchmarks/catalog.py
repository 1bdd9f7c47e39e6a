"""Find the benchmarks: every public module of every subject folder.

A subject folder is a package in this folder other than ``peers``; a module whose name begins with
an underscore supports the benchmarks beside it. A name is SUBJECT.MODULE, such as
"core.least_squares"; its measurements are ``results/core/least_squares.json``.
"""

import ast
import importlib
import json
import pkgutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from benchmarks.evidence import Claim
from benchmarks.harness import RESULTS, Data, Options
from benchmarks.render import Block

FOLDER = Path(__file__).parent
SUPPORT = "peers"
QUICK = "**A quick run: too few samples to be quoted.**"


class Parts(Protocol):
    """The three functions of a benchmark's module."""

    def measure(self, options: Options, /) -> Data:
        """Take the measurements."""
        ...

    def rows(self, data: Data, /) -> Iterable[Block]:
        """Return the tables and notes that show them."""
        ...

    def claims(self, data: Data, /) -> Iterable[Claim]:
        """Return the comparisons to be judged."""
        ...


class Benchmark(NamedTuple):
    """A benchmark by its name; its module is imported when it is loaded."""

    name: str

    @property
    def question(self) -> str:
        """The first line of its docstring, read without importing it."""
        path = FOLDER.joinpath(*self.name.split(".")).with_suffix(".py")
        return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]

    def load(self) -> Parts:
        """Import its module."""
        return cast("Parts", importlib.import_module(f"benchmarks.{self.name}"))

    def path(self, results: Path = RESULTS) -> Path:
        """Return the file of its measurements in a folder of results."""
        return results.joinpath(*self.name.split(".")).with_suffix(".json")

    def read(self, results: Path = RESULTS) -> Data:
        """Read its measurements.

        Raises:
            FileNotFoundError: if there are none in the folder.
        """
        return json.loads(self.path(results).read_text())

    def blocks(self, data: Data) -> list[Block]:
        """Return what shows measurements; of a quick run, with a warning before them."""
        warning = [QUICK] if data["settings"].get("quick") else []
        return [*warning, *self.load().rows(data)]


def find() -> dict[str, Benchmark]:
    """Return name → benchmark, sorted by name."""
    subjects = [m.name for m in pkgutil.iter_modules([str(FOLDER)]) if m.ispkg]
    names = [
        f"{subject}.{module.name}"
        for subject in subjects
        if subject != SUPPORT
        for module in pkgutil.iter_modules([str(FOLDER / subject)])
        if not module.name.startswith("_")
    ]
    return {name: Benchmark(name) for name in sorted(names)}
