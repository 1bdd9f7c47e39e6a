"""What a comparison comes to, and of what it is made."""

import enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from refinejax.experiments.intervals import Interval, sample_std


class Verdict(enum.StrEnum):
    """What a comparison says of the change."""

    KEEP = "KEEP"
    REVERT = "REVERT"
    INCONCLUSIVE = "INCONCLUSIVE"


class Arm(NamedTuple):
    """Values of one arm over its pairs: mean, standard deviation, smallest, largest."""

    mean: float
    sd: float
    low: float
    high: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> "Arm":
        """Sum up values, 2 or more."""
        return cls(
            *(float(f) for f in (values.mean(), sample_std(values), values.min(), values.max()))
        )


class Guard(NamedTuple):
    """A metric that must not get worse by more than ``tolerance``.

    ``state`` is "held" where the mean delta is not below −tolerance. Else it is "broken" if the
    interval lies below 0, and "in doubt" if not: the mirror image of what keeps a change.
    """

    metric: str
    tolerance: float
    mean: float
    interval: Interval
    state: str
