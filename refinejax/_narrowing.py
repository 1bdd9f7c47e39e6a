"""Digits lost where float64 is cut to float32, as JAX does unless ``jax_enable_x64`` is set."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

_ROWS = 32  # samples looked at, spread evenly: arrays may be mapped files
_NUMBERS = 1 << 20  # of them, at most
_SHARE_OF_SPREAD = 1e-3  # rounding beyond it matters where the noise is not known
_SHARE_OF_NOISE = 0.1
_CONSTANT = 1e-14  # relative spread of numbers that are all the same but for rounding
_COORDINATES = 8  # numbers along the last axis of an array of points, at most
_FEW, _MANY = 4, 100  # roundings: a residual at the start between them soon is nothing but rounding


class Rounding(NamedTuple):
    """How far an array is rounded where it is cut to the dtype of JAX.

    Attributes:
        name: of the argument.
        dtype: to which it is cut.
        rows: numbers of the samples looked at, shape (k,).
        error: root mean square of the rounding errors of each, shape (k,).
        spread: standard deviation of the numbers of each, shape (k,).
    """

    name: str
    dtype: np.dtype
    rows: np.ndarray
    error: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, value: Any, name: str, *, whole: bool = False) -> "Rounding | None":
        """Return the rounding of an array; None where it is not cut.

        Args:
            value: an array, with a leading sample axis unless ``whole``.
            name: of the argument.
            whole: whether it is of one sample, or of all.

        Raises:
            ValueError: for numbers beyond the greatest of that dtype.
        """
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiuc" or not value.size:
            return None
        dtype = jax.dtypes.canonicalize_dtype(complex if value.dtype.kind == "c" else float)
        if value.dtype.itemsize < dtype.itemsize or value.dtype == dtype:
            return None
        if not whole and value[0].ndim == 0:
            whole = True
        size = value.size if whole else value[0].size
        count = 1 if whole else max(min(_ROWS, _NUMBERS // max(size, 1)), 1)
        rows = np.unique(np.linspace(0, 0 if whole else len(value) - 1, count).astype(int))
        exact = np.asarray(value if whole else value[rows]).reshape(len(rows), -1)
        exact = exact[:, :: size // _NUMBERS + 1]
        exact = exact.astype(np.result_type(exact, np.float64))
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            cut = exact.astype(dtype)
        if np.any(np.isfinite(exact) & ~np.isfinite(cut)):
            raise ValueError(
                f"{name}: some numbers are beyond the greatest of {dtype}, "
                f"{np.finfo(dtype).max:.1e}; use another unit, or `with jax.enable_x64(True):`"
            )
        finite = np.isfinite(exact)
        count = np.maximum(finite.sum(axis=1), 1)
        difference = np.abs(np.where(finite, exact - cut, 0))
        exact = np.where(finite, exact, 0)
        away = np.where(finite, exact - (exact.sum(axis=1) / count)[:, None], 0)
        error, spread = (_rms(np.abs(part), count) for part in (difference, away))
        constant = spread <= _CONSTANT * np.abs(exact).max(axis=1)
        spread = np.where(constant, 0, spread)
        return cls(name, dtype, rows, error, spread)

    def note(self, noise: Any = None) -> str | None:
        """Say which digits are lost, if they matter beside the noise, else beside the spread.

        Args:
            noise: standard deviation of the numbers; None where it is not known.
        """
        scale, share, what = self.spread, _SHARE_OF_SPREAD, "their spread"
        if noise is not None:
            scale, share, what = np.broadcast_to(noise, self.error.shape), _SHARE_OF_NOISE, "noise"
        return self._say((self.error > share * scale) & (scale > 0), scale, what)

    def note_start(self, residual: np.ndarray) -> str | None:
        """Say which digits are lost, if few steps make the residual nothing but rounding.

        Args:
            residual: root mean square at the start, shape (B,).
        """
        scale = residual[self.rows]
        few = (scale > _FEW * self.error) & (scale < _MANY * self.error)
        return self._say(few, scale, "the residual at the start")

    def _say(self, lost: np.ndarray, scale: np.ndarray, what: str) -> str | None:
        if not lost.any():
            return None
        worst = int(np.argmax(np.where(lost, self.error / np.where(lost, scale, 1), 0)))
        return (
            f"{self.name}: cut to {self.dtype}, the numbers change by about "
            f"{self.error[worst]:.2g}, which matters beside {what} ({scale[worst]:.2g}); refine "
            "within `with jax.enable_x64(True):`, or subtract an offset before"
        )


def roundings(tree: Any, name: str, count: int) -> Iterator[Rounding]:
    """Yield the rounding of each leaf that is cut.

    Args:
        tree: a pytree of arrays; those of another length than ``count`` belong to all samples.
        name: of the argument.
        count: of the samples.
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        whole = np.shape(leaf)[:1] != (count,)
        found = Rounding.of(leaf, name + jax.tree_util.keystr(path), whole=whole)
        if found is not None:
            yield found


