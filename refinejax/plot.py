"""Figures of what a refinement did, made with matplotlib (the extra ``refinejax[plot]``).

Each function returns a ``matplotlib.figure.Figure`` on an Agg canvas. None touches pyplot: they
need no display, leave no figure open and change no setting. `png` gives the bytes of one.
"""

import functools
import importlib
import io
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from refinejax._core import Status
from refinejax.physics.phase import phase_rmse, wrapped_difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_P = ParamSpec("_P")
_R = TypeVar("_R")

WIDTH = 9.6  # of every figure [inch], so that type is of one size where they stand together
RANDOM_PHASE = math.pi / math.sqrt(3)  # RMS of a phase uniform in [−π, π) [rad]

# Blue, amber and wine differ in lightness too: for every kind of color vision, and in print.
GROUPS = {"converged": "#0072B2", "not converged": "#E69F00", "failed": "#882255"}
_BEFORE, _AFTER, _INK, _QUIET, _MISSING = "#8C8C8C", "#0072B2", "#222222", "#666666", "#8F9A8F"
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.7,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "text.color": _INK,
    "text.usetex": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.bbox": None,
    "mathtext.fontset": "dejavusans",
}
_RANDOM: dict[str, Any] = {"color": _QUIET, "linewidth": 1, "linestyle": (0, (1, 2))}
_RANDOM_LABEL = "random phase: π/√3 ≈ 1.81 rad"
_SCATTER_LIMIT = 5000  # points; more than that hide each other, and their density is drawn


def _styled(draw: Callable[_P, _R]) -> Callable[_P, _R]:
    """Run ``draw`` with matplotlib in this module's style, and leave its settings as they were."""

    @functools.wraps(draw)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with _matplotlib().rc_context(_STYLE):
            return draw(*args, **kwargs)

    return wrapper


def _matplotlib() -> Any:
    """Import matplotlib.

    Raises:
        ImportError: if it is not there; says what to install.
    """
    try:
        return importlib.import_module("matplotlib")
    except ImportError as why:
        raise ImportError(
            "figures and reports need matplotlib, which is not installed: "
            "pip install 'refinejax[plot]'"
        ) from why


@_styled
def png(figure: "Figure", dpi: int = 200) -> bytes:
    """Return the figure as a PNG file, the same bytes for the same figure.

    Args:
        figure: any figure.
        dpi: resolution [pixels per inch].
    """
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
    return file.getvalue()


@_styled
def maps(observed: ArrayLike, predicted: ArrayLike, title: str = "") -> "Figure":
    """Draw the observed and the predicted phase and their residual, all on one scale.

    The scale is −π…π, its colors cyclic: −π and π are one phase, and have one color. Missing pixels
    are gray. The RMSE of the residual stands in the title.

    Args:
        observed: wrapped phase, (rows, columns), NaN where missing [rad].
        predicted: wrapped phase, of the same shape [rad].
        title: what stands before the RMSE; never read as mathematics.
    """
    difference = residual(observed, predicted)
    rmse = float(phase_rmse(jnp.asarray(predicted), jnp.asarray(observed)))
    figure = _figure(3.6)
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    images = (np.asarray(observed, float), np.asarray(predicted, float), difference)
    names = ("Observed", "Predicted", "Residual: predicted − observed")
    artists = [_draw_map(*each) for each in zip(axes, images, names, strict=True)]
    axes[0].set_ylabel("row [px]")
    gap = "missing" if np.all(np.isfinite(images[1])) else "not finite"
    _draw_scale(axes[-1], artists[-1], "" if np.all(np.isfinite(images)) else gap)
    number = f"{rmse:#.3g} rad" if math.isfinite(rmse) else "—"
    _title(figure, *filter(None, [title]), f"residual RMSE {number}")
    return figure


def residual(observed: ArrayLike, predicted: ArrayLike) -> NDArray[np.floating]:
    """Return predicted − observed, wrapped to ±π [rad]; NaN where a pixel is missing.

    Args:
        observed: wrapped phase, any shape [rad].
        predicted: wrapped phase, of the same shape [rad].

    Raises:
        ValueError: if the shapes differ.
    """
    shapes = np.shape(predicted), np.shape(observed)
    if shapes[0] != shapes[1]:
        raise ValueError(f"predicted: shape {shapes[0]} is not that of observed, {shapes[1]}")
    return np.asarray(wrapped_difference(jnp.asarray(predicted), jnp.asarray(observed)))


@_styled
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
    figure = _figure(4.3)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
    _draw_scatter(left, before, after, top)
    _legend(figure, *left.get_legend_handles_labels())
    _draw_histograms(right, before, after, (bottom, top))
    dropped = np.size(finite) - np.sum(finite)
    note = [f"{dropped:,} not finite, left out"] if dropped else []
    _title(figure, f"Residual RMSE of {_count(np.size(finite), 'sample')}", *note)
    return figure


