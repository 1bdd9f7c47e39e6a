"""Files that are whole or absent, and hashes of files, settings and arrays."""

import contextlib
import hashlib
import json
import os
import stat
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

_BLOCK = 2**20  # bytes read at a time


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file whose content replaces ``path`` when the block ends without an error.

    The content is written to a temporary name in the same folder, flushed to the disk and renamed:
    at every moment ``path`` holds the old content or the new, never a part. A new file gets the
    permissions that the umask allows; a file that exists keeps its own. A link is followed.

    Args:
        path: the file to write; its folder must exist.

    Yields:
        A binary file, open for writing.

    Raises:
        OSError: if the file cannot be written (names ``path``). ``path`` is as it was, and the
            temporary file is removed, after any error or interruption.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the folder is gone, or may not be written
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == os.fspath(temporary):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Flush the new name to the disk, where the system can open a folder for that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text with `atomic_write`.

    Args:
        path: the file to write.
        text: its content; characters that UTF-8 cannot hold become "?".

    Raises:
        OSError: if the file cannot be written.
    """
    with atomic_write(path) as file:
        file.write(text.encode(errors="replace"))


def write_json(path: str | os.PathLike[str], content: Any, *, indent: int | None = None) -> None:
    """Write JSON with `atomic_write`.

    Args:
        path: the file to write.
        content: text, finite numbers, booleans, None, lists and dicts of them.
        indent: spaces per level; None for a single line.

    Raises:
        OSError: if the file cannot be written.
        ValueError: for NaN or infinity, which JSON does not have.
    """
    write_text(path, json.dumps(content, indent=indent, allow_nan=False))


def write_npz(path: str | os.PathLike[str], **arrays: Any) -> None:
    """Write arrays as an ``.npz`` file with `atomic_write`.

    Args:
        path: the file to write; no extension is added.
        **arrays: the arrays by name.

    Raises:
        OSError: if the file cannot be written.
    """
    with atomic_write(path) as file:
        np.savez(file, **arrays)


def canonical_json(value: Any, name: str) -> str:
    """Return ``value`` as JSON text that is equal for equal values.

    Args:
        value: what JSON can hold; the order of keys does not matter.
        name: the argument to name in the error.

    Raises:
        ValueError: if JSON cannot hold ``value``.
    """
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: expected what JSON can hold (text, finite numbers, lists, dicts with text as "
            f"keys), got {value!r} ({error})"
        ) from error


def hash_json(value: Any, name: str) -> str:
    """Return the SHA-256 of `canonical_json`.

    Args:
        value: what JSON can hold.
        name: the argument to name in the error.

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: if JSON cannot hold ``value``.
    """
    return hash_parts([canonical_json(value, name)])


def hash_parts(parts: Iterable[str | bytes | np.ndarray]) -> str:
    """Return the SHA-256 of texts, bytes and arrays, in the order given.

    Args:
        parts: what to hash. Of an array the dtype, the shape and the values count.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            # bfloat16 and the float8 types share the code "V1" or "V2", and differ in name.
            kind = str(part.dtype) if part.dtype.kind == "V" else part.dtype.str
            digest.update(f"{kind}{part.shape}".encode())
            part = np.ascontiguousarray(part).tobytes()
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


def read_blocks(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Yield the content of a file in blocks of 1 MiB, to hash it in little memory.

    Args:
        path: the file to read.

    Raises:
        OSError: if it cannot be read.
    """
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
