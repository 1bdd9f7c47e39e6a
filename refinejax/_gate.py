"""The gate through which all arrays come in.

Plain native arrays pass as they are; the rest is converted where it has one meaning, and refused by
name where it has none or two.

Plain means a NumPy array (also a memory-mapped one, which stays mapped) or a JAX array of numbers
in the byte order of the machine. Lists, DataFrames, h5py data sets and whatever else has
``__array__`` are converted. A masked number is a missing one: NaN where NaN means missing
(observations), refused elsewhere.
"""

import dataclasses
import numbers
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

_UNITS = ("to_value", "magnitude")  # of astropy and of pint
_SPARSE = ("scipy.sparse", "jax.experimental.sparse", "sparse")


def read_tree(tree: Any, name: str, *, missing: bool = False, lists: bool = True) -> Any:
    """Return a pytree with every leaf a plain array.

    Args:
        tree: a pytree of arrays, or of what can be made one.
        name: of the argument, for messages.
        missing: whether a masked number becomes NaN; else it is refused.
        lists: whether a list is an array; else only a list of numbers is, others are pytrees.

    Returns:
        NumPy or JAX arrays of numbers, in native byte order.

    Raises:
        ValueError: names the leaf that is no array of numbers, and the remedy.
    """

    def is_leaf(value: Any) -> bool:
        listed = isinstance(value, list) and (lists or is_list_of_numbers(value))
        return listed or _is_sparse(value)

    def convert(path: Any, leaf: Any) -> Any:
        return read_array(leaf, name + jax.tree_util.keystr(path), missing=missing)

    return jax.tree_util.tree_map_with_path(convert, tree, is_leaf=is_leaf)


def read_array(value: Any, name: str, *, missing: bool = False) -> Any:
    """Return a leaf as a plain array; see `read_tree`.

    Args:
        value: an array, or something that can be made one.
        name: of the argument, for messages.
        missing: whether a masked number becomes NaN; else it is refused.

    Raises:
        ValueError: names the argument that is no array of numbers, and the remedy.
    """
    if isinstance(value, jax.Array):
        return value
    if isinstance(value, np.ma.MaskedArray):
        return _fill(value, name, missing=missing)
    if _is_sparse(value):
        raise ValueError(f"{name}: expected a dense array, got {_kind(value)}; use .toarray()")
    if any(hasattr(value, unit) for unit in _UNITS):
        raise ValueError(
            f"{name}: {_kind(value)} carries a unit, which would be lost; pass its numbers, all "
            "arguments in the same units"
        )
    if isinstance(value, list | tuple) and _has_masked(value):
        rows = [read_array(row, name, missing=missing) for row in value]
        return _convert(rows, name)
    if isinstance(value, np.ndarray) and not isinstance(value, np.matrix):
        return _native(value, name)
    if isinstance(value, str | bytes | dict | set) or callable(value) or value is None:
        raise ValueError(f"{name}: expected an array of numbers, got {_shortly(value)}")
    return _convert(value, name)


def read_problem(problem: Any) -> Any:
    """Return a problem with every leaf a plain array; itself if they are.

    In its ``observation`` and ``noise`` a masked number becomes NaN, elsewhere it is refused.

    Args:
        problem: a pytree; with dataclass fields, lists of numbers in which become arrays.

    Raises:
        ValueError: names the leaf that is no array of numbers.
    """
    if dataclasses.is_dataclass(problem):
        fields = {f.name: getattr(problem, f.name) for f in dataclasses.fields(problem) if f.init}
        listed = {name: v for name, v in fields.items() if is_list_of_numbers(v)}
        arrays = {name: read_array(v, f"problem.{name}") for name, v in listed.items()}
        problem = dataclasses.replace(problem, **arrays) if arrays else problem  # type: ignore[arg-type]
    paths, structure = jax.tree_util.tree_flatten_with_path(problem, is_leaf=_is_sparse)
    leaves = [_read_leaf(path, leaf) for path, leaf in paths]
    same = all(new is old for new, (_, old) in zip(leaves, paths, strict=True))
    return problem if same else jax.tree.unflatten(structure, leaves)


def _read_leaf(path: Any, leaf: Any) -> Any:
    if isinstance(leaf, bool | int | float | complex | np.generic | jax.Array):
        return leaf
    name = "problem" + jax.tree_util.keystr(path)
    seen = any(getattr(key, "name", None) in ("observation", "noise") for key in path)
    return read_array(leaf, name, missing=seen)


