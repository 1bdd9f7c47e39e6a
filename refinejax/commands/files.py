"""Reading and writing files, with errors that say what to do."""

import json
import os
import tempfile
import tomllib
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_UNREADABLE = (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error)


class InputError(Exception):
    """Wrong arguments or input; the text says how to mend it."""


def read_npz(path: Path, required: Mapping[str, str], remedy: str) -> "dict[str, np.ndarray]":
    """Read an npz file of plain arrays.

    Args:
        path: of the file.
        required: name of an array that must be there → what it must hold.
        remedy: how to get such a file, for the error if there is none.

    Returns:
        All arrays of the file, by name.

    Raises:
        InputError: if there is no such file, it is damaged, or an array is missing.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; {remedy}")
    try:
        arrays = _load(path)
    except _UNREADABLE as error:
        raise InputError(
            f"{path}: not an .npz file of plain arrays ({error}); write it with numpy.savez"
        ) from error
    for name, content in required.items():
        if name not in arrays:
            have = ", ".join(arrays) or "nothing"
            raise InputError(
                f"{path}: no array named {name}, which must hold {content}; it has {have}"
            )
    return arrays


def _load(path: Path) -> "dict[str, np.ndarray]":
    import numpy as np  # `refinejax --help` does without

    if not zipfile.is_zipfile(path):
        raise ValueError("it is not a complete zip archive")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def read_toml(path: Path, option: str) -> dict[str, Any]:
    """Read the tables of a TOML file.

    Args:
        path: of the file, in UTF-8.
        option: of the command that names the file, for errors.

    Returns:
        Tables by name.

    Raises:
        InputError: if the file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{option}: {path} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{option}: {path} is not TOML ({error})") from error


def check_writable(path: Path) -> None:
    """Check before the work is done that its result can be written.

    Args:
        path: of the file.

    Raises:
        InputError: if it is no place for a file.
        OSError: if its folder cannot be written.
    """
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


def write_npz(path: Path, **arrays: Any) -> None:
    """Write an npz file.

    Args:
        path: of the file; it appears whole, or not at all.
        arrays: by name.

    Raises:
        OSError: if that is not possible; says what to do.
    """
    from refinejax._files import write_npz as save  # which needs NumPy, and --help does not

    try:
        save(path, **arrays)
    except OSError as error:
        why = error.strerror or error
        raise OSError(f"{path}: cannot be written ({why}); make room, or name another") from error


def print_json(**content: Any) -> None:
    """Print one JSON object on one line.

    Args:
        content: by name; numbers must be finite.

    Raises:
        ValueError: for a number that is not finite.
    """
    print(json.dumps(content, allow_nan=False))
