"""Labels of a table, some of which are missing, as arrays to train on."""

import numbers
from typing import Any

import jax
import numpy as np


def read_labels(name: str, values: Any, count: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return numbers (count, width), NaN where missing, with (); or classes with their names.

    Classes are numbers of shape (count,), −1 where missing. None, "", NaN and what else is not
    equal to itself, as the NA of pandas, are missing; of whole numbers those below 0 too.

    Args:
        name: of the task, for errors.
        values: floats or texts or whole numbers, an array or a sequence, shape (count,); floats
            also (count, width).
        count: rows of the table.

    Raises:
        ValueError: for another length, numbers that are infinite, a mixture of numbers and text,
            no label, one class only, or whole numbers of which some never occur.
    """
    array = np.asarray(values, None if hasattr(values, "dtype") else object)
    if array.shape[:1] != (count,) or array.ndim > 2:
        raise ValueError(
            f"labels: {name!r} has shape {array.shape}; expected ({count},) or ({count}, width)"
        )
    if array.dtype == object:
        array = _typed(name, array)
    if array.dtype == bool:
        array = array.astype(np.int64)
    if np.issubdtype(array.dtype, np.floating):
        return _numbers(name, array.reshape(count, -1)), ()
    if array.ndim > 1:
        raise ValueError(f"labels: {name!r}: classes have shape ({count},), got {array.shape}")
    return _classes(name, array)


def _typed(name: str, array: np.ndarray) -> np.ndarray:
    """Return objects as floats, whole numbers or text; missing ones as NaN, −1 or ""."""
    plain = np.empty(array.size, object)
    plain[:] = [_plain(one) for one in array.ravel()]
    array = plain.reshape(array.shape)
    missing = np.vectorize(_missing, otypes=[bool])(array)
    there = list(array[~missing])
    if not there:
        raise ValueError(f"labels: {name!r} is missing in every row; leave the task out")
    if all(isinstance(one, str) for one in there):
        return np.where(missing, "", array).astype(str)
    if not all(isinstance(one, numbers.Real) for one in there):
        raise ValueError(f"labels: {name!r} mixes numbers and text; give one or the other")
    if all(isinstance(one, numbers.Integral) for one in there):
        return np.where(missing, -1, array).astype(np.int64)
    return np.where(missing, np.nan, array).astype(float)


def _plain(one: Any) -> Any:
    """Return a number of NumPy or JAX as one of Python."""
    return one.item() if hasattr(one, "item") and np.ndim(one) == 0 else one


def _missing(one: Any) -> bool:
    if one is None or isinstance(one, str):
        return not one
    same = one == one
    return not (isinstance(same, bool | np.bool_) and bool(same))


def _numbers(name: str, array: np.ndarray) -> np.ndarray:
    table = array.astype(jax.dtypes.canonicalize_dtype(float))
    if np.any(np.all(np.isnan(table), axis=0)):
        raise ValueError(f"labels: {name!r} is missing in every row; leave the task out")
    if np.any(np.isinf(table)):
        row = int(np.argwhere(np.isinf(table))[0, 0])
        raise ValueError(f"labels: {name!r}, row {row} is infinite; NaN says that it is missing")
    return table


def _classes(name: str, array: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    text = array.dtype.kind in "US"
    array = array.astype(str) if text else array
    missing = array == "" if text else array < 0
    known = np.unique(array[~missing])
    if len(known) < 2:
        raise ValueError(
            f"labels: {name!r} has {len(known)} class in all rows; a task needs two or more "
            "(numbers: give them as floats)"
        )
    if not text and known[-1] >= len(known):
        absent = int(np.setdiff1d(np.arange(len(known)), known)[0])
        raise ValueError(
            f"labels: {name!r} has {len(known)} classes up to {known[-1]}, and {absent} never "
            "occurs; number them from 0, or give classes as text and numbers as floats"
        )
    found = np.searchsorted(known, array)
    return np.where(missing, -1, found).astype(np.int32), tuple(map(str, known))
