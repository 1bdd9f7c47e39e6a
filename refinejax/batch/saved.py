"""The file of a `BatchResult`: an ``.npz`` with an array for each leaf."""

import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refinejax._files import write_npz

_TREES = ("params", "at_bound", "std", "trace", "evaluations", "derivative_evaluations")  # or None
_COLUMNS = ("loss", "initial_loss", "steps", "status")
_TEXTS = ("seconds", "method", "notes")
_MARGIN, _DTYPES = "margin_", "dtypes"
_DAMAGE = (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


def write_result(path: str | os.PathLike[str], parts: Mapping[str, Any]) -> None:
    """Write the fields of a result.

    Args:
        path: of the file.
        parts: the fields by name; others than those of a file are left out.
    """
    arrays = {field + name: leaf for field in _TREES for name, leaf in _named(parts[field])}
    arrays |= {_MARGIN + name: margin for name, margin in parts["margins"].items()}
    arrays |= {name: parts[name] for name in (*_COLUMNS, *_TEXTS)}
    arrays = {name: np.asarray(leaf) for name, leaf in arrays.items()}
    foreign = {name: leaf.dtype.name for name, leaf in arrays.items() if leaf.dtype.kind == "V"}
    arrays |= {name: arrays[name].astype(np.float32) for name in foreign}
    dtypes = np.array([f"{name}={dtype}" for name, dtype in foreign.items()], str)
    write_npz(path, **arrays, **{_DTYPES: dtypes})


def read_result(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the fields of a result that `write_result` wrote.

    Args:
        path: of the file.

    Returns:
        The fields by name, without the problem.

    Raises:
        OSError: if there is no such file, or it cannot be opened.
        ValueError: if the file is damaged, or something else.
    """
    arrays = _read_arrays(path)
    for entry in arrays.pop(_DTYPES).tolist():
        name, dtype = entry.rsplit("=", 1)
        arrays[name] = arrays[name].astype(jnp.dtype(dtype))
    found: dict[str, Any] = {name: _unnamed(arrays, name) for name in _TREES}
    found |= {name: arrays.pop(name) for name in _COLUMNS}
    found |= {"seconds": float(arrays.pop("seconds")), "method": str(arrays.pop("method"))}
    found["notes"] = tuple(str(note) for note in arrays.pop("notes"))
    found["margins"] = {name.removeprefix(_MARGIN): leaf for name, leaf in arrays.items()}
    return found


def _read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read all arrays; name the fault of a file that is not a result."""
    name = os.fspath(path)
    with open(path, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in archive.files}
        except (*_DAMAGE, AttributeError, TypeError) as error:  # a single array is no archive
            raise ValueError(
                f"{name}: expected a file that BatchResult.save wrote; this one is damaged or "
                f"something else ({type(error).__name__}: {error})"
            ) from error
    lacking = [key for key in (*_COLUMNS, *_TEXTS, _DTYPES) if key not in arrays]
    lacking += [] if any(key.startswith("params") for key in arrays) else ["params"]
    others = [key for key in arrays if not _belongs(key)]
    if lacking or others:
        parts = [f"it lacks {', '.join(lacking)}"] * bool(lacking)
        parts += [f"it holds {', '.join(others)}, which no result has"] * bool(others)
        raise ValueError(f"{name}: expected a file that BatchResult.save wrote; {'; '.join(parts)}")
    return arrays


def _belongs(key: str) -> bool:
    return key in (*_COLUMNS, *_TEXTS, _DTYPES) or key.startswith((*_TREES, _MARGIN))


def _named(tree: Any) -> list[tuple[str, np.ndarray]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]


def _unnamed(arrays: dict[str, np.ndarray], prefix: str) -> Any:
    found = {name: arrays.pop(name) for name in list(arrays) if name.startswith(prefix)}
    found = {name.removeprefix(prefix): leaf for name, leaf in found.items()}
    return found.get("", found or None) if len(found) <= 1 else found
