"""Quantiles and tail probabilities, in float64 whatever precision JAX uses."""

import numpy as np
from scipy.special import chdtrc, ndtri, stdtrit


def t_quantile(probability: float, freedom: np.ndarray) -> np.ndarray:
    """Return the quantile of Student's t distribution.

    Args:
        probability: between 0 and 1.
        freedom: degrees of freedom ν, any shape; infinite ν is the normal distribution.

    Returns:
        The quantile, shaped like ``freedom``; NaN where ν < 1 or NaN.
    """
    freedom = np.asarray(freedom, float)
    finite = np.where(np.isfinite(freedom) & (freedom >= 1), freedom, np.nan)
    return np.where(np.isposinf(freedom), ndtri(probability), stdtrit(finite, probability))


def chi_square_tail(value: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Return P(χ² > value), the upper tail of the chi-square distribution.

    Args:
        value: χ², any shape.
        freedom: degrees of freedom ν, of a shape that broadcasts with ``value``.

    Returns:
        The probability; NaN where ν ≤ 0 or ``value`` is not finite.
    """
    value, freedom = np.asarray(value, float), np.asarray(freedom, float)
    usable = (freedom > 0) & np.isfinite(value)
    return np.where(usable, chdtrc(np.where(usable, freedom, 1.0), value), np.nan)
