"""Write the pages of the API reference: every public name of every public module, once.

A page holds a subpackage: the names that it exports, then the public names of its modules that it
does not export. A name is documented where a user imports it from.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = "refinejax"
INTERNAL = {"cli"}  # the command line, not for import


def modules(name: str) -> Iterator[ModuleType]:
    """Yield a public module and those below it."""
    module = importlib.import_module(name)
    yield module
    for inner in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if not inner.name.startswith("_") and inner.name not in INTERNAL:
            yield from modules(f"{name}.{inner.name}")


def own_names(module: ModuleType) -> list[str]:
    """Return the classes and functions that are defined in a module."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or (callable(value) and hasattr(value, "__name__")))
        and getattr(value, "__module__", None) == module.__name__
        and getattr(value, "__qualname__", name) == name
    ]


def exports(module: ModuleType) -> dict[str, Any]:
    """Return what a package exports: by ``__all__``, or by the names in its ``__init__``."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [name for name in vars(module) if not name.startswith("_")]
    found = {name: getattr(module, name) for name in names}
    return {
        name: value
        for name, value in found.items()
        if (inspect.isclass(value) or inspect.isroutine(value))
        and str(getattr(value, "__module__", "")).startswith(PACKAGE)
    }


def collect() -> dict[str, list[tuple[ModuleType, list[str]]]]:
    """Return, for each page, its modules with the names to document there."""
    facade = importlib.import_module(PACKAGE)
    pages = {PACKAGE: [(facade, sorted(exports(facade)))]}
    seen = {id(value) for value in exports(facade).values()}
    for top in pkgutil.iter_modules(facade.__path__):
        if top.name.startswith("_") or top.name in INTERNAL:
            continue
        name = f"{PACKAGE}.{top.name}"
        for page, group in _pages(name):
            sections = []
            ordered = [*((m, exports(m)) for m in group if hasattr(m, "__path__"))]
            ordered += [(m, {n: vars(m)[n] for n in own_names(m)}) for m in group]
            for module, names in ordered:
                new = [key for key, value in names.items() if id(value) not in seen]
                seen |= {id(value) for value in names.values()}
                if new or module.__name__ == page:
                    sections.append((module, new))
            pages[page] = sections
    return pages


def _pages(name: str) -> Iterator[tuple[str, list[ModuleType]]]:
    """Yield the pages of a subpackage: one, or one for each application or physics."""
    found = list(modules(name))
    if name not in (f"{PACKAGE}.apps", f"{PACKAGE}.physics"):
        yield name, found
        return
    for inner in pkgutil.iter_modules(found[0].__path__):
        below = f"{name}.{inner.name}"
        if not inner.name.startswith("_"):
            yield below, [m for m in found if f"{m.__name__}.".startswith(f"{below}.")]


def _page(page: str, sections: list[tuple[ModuleType, list[str]]]) -> str:
    title = page
    lines = [title, "=" * len(title), ""]
    for number, (module, names) in enumerate(sections):
        if number and (module.__name__ != page or names):
            heading = module.__name__
            lines += [heading, "-" * len(heading), ""]
        if not number or module.__name__ != page:
            lines += [f".. automodule:: {module.__name__}", "   :no-members:"]
            lines += ["   :no-index:", ""] if number else [""]
        lines += [f".. currentmodule:: {module.__name__}", ""]
        if names:
            lines += [".. autosummary::", "", *(f"   {name}" for name in names), ""]
        for name in names:
            lines += _entry(module, name)
    return "\n".join(lines)


def _entry(module: ModuleType, name: str) -> list[str]:
    value = getattr(module, name)
    if inspect.isclass(value):
        return [f".. autoclass:: {name}", "   :members:", "   :show-inheritance:", ""]
    return [f".. autofunction:: {name}", ""]


def write(folder: Path) -> None:
    """Write all pages and their list into a folder; a page that is as it was is left alone."""
    folder.mkdir(exist_ok=True)
    pages = collect()
    made = {f"{page}.rst": _page(page, sections) for page, sections in pages.items()}
    made["index.md"] = _index(pages)
    for old in folder.iterdir():
        if old.name not in made:
            old.unlink()
    for file, text in made.items():
        path = folder / file
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _index(pages: dict[str, list[tuple[ModuleType, list[str]]]]) -> str:
    rows = "\n".join(
        f"- [`{page}`]({page}.rst): {_summary(sections[0][0])}" for page, sections in pages.items()
    )
    listed = "\n".join(pages)
    return (
        "# API reference\n\nEvery public class and function. What most programs need is in "
        "[`refinejax`](refinejax.rst), imported as `import refinejax as rj`.\n\n"
        f"{rows}\n\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"
    )


def _summary(module: ModuleType) -> str:
    return (module.__doc__ or "").strip().partition("\n\n")[0].replace("\n", " ")
