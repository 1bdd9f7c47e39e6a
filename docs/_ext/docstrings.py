"""Docstrings are plain text with Google sections: keep other markup from being read into it."""

import re
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx

# code, over line ends too; what is a sign of markup outside of it
_CODE = re.compile(r"(``[^`]+``|`[^`]+`)")
_SIGNS = re.compile(r"(?<!\\)([|*]|(?<=\w)_(?!\w))")


def _escape(lines: list[str]) -> list[str]:
    parts = _CODE.split("\n".join(lines))
    text = "".join(p if i % 2 else _SIGNS.sub(r"\\\1", p) for i, p in enumerate(parts))
    for i in range(1, len(parts), 2):
        text = text.replace(f"{parts[i]}s", f"{parts[i]}\\ s")
    return text.split("\n")


def escape(lines: list[str]) -> Iterator[str]:
    """Yield the lines with ``|``, ``*`` and trailing ``_`` escaped outside code and code blocks."""
    block, prose = -1, []  # the indentation of what introduced a code block; lines before one
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if block >= 0 and line.strip() and indent <= block:
            block = -1
        if block >= 0:
            yield line
            continue
        prose.append(line)
        if line.rstrip().endswith("::") or not line.strip():
            yield from _escape(prose)
            prose = []
            block = indent if line.strip() else -1
    yield from _escape(prose)


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = list(escape(lines))


def _skip(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what dataclasses and NamedTuples define by themselves."""
    field = type(obj).__name__ == "_tuplegetter"  # documented under Attributes
    return True if field or name in ("replace", "count", "index") else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register both; the first before napoleon, which makes fields of the sections."""
    app.connect("autodoc-process-docstring", _process, priority=400)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
