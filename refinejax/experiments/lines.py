"""A file of JSON lines that is only added to, by several processes, and survives a crash."""

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def read_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the objects of a file; none if it is not there.

    Half a line at the end is passed over: it is being written, or its writer died. Another line
    that is no JSON object is passed over with a warning.

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
                f"{path}, line {number}: not a JSON object, as where a writer died; passed over",
                stacklevel=2,
            )
    whole = _parse(last)  # no part of an object is an object: only the end of the line is missing
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
    """Add the objects that ``make`` returns when it is shown those that are there.

    Nobody else writes between the look and the writing (a lock, `fcntl.flock`; on Windows there is
    none, and one process should write). All are written, or none: one write at the end of the file
    and ``fsync``. What a writer that died left of a line is ended first, so that it spoils nothing.

    Raises:
        OSError: if it cannot be written; the file is then as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path) as descriptor:
        new = make(read_lines(path))
        if not new:
            return
        text = "".join(json.dumps(item, allow_nan=False) + "\n" for item in new).encode()
        size = os.fstat(descriptor).st_size
        if size and not _ends_a_line(descriptor, size):
            text = b"\n" + text
        try:
            if (written := os.write(descriptor, text)) < len(text):
                raise OSError(f"only {written} of {len(text)} bytes could be written")
            os.fsync(descriptor)
        except OSError as error:
            os.ftruncate(descriptor, size)
            raise OSError(f"{path}: cannot be written ({error}); make room") from error


def _ends_a_line(descriptor: int, size: int) -> bool:
    os.lseek(descriptor, size - 1, os.SEEK_SET)
    return os.read(descriptor, 1) == b"\n"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
