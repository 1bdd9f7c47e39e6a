"""Reading and writing files, and saying what is wrong with them."""

import json
import os
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

_UNREADABLE = (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error)


class InputError(Exception):
    """Wrong arguments or input; the text says how to mend it."""


def read(path: Path) -> dict[str, np.ndarray]:
    """Read an npz file; say what is wrong with it if anything is."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; make one with `refinejax simulate metalens`")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not a complete zip archive")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except _UNREADABLE as error:
        raise InputError(
            f"{path}: not an .npz file of plain arrays ({error}); write it with numpy.savez"
        ) from error
    if "phase" not in arrays:
        have = ", ".join(arrays) or "nothing"
        raise InputError(f"{path}: no array named phase, which must hold the maps; it has {have}")
    return arrays


def writable(path: Path) -> None:
    """Find out before the work is done whether its result can be written."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{path}: the folder {folder} does not exist; mkdir -p {folder}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    if path.exists() and not path.is_file():  # it would be replaced, even /dev/null
        raise InputError(f"{path}: is not a regular file; give the name of a new one")
    try:
        handle, probe = tempfile.mkstemp(dir=folder)
    except OSError as error:
        raise OSError(f"{path}: cannot write to {folder} ({error.strerror})") from error
    os.close(handle)
    os.unlink(probe)


def write(path: Path, **arrays: Any) -> None:
    """Write an npz file.

    Raises:
        OSError: if that is not possible, and what to do.
    """
    from refinejax.batch.result import write_npz  # which needs JAX, and not every command does

    try:
        write_npz(path, **arrays)
    except OSError as error:
        why = error.strerror or error
        raise OSError(f"{path}: cannot be written ({why}); make room, or name another") from error


def print_json(**content: Any) -> None:
    """Print one JSON object."""
    print(json.dumps(content, allow_nan=False))
