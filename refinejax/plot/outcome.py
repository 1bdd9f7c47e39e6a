"""Figures of what a refinement did to the loss, or to another measure of the fit."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from refinejax.plot.scale import LossScale
from refinejax.plot.style import (
    BLUE,
    GRAY,
    QUIET,
    add_legend,
    add_title,
    count,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARK: dict[str, Any] = {"color": QUIET, "linewidth": 1, "linestyle": (0, (1, 2))}
_SCATTER_LIMIT = 5000  # points; more than that hide each other, and their density is drawn
_NO_MARKS: Mapping[str, float] = {}


@styled
def before_after(
    before: ArrayLike,
    after: ArrayLike,
    label: str = "loss",
    unit: str = "",
    marks: Mapping[str, float] = _NO_MARKS,
) -> "Figure":
    """Draw a measure of the fit after refinement against that before it, and both distributions.

    Marked is the diagonal, on which nothing changed. Samples without a finite value are left out,
    and counted in the title. The axes are logarithmic, unless a value is negative.

    Args:
        before: at the start, shape (B,).
        after: of the refined params, shape (B,).
        label: name of the measure, such as "loss".
        unit: of the measure; "" for none.
        marks: label → positive value, of lines to compare with, such as what a guess scores.

    Returns:
        The figure.
    """
    begun, ended = (np.ravel(np.asarray(x, float)) for x in (before, after))
    finite = np.isfinite(begun) & np.isfinite(ended)
    begun, ended = begun[finite], ended[finite]
    scale = LossScale.of(begun, ended, marks=marks.values())
    # a perfect fit has no logarithm: it is drawn at the lower edge
    begun, ended = scale.clip(begun), scale.clip(ended)
    figure = new_figure(4.3)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
    _draw_scatter(left, begun, ended, scale.high, marks)
    left.set_xlabel(_in(f"{label} before", unit))
    left.set_ylabel(_in(f"{label} after", unit))
    add_legend(figure, *left.get_legend_handles_labels())
    _draw_histograms(right, {"before": begun, "after": ended}, scale, unit)
    for value in marks.values():
        right.axvline(value, **_MARK)
    right.set_xlabel(_in(label, unit))
    dropped = np.size(finite) - np.sum(finite)
    note = [f"{dropped:,} not finite, left out"] if dropped else []
    add_title(figure, f"{_upper(label)} of {count(np.size(finite), 'sample')}", *note)
    return figure


@styled
def convergence(
    trace: ArrayLike, label: str = "loss", unit: str = "", marks: Mapping[str, float] = _NO_MARKS
) -> "Figure":
    """Draw the median of a measure of the fit against the step, and the band from 10 to 90 %.

    A sample that ends before the others (NaN from there on) keeps its last value.

    Args:
        trace: the measure at the start and after each step, shape (K, steps + 1).
        label: name of the measure, such as "loss".
        unit: of the measure; "" for none.
        marks: label → positive value, of lines to compare with.

    Returns:
        The figure.

    Raises:
        ValueError: if the trace is not of that shape, or empty.
    """
    trace = np.asarray(trace, float)
    if trace.ndim != 2 or 0 in trace.shape:
        raise ValueError(f"trace: expected shape (samples, steps + 1), got {trace.shape}")
    steps, bands = _bands(trace)
    scale = LossScale.of(bands, marks=marks.values())
    low, middle, high = scale.clip(bands)
    figure = new_figure(3.6)
    ax = figure.subplots()
    ax.fill_between(steps, low, high, color=BLUE, alpha=0.22, linewidth=0, label="10–90 %")
    marker = "o" if len(steps) == 1 else ""
    ax.plot(steps, middle, color=BLUE, linewidth=1.8, marker=marker, label="median")
    for name, value in marks.items():
        ax.axhline(value, **_MARK, label=name)
    scale.apply(ax.yaxis)
    ax.set_xlim(0, max(trace.shape[1] - 1, 1))
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("step")
    ax.set_ylabel(_in(label, unit))
    ax.grid(axis="y")
    add_title(figure, f"Convergence of {count(len(trace), 'sample')}")
    add_legend(figure, *ax.get_legend_handles_labels())
    return figure


def _in(label: str, unit: str) -> str:
    return f"{label} [{unit}]" if unit else label


def _upper(label: str) -> str:
    return label[:1].upper() + label[1:]


def _draw_scatter(
    ax: "Axes",
    before: NDArray[np.floating],
    after: NDArray[np.floating],
    top: float,
    marks: Mapping[str, float],
) -> None:
    # each axis from its own least value on: after may be decades below before
    for axis, values in ((ax.xaxis, before), (ax.yaxis, after)):
        LossScale.of(values, marks=marks.values())._replace(high=top).apply(axis)
    ends = max(ax.get_xlim()[0], ax.get_ylim()[0]), top
    ax.plot(ends, ends, color=QUIET, linewidth=1, label="unchanged")
    for name, value in marks.items():
        ax.axvline(value, **_MARK)
        ax.axhline(value, **_MARK, label=name)
    if len(before) <= _SCATTER_LIMIT:
        alpha = 0.75 if len(before) <= 200 else 0.35
        ax.scatter(before, after, s=14, color=BLUE, alpha=alpha, linewidth=0)
    else:
        _draw_density(ax, before, after)


def _draw_density(ax: "Axes", before: NDArray[np.floating], after: NDArray[np.floating]) -> None:
    """Draw how many samples lie where, on the axes that ``ax`` has."""
    from matplotlib.colors import LinearSegmentedColormap

    colors = LinearSegmentedColormap.from_list("density", ["#C6E0F2", BLUE, "#04263D"])
    ends, scales = [*ax.get_xlim(), *ax.get_ylim()], [ax.get_xscale(), ax.get_yscale()]
    extent = tuple(
        float(np.log10(end)) if scales[i // 2] == "log" else float(end)
        for i, end in enumerate(ends)
    )
    how: Any = {"xscale": scales[0], "yscale": scales[1], "bins": "log", "extent": extent}
    hexes = ax.hexbin(before, after, gridsize=(48, 28), cmap=colors, mincnt=1, **how)
    hexes.set_edgecolor("face")
    ax.figure.colorbar(hexes, ax=ax, label="samples", aspect=30)


def _draw_histograms(
    ax: "Axes", samples: Mapping[str, NDArray[np.floating]], scale: LossScale, unit: str
) -> None:
    from matplotlib.colors import to_rgba

    for (name, values), color in zip(samples.items(), (GRAY, BLUE), strict=True):
        middle = f", median {np.median(values):#.3g} {unit}".rstrip() if len(values) else ""
        label, fill = name + middle, to_rgba(color, 0.3)
        how: Any = {"histtype": "stepfilled", "linewidth": 1.4}
        ax.hist(values, scale.bins(45), facecolor=fill, edgecolor=color, label=label, **how)
    scale.apply(ax.xaxis)
    ax.locator_params(axis="y", integer=True)
    ax.set_ylim(0, 1.2 * max(ax.get_ylim()[1], 1))
    ax.set_ylabel("samples")
    ax.legend(loc="upper left")


def _bands(
    trace: NDArray[np.floating],
) -> tuple[NDArray[np.integer], NDArray[np.floating]]:
    """Return the steps that have a finite value, and the 10, 50 and 90 % quantiles there.

    Shapes (steps,) and (3, steps).
    """
    trace = np.where(np.isfinite(trace), trace, np.nan)
    last = np.maximum.accumulate(np.where(np.isnan(trace), 0, np.arange(trace.shape[1])), axis=1)
    trace = np.take_along_axis(trace, last, axis=1)
    steps = np.flatnonzero(~np.all(np.isnan(trace), axis=0))
    if not steps.size:  # of nothing, NumPy gives quantiles of another shape
        return steps, np.empty((3, 0))
    return steps, np.nanquantile(trace[:, steps], [0.1, 0.5, 0.9], axis=0)
