"""Short hashes that say whether two things are the same: configs, data, initial params, code."""

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

LENGTH = 12  # hexadecimal digits: among a million records a collision has odds of 1 in 500
_CHUNK = 2**20


def hash_config(config: Any, name: str = "config") -> str:
    """Return the hash of what JSON can hold; the order of keys does not matter.

    Raises:
        ValueError: for what JSON cannot hold; names the argument.
    """
    return hashlib.sha256(canonical(config, name).encode()).hexdigest()[:LENGTH]


def canonical(value: Any, name: str) -> str:
    """Write a value as JSON in the one way that does not depend on the order of keys."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: expected what JSON can hold (text, finite numbers, lists, dicts with text as "
            f"keys), got {value!r} ({error})"
        ) from error


def hash_arrays(arrays: Any) -> str:
    """Return the hash of an array, or of dicts and sequences of arrays: data, initial params.

    Values, dtypes, shapes and names count. Anything that `numpy.asarray` takes is an array, also
    one of JAX or PyTorch on a CPU.

    Raises:
        ValueError: for an array of objects.
    """
    digest = hashlib.sha256()
    _absorb(digest, arrays, "arrays")
    return digest.hexdigest()[:LENGTH]


def _absorb(digest: Any, value: Any, path: str) -> None:
    if isinstance(value, Mapping):
        digest.update(f"dict{len(value)}".encode())
        for key in sorted(value, key=str):
            digest.update(f"{type(key).__name__}:{key!r};".encode())
            _absorb(digest, value[key], f"{path}[{key!r}]")
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        digest.update(f"list{len(value)}".encode())
        for i, item in enumerate(value):
            _absorb(digest, item, f"{path}[{i}]")
    else:
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise ValueError(f"{path}: expected an array of numbers or text, got {value!r}")
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())


def hash_files(*paths: str | os.PathLike[str]) -> str:
    """Return the hash of the contents of files, in the order given; their names do not count.

    Raises:
        OSError: if one cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"file{Path(path).stat().st_size};".encode())
        with Path(path).open("rb") as file:
            while block := file.read(_CHUNK):
                digest.update(block)
    return digest.hexdigest()[:LENGTH]


def code_revision(folder: str | os.PathLike[str] = ".") -> str:
    """Return the commit that is checked out; where files differ from it, with a hash of how.

    Raises:
        ValueError: if ``folder`` is in no git repository, or there is no git.
    """
    commit = _git(folder, "rev-parse", "--short=12", "HEAD").decode().strip()
    changes = _git(folder, "diff", "HEAD", "--binary")
    return f"{commit}+{hashlib.sha256(changes).hexdigest()[:6]}" if changes else commit


def _git(folder: str | os.PathLike[str], *command: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", folder, *command], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", b"").decode(errors="replace").strip() or error
        raise ValueError(
            f"folder: no git revision of {os.fspath(folder)} ({why}); name the revision yourself"
        ) from error
    return done.stdout
