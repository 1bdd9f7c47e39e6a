"""The parts of a page: sections of paragraphs, tables and pictures."""

import base64
import html
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from refinejax._core import Status
from refinejax.plot import group_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure of a page, which is also written to PNG files.

    Attributes:
        figure: of matplotlib.
        names: of the files, without ".png"; the first is shown.
        text: what it shows, for readers who cannot see it.
    """

    figure: "Figure"
    names: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        title: plain text.
        parts: HTML, as `paragraph` and `table` make it, and pictures, in order.
    """

    title: str
    parts: Sequence[str | Picture]

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures among the parts."""
        return tuple(part for part in self.parts if isinstance(part, Picture))


def paragraph(text: str) -> str:
    """Return a paragraph.

    Args:
        text: plain text; it is escaped.
    """
    return f"<p>{html.escape(text)}</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """Return a table, whose first column names its rows.

    Args:
        head: cells of the first row, HTML.
        rows: cells, HTML: escape text of users by `html.escape`.
        kind: class for the style sheet.
    """
    first = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "\n".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="scroll"><table class="{kind}">\n<thead><tr>{first}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def code_to_html(text: str) -> str:
    """Escape text and mark the parts between backticks as code.

    Args:
        text: plain text.

    Returns:
        HTML.
    """
    pieces = html.escape(text).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(pieces))


def badge(code: Status) -> str:
    """Return a status in the color of its group.

    Args:
        code: the status.
    """
    group = group_of(code)
    return f'<span class="badge {group.split()[0]}" title="{group}">{code.name}</span>'


def section_html(section: Section, images: Mapping[str, bytes], dpi: int) -> str:
    """Return a section as HTML that holds its pictures.

    Args:
        section: with a title and parts.
        images: PNG files by name.
        dpi: their resolution [pixels per inch].
    """
    parts = [
        _image(images[part.names[0]], part.text, dpi) if isinstance(part, Picture) else part
        for part in section.parts
    ]
    body = "\n".join(part for part in parts if part)
    return f"<section><h2>{html.escape(section.title)}</h2>\n{body}\n</section>"


def _image(png: bytes, text: str, dpi: int) -> str:
    """Return a figure within the page, at 100 pixels of the page per inch."""
    # width and height stand in the header of a PNG file, from byte 16 on
    width, height = (x * 100 // dpi for x in struct.unpack(">II", png[16:24]))
    source = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img width="{width}" height="{height}" alt="{html.escape(text)}" '
        f'src="data:image/png;base64,{source}"></figure>'
    )
