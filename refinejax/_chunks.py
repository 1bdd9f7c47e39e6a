"""Compiled functions of many samples, in chunks of one size: one program, whatever their number."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

CHUNK = 64


def by_chunks(function: Callable[[slice | np.ndarray], Any], count: int) -> Any:
    """Return what a function gives for ``count`` ≥ 1 samples, joined, as NumPy arrays.

    Args:
        function: index of `CHUNK` samples → pytree of arrays with a leading sample axis. A slice,
            which copies nothing; in the last chunk numbers, with the last sample repeated to
            fill the chunk.
        count: of samples.
    """
    found, pending = [], None
    for first in range(0, count, CHUNK):
        rows: Any = slice(first, first + CHUNK)
        if first + CHUNK > count:
            rows = np.minimum(np.arange(first, first + CHUNK), count - 1)
        ahead = function(rows)  # dispatched before the one before it is waited for
        if pending is not None:
            found.append(jax.tree.map(np.asarray, pending))
        pending = ahead
    found.append(jax.tree.map(np.asarray, pending))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *found)


def pick(rows: np.ndarray, part: slice | np.ndarray) -> slice | np.ndarray:
    """Return ``rows[part]``, as a slice where they follow one another: that copies nothing."""
    chosen = rows[part]
    if np.all(np.diff(chosen) == 1):
        return slice(int(chosen[0]), int(chosen[0]) + len(chosen))
    return chosen
