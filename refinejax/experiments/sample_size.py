"""How many seeds a comparison needs, and how small an effect it can show."""

import functools
import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

from refinejax.experiments.intervals import check_level, t_quantile

MOST = 10_000
_NODES = 200


def power(effect: float, sd: float, n: int, *, margin: float = 0.0, level: float = 0.95) -> float:
    """Return the probability that a change is kept: interval above 0 and mean ≥ margin.

    For normal deltas with this mean and standard deviation the mean x̄ and the standard deviation s
    are independent, (n − 1)s²/σ² is χ², and

        P = E_s[Φ((effect − max(margin, t s/√n)) √n/σ)].

    Without a margin this is the power of the noncentral t distribution.

    Args:
        effect: true mean of the deltas.
        sd: their true standard deviation, above 0.
        n: number of pairs, 2 or more.
        margin: the least mean to keep.
        level: of the two-sided t interval.

    Raises:
        ValueError: for a number out of range.
    """
    if n < 2 or not sd > 0 or not math.isfinite(effect):
        raise ValueError(
            f"power: expected n ≥ 2, sd > 0 and a finite effect, got {n}, {sd} and {effect}"
        )
    check_level(level)
    s, weight = _spreads(n)
    needed = np.maximum(margin, t_quantile(n, level) * sd * s / math.sqrt(n))
    return float(weight @ special.ndtr((effect - needed) * math.sqrt(n) / sd))


@functools.cache
def _gauss() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.polynomial.legendre.leggauss(_NODES)


@functools.lru_cache(maxsize=256)
def _spreads(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return standard deviations of n normal numbers of variance 1, and their probabilities."""
    x, w = _gauss()
    # In s the density is smooth; the tails beyond these quantiles have probability 1e-15 each.
    low, high = (math.sqrt(special.chdtri(n - 1, q) / (n - 1)) for q in (1 - 1e-15, 1e-15))
    s = 0.5 * (high - low) * x + 0.5 * (high + low)
    k = n - 1
    log_density = (
        0.5 * k * math.log(k)
        - (0.5 * k - 1) * math.log(2)
        - special.gammaln(0.5 * k)
        + (k - 1) * np.log(s)
        - 0.5 * k * s**2
    )
    return s, 0.5 * (high - low) * w * np.exp(log_density)


def detectable_effect(sd: float, n: int, *, level: float = 0.95, power: float = 0.8) -> float:
    """Return the least true mean that n pairs find with this power: interval above 0.

    Args:
        sd: standard deviation of the deltas, 0 or more.
        n: number of pairs, 2 or more.
        level: of the two-sided t interval.
        power: between 0 and 1.

    Raises:
        ValueError: for a number out of range.
    """
    check_level(power)
    if sd == 0:
        return 0.0
    low, high = 0.0, (2 * t_quantile(n, level) + 10) * sd
    for _ in range(60):
        middle = 0.5 * (low + high)
        found = _power(middle, sd, n, margin=-math.inf, level=level)
        low, high = (middle, high) if found < power else (low, middle)
    return high


_power = power  # the name of an argument hides it


def seeds_to_decide(
    mean: float, sd: float, *, margin: float = 0.0, level: float = 0.95, power: float = 0.8
) -> int | None:
    """Return the fewest pairs that decide with this power, if mean and sd are as they were seen.

    With a mean of at least the margin: to keep (interval above 0, mean ≥ margin). Below it: to
    revert (interval below the margin). None if not even 10,000 do, as with a mean at the margin.

    Args:
        mean: of the deltas seen.
        sd: their standard deviation, 0 or more.
        margin: the least mean to keep.
        level: of the two-sided t interval.
        power: between 0 and 1.
    """
    check_level(power)
    if sd == 0:
        return None

    def enough(n: int) -> bool:
        if mean >= margin:
            return _power(mean, sd, n, margin=margin, level=level) >= power
        return _power(margin - mean, sd, n, margin=-math.inf, level=level) >= power

    if not enough(MOST):
        return None
    low, high = 1, MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
