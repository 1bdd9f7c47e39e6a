"""Numbers as a reader of a table wants them."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

LOSS = "#.3g"  # trailing zeros too: the numbers of a column have equally many digits


def number(value: float, form: str = ".4g") -> str:
    """Format a number; one that is not finite is a dash, and 0 has no sign.

    Args:
        value: the number.
        form: how, as for `format`.

    Returns:
        Text with a true minus sign.
    """
    if not math.isfinite(value):
        return "—"
    return format(float(value), "z" + form).replace("-", "−")


def median(values: ArrayLike) -> str:
    """Format the median of the values that are finite; "—" if none is.

    Args:
        values: of any shape.

    Returns:
        The number as text.
    """
    values = np.asarray(values, float)
    finite = values[np.isfinite(values)]
    return number(float(np.median(finite)), LOSS) if finite.size else "—"


def row_format(values: Sequence[float], std: float = math.nan) -> str:
    """Return one format for a row of numbers, so that their digits can be compared.

    It shows two digits of the standard deviation where that is known, and in any case five of the
    largest number: a refined value and the truth differ visibly also where the data determine
    neither.

    Args:
        values: of the row.
        std: standard deviation of one of them; NaN if unknown.
    """
    sizes = [abs(value) for value in values if math.isfinite(value)]
    size = max(sizes, default=0.0)
    if not 1e-3 <= size < 1e6:
        return ".4e" if size else ".0f"
    last = min(std, 1e-3 * size) if std > 0 else 1e-3 * size
    return f".{min(max(1 - math.floor(math.log10(last)), 0), 9)}f"


def deviation(value: float) -> str:
    """Format a standard deviation with two digits.

    Args:
        value: the standard deviation; NaN if unknown.

    Returns:
        The number as text.
    """
    if not 1e-6 <= value < 1e6:
        return number(value, ".2g")
    return number(value, f".{max(1 - math.floor(math.log10(value)), 0)}f")


def quantile_row(name: str, values: ArrayLike, form: str = ".4g") -> tuple[str, ...]:
    """Return the cells of a row: name, five quantiles, and how many values are not finite.

    Args:
        name: HTML of the first cell.
        values: of any shape.
        form: of the quantiles.
    """
    values = np.ravel(np.asarray(values, float))
    finite = values[np.isfinite(values)]
    quantiles = np.quantile(finite, [0, 0.1, 0.5, 0.9, 1]) if finite.size else np.full(5, np.nan)
    return (name, *(number(x, form) for x in quantiles), f"{values.size - finite.size:,}")
