"""Does every public name have its documentation? Part of ``make lint``.

``python docs/check_docstrings.py`` checks the package, ``… refinejax/batch`` a part of it,
``--exported`` only the names that the package and its subpackages export, and ``--counts`` prints
how many findings each part has. It fails above ``--at-most`` findings. The source is parsed, not
imported.

A public class or function has a docstring. One with parameters has ``Args:`` with each of them,
``Raises:`` with each exception that its own body raises, and ``Returns:`` if it returns a value,
unless the first line begins with "Return", "Yield" or "Whether" and so says it (as Google's style
has it). A class with public fields names each under ``Attributes:`` or ``Args:``. Properties and
methods that implement a protocol need a docstring only, a method that overrides a documented one
needs none. Some words make a text hard to read and may not stand in docstrings, comments and
messages.
"""

import argparse
import ast
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "refinejax"
# modules with an underscore whose names the façade exports
FACADE = ("_core.py", "_refine.py", "_run.py", "_applications.py")
WORDS = (
    "nobody",
    "likewise",
    "insist",
    "complain",
    "of those that",
    "that of",
    "what is",
    "for lack of",
)
_WORDS = re.compile(r"\b(" + "|".join(w.replace(" ", r"\s+") for w in WORDS) + r")\w*", re.I)
_HEADING = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):$", re.MULTILINE)

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Finding(NamedTuple):
    """One thing that is missing, and where."""

    file: Path
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}: {self.what}"


class Classes:
    """All classes of the package by name, to find what a method overrides."""

    def __init__(self, files: list[Path]):
        self.by_name: dict[str, ast.ClassDef] = {}
        for file in files:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    self.by_name.setdefault(node.name, node)
        self.protocols = {
            member.name
            for node in self.by_name.values()
            if "Protocol" in _bases(node)
            for member in _methods(node)
            if ast.get_docstring(member)
        }

    def overrides(self, node: ast.ClassDef, name: str) -> bool:
        """Whether a base class in the package documents a method of this name."""
        for base in _bases(node):
            parent = self.by_name.get(base)
            if parent is None or parent is node:
                continue
            own = [m for m in _methods(parent) if m.name == name and ast.get_docstring(m)]
            if own or self.overrides(parent, name):
                return True
        return False


