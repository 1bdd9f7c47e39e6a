"""Figures of what became of a batch."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from refinejax._core import Status
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

RANDOM_PHASE = math.pi / math.sqrt(3)  # RMS of a phase uniform in [−π, π) [rad]

# Blue, amber and wine differ in lightness too: for every kind of color vision, and in print.
GROUPS = {"converged": "#0072B2", "not converged": "#E69F00", "failed": "#882255"}
_RANDOM: dict[str, Any] = {"color": QUIET, "linewidth": 1, "linestyle": (0, (1, 2))}
_RANDOM_LABEL = "random phase: π/√3 ≈ 1.81 rad"
_SCATTER_LIMIT = 5000  # points; more than that hide each other, and their density is drawn


@styled
def before_after(initial_rmse: ArrayLike, rmse: ArrayLike) -> "Figure":
    """Draw the residual RMSE after refinement against that before it, and both distributions.

    Marked are the diagonal, on which nothing changed, and π/√3 ≈ 1.81 rad, which a prediction
    that has nothing to do with the observation scores. Samples without a finite RMSE are left out,
    and counted in the title.

    Args:
        initial_rmse: before, shape (B,) [rad].
        rmse: after, shape (B,) [rad].
    """
    before, after = (np.ravel(np.asarray(x, float)) for x in (initial_rmse, rmse))
    finite = np.isfinite(before) & np.isfinite(after)
    before, after = before[finite], after[finite]
    bottom, top = _log_limits(before, after)
    # a perfect fit has no logarithm: it is drawn at the lower edge
    before, after = (np.maximum(x, 1.02 * bottom) for x in (before, after))
    figure = new_figure(4.3)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
    _draw_scatter(left, before, after, top)
    add_legend(figure, *left.get_legend_handles_labels())
    _draw_histograms(right, before, after, (bottom, top))
    dropped = np.size(finite) - np.sum(finite)
    note = [f"{dropped:,} not finite, left out"] if dropped else []
    add_title(figure, f"Residual RMSE of {count(np.size(finite), 'sample')}", *note)
    return figure


@styled
def convergence(trace: ArrayLike) -> "Figure":
    """Draw the median of the residual RMSE against the step, and the band from 10 to 90 %.

    A sample that ends before the others (NaN from there on) keeps its last value.

    Args:
        trace: residual RMSE at the start and after each step, shape (K, steps + 1) [rad].

    Raises:
        ValueError: if the trace is not of that shape, or empty.
    """
    trace = np.asarray(trace, float)
    if trace.ndim != 2 or 0 in trace.shape:
        raise ValueError(f"trace: expected shape (samples, steps + 1), got {trace.shape}")
    steps, (low, middle, high) = _bands(trace)
    figure = new_figure(3.6)
    ax = figure.subplots()
    ax.fill_between(steps, low, high, color=BLUE, alpha=0.22, linewidth=0, label="10–90 %")
    marker = "o" if len(steps) == 1 else ""
    ax.plot(steps, middle, color=BLUE, linewidth=1.8, marker=marker, label="median")
    ax.axhline(RANDOM_PHASE, **_RANDOM, label=_RANDOM_LABEL)
    _log_axis(ax.yaxis, *_log_limits(low, high))
    ax.set_xlim(0, max(trace.shape[1] - 1, 1))
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("step")
    ax.set_ylabel("residual RMSE [rad]")
    ax.grid(axis="y")
    add_title(figure, f"Convergence of {count(len(trace), 'sample')}")
    add_legend(figure, *ax.get_legend_handles_labels())
    return figure


@styled
def statuses(status: ArrayLike) -> "Figure":
    """Draw how many samples ended in each `Status`, most frequent first within a group.

    Args:
        status: codes of `Status`, shape (B,).

    Raises:
        ValueError: for a code that is no status.
    """
    counts = count_statuses(status)
    total = sum(counts.values())
    figure = new_figure(1.1 + 0.34 * len(counts))
    ax = figure.subplots()
    names = [code.name for code in counts]
    colors = [GROUPS[group_of(code)] for code in counts]
    bars = ax.barh(names, list(counts.values()), color=colors, height=0.68)
    labels = [f"{n:,}  ({100 * n / total:.3g} %)" for n in counts.values()]
    ax.bar_label(bars, labels, padding=4, fontsize=8.5)
    ax.set_ylim(len(bars) - 0.5, -0.5)
    ax.set_xlim(0, 1.16 * max(counts.values(), default=1))
    ax.locator_params(axis="x", integer=True)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("samples")
    add_title(figure, "How the samples ended")
    _group_legend(figure, {group_of(code) for code in counts})
    return figure


def count_statuses(status: ArrayLike) -> dict[Status, int]:
    """Return how many samples ended in each status: by group, and most frequent first.

    Args:
        status: codes of `Status`, shape (B,).

    Raises:
        ValueError: for a code that is no status.
    """
    codes, numbers = np.unique(np.asarray(status), return_counts=True)
    pairs = [(Status(int(code)), int(n)) for code, n in zip(codes, numbers, strict=True)]
    groups = list(GROUPS)
    return dict(sorted(pairs, key=lambda pair: (groups.index(group_of(pair[0])), -pair[1])))


def group_of(status: Status) -> str:
    """Return "converged", "not converged" or "failed"."""
    if status < 0:
        return "failed"
    return "converged" if status.converged else "not converged"


def _draw_scatter(
    ax: "Axes", before: NDArray[np.floating], after: NDArray[np.floating], top: float
) -> None:
    # each axis from its own least value on: after may be decades below before
    _log_axis(ax.xaxis, _log_limits(before)[0], top)
    _log_axis(ax.yaxis, _log_limits(after)[0], top)
    ends = max(ax.get_xlim()[0], ax.get_ylim()[0]), top
    ax.plot(ends, ends, color=QUIET, linewidth=1, label="unchanged")
    ax.axvline(RANDOM_PHASE, **_RANDOM)
    ax.axhline(RANDOM_PHASE, **_RANDOM, label=_RANDOM_LABEL)
    if len(before) <= _SCATTER_LIMIT:
        alpha = 0.75 if len(before) <= 200 else 0.35
        ax.scatter(before, after, s=14, color=BLUE, alpha=alpha, linewidth=0)
    else:
        _draw_density(ax, before, after)
    ax.set_xlabel("RMSE before [rad]")
    ax.set_ylabel("RMSE after [rad]")


def _draw_density(ax: "Axes", before: NDArray[np.floating], after: NDArray[np.floating]) -> None:
    """Draw how many samples lie where, on the logarithmic axes that ``ax`` has."""
    from matplotlib.colors import LinearSegmentedColormap

    colors = LinearSegmentedColormap.from_list("density", ["#C6E0F2", BLUE, "#04263D"])
    extent = tuple(float(x) for x in np.log10([*ax.get_xlim(), *ax.get_ylim()]))
    scales: Any = {"xscale": "log", "yscale": "log", "bins": "log", "extent": extent}
    hexes = ax.hexbin(before, after, gridsize=(48, 28), cmap=colors, mincnt=1, **scales)
    hexes.set_edgecolor("face")
    ax.figure.colorbar(hexes, ax=ax, label="samples", aspect=30)


def _draw_histograms(
    ax: "Axes",
    before: NDArray[np.floating],
    after: NDArray[np.floating],
    limits: tuple[float, float],
) -> None:
    from matplotlib.colors import to_rgba

    bins = list(np.geomspace(*limits, 46))
    for values, color, name in ((before, GRAY, "before"), (after, BLUE, "after")):
        middle = f", median {np.median(values):#.3g} rad" if len(values) else ""
        label, fill = name + middle, to_rgba(color, 0.3)
        how: Any = {"histtype": "stepfilled", "linewidth": 1.4}
        ax.hist(values, bins, facecolor=fill, edgecolor=color, label=label, **how)
    ax.axvline(RANDOM_PHASE, **_RANDOM)
    _log_axis(ax.xaxis, *limits)
    ax.locator_params(axis="y", integer=True)
    ax.set_ylim(0, 1.2 * max(ax.get_ylim()[1], 1))
    ax.set_xlabel("RMSE [rad]")
    ax.set_ylabel("samples")
    ax.legend(loc="upper left")


def _group_legend(figure: "Figure", present: set[str]) -> None:
    from matplotlib.patches import Patch

    groups = {name: color for name, color in GROUPS.items() if name in present}
    patches = [Patch(color=color) for color in groups.values()]
    add_legend(figure, patches, list(groups))


def _bands(
    trace: NDArray[np.floating],
) -> tuple[NDArray[np.integer], NDArray[np.floating]]:
    """Return the steps that have a finite value, and the 10, 50 and 90 % quantiles there.

    Shapes (steps,) and (3, steps) [rad].
    """
    trace = np.where(np.isfinite(trace), trace, np.nan)
    last = np.maximum.accumulate(np.where(np.isnan(trace), 0, np.arange(trace.shape[1])), axis=1)
    trace = np.take_along_axis(trace, last, axis=1)
    steps = np.flatnonzero(~np.all(np.isnan(trace), axis=0))
    if not steps.size:  # of nothing, NumPy gives quantiles of another shape
        return steps, np.empty((3, 0))
    return steps, np.nanquantile(trace[:, steps], [0.1, 0.5, 0.9], axis=0)


def _log_limits(*values: NDArray[np.floating]) -> tuple[float, float]:
    """Return limits that hold all values above 0, and the level of a random phase."""
    everything = np.concatenate([*values, [RANDOM_PHASE]])
    positive = everything[everything > 0]
    low, high = float(positive.min()), float(positive.max())
    return (0.75 * low if low < RANDOM_PHASE else 0.1), 1.35 * high


def _log_axis(axis: Any, low: float, high: float) -> None:
    """Make an axis logarithmic, with labels that can be read over one decade and over ten."""
    from matplotlib.ticker import FuncFormatter, LogFormatterMathtext, LogLocator, NullFormatter

    wide = high / low > 300
    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (low, high)})
    axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axis.set_major_formatter(LogFormatterMathtext() if wide else plain)
    axis.set_minor_formatter(NullFormatter())
