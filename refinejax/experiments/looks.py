"""Several looks and several experiments, at the stated rate of false claims.

With looks planned at n₁ < … < n_K pairs, the probability α of a false claim is spent over them by a
function of the share of pairs that are in, t = n_k/n_K (Lan and DeMets 1983). Without an effect the
sums of deltas are a random walk; the bound at each look is such that the walk crosses it there
first with the probability that is spent there (Armitage, McPherson and Rowe 1969). The bounds of z
are turned into those of t by their nominal p (Jennison and Turnbull 2000, §3.8), which is exact for
one look and close for several: at 3, 6 and 10 pairs, with α = 5 %, 5.5 % are spent, half on each
side.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from refinejax.experiments.arguments import check_looks
from refinejax.experiments.intervals import check_level

Spending = Literal["pocock", "obrien_fleming"]
_GRID = 201
_REACH = 8.0  # standard deviations beyond which there is nothing


def spent(share: float, alpha: float, spending: Spending = "pocock") -> float:
    """Return the part of ``alpha`` that is spent once a share of the pairs is in.

    ``pocock``: α ln(1 + (e − 1)t), which lets early looks decide; ``obrien_fleming``:
    4 − 4Φ(z_{1−α/4}/√t), which hardly does. Lan and DeMets (1983), two-sided.

    Args:
        share: t, of the planned pairs, above 0 and at most 1.
        alpha: the probability of a false claim over all looks.
        spending: "pocock" or "obrien_fleming".

    Raises:
        ValueError: for another name.
    """
    if spending == "pocock":
        return alpha * math.log1p((math.e - 1) * share)
    if spending == "obrien_fleming":
        return float(4 * special.ndtr(special.ndtri(alpha / 4) / math.sqrt(share)))
    raise ValueError(f"spending: expected 'pocock' or 'obrien_fleming', got {spending!r}")


def look_levels(
    looks: Sequence[int], level: float = 0.95, spending: Spending = "pocock"
) -> dict[int, float]:
    """Return the level of the interval at each look, such that all hold together with ``level``.

    Args:
        looks: numbers of pairs, ascending.
        level: with which all intervals together hold the true mean; with no effect, none lies above
            or below 0 with this probability.
        spending: "pocock" or "obrien_fleming".

    Raises:
        ValueError: for looks that do not ascend, or a level out of range.
    """
    check_looks(looks)
    check_level(level)
    return dict(zip(looks, _levels(tuple(looks), level, spending), strict=True))


@functools.lru_cache(maxsize=4096)
def _levels(looks: tuple[int, ...], level: float, spending: Spending) -> tuple[float, ...]:
    alpha, levels, before = 1 - level, [], 0.0
    points, density, last = np.zeros(1), np.ones(1), 0  # of the walk that no bound has stopped
    for n in looks:
        now = spent(n / looks[-1], alpha, spending)
        bound = _bound(points, density, math.sqrt(n - last), math.sqrt(n), now - before)
        levels.append(float(1 - 2 * special.ndtr(-bound)))
        grid, weight = _simpson(bound * math.sqrt(n))
        step = np.exp(-0.5 * (grid[:, None] - points) ** 2 / (n - last))
        density = weight * (step @ density) / math.sqrt(2 * math.pi * (n - last))
        points, before, last = grid, now, n
    return tuple(levels)


def _bound(
    points: NDArray[np.float64],
    density: NDArray[np.float64],
    step: float,
    scale: float,
    spend: float,
) -> float:
    """Return the |z| that a walk, one step on, exceeds with probability ``spend``."""
    low, high = 0.0, _REACH
    for _ in range(60):
        z = 0.5 * (low + high)
        sides = special.ndtr([(points - z * scale) / step, (-z * scale - points) / step])
        low, high = (z, high) if density @ sides.sum(axis=0) > spend else (low, z)
    return high


def _simpson(reach: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    points = np.linspace(-reach, reach, _GRID)
    weight = np.full(_GRID, 2.0)
    weight[1::2], weight[[0, -1]] = 4.0, 1.0
    return points, weight * (points[1] - points[0]) / 3


def repeated_p(
    nominal: float, n: int, looks: Sequence[int], spending: Spending = "pocock"
) -> float:
    """Return the p of a look at n pairs, corrected for the planned looks.

    It is the least α with which the bound of this look is crossed (Jennison and Turnbull 2000,
    ch. 9). Without planned looks it is ``nominal``.

    Args:
        nominal: p of this look taken alone.
        n: one of the looks.
        looks: numbers of pairs, ascending.
        spending: as for `look_levels`.

    Raises:
        ValueError: if n is not one of the looks.
    """
    if not looks:
        return nominal
    if n not in looks:
        raise ValueError(f"n: expected one of the looks {list(looks)}, got {n}")
    low, high = 0.0, 1 - 1e-9
    for _ in range(30):
        alpha = 0.5 * (low + high)
        crossed = nominal <= 1 - look_levels(looks, 1 - alpha, spending)[n]
        low, high = (low, alpha) if crossed else (alpha, high)
    return high


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected for testing several hypotheses at once (Holm 1979).

    The k-th smallest of m is multiplied by m + 1 − k; the results are made ascending and at most 1.

    Args:
        p: name → p.
    """
    order = sorted(p, key=lambda name: p[name])
    corrected, largest = {}, 0.0
    for k, name in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - k) * p[name]))
        corrected[name] = largest
    return {name: corrected[name] for name in p}
