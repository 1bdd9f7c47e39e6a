"""Statistics of paired differences: intervals, p-values, P(better)."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

EXACT = 16  # pairs up to which all sign flips are counted: 65,536
DRAWS = 19_999  # of signs, where they are too many; fewer beyond 2,500 pairs
BCA = 10  # pairs from which a bootstrap is given: a percentile bootstrap of 3 covers 75 %, not 95
RESAMPLES = 9_999
_BLOCK = 2**22  # numbers that are resampled at once
_ALTOGETHER = 50_000_000  # numbers that are resampled, if that leaves 999 resamples
_TINY = 1e-12  # relative: the rounding error of equal numbers

Interval = tuple[float, float]


class SignFlip(NamedTuple):
    """p-values of the sign-flip test.

    Attributes:
        one_sided: of a positive mean.
        two_sided: of a mean other than 0.
        exact: whether all flips were counted.
    """

    one_sided: float
    two_sided: float
    exact: bool


def sample_std(deltas: NDArray[np.float64]) -> float:
    """Return the standard deviation (n − 1); 0 if all deltas are equal but for rounding.

    Args:
        deltas: shape (n,).
    """
    sd = float(np.std(deltas, ddof=1))
    return 0.0 if sd <= _TINY * float(np.max(np.abs(deltas))) else sd


def t_interval(deltas: ArrayLike, level: float = 0.95) -> Interval:
    """Return mean ± t · sd/√n, which contains the true mean with probability ``level``.

    If all deltas are equal their spread is unknown, and the interval is (−∞, ∞).

    Args:
        deltas: shape (n,), n ≥ 2; assumed independent and about normal.
        level: between 0 and 1.

    Raises:
        ValueError: for fewer than 2 deltas, or a level out of range.
    """
    d = as_deltas(deltas)
    check_level(level)
    sd = sample_std(d)
    if sd == 0.0:
        return -math.inf, math.inf
    half = t_quantile(len(d), level) * sd / math.sqrt(len(d))
    return float(d.mean()) - half, float(d.mean()) + half


def t_quantile(n: int, level: float) -> float:
    """Return the half-width of a two-sided t interval of n deltas, in standard errors.

    Args:
        n: number of deltas, 2 or more.
        level: of the interval.
    """
    return float(special.stdtrit(n - 1, 0.5 + level / 2))


def t_p(deltas: ArrayLike) -> float:
    """Return the two-sided p of the paired t test; 1 if all deltas are equal.

    Args:
        deltas: shape (n,), n ≥ 2.
    """
    d = as_deltas(deltas)
    sd = sample_std(d)
    if sd == 0.0:
        return 1.0
    return float(2 * special.stdtr(len(d) - 1, -abs(d.mean()) * math.sqrt(len(d)) / sd))


def sign_flip(deltas: ArrayLike, seed: int = 0) -> SignFlip:
    """Test whether the distribution of the deltas is symmetric about 0.

    p is the share of the 2ⁿ sign flips that give a mean as large (two-sided: as far from 0) as the
    one seen. Up to 16 deltas all flips are counted; beyond, p = (1 + hits)/(1 + draws) of 19,999
    random flips (fewer beyond 2,500 deltas), which is never too small on average (Phipson and Smyth
    2010).

    Args:
        deltas: shape (n,), n ≥ 2.
        seed: of the random flips.

    Returns:
        One- and two-sided p, and whether they are exact.

    Raises:
        ValueError: for fewer than 2 deltas.
    """
    d = as_deltas(deltas)
    seen, slack = d.sum(), _TINY * np.abs(d).sum()
    exact = len(d) <= EXACT
    up = far = count = 0
    for sums in _all_sums(d) if exact else _random_sums(d, seed):
        up += int(np.count_nonzero(sums >= seen - slack))
        far += int(np.count_nonzero(np.abs(sums) >= abs(seen) - slack))
        count += len(sums)
    extra = 0 if exact else 1
    return SignFlip((up + extra) / (count + extra), (far + extra) / (count + extra), exact)


def _all_sums(d: NDArray[np.float64]):
    sums = np.zeros(1)
    for x in d:
        sums = np.concatenate([sums + x, sums - x])
    yield sums


def _random_sums(d: NDArray[np.float64], seed: int):
    rng, left = np.random.default_rng(seed), _resamples(DRAWS, len(d))
    while left:
        rows = min(left, max(1, _BLOCK // len(d)))
        yield (2.0 * rng.integers(0, 2, (rows, len(d)), np.int8) - 1) @ d
        left -= rows


def bca_interval(deltas: ArrayLike, level: float = 0.95, seed: int = 0) -> Interval | None:
    """Return the bias-corrected accelerated bootstrap interval of the mean; None below 10 deltas.

    Efron and Tibshirani (1993), eqs. 14.9 to 14.15; 9,999 resamples.

    Args:
        deltas: shape (n,), n ≥ 2.
        level: between 0 and 1.
        seed: of the resamples.

    Raises:
        ValueError: for fewer than 2 deltas, or a level that is none.
    """
    d = as_deltas(deltas)
    check_level(level)
    if len(d) < BCA or sample_std(d) == 0.0:
        return None
    means = resampled_means(d, np.random.default_rng(seed))
    return bca(means, float(d.mean()), d - d.mean(), level)


def resampled_means(d: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the means of bootstrap resamples of n deltas, shape (resamples,).

    Args:
        d: deltas, shape (n,).
        rng: draws the resamples.
    """
    rows, count = max(1, _BLOCK // len(d)), _resamples(RESAMPLES, len(d))
    sizes = [min(rows, count - begun) for begun in range(0, count, rows)]
    return np.concatenate([d[rng.integers(0, len(d), (k, len(d)))].mean(axis=1) for k in sizes])


def _resamples(most: int, n: int) -> int:
    return max(999, min(most, _ALTOGETHER // n))


def bca(
    resampled: NDArray[np.float64], seen: float, influence: NDArray[np.float64], level: float
) -> Interval:
    """Return the BCa interval from resampled values and the jackknife's deviations.

    Args:
        resampled: values of the statistic, shape (resamples,).
        seen: its value.
        influence: the jackknife influence of each number, up to a positive factor.
        level: between 0 and 1.
    """
    slack = _TINY * max(1.0, abs(seen))
    below = np.mean(resampled < seen - slack) + 0.5 * np.mean(np.abs(resampled - seen) <= slack)
    half = 0.5 / len(resampled)
    z0 = special.ndtri(np.clip(below, half, 1 - half))
    squares = float(np.sum(influence**2))
    a = float(np.sum(influence**3)) / (6 * squares**1.5) if squares else 0.0
    z = z0 + special.ndtri([0.5 - level / 2, 0.5 + level / 2])
    low, high = np.quantile(resampled, special.ndtr(z0 + z / (1 - a * z)))
    return float(low), float(high)


def probability_better(baseline: ArrayLike, candidate: ArrayLike) -> float:
    """Return P(a run of the candidate is above one of the baseline), ties counted as half.

    Over all pairs of runs, not only those of one seed: the Mann–Whitney statistic over n·m.

    Args:
        baseline: shape (n,).
        candidate: shape (m,).
    """
    ordered, values = np.sort(np.asarray(baseline, float)), np.asarray(candidate, float)
    below, upto = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return float(np.sum(below) + np.sum(upto)) / (2 * len(ordered) * len(values))


def as_deltas(deltas: ArrayLike) -> NDArray[np.float64]:
    """Return deltas as float64, shape (n,).

    Args:
        deltas: 2 or more finite numbers.

    Raises:
        ValueError: for another shape, fewer than 2, or a number that is not finite.
    """
    d = np.asarray(deltas, np.float64)
    if d.ndim != 1 or len(d) < 2 or not np.isfinite(d).all():
        raise ValueError(
            f"deltas: expected 2 or more finite numbers in one axis, got shape {d.shape} with "
            f"{np.count_nonzero(~np.isfinite(d))} that are not finite"
        )
    return d


def check_level(level: float) -> None:
    """Raise unless a level is between 0 and 1.

    Args:
        level: the value to check.

    Raises:
        ValueError: if it is not.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a probability between 0 and 1, got {level!r}")
