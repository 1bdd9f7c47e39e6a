"""Bounds as users write them: (lower, upper), pairs as SciPy has them, by name, with None."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from refinejax._checks import check_params
from refinejax._gate import read_array
from refinejax._trees import broadcast_like
from refinejax.problems import ParameterSpace
from refinejax.problems.bounds import read_bound, round_bounds

_FORMS = "(lower, upper), one (low, high) for each param, or a ParameterSpace"


def as_space(bounds: Any, first: Any) -> ParameterSpace | None:
    """Make a space of bounds, each broadcast to the params of a sample.

    Args:
        bounds: (lower, upper), each a number, an array or a pytree like the params; or a pair for
            each of n params, as a list, an array (n, 2) or a dict by name; an object with ``lb``
            and ``ub``; or a space. None is no bound, equal ones fix a param.
        first: params of one sample, arrays.

    Raises:
        ValueError: for bounds of another form, or that can be read in two ways.
    """
    if bounds is None:
        return None
    space = bounds if isinstance(bounds, ParameterSpace) else None
    lower, upper = _read(bounds, first) if space is None else space.bounds
    wide = _like("lower", lower, -np.inf, first), _like("upper", upper, np.inf, first)
    if space is not None:
        return space
    dtype = np.result_type(*jax.tree.leaves(first))
    ends = round_bounds(*wide, dtype=dtype)
    return ParameterSpace((), *(check_params(end, "bounds") for end in ends))


def _read(bounds: Any, first: Any) -> tuple[Any, Any]:
    """Return (lower, upper)."""
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        return bounds.lb, bounds.ub
    if isinstance(bounds, Mapping):
        return _by_name(bounds, first)
    ends = bounds if isinstance(bounds, tuple | list) else read_array(bounds, "bounds").tolist()
    if not isinstance(ends, tuple | list):
        raise ValueError(f"bounds: expected {_FORMS}, got {bounds!r}")
    count = len(first) if isinstance(first, np.ndarray) and first.ndim == 1 else 0
    if len(ends) == count == 2:
        return _of_two(ends)
    if len(ends) == count and all(_is_pair(end) for end in ends):
        return _turned(ends)
    if len(ends) != 2:
        raise ValueError(f"bounds: expected {_FORMS}, got {bounds!r}")
    return ends[0], ends[1]


def _by_name(bounds: Mapping[Any, Any], first: Any) -> tuple[Any, Any]:
    names = set(first) if isinstance(first, Mapping) else set()
    if set(bounds) != names or not all(_is_pair(pair) for pair in bounds.values()):
        raise ValueError(
            f"bounds: expected {_FORMS}; by name a pair for each of "
            f"{sorted(names) if names else 'the names of params that are a dict'}, got {bounds!r}"
        )
    lower, upper = ({name: pair[i] for name, pair in bounds.items()} for i in (0, 1))
    return lower, upper


def _of_two(ends: Any) -> tuple[Any, Any]:
    """Return the bounds of two params where pairs might mean either form."""
    arrays = any(getattr(end, "shape", ()) for end in ends)
    said = isinstance(ends, tuple) and all(isinstance(end, list) for end in ends)
    if arrays or said or not all(_is_pair(end) for end in ends):
        return ends[0], ends[1]
    plain, turned = (ends[0], ends[1]), _turned(ends)
    readings = [reading for reading in (plain, turned) if _makes_sense(*reading)]
    same = len(readings) == 2 and _values(plain) == _values(turned)
    if len(readings) == 2 and not same:
        low, high = plain
        raise ValueError(
            f"bounds: {ends!r} can be read in two ways: lower bounds {low!r} and upper bounds "
            f"{high!r}, or one (low, high) for each param. Say the first as (np.array(lower), "
            "np.array(upper)), the second as scipy.optimize.Bounds(lower, upper)"
        )
    return readings[0] if readings else plain


def _makes_sense(lower: Any, upper: Any) -> bool:
    """Whether no lower bound is above its upper, and some param is left to vary."""
    low, high = read_bound(lower, "lower", -np.inf), read_bound(upper, "upper", np.inf)
    return bool(np.all(low <= high) and np.any(low < high))


def _values(reading: tuple[Any, Any]) -> Any:
    lower, upper = reading
    low, high = read_bound(lower, "lower", -np.inf), read_bound(upper, "upper", np.inf)
    return low.tolist(), high.tolist()


def _turned(pairs: Any) -> tuple[Any, Any]:
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _is_pair(value: Any) -> bool:
    """Whether it is two plain numbers, or None."""
    if not isinstance(value, tuple | list | np.ndarray) or len(value) != 2:
        return False
    return all(end is None or np.ndim(end) == 0 for end in value)


def _like(name: str, bound: Any, none: float, first: Any) -> Any:
    """Return a bound broadcast to the params of a sample."""
    leaves, structure = jax.tree.flatten(bound, is_leaf=lambda end: end is None)
    where = f"bounds: {name}"
    if structure == jax.tree.structure(first):  # also of tuples, which else are numbers in brackets
        read = jax.tree.unflatten(structure, [read_bound(leaf, where, none) for leaf in leaves])
    else:
        read = read_bound(bound, where, none)
    if jax.tree_util.all_leaves([read]):
        read = broadcast_like(read, first)
    if jax.tree.structure(read) != jax.tree.structure(first):
        raise ValueError(f"bounds: {name} is not a pytree like the params{_absent(read, first)}")

    def broadcast(bound: np.ndarray, param: Any) -> np.ndarray:
        try:
            return np.broadcast_to(bound, np.shape(param))
        except ValueError:
            raise ValueError(
                f"bounds: {name} of shape {bound.shape} does not fit params of shape "
                f"{np.shape(param)}"
            ) from None

    return jax.tree.map(broadcast, read, first)


def _absent(read: Any, first: Any) -> str:
    """Name the params without a bound, and the bounds without a param."""
    had, wanted = (
        {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]}
        for tree in (read, first)
    )
    parts = [f"; it lacks {', '.join(sorted(wanted - had))} (None for no bound)"]
    parts += [f"; there is no param {', '.join(sorted(had - wanted))}"]
    return "".join(
        part for part, found in zip(parts, (wanted - had, had - wanted), strict=True) if found
    )
