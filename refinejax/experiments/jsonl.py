"""A file of JSON lines that several processes append to and that survives a crash."""

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

_APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)


def read_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the JSON objects of a file, one per line.

    An incomplete last line is skipped: another process is writing it, or died while it did. Any
    other line that is not a JSON object is skipped with a warning.

    Args:
        path: the file; one that does not exist holds no objects.

    Raises:
        OSError: if the file cannot be read.
    """
    path = Path(path)
    if not path.exists():
        return []
    *lines, last = path.read_bytes().split(b"\n")
    found = []
    for number, line in enumerate(lines, 1):
        content = _parse(line)
        if content is not None:
            found.append(content)
        elif line.strip():
            warnings.warn(
                f"{path}, line {number}: not a JSON object; skipped (a process that died while it "
                "wrote leaves such a line)",
                stacklevel=2,
            )
    whole = _parse(last)  # a part of an object never parses: only the newline is missing
    return found if whole is None else [*found, whole]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def append_lines(
    path: str | os.PathLike[str],
    make: Callable[[list[dict[str, Any]]], Sequence[Mapping[str, Any]]],
) -> None:
    """Append the JSON objects that ``make`` returns for the objects in the file.

    A lock (``path`` with ".lock" appended) keeps other processes from writing between the reading
    and the writing. All objects are appended in one write and flushed to the disk, or none is. An
    incomplete last line is ended first, so that it does not spoil the new lines.

    Args:
        path: the file; created, with its folder, if it does not exist.
        make: takes the objects in the file and returns the new ones.

    Raises:
        OSError: if the file cannot be written; it is then as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        new = make(read_lines(path))
        if new:
            _append(path, "".join(json.dumps(item, allow_nan=False) + "\n" for item in new))


def _append(path: Path, text: str) -> None:
    descriptor = os.open(path, _APPEND, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        content = text.encode()
        if size and not _ends_a_line(descriptor, size):
            content = b"\n" + content
        try:
            if (written := os.write(descriptor, content)) < len(content):
                raise OSError(f"only {written} of {len(content)} bytes could be written")
            os.fsync(descriptor)
        except OSError as error:
            os.ftruncate(descriptor, size)
            raise OSError(f"{path}: cannot be written ({error}); make room") from error
    finally:
        os.close(descriptor)


def _ends_a_line(descriptor: int, size: int) -> bool:
    os.lseek(descriptor, size - 1, os.SEEK_SET)
    return os.read(descriptor, 1) == b"\n"