def narrowing_notes(
    count: int, *, data: dict[str, Any], params: dict[str, Any] | None = None
) -> tuple[str, ...]:
    """Say of arguments by name where cutting float64 to float32 loses what matters.

    Args:
        count: of the samples.
        data: pytrees of arrays, by name; coordinates in a short last axis are looked at one by one.
        params: pytrees of params, by name: each is compared between samples.
    """
    found = []
    for name, tree in data.items():
        found += [r for part in _coordinates(tree) for r in roundings(part, name, count)]
    for name, tree in (params or {}).items():
        rows = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(count, -1).T, tree)
        found += list(roundings(rows, name, len(jax.tree.leaves(rows)[0])))
    notes = (r.note() for r in found)
    return tuple(dict.fromkeys(note for note in notes if note))


def _coordinates(tree: Any) -> Iterator[Any]:
    """Yield the pytree, and each of the few columns of arrays that hold coordinates."""
    yield tree
    for column in range(max((_columns(leaf) for leaf in jax.tree.leaves(tree)), default=0)):
        yield jax.tree.map(
            lambda leaf, j=column: leaf[..., j] if j < _columns(leaf) else np.zeros(0), tree
        )


def _columns(leaf: Any) -> int:
    shape = np.shape(leaf)
    return shape[-1] if len(shape) > 2 and shape[-1] <= _COORDINATES else 0


def range_notes(lower: Any, upper: Any) -> tuple[str, ...]:
    """Say of bounds between which there are few numbers of their dtype.

    Args:
        lower: lower bounds, a pytree of arrays.
        upper: upper bounds, alike.
    """
    for low, high in zip(jax.tree.leaves(lower), jax.tree.leaves(upper), strict=True):
        low, high = np.asarray(low), np.asarray(high)
        step = np.finfo(low.dtype).eps * np.maximum(np.abs(low), np.abs(high))
        with np.errstate(invalid="ignore", over="ignore"):
            width = high - low
        few = np.isfinite(width) & (width > 0) & (step > _SHARE_OF_SPREAD * width)
        if few.any():
            at = tuple(np.argwhere(few)[0])
            return (
                f"bounds: between {low[at]} and {high[at]} there are only about "
                f"{width[at] / step[at]:.0f} numbers of {low.dtype}; refine within "
                "`with jax.enable_x64(True):`, or subtract an offset from the param",
            )
    return ()


def check_integers(tree: Any, name: str) -> None:
    """Raise `ValueError` for whole numbers that JAX would cut to other ones.

    Args:
        tree: a pytree of arrays.
        name: of the argument.
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if not isinstance(leaf, np.ndarray) or leaf.dtype.kind not in "iu" or not leaf.size:
            continue
        limits = np.iinfo(jax.dtypes.canonicalize_dtype(leaf.dtype))
        if leaf.dtype.itemsize > 4 and (leaf.max() > limits.max or leaf.min() < limits.min):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)}: whole numbers up to {leaf.max()} do not fit "
                f"{limits.dtype}; subtract an offset, or refine within "
                "`with jax.enable_x64(True):`"
            )


def _rms(values: np.ndarray, count: np.ndarray) -> np.ndarray:
    largest = np.maximum(values.max(axis=1), np.finfo(float).tiny)  # squares may underflow
    return largest * np.sqrt(np.sum((values / largest[:, None]) ** 2, axis=1) / count)
