"""Bring the notebooks into the site, executed where ``make notebooks`` has executed them."""

import shutil
from pathlib import Path

import nbformat


def copy(notebooks: Path, gallery: Path, docs: Path) -> list[str]:
    """Copy the notebooks into the gallery.

    Args:
        notebooks: where they are, without outputs.
        gallery: the folder of the site that they go into.
        docs: the root of the site; its folder ``_executed`` may hold executed copies.

    Returns:
        Patterns of those that are executed already, and need not be again.
    """
    executed = []
    for source in sorted(notebooks.glob("*.ipynb")):
        done = docs / "_executed" / source.name
        same = done.exists() and _cells(done) == _cells(source)
        target = gallery / source.name
        if not target.exists() or target.read_bytes() != (done if same else source).read_bytes():
            shutil.copyfile(done if same else source, target)
        if same:
            executed.append(f"gallery/{source.name}")
    for old in gallery.glob("*.ipynb"):
        if not (notebooks / old.name).exists():
            old.unlink()
    return executed


def _cells(path: Path) -> list[tuple[str, str]]:
    notebook = nbformat.read(path, as_version=4)
    return [(cell.cell_type, cell.source) for cell in notebook.cells]
