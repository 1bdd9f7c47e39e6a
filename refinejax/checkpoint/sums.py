"""Checksums of folders."""

import json
from collections.abc import Iterable
from pathlib import Path

from refinejax._files import hash_parts, read_blocks, write_json

_SEAL = "sha256.json"


def checksums(folder: Path) -> list[list[str]]:
    """Return path (relative to ``folder``, POSIX) and SHA-256 of every file below a folder.

    Args:
        folder: where.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [[path.relative_to(folder).as_posix(), hash_parts(read_blocks(path))] for path in files]


def damage(folder: Path, sums: Iterable[list[str]]) -> str | None:
    """Return how the files differ from their checksums, or None if they do not.

    Args:
        folder: where the files are.
        sums: path and SHA-256 of each file, as `checksums` returns them.
    """
    for name, expected in sums:
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if hash_parts(read_blocks(path)) != expected:
            return f"{name} is not as it was written: its checksum differs"
    return None


def seal(folder: Path) -> None:
    """Mark a folder as finished: write the checksums of all its files beside them.

    Args:
        folder: where.
    """
    write_json(folder / _SEAL, checksums(folder), indent=1)


def sealed(folder: Path) -> bool:
    """Return whether a folder is marked as finished.

    Args:
        folder: where.
    """
    return (folder / _SEAL).is_file()


def unseal(folder: Path) -> None:
    """Remove the mark of `seal`, before the folder is removed.

    Args:
        folder: where.
    """
    (folder / _SEAL).unlink(missing_ok=True)


def fault(folder: Path) -> str | None:
    """Return why a folder cannot be used (unfinished or damaged), or None if it can.

    Args:
        folder: where.
    """
    if not sealed(folder):
        return "its writing was not finished"
    try:
        sums = json.loads((folder / _SEAL).read_text())
    except ValueError as error:
        return f"{_SEAL} cannot be read: {error}"
    is_list = isinstance(sums, list) and all(isinstance(x, list) and len(x) == 2 for x in sums)
    if not is_list or not sums:
        return f"{_SEAL} is not as it was written"
    return damage(folder, sums)
