"""Write the generated tables of the documentation; ``--check`` says whether they are fresh.

A table stands between ``<!-- table:NAME -->`` and ``<!-- /table:NAME -->`` in README.md or in a
page below docs/. NAME is a benchmark, such as "core.least_squares", whose tables are generated from
its measurements; "headline" (`benchmarks.headline`); or "judged" (`benchmarks.claims`). Every table
has its place on some page.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.catalog import find
from benchmarks.claims import judged
from benchmarks.harness import RESULTS
from benchmarks.headline import headline
from benchmarks.render import to_markdown

ROOT = Path(__file__).parent.parent
MARKED = re.compile(r"(<!-- table:(\S+) -->\n).*?(<!-- /table:\2 -->)", re.DOTALL)
SUMMARIES: dict[str, Callable[[Path], str]] = {"headline": headline, "judged": judged}


def names() -> tuple[str, ...]:
    """Return the name of every table."""
    return (*find(), *SUMMARIES)


def pages(root: Path) -> list[Path]:
    """Return the files that may hold tables: not those that Sphinx builds."""
    there = sorted((root / "docs").rglob("*.md"))
    below = [page for page in there if "_build" not in page.parts]
    return [root / "README.md", *below]


def make(name: str, results: Path = RESULTS) -> str:
    """Return a table as Markdown.

    Args:
        name: of a benchmark or a summary.
        results: the folder of JSON files.

    Raises:
        ValueError: if no table has that name.
        FileNotFoundError: if its measurements are missing.
    """
    if name in SUMMARIES:
        return SUMMARIES[name](results)
    benchmarks = find()
    if name not in benchmarks:
        raise ValueError(f"table:{name}: no table has this name; known: {', '.join(names())}")
    data = benchmarks[name].read(results)
    return to_markdown(benchmarks[name].blocks(data))


def fill(text: str, results: Path = RESULTS) -> str:
    """Return ``text`` with every table in it generated anew."""
    return MARKED.sub(lambda found: f"{found[1]}{make(found[2], results)}\n{found[3]}", text)


def stale(root: Path, results: Path) -> Iterator[tuple[Path, str]]:
    """Yield the pages that are not fresh, and their fresh text.

    Raises:
        ValueError: if a page names a table that is none, or no page has a benchmark's table.
    """
    there: list[str] = []
    for page in pages(root):
        text = page.read_text()
        there += [found[2] for found in MARKED.finditer(text)]
        made = fill(text, results)
        if made != text:
            yield page, made
    missing = [name for name in names() if name not in there]
    if missing:
        raise ValueError(
            f"no page has a table of {', '.join(missing)}; put <!-- table:NAME --> and "
            "<!-- /table:NAME --> on lines of their own in a page below docs/"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 1 if pages are stale, 2 if tables or files are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if stale")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of README.md and docs/")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of JSON files")
    options = parser.parse_args(arguments)
    found = 0
    try:
        for page, text in stale(options.root, options.results):
            found += 1
            if options.check:
                print(f"{page.name}: stale; run python -m benchmarks.tables", file=sys.stderr)
            else:
                page.write_text(text)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    return 1 if options.check and found else 0


if __name__ == "__main__":
    sys.exit(main())
