"""A package whose names are imported when they are first used, from the list in its stub.

The stub ``__init__.pyi`` is the one list of public names: editors and type checkers read it as it
is, and the package reads it here. `attach` parses it once, in under a millisecond.
"""

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from refinejax._fork import check_fork


class Lazy(NamedTuple):
    """What a lazy package defines.

    Attributes:
        getattr: the package's ``__getattr__`` (PEP 562).
        dir: the package's ``__dir__``.
        all: the package's ``__all__``.
    """

    getattr: Callable[[str], Any]
    dir: Callable[[], list[str]]
    all: list[str]


def attach(package: str, file: str) -> Lazy:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package, as its stub says.

    Args:
        package: its ``__name__``.
        file: its ``__file__``; the stub lies beside it.

    Returns:
        The three, to be assigned at the top of the package's ``__init__.py``.
    """
    homes, parts, names = read_stub(package, Path(file).with_suffix(".pyi"))

    def get(name: str) -> Any:
        if name in parts:
            return importlib.import_module(f"{package}.{name}")
        if name in homes:
            if homes[name] not in sys.modules:
                check_fork()  # modules make arrays as they are imported
            return getattr(importlib.import_module(homes[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return Lazy(get, lambda: sorted({*names, *parts}), names)


def read_stub(package: str, stub: Path) -> tuple[dict[str, str], set[str], list[str]]:
    """Read which names a stub re-exports.

    Args:
        package: the package's name.
        stub: its ``.pyi``.

    Returns:
        The module of each name, the subpackages and modules (``from package import NAME as NAME``)
        and ``__all__``.
    """
    homes: dict[str, str] = {}
    parts: set[str] = set()
    names: list[str] = []
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module == package:
            parts |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            homes |= {alias.name: node.module for alias in node.names}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = ast.literal_eval(node.value)
    return homes, parts, names
