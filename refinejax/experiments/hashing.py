"""Short hashes that tell whether configs, data, initial params or code are equal."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from refinejax._files import hash_json, hash_parts, read_blocks

LENGTH = 12  # hexadecimal digits: among a million records a collision has odds of 1 in 500


def hash_config(config: Any, name: str = "config") -> str:
    """Return the hash of a config; the order of keys does not matter.

    Args:
        config: what JSON can hold.
        name: the argument to name in the error.

    Returns:
        12 hexadecimal digits.

    Raises:
        ValueError: if JSON cannot hold it.
    """
    return hash_json(config, name)[:LENGTH]


def hash_arrays(arrays: Any) -> str:
    """Return the hash of an array, or of dicts and sequences of arrays: data, initial params.

    Args:
        arrays: anything that `numpy.asarray` takes counts as an array, also one of JAX or PyTorch
            on a CPU. Values, dtypes, shapes and names matter.

    Returns:
        12 hexadecimal digits.

    Raises:
        ValueError: for an array of objects.
    """
    return hash_parts(_parts(arrays, "arrays"))[:LENGTH]


def _parts(value: Any, path: str) -> Iterator[str | np.ndarray]:
    if isinstance(value, Mapping):
        yield f"dict{len(value)}"
        for key in sorted(value, key=str):
            yield f"{type(key).__name__}:{key!r};"
            yield from _parts(value[key], f"{path}[{key!r}]")
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        yield f"list{len(value)}"
        for i, item in enumerate(value):
            yield from _parts(item, f"{path}[{i}]")
    else:
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise ValueError(f"{path}: expected an array of numbers or text, got {value!r}")
        yield array


def hash_files(*paths: str | os.PathLike[str]) -> str:
    """Return the hash of the contents of files, in the order given; their names do not matter.

    Args:
        *paths: the files.

    Returns:
        12 hexadecimal digits.

    Raises:
        OSError: if one cannot be read.
    """
    return hash_parts(_contents(paths))[:LENGTH]


def _contents(paths: Sequence[str | os.PathLike[str]]) -> Iterator[str | bytes]:
    for path in paths:
        yield f"file{Path(path).stat().st_size};"
        yield from read_blocks(path)


def code_revision(folder: str | os.PathLike[str] = ".") -> str:
    """Return the commit that is checked out, with a hash of uncommitted changes if there are any.

    Args:
        folder: in the git repository.

    Raises:
        ValueError: if ``folder`` is in no git repository, or git is missing.
    """
    commit = _git(folder, "rev-parse", "--short=12", "HEAD").decode().strip()
    changes = _git(folder, "diff", "HEAD", "--binary")
    return f"{commit}+{hash_parts([changes])[:6]}" if changes else commit


def _git(folder: str | os.PathLike[str], *command: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", folder, *command], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", b"").decode(errors="replace").strip() or error
        raise ValueError(
            f"folder: no git revision of {os.fspath(folder)} ({why}); name the revision yourself"
        ) from error
    return done.stdout
