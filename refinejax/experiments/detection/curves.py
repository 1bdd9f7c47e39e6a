"""Curves of hits over false positives, and the areas under them.

With g good scores, of which a lie above a threshold t and b at or above it, the false-positive rate
goes from a/g to b/g as the threshold passes t, and every defective score that equals t turns from a
miss into a hit on the way, in proportion. The area under a curve of weighted hits is therefore the
sum over the defective scores of their weight times

    ∫₀ᴸ ramp(x; a/g, b/g) dx = (L − (a + b)/2g),  (L − a/g)²/(2(b − a)/g) or 0

for a limit L beyond b/g, between, and before a/g: one sort, no thresholds, no cumulative rounding.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[Any]


class DetectionCurve(NamedTuple):
    """Corners of a curve that rises from (0, 0) to (1, 1), with straight lines between them.

    Attributes:
        rates: false-positive rates, ascending, shape (k,).
        hits: true-positive rates or mean overlaps, ascending, shape (k,).
        thresholds: scores at or above a threshold are marked; descending, from ∞ to −∞, shape (k,).
    """

    rates: NDArray[np.float64]
    hits: NDArray[np.float64]
    thresholds: NDArray[np.float64]

    def area(self, limit: float = 1.0) -> float:
        """Return the area up to a false-positive rate, divided by that rate: 1 at best.

        Args:
            limit: above 0, at most 1.

        Raises:
            ValueError: for another limit.
        """
        check_limit(limit)
        k = int(np.searchsorted(self.rates, limit))  # the first corner that is not before it
        share = (limit - self.rates[k - 1]) / (self.rates[k] - self.rates[k - 1])
        height = self.hits[k - 1] + share * (self.hits[k] - self.hits[k - 1])
        x, y = np.append(self.rates[:k], limit), np.append(self.hits[:k], height)
        return float(np.trapezoid(y, x)) / limit


def check_limit(limit: float) -> None:
    """Raise unless a limit is a false-positive rate above 0.

    Args:
        limit: the value to check.

    Raises:
        ValueError: unless 0 < limit ≤ 1.
    """
    if not 0 < limit <= 1:
        raise ValueError(f"limit: expected a false-positive rate above 0, at most 1, got {limit!r}")


def area(good: Scores, defective: Scores, weights: Scores, limit: float) -> float:
    """Return the area up to ``limit``, divided by it.

    Args:
        good: scores of good pixels or images, in any order.
        defective: scores of defective ones.
        weights: of the defective ones; they sum to 1.
        limit: above 0, at most 1.
    """
    order = np.argsort(defective)
    above, reached = (count / len(good) for count in counts(good, defective[order]))
    width = reached - above
    steep = np.where(width > 0, width, 1.0)
    ramp = np.where(
        reached <= limit,
        limit - 0.5 * (above + reached),
        np.maximum(limit - above, 0.0) ** 2 / (2 * steep),
    )
    return float(np.sum(weights[order] * np.where(above < limit, ramp, 0.0))) / limit


def rank_area(good: Scores, defective: Scores) -> float:
    """Return the area under the whole curve with equal weights, from integers.

    It is the share of pairs of a good and a defective score in which the defective is above, plus
    half of the share in which both are equal (Mann and Whitney 1947).

    Args:
        good: scores of good pixels or images, in any order.
        defective: scores of defective ones.
    """
    above, reached = counts(good, np.sort(defective))
    pairs = len(good) * len(defective)
    twice = 2 * pairs - int(np.sum(above)) - int(np.sum(reached))
    return twice / (2 * pairs)


def counts(good: Scores, thresholds: Scores) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many good scores lie above each threshold, and how many at or above it.

    Args:
        good: scores, in any order.
        thresholds: shape (k,).
    """
    ordered = np.sort(good)
    above = len(ordered) - np.searchsorted(ordered, thresholds, "right")
    return above, len(ordered) - np.searchsorted(ordered, thresholds, "left")


def curve(good: Scores, defective: Scores, weights: Scores) -> DetectionCurve:
    """Return the curve with a corner at every defective score; between them it is level.

    Args:
        good: scores of good pixels or images, in any order.
        defective: scores of defective ones.
        weights: of the defective ones; they sum to 1.
    """
    order = np.argsort(defective)[::-1]
    scores = defective[order]
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # the last of equal scores
    after = np.cumsum(weights[order], dtype=np.float64)[last]
    after[-1] = 1.0
    above, reached = counts(good, scores[last])
    x = np.stack([above, reached], axis=1).ravel() / len(good)
    y = np.stack([np.append(0.0, after[:-1]), after], axis=1).ravel()
    t = np.stack([np.nextafter(scores[last], np.inf, dtype=np.float64)] * 2, axis=1)
    t[:, 1] = scores[last]
    return DetectionCurve(
        np.concatenate([[0.0], x, [1.0]]),
        np.concatenate([[0.0], y, [1.0]]),
        np.concatenate([[np.inf], t.ravel(), [-np.inf]]),
    )
