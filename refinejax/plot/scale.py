"""The scale of an axis that shows losses: logarithmic, unless some are negative."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class LossScale(NamedTuple):
    """Limits of an axis, and whether it is logarithmic.

    Attributes:
        low: lower limit.
        high: upper limit.
        logarithmic: False where a value is below 0.
    """

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def of(cls, *values: NDArray[np.floating], marks: Iterable[float] = ()) -> "LossScale":
        """Return a scale that holds values and marks.

        Args:
            values: finite numbers, of any shape.
            marks: positive numbers that must be seen too.
        """
        marked = np.asarray(list(marks), float)
        everything = np.concatenate([*map(np.ravel, values), marked])
        if np.any(everything < 0):
            low, high = float(everything.min()), float(everything.max())
            room = 0.05 * ((high - low) or 1.0)
            return cls(low - room, high + room, False)
        positive = everything[everything > 0]
        if not positive.size:
            return cls(0.1, 1.0, True)
        low, high = float(positive.min()), float(positive.max())
        above_marks = marked.size > 0 and low >= marked.min()
        return cls((0.055 if above_marks else 0.75) * low, 1.35 * high, True)

    def clip(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return values with 0, which has no logarithm, moved to the lower edge.

        Args:
            values: of any shape.
        """
        return np.maximum(values, 1.02 * self.low) if self.logarithmic else values

    def bins(self, count: int) -> list[float]:
        """Return the edges of bins of equal width on the axis.

        Args:
            count: number of bins.
        """
        space = np.geomspace if self.logarithmic else np.linspace
        return [float(edge) for edge in space(self.low, self.high, count + 1)]

    def apply(self, axis: Any) -> None:
        """Give the scale to an axis, with labels that can be read over one decade and over ten.

        Args:
            axis: ``ax.xaxis`` or ``ax.yaxis`` of matplotlib.
        """
        limits = {f"{axis.axis_name}lim": (self.low, self.high)}
        if not self.logarithmic:
            axis.axes.set(**limits)
            return
        from matplotlib.ticker import (
            FuncFormatter,
            LogFormatterMathtext,
            LogLocator,
            NullFormatter,
        )

        wide = self.high / self.low > 300
        axis.axes.set(**{f"{axis.axis_name}scale": "log"}, **limits)
        axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        plain = FuncFormatter(lambda value, _: f"{value:g}")
        axis.set_major_formatter(LogFormatterMathtext() if wide else plain)
        axis.set_minor_formatter(NullFormatter())
