"""Verdicts, and the summaries of arms and guards that lead to them."""

import enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from refinejax.experiments.intervals import Interval, sample_std


class Verdict(enum.StrEnum):
    """The verdict of a comparison on the change."""

    KEEP = "KEEP"
    REVERT = "REVERT"
    INCONCLUSIVE = "INCONCLUSIVE"


class Arm(NamedTuple):
    """Summary of the values of one arm.

    Attributes:
        mean: over the pairs.
        sd: standard deviation.
        low: the least value.
        high: the greatest value.
    """

    mean: float
    sd: float
    low: float
    high: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> "Arm":
        """Return the summary of values.

        Args:
            values: shape (n,), n ≥ 2.
        """
        return cls(
            *(float(f) for f in (values.mean(), sample_std(values), values.min(), values.max()))
        )


class Guard(NamedTuple):
    """A metric that must not get worse by more than a tolerance.

    Attributes:
        metric: its name.
        tolerance: the loss that is allowed, 0 or more.
        mean: of the deltas; positive is better.
        interval: of the mean.
        state: "held" if the mean is at least −tolerance; else "broken" if the interval lies below
            0, and "in doubt" if it does not.
    """

    metric: str
    tolerance: float
    mean: float
    interval: Interval
    state: str
