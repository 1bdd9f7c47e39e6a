"""Compiled functions of many samples, in chunks of one size: one program, whatever their number."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

CHUNK = 64


def by_chunks(function: Callable[[np.ndarray], Any], count: int) -> Any:
    """Return what a function gives for ``count`` ≥ 1 samples, joined, as NumPy arrays.

    Args:
        function: numbers of `CHUNK` samples → pytree of arrays with a leading sample axis. In the
            last chunk the last sample stands for those that are missing.
        count: of samples.
    """
    found = []
    for first in range(0, count, CHUNK):
        rows = np.minimum(np.arange(first, first + CHUNK), count - 1)
        found.append(jax.tree.map(np.asarray, function(rows)))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *found)
