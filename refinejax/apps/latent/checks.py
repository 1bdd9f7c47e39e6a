"""Complaints about samples and bounds, before anything is compiled."""

from typing import Any

import jax
import numpy as np

from refinejax.apps.latent.description import Heads


def check_initial(initial: Any, info: Heads) -> np.ndarray:
    """Return the samples as a table of floating numbers.

    Raises:
        ValueError: if they are none, of another width than the model's, or not finite.
    """
    table = np.asarray(initial)
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

    Raises:
        ValueError: for what is no pair, has another length, or a lower one above the upper one.
    """
    if bounds is None:
        return None
    if isinstance(bounds, str):
        if bounds != "data" or info.trained is None:
            raise ValueError(
                f"bounds: expected (lower, upper), or 'data' for a model, got {bounds!r}"
            )
        bounds = (info.trained.lower, info.trained.upper)
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
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
