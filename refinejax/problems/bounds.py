"""Bounds as they are given: read, ordered, and rounded to the dtype of JAX within the box."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refinejax._gate import read_array
from refinejax._trees import Bounds


def read_bound(bound: Any, name: str, none: float) -> Any:
    """Return a bound as float arrays, in the precision in which it came.

    Args:
        bound: a pytree of numbers, arrays and lists; None for no bound.
        name: "lower" or "upper", for messages.
        none: what stands for no bound: −∞ or ∞.

    Raises:
        ValueError: names the entry that is no number.
    """

    def read(path: Any, leaf: Any) -> np.ndarray:
        if leaf is None:
            return np.asarray(none)
        where = name + jax.tree_util.keystr(path)
        array = np.asarray(read_array(_filled(leaf, none), where))
        return array if jnp.issubdtype(array.dtype, np.floating) else array.astype(float)

    return jax.tree_util.tree_map_with_path(read, bound, is_leaf=is_list_or_none)


def is_list_or_none(value: Any) -> bool:
    """Whether it is None, or numbers in brackets; a list of arrays or dicts is a pytree.

    Args:
        value: anything.
    """
    if not isinstance(value, list | tuple):
        return value is None
    return not any(isinstance(v, dict) or getattr(v, "shape", ()) for v in value)


def _filled(value: Any, none: float) -> Any:
    if isinstance(value, list | tuple):
        return [_filled(entry, none) for entry in value]
    return none if value is None else value


def round_bounds(lower: Any, upper: Any, names: tuple[str, ...] = (), dtype: Any = None) -> Bounds:
    """Return bounds in the dtype that JAX uses, rounded inward so that none leaves the box.

    Where both are equal, the param is fixed, and both are rounded to the nearest number.

    Args:
        lower: lower bounds, arrays.
        upper: upper bounds, alike.
        names: of the params, for messages; or ().
        dtype: of the params; by default of the bounds.

    Raises:
        ValueError: names a param whose lower bound is above its upper, or whose bounds are one in
            that dtype though they differ.
    """

    def both(path: Any, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        named = names or jax.tree_util.keystr(path)
        low, high = np.broadcast_arrays(low, high)
        none = (low == np.inf) | (high == -np.inf)
        _refuse(~(low <= high) | none, named, low, high, "lower {} is not below upper {}")
        kind = jax.dtypes.canonicalize_dtype(low.dtype if dtype is None else dtype)
        fixed = low == high
        with np.errstate(over="ignore"):  # beyond its numbers there is no bound
            near, far = (np.asarray(bound, kind) for bound in (low, high))
        inner, outer = _inward(low, near, np.inf), _inward(high, far, -np.inf)
        lost = ~fixed & (inner >= outer)
        said = f"{{}} and {{}} are one number in {kind}"
        remedy = "refine within `with jax.enable_x64(True):`, or subtract an offset from the param"
        _refuse(lost, named, low, high, f"{said}; {remedy}")
        return np.where(fixed, near, inner), np.where(fixed, far, outer)

    pairs = jax.tree_util.tree_map_with_path(both, lower, upper)
    is_pair = lambda x: isinstance(x, tuple) and isinstance(x[0], np.ndarray)  # noqa: E731
    ends = [jax.tree.map(lambda pair, i=i: pair[i], pairs, is_leaf=is_pair) for i in (0, 1)]
    return ends[0], ends[1]


def _inward(bound: np.ndarray, rounded: np.ndarray, toward: float) -> np.ndarray:
    outside = np.isfinite(rounded) & (rounded < bound if toward > 0 else rounded > bound)
    return np.where(outside, np.nextafter(rounded, rounded.dtype.type(toward)), rounded)


def _refuse(wrong: np.ndarray, named: Any, low: np.ndarray, high: np.ndarray, said: str) -> None:
    if not np.any(wrong):
        return
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    name = named[at[0]] if isinstance(named, tuple) else named + (str(list(at)) if at else "")
    raise ValueError(f"bounds of {name or 'the param'}: " + said.format(low[at], high[at]))
