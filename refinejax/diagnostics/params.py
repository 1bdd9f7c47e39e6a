"""Params as rows of numbers: their order, their names, and which of them are held."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from refinejax._core import bounds_of
from refinejax._gate import check_outside_traces
from refinejax._trees import broadcast_like
from refinejax.batch.output import at_bound
from refinejax.batch.sources import count_samples
from refinejax.problems import Robust


def flatten(params: PyTree) -> np.ndarray:
    """Return params as (B, n), in the order of the tree, float64.

    Args:
        params: each leaf with a leading sample axis.
    """
    check_outside_traces("diagnostics", params)
    count = count_samples(params)
    leaves = [np.asarray(leaf, float).reshape(count, -1) for leaf in jax.tree.leaves(params)]
    return np.concatenate(leaves, axis=1)


def touches_bound(problem: Any, params: PyTree) -> np.ndarray:
    """Return True where a param lies on one of its bounds, shape (B, n).

    Args:
        problem: with a leading sample axis.
        params: each leaf with a leading sample axis.
    """
    bounds = bounds_of(problem)
    if bounds is None:
        return np.zeros(flatten(params).shape, bool)
    return flatten(at_bound(params, bounds)) > 0


def is_fixed(problem: Any, params: PyTree) -> np.ndarray:
    """Return True where the bounds of a param are equal, so that it was not fitted, shape (B, n).

    Args:
        problem: with a leading sample axis.
        params: each leaf with a leading sample axis.
    """
    bounds = bounds_of(problem)
    if bounds is None:
        return np.zeros(flatten(params).shape, bool)
    lower, upper = (broadcast_like(bound, params) for bound in bounds)

    def equal(p: Any, low: Any, high: Any) -> np.ndarray:
        p = np.asarray(p)
        same = np.asarray(low, p.dtype) >= np.asarray(high, p.dtype)
        return np.broadcast_to(same, p.shape)

    return flatten(jax.tree.map(equal, params, lower, upper)) > 0


def names_of(problem: Any, params: PyTree) -> tuple[str, ...]:
    """Return a name for each of the flat params: from the space, or the place in the tree.

    Args:
        problem: with a leading sample axis.
        params: each leaf with a leading sample axis.
    """
    inner = problem.problem if isinstance(problem, Robust) else problem
    space = getattr(inner, "space", None)
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    found = [
        jax.tree_util.keystr(path, simple=True, separator=".") + _place(place)
        for path, leaf in leaves
        for place in np.ndindex(np.shape(leaf)[1:])
    ]
    if space is not None and len(space.names) == len(found):
        return space.names
    return tuple("params" + name if name.startswith("[") else name or "params" for name in found)


def _place(place: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, place))}]" if place else ""


def numbers_of(names: tuple[str, ...], fixed: Sequence[str | int]) -> list[int]:
    """Return the numbers of the params that vary.

    Args:
        names: of all params.
        fixed: names or numbers of the params that do not vary.

    Raises:
        ValueError: for an unknown name or number, or if every param is fixed.
    """
    held = set()
    for which in fixed:
        if isinstance(which, str) and which in names:
            held.add(names.index(which))
        elif isinstance(which, int) and 0 <= which < len(names):
            held.add(which)
        else:
            raise ValueError(f"fixed: {which!r} is none of {', '.join(names)}")
    vary = [i for i in range(len(names)) if i not in held]
    if not vary:
        raise ValueError("fixed: expected at least one param to vary, got all of them")
    return vary