def exported(package: Path = PACKAGE) -> set[tuple[Path, str]]:
    """Return file and name of everything that an ``__init__`` re-exports (``X as X``)."""
    found = set()
    for file in (*package.rglob("__init__.py"), *package.rglob("__init__.pyi")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                home = package.parent.joinpath(*node.module.split("."))
                home = home / "__init__.py" if home.is_dir() else home.with_suffix(".py")
                found |= {(home, alias.name) for alias in node.names if alias.asname}
    return found


def _bases(node: ast.ClassDef) -> list[str]:
    names = (base.value if isinstance(base, ast.Subscript) else base for base in node.bases)
    return [ast.unparse(name).rpartition(".")[2] for name in names]


def _methods(node: ast.ClassDef) -> list[Function]:
    return [member for member in node.body if isinstance(member, Function)]


def _public(name: str) -> bool:
    return not name.startswith("_")


Names = set[tuple[Path, str]]


def check_file(file: Path, classes: Classes, only: Names | None = None) -> Iterator[Finding]:
    """Find what is missing in one file; with ``only``, in the documentation of these names."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    if not ast.get_docstring(tree):
        yield Finding(file, 1, "the module has no docstring")
    if only is not None or _public(file.stem) or file.name in (*FACADE, "__init__.py"):
        nodes = [n for n in tree.body if only is None or (file, getattr(n, "name", "")) in only]
        for node in nodes:
            if isinstance(node, Function) and _public(node.name):
                yield from (Finding(file, node.lineno, what) for what in _function(node))
            if isinstance(node, ast.ClassDef) and _public(node.name):
                yield from (Finding(file, at, what) for at, what in _class(node, classes))
    if only is None:
        yield from (Finding(file, at, what) for at, what in _words(file))


def _class(node: ast.ClassDef, classes: Classes) -> Iterator[tuple[int, str]]:
    text = ast.get_docstring(node) or ""
    if not text:
        yield node.lineno, f"{node.name} has no docstring"
    named = _named(text, "Attributes") | _named(text, "Args")
    fields = [
        member.target.id
        for member in node.body
        if isinstance(member, ast.AnnAssign)
        and isinstance(member.target, ast.Name)
        and "ClassVar" not in ast.unparse(member.annotation)
    ]
    missing = [name for name in fields if _public(name) and name not in named]
    if missing:
        yield node.lineno, f"{node.name}: Attributes lack {', '.join(missing)}"
    for member in _methods(node):
        exempt = not _public(member.name) or classes.overrides(node, member.name)
        if not exempt:
            protocol = member.name in classes.protocols
            for what in _function(member, method=True, sections=not protocol):
                yield member.lineno, f"{node.name}.{what}"


def _function(node: Function, *, method: bool = False, sections: bool = True) -> Iterator[str]:
    decorators = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
    if re.search(r"\.setter|overload", decorators):
        return
    text = ast.get_docstring(node) or ""
    if not text:
        yield f"{node.name} has no docstring"
        return
    params = _params(node, skip_first=method and "staticmethod" not in decorators)
    if not sections or "property" in decorators or not params:
        return
    missing = [name for name in params if name not in _named(text, "Args")]
    if missing:
        yield f"{node.name}: Args lack {', '.join(missing)}"
    if _returns(node) and not re.search(
        r"^(Returns|Yields):$|\A(Return|Yield|Whether)\b", text, re.M
    ):
        yield f"{node.name}: no Returns"
    unsaid = sorted(_raised(node) - _named(text, "Raises"))
    if unsaid:
        yield f"{node.name}: Raises lack {', '.join(unsaid)}"


def _params(node: Function, *, skip_first: bool) -> list[str]:
    given = node.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args)][int(skip_first) :]
    names += [argument.arg for argument in given.kwonlyargs]
    names += [argument.arg for argument in (given.vararg, given.kwarg) if argument]
    return [name for name in names if _public(name)]


def _named(text: str, heading: str) -> set[str]:
    """Return the names that a section of a docstring explains."""
    parts = _HEADING.split(text)
    body = "".join(parts[i + 1] for i in range(1, len(parts), 2) if parts[i] == heading)
    entries = re.findall(r"^ {4}(\*{0,2}\w[\w\s,*/.]*?)(?: \([^)]*\))?:", body, re.MULTILINE)
    return {name.strip(" *") for entry in entries for name in re.split(r",|\bor\b|/", entry)}


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a body without the functions and classes that are defined in it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function | ast.Lambda | ast.ClassDef):
            yield child
            yield from _own(child)


def _returns(node: Function) -> bool:
    values = [child.value for child in _own(node) if isinstance(child, ast.Return)]
    yields = any(isinstance(child, ast.Yield | ast.YieldFrom) for child in _own(node))
    said = node.returns is not None and ast.unparse(node.returns) in ("None", "NoReturn", "Never")
    return yields or (any(value is not None for value in values) and not said)


def _raised(node: Function) -> set[str]:
    found = set()
    for child in _own(node):
        if isinstance(child, ast.Raise) and child.exc is not None:
            called = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
            found.add(ast.unparse(called).rpartition(".")[2])
    return {name for name in found if name[:1].isupper() and name != "NotImplementedError"}


def _words(file: Path) -> Iterator[tuple[int, str]]:
    with file.open("rb") as stream:
        for token in tokenize.tokenize(stream.readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING):
                for found in _WORDS.finditer(token.string):
                    line = token.start[0] + token.string.count("\n", 0, found.start())
                    yield line, f"plain English: {found[0]!r}"


def check(paths: list[Path], *, only_exported: bool = False) -> list[Finding]:
    """Check all Python files below some paths; base classes are looked up in the whole package."""
    classes = Classes(sorted(PACKAGE.rglob("*.py")))
    only = exported() if only_exported else None
    files = [f for path in paths for f in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    return [finding for file in files for finding in check_file(file.resolve(), classes, only)]


def main(arguments: list[str] | None = None) -> int:
    """Print the findings, or their counts; exit code 1 if there are more than allowed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("paths", nargs="*", type=Path, default=[PACKAGE])
    parser.add_argument("--counts", action="store_true", help="a number for each subpackage")
    parser.add_argument("--exported", action="store_true", help="exported names only")
    parser.add_argument("--at-most", type=int, default=0, help="findings that do not fail")
    options = parser.parse_args(arguments)
    findings = check(options.paths, only_exported=options.exported)
    if options.counts:
        parts = Counter("/".join(f.file.relative_to(ROOT).parts[:3]) for f in findings)
        for part, count in sorted(parts.items()):
            print(f"{count:5}  {part}")
    else:
        print(*findings, sep="\n")
    print(f"{len(findings)} findings", file=sys.stderr)
    return int(len(findings) > options.at_most)


if __name__ == "__main__":
    sys.exit(main())