def is_list_of_numbers(value: Any) -> bool:
    """Return whether it is a list of numbers, or of lists of them, and not a pytree of arrays."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(np.isscalar(leaf) for leaf in jax.tree.leaves(value))
    )


def check_outside_traces(door: str, *trees: Any) -> None:
    """Raise `ValueError` inside ``jit``, ``vmap`` or ``grad``, where a door cannot work.

    Args:
        door: name of the function that was called.
        trees: its arguments.

    Raises:
        ValueError: names the functions that work there.
    """
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))
    if traced or isinstance(jnp.zeros(()), Tracer):
        raise ValueError(
            f"{door}: called inside jit, vmap or grad, where arrays have no values; there use "
            "refinejax.run (which can be differentiated) or refinejax.run_until, for one sample"
        )


LEFT_JAX = (
    "needs the values of its params (NumPy or other libraries, float(), if) while JAX traces it: "
    "write it with jax.numpy, or give the forward model to refine(..., differentiable=False)"
)
LEAVES_JAX = (
    jax.errors.TracerArrayConversionError,
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerIntegerConversionError,
)


@contextmanager
def models_in_jax() -> Iterator[None]:
    """Within the block, say in one line that a function of the user's leaves JAX, and the way.

    Raises:
        ValueError: in place of JAX's own error, which is its cause.
    """
    try:
        yield
    except LEAVES_JAX as error:
        raise ValueError(
            f"objective: the forward model, or another function that was given, {LEFT_JAX}. JAX "
            f"says: {_first_line(error)}"
        ) from error
    except ValueError as error:
        if is_of_other_precision(error):
            raise ValueError(
                "objective: JAX holds arrays that it reads in the precision of a program of "
                "before; call jax.clear_caches() when jax_enable_x64 has changed"
            ) from error
        raise


def is_of_other_precision(error: ValueError) -> bool:
    """Whether JAX (0.10) could not compile since ``jax_enable_x64`` was changed between programs.

    It keeps NumPy arrays of float64 that a function reads as they were in its first program.

    Args:
        error: as JAX raised it.
    """
    return str(error).startswith("Cannot lower jaxpr with verifier errors")


def _fill(value: Any, name: str, *, missing: bool) -> Any:
    mask = np.ma.getmaskarray(value)
    data = _native(np.asarray(value.data), name)
    if not mask.any():
        return data
    if not missing:
        raise ValueError(
            f"{name}: {int(mask.sum())} numbers are masked; only in observations does that have a "
            "meaning (missing). Fill them, or leave these samples out"
        )
    if not np.issubdtype(data.dtype, np.inexact):
        data = data.astype(float)
    return np.where(mask, np.asarray(np.nan, data.dtype), data)


def _native(array: np.ndarray, name: str) -> np.ndarray:
    """Return an array of numbers in a dtype that JAX knows, the same one if it is."""
    kind = array.dtype.kind
    if kind == "O":
        return _of_objects(array, name)
    if kind in "USmMV" and not jnp.issubdtype(array.dtype, np.number):  # bfloat16 is a V
        remedy = {"m": "divide by np.timedelta64(1, 's')", "V": "pass its fields as a dict"}
        remedy["M"] = "subtract the first and divide by np.timedelta64(1, 's')"
        text = remedy.get(kind, "convert it to numbers")
        raise ValueError(f"{name}: expected numbers, got dtype {array.dtype}; {text}")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind in "fc" and array.dtype.itemsize > {"f": 8, "c": 16}[array.dtype.kind]:
        array = array.astype(complex if array.dtype.kind == "c" else float)
    return array


def _of_objects(array: np.ndarray, name: str) -> np.ndarray:
    """Return the numbers of an object array."""
    for index, value in np.ndenumerate(array):
        if not isinstance(value, numbers.Number | np.generic) and not _is_scalar_array(value):
            at = list(index)
            raise ValueError(
                f"{name}: expected an array of numbers, got an object array that holds "
                f"{_shortly(value)} at {at}; give every row the same length, with NaN for "
                "missing entries"
            )
    values = [v.item() if hasattr(v, "item") else v for v in array.ravel()]
    whole = all(isinstance(v, numbers.Integral) and abs(int(v)) < 2**63 for v in values)
    plain = complex if any(isinstance(v, complex) for v in values) else int if whole else float
    return np.array([plain(v) for v in values]).reshape(array.shape)


def _convert(value: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except Exception as why:  # whatever an array of another library raises
        raise ValueError(
            f"{name}: expected an array of numbers, got {_shortly(value)} of which none can be "
            f"made ({_first_line(why)}); give every row the same length"
        ) from why
    return _native(array, name)


def _has_masked(value: Any) -> bool:
    """Whether nested lists hold masked arrays, which ``np.asarray`` would strip of their masks."""
    if isinstance(value, list | tuple):
        return any(_has_masked(row) for row in value)
    return isinstance(value, np.ma.MaskedArray)


def _is_sparse(value: Any) -> bool:
    module = type(value).__module__
    return module.startswith(_SPARSE) and hasattr(value, "todense")


def _is_scalar_array(value: Any) -> bool:
    return getattr(value, "shape", None) == () and hasattr(value, "item")


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__name__}"


def _shortly(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) < 60 else text[:56] + ' ...'}"


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0][:120]
