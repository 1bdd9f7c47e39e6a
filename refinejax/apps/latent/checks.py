"""Checks of samples, bounds and transforms, before anything is compiled."""

from typing import Any

import jax
import numpy as np

from refinejax.apps.latent.closeness import Closeness
from refinejax.apps.latent.constraints import Equality, Inequality
from refinejax.apps.latent.description import Heads


def check_initial(initial: Any, info: Heads) -> np.ndarray:
    """Return the samples as a table of floating numbers.

    Args:
        initial: samples, shape (B, D) or (D,).
        info: the model and its heads.

    Raises:
        ValueError: if they are none, of another width than the model's, or not finite.
    """
    table = np.asarray(initial)
    if np.iscomplexobj(table):
        raise ValueError("initial: expected real numbers, got complex ones")
    if not np.issubdtype(table.dtype, np.floating):
        try:
            table = table.astype(float)
        except (TypeError, ValueError):
            raise ValueError("initial: expected numbers, shape (B, D)") from None
    table = table.astype(jax.dtypes.canonicalize_dtype(table.dtype))
    table = table[None] if table.ndim == 1 else table
    if table.ndim != 2 or not table.size:
        raise ValueError(f"initial: expected samples, shape (B, D) or (D,), got {table.shape}")
    names = getattr(info.trained, "columns", None)
    if names is not None and table.shape[1] != len(names):
        raise ValueError(
            f"initial: the model has {len(names)} descriptors ({', '.join(names[:4])}"
            f"{' …' * (len(names) > 4)}), got {table.shape[1]} columns"
        )
    if not np.all(np.isfinite(table)):
        row, column = np.argwhere(~np.isfinite(table))[0]
        name = f" ({names[column]})" if names is not None else ""
        raise ValueError(
            f"initial: sample {row}, descriptor {column}{name} is {table[row, column]}; impute it "
            "or leave the sample out"
        )
    return table


def check_bounds(
    bounds: Any, width: int, dtype: Any, info: Heads
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return bounds of each descriptor, or None.

    Args:
        bounds: (lower, upper) of the input, "data", or None.
        width: D, the number of descriptors.
        dtype: of the samples.
        info: the model and its heads.

    Raises:
        ValueError: unless it is a pair of one number or D each, the lower not above the upper.
    """
    if bounds is None:
        return None
    if isinstance(bounds, str):
        if bounds != "data" or info.trained is None:
            raise ValueError(
                f"bounds: expected (lower, upper), or 'data' for a model, got {bounds!r}"
            )
        bounds = (info.trained.lower, info.trained.upper)
    pair = isinstance(bounds, tuple | list) or (isinstance(bounds, np.ndarray) and bounds.ndim)
    if not pair or len(bounds) != 2:
        raise ValueError(f"bounds: expected (lower, upper), got {bounds!r}")
    try:
        low, high = (np.broadcast_to(np.asarray(b, dtype), (width,)) for b in bounds)
    except (TypeError, ValueError):
        raise ValueError(
            f"bounds: expected numbers, one or {width} at each end, for {width} descriptors"
        ) from None
    if not np.all(low <= high):
        wrong = int(np.argmax(~(low <= high)))
        raise ValueError(
            f"bounds: descriptor {wrong}: lower {low[wrong]} is above upper {high[wrong]}; "
            "swap them"
        )
    return low, high


def check_transform(transform: Any, samples: np.ndarray) -> None:
    """Try a transform on the shape of a sample.

    Args:
        transform: of the input.
        samples: shape (B, D).

    Raises:
        ValueError: if it is none, no pytree, or for another width.
    """
    if not hasattr(transform, "forward") or not hasattr(transform, "inverse"):
        raise ValueError(f"transform: expected one with forward and inverse, got {transform!r}")
    if any(leaf is transform for leaf in jax.tree.leaves(transform)):
        raise ValueError(
            f"transform: {type(transform).__name__} is no pytree; make it a flax.struct.PyTreeNode"
        )
    one = jax.ShapeDtypeStruct(samples.shape[1:], samples.dtype)
    moved = _try(lambda x: transform.forward(transform.inverse(x)), (one,), "transform: it")
    if moved.shape != one.shape:
        raise ValueError(f"transform: of {one.shape[0]} descriptors it makes shape {moved.shape}")


def check_begun(samples: Any, begun: Any) -> None:
    """Raise `ValueError` unless the searches over the input begin at finite numbers.

    Args:
        samples: shape (B, D).
        begun: inputs of the starts, shape (B, D).

    Raises:
        ValueError: if the transform makes a number of a sample that is not finite.
    """
    if not np.all(np.isfinite(begun)):
        row, column = np.argwhere(~np.isfinite(begun))[0]
        raise ValueError(
            f"transform: it turns sample {row}, descriptor {column} ({samples[row, column]}) into "
            f"{begun[row, column]}"
        )


def check_parts(objective: Any) -> None:
    """Try closeness and constraints on the shapes of a sample.

    Args:
        objective: of the rows.

    Raises:
        ValueError: if one is no such thing, takes another width, or has a weight below 0 or a limit
            that is no number.
    """
    x = jax.ShapeDtypeStruct(objective.start[0].shape[1:], objective.start[0].dtype)
    z = jax.eval_shape(lambda model, x: model.encode(x), objective.model, x)
    points = {"input": x, "latent": z}
    for name, parts in (("closeness", objective.closeness), ("constraints", objective.constraints)):
        for one in parts:
            if isinstance(one, Closeness):
                _check_closeness(one, points, name)
            elif isinstance(one, Inequality | Equality):
                _try(lambda x, one=one: one.at(x), (x,), f"{name}: {type(one).__name__}")


def _check_closeness(one: Any, points: dict[str, Any], name: str) -> None:
    where, point = f"{name}: {type(one).__name__}", points[one.space]
    if not np.all(np.asarray(one.weight) >= 0):
        raise ValueError(f"{where}: expected a weight of 0 or more, got {one.weight}")
    if np.any(np.isnan(np.asarray(one.limit))):
        raise ValueError(f"{where}: the limit is NaN; give a number")
    _try(one.distance, (point, point), f"{where} of the {one.space}")


def _try(function: Any, arguments: tuple[Any, ...], where: str) -> Any:
    """Return the shape of what it gives."""
    try:
        return jax.eval_shape(function, *arguments)
    except (TypeError, ValueError) as error:
        width = arguments[0].shape[0]
        raise ValueError(f"{where} does not take {width} numbers: {error}") from error
