"""The source keeps to its limits: unique class names, short files, few arguments."""

import ast
import collections
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = sorted((ROOT / "refinejax").rglob("*.py"))
SOURCES = PACKAGE + sorted((ROOT / "benchmarks").rglob("*.py"))
MOST_LINES, MOST_ARGUMENTS = 350, 6


def _nodes(source, kind):
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, kind)]


def repeated_classes(sources):
    """Return the class names that stand more than once in the texts."""
    counts = collections.Counter(n.name for s in sources for n in _nodes(s, ast.ClassDef))
    return {name for name, count in counts.items() if count > 1}


def crowded_functions(source):
    """Return the functions with too many positional parameters without a default."""
    found = set()
    for node in _nodes(source, ast.FunctionDef | ast.AsyncFunctionDef):
        names = [a.arg for a in node.args.posonlyargs + node.args.args]
        needed = names[: len(names) - len(node.args.defaults)]
        if len([name for name in needed if name not in ("self", "cls")]) > MOST_ARGUMENTS:
            found.add(node.name)
    return found


def test_the_checks_find_what_they_look_for():
    assert repeated_classes(["class A: ...\nclass B: ...", "def f():\n    class A: ..."]) == {"A"}
    assert crowded_functions("def f(a, b, c, d, e, /, g, h): ...") == {"f"}
    assert crowded_functions("class A:\n    async def f(self, a, b, c, d, e, g, h): ...") == {"f"}
    fine = "def f(a, b, c, d, e, g, h=1): ...\nclass A:\n    def g(self, a, b, c, d, e, f): ..."
    assert not crowded_functions(fine + "\ndef h(a, *, b, c, d, e, f, g): ...")


def test_a_class_name_is_unique_in_the_package():
    assert len(PACKAGE) > 200
    assert not repeated_classes(path.read_text(encoding="utf-8") for path in PACKAGE)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short_and_its_functions_take_few_arguments(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MOST_LINES
    assert not crowded_functions(source)