@_styled
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
    figure = _figure(3.6)
    ax = figure.subplots()
    ax.fill_between(steps, low, high, color=_AFTER, alpha=0.22, linewidth=0, label="10–90 %")
    marker = "o" if len(steps) == 1 else ""
    ax.plot(steps, middle, color=_AFTER, linewidth=1.8, marker=marker, label="median")
    ax.axhline(RANDOM_PHASE, **_RANDOM, label=_RANDOM_LABEL)
    _log_axis(ax.yaxis, *_log_limits(low, high))
    ax.set_xlim(0, max(trace.shape[1] - 1, 1))
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("step")
    ax.set_ylabel("residual RMSE [rad]")
    ax.grid(axis="y")
    _title(figure, f"Convergence of {_count(len(trace), 'sample')}")
    _legend(figure, *ax.get_legend_handles_labels())
    return figure


@_styled
def statuses(status: ArrayLike) -> "Figure":
    """Draw how many samples ended in each `Status`, most frequent first within a group.

    Args:
        status: codes of `Status`, shape (B,).

    Raises:
        ValueError: for a code that is no status.
    """
    counts = count_statuses(status)
    total = sum(counts.values())
    figure = _figure(1.1 + 0.34 * len(counts))
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
    _title(figure, "How the samples ended")
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


def _figure(height: float) -> "Figure":
    """Make an empty figure [inch] on a canvas of its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _title(figure: "Figure", *parts: str) -> None:
    """Put a title at the left. It may come from a file, so a $ in it is a $."""
    text = "   ·   ".join(parts)
    figure.suptitle(text, x=0.005, ha="left", size=11.5, parse_math=False)


def _draw_map(ax: "Axes", image: NDArray[np.floating], name: str) -> Any:
    colors = _matplotlib().colormaps["twilight_shifted"].with_extremes(bad=_MISSING)
    # where pixels are many, colors are averaged and not phases: the mean across a wrap is no phase
    artist = ax.imshow(
        np.ma.masked_invalid(image),
        cmap=colors,
        vmin=-math.pi,
        vmax=math.pi,
        interpolation="antialiased",
        interpolation_stage="rgba",
    )
    ax.set_title(name)
    ax.set_xlabel("column [px]")
    ax.spines[:].set_visible(True)
    ax.locator_params(nbins=5, integer=True)
    return artist


def _draw_scale(ax: "Axes", artist: Any, gap: str) -> None:
    """Draw the scale of all maps at the right of ``ax``, as high as it, and what gray means."""
    figure, low = ax.get_figure(root=True), 0.13 if gap else 0.0
    assert figure is not None
    bar = figure.colorbar(artist, cax=ax.inset_axes((1.05, low, 0.05, 1 - low)))
    bar.set_ticks(list(np.linspace(-math.pi, math.pi, 5)))
    bar.ax.set_yticklabels(["−π", "−π/2", "0", "π/2", "π"])
    bar.set_label("wrapped phase [rad]")
    if gap:
        swatch = ax.inset_axes((1.05, 0, 0.05, 0.05), facecolor=_MISSING, xticks=[])
        swatch.spines[:].set_visible(True)
        swatch.set_yticks([0.5], [gap])
        swatch.yaxis.tick_right()
        swatch.tick_params(length=0)


def _draw_scatter(
    ax: "Axes", before: NDArray[np.floating], after: NDArray[np.floating], top: float
) -> None:
    # each axis from its own least value on: after may be decades below before
    _log_axis(ax.xaxis, _log_limits(before)[0], top)
    _log_axis(ax.yaxis, _log_limits(after)[0], top)
    ends = max(ax.get_xlim()[0], ax.get_ylim()[0]), top
    ax.plot(ends, ends, color=_QUIET, linewidth=1, label="unchanged")
    ax.axvline(RANDOM_PHASE, **_RANDOM)
    ax.axhline(RANDOM_PHASE, **_RANDOM, label=_RANDOM_LABEL)
    if len(before) <= _SCATTER_LIMIT:
        alpha = 0.75 if len(before) <= 200 else 0.35
        ax.scatter(before, after, s=14, color=_AFTER, alpha=alpha, linewidth=0)
    else:
        _draw_density(ax, before, after)
    ax.set_xlabel("RMSE before [rad]")
    ax.set_ylabel("RMSE after [rad]")


def _draw_density(ax: "Axes", before: NDArray[np.floating], after: NDArray[np.floating]) -> None:
    """Draw how many samples lie where, on the logarithmic axes that ``ax`` has."""
    from matplotlib.colors import LinearSegmentedColormap

    colors = LinearSegmentedColormap.from_list("density", ["#C6E0F2", _AFTER, "#04263D"])
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
    for values, color, name in ((before, _BEFORE, "before"), (after, _AFTER, "after")):
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
    _legend(figure, patches, list(groups))


def _legend(figure: "Figure", handles: Any, labels: list[str]) -> None:
    """Put a legend at the right of the title, where it hides nothing."""
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))


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


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
