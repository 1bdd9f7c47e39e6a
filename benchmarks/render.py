"""How measurements are shown: blocks of tables and notes, for the terminal and as Markdown.

A benchmark's ``rows(data)`` returns blocks. A block is a `Table` or a note (text with the inline
code of Markdown). `to_markdown` writes them for the documentation, `to_terminal` prints the same.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table as RichTable

from benchmarks.harness import Data

NOTHING = "—"


class Table(NamedTuple):
    """Cells of text under a header; the first column is left-aligned, the others right-aligned.

    Attributes:
        header: a title for each column; the first title names the subject of the table.
        rows: cells, as many in each row as there are titles.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, str]]) -> "Table":
        """Make a table of rows, title → cell; cells that a row lacks are a dash."""
        rows = list(rows)
        header = tuple(dict.fromkeys(title for row in rows for title in row))
        return cls(header, [[row.get(title, NOTHING) for title in header] for row in rows])


Block = Table | str


def to_markdown(blocks: Iterable[Block]) -> str:
    """Return blocks as Markdown, an empty line between them; empty blocks are left out."""
    return "\n\n".join(_markdown(block) for block in blocks if _is_filled(block))


def to_terminal(blocks: Iterable[Block], console: Console | None = None) -> None:
    """Print blocks."""
    console = console or Console()
    for block in blocks:
        if _is_filled(block):
            console.print(_rich(block) if isinstance(block, Table) else Markdown(block))


def _is_filled(block: Block) -> bool:
    return bool(block.rows if isinstance(block, Table) else block)


def _markdown(block: Block) -> str:
    if isinstance(block, str):
        return block
    lines = [block.header, [":--", *["--:"] * (len(block.header) - 1)], *block.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _rich(table: Table) -> RichTable:
    shown = RichTable()
    for i, title in enumerate(table.header):
        shown.add_column(_plain(title), justify="right" if i else "left")
    for row in table.rows:
        shown.add_row(*map(_plain, row))
    return shown


def _plain(cell: str) -> str:
    """Drop the code marks of Markdown, and keep rich from reading brackets as style."""
    return cell.replace("`", "").replace("[", r"\[")


def plus_minus(value: Mapping[str, float], digits: int = 3, factor: float = 1.0) -> str:
    """Format a `spread` as mean ± standard deviation, to significant digits of the mean."""
    mean, std = factor * value["mean"], factor * value["std"]
    places = max(0, digits - 1 - math.floor(math.log10(abs(mean)))) if mean else 0
    text = f"{mean:.{min(places, 6)}f}"
    return text if value["n"] < 2 else f"{text} ± {std:.{min(places, 6)}f}"


def multiple(value: Mapping[str, float], *, unit: bool = False) -> str:
    """Format a `spread` of ratios; ``unit``: it is the one that the others are multiples of."""
    return "1" if unit else plus_minus(value) + " ×"


def percent(value: Mapping[str, float], places: int = 0) -> str:
    """Format a `spread` of shares in %."""
    mean, std = 100 * value["mean"], 100 * value["std"]
    text = f"{mean:.{places}f}"
    return f"{text} ± {std:.{places}f}" if value["n"] > 1 else text


def machine(data: Data) -> str:
    """Return the kind of machine and the version of JAX."""
    here = data["environment"]
    cores = f"core{'s' * (here['cpus'] != 1)}"
    return f"{here['cpus']} {here['device'].upper()} {cores}, jax {here['packages']['jax']}"


def over_seeds(count: int) -> str:
    """Return the number of seeds, in words."""
    return "1 seed" if count == 1 else f"{count} seeds, mean ± standard deviation over them"
