"""Figures of the errors of params, and of the residuals of a fit."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from refinejax.diagnostics import Covariance
from refinejax.plot.style import (
    BLUE,
    INK,
    MISSING,
    QUIET,
    add_legend,
    add_title,
    load_matplotlib,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEVELS = (0.68, 0.95)  # probability within the ellipses
_TRUTH: dict[str, Any] = {"color": "#E69F00", "linewidth": 1.2}


@styled
def corner(covariance: Covariance, truth: ArrayLike | None = None, sample: int = 0) -> "Figure":
    """Draw the errors of the params of a fit: each alone, and each pair.

    On the diagonal the normal density with its 95 % interval; below it the ellipses that hold 68
    and 95 % of the probability, and the correlation. Params without a standard error, or with one
    of 0, are left out and named in the title.

    Args:
        covariance: of a result, with or without a sample axis.
        truth: the params if they are known, like those of a sample.
        sample: which one to draw.

    Returns:
        The figure.

    Raises:
        ValueError: if no param has a standard error.
    """
    single = covariance.params.ndim == 1
    pick = (lambda array: array) if single else (lambda array: array[sample])
    params, std, matrix = (pick(getattr(covariance, n)) for n in ("params", "std", "matrix"))
    shown = np.flatnonzero(std > 0)
    if not shown.size:
        raise ValueError("covariance: no param of this sample has a standard error")
    size = len(shown)
    figure = new_figure(1.0 + 1.9 * size)
    axes = figure.subplots(size, size, squeeze=False, sharex="col")
    known = None if truth is None else np.asarray(truth, float).reshape(len(params))
    for row, i in enumerate(shown):
        for column, j in enumerate(shown):
            ax = axes[row, column]
            if column > row:
                ax.set_axis_off()
            elif i == j:
                _draw_density(ax, params[i], std[i])
            else:
                _draw_ellipses(ax, params[[j, i]], matrix[np.ix_([j, i], [j, i])])
            if known is not None and column <= row:
                _draw_truth(ax, known[j], None if i == j else known[i])
        _label(axes, row, covariance.names[i])
    missing = [name for i, name in enumerate(covariance.names) if i not in shown]
    note = [f"left out: {', '.join(missing)}"] if missing else []
    add_title(figure, f"Errors of the params, {covariance.noise} noise", *note)
    return figure


def _draw_density(ax: "Axes", center: float, std: float) -> None:
    x = np.linspace(-3.5, 3.5, 201)
    density = np.exp(-0.5 * x**2)
    inside = np.abs(x) <= 1.96
    ax.plot(center + std * x, density, color=BLUE, linewidth=1.4)
    ax.fill_between(center + std * x, density, where=list(inside), color=BLUE, alpha=0.22)
    ax.set_title(_number(center, std), fontsize=8.5)
    ax.set_yticks([])
    ax.set_ylim(0, 1.1)
    ax.set_xlim(center - 3.5 * std, center + 3.5 * std)


def _number(center: float, std: float) -> str:
    """Write a number with two digits of its error."""
    digits = 1 - math.floor(math.log10(std))
    text = f"{center:.{digits}f} ± {std:.{digits}f}" if 0 <= digits <= 6 else ""
    return (text or f"{center:.6g} ± {std:.2g}").replace("-", "−")


def _draw_ellipses(ax: "Axes", center: NDArray[np.floating], matrix: NDArray[np.floating]) -> None:
    std = np.sqrt(np.diag(matrix))
    rho = float(np.clip(matrix[0, 1] / (std[0] * std[1]), -1, 1))
    angle = np.linspace(0, 2 * math.pi, 181)
    circle = np.stack([np.cos(angle), rho * np.cos(angle) + math.sqrt(1 - rho**2) * np.sin(angle)])
    for level in _LEVELS:
        reach = math.sqrt(-2 * math.log(1 - level))  # χ² of two degrees of freedom
        x, y = center[:, None] + reach * std[:, None] * circle
        ax.fill(x, y, facecolor=BLUE, alpha=0.22, linewidth=0)
        ax.plot(x, y, color=BLUE, linewidth=1)
    ax.plot(*center, marker="+", color=INK, markersize=6)
    text = f"ρ {rho:.2f}".replace("-", "−")
    ax.text(0.95, 0.95, text, transform=ax.transAxes, ha="right", va="top", fontsize=8)
    ax.set_ylim(center[1] - 3.5 * std[1], center[1] + 3.5 * std[1])


def _draw_truth(ax: "Axes", x: float, y: float | None) -> None:
    ax.axvline(x, **_TRUTH)
    if y is not None:
        ax.axhline(y, **_TRUTH)


def _label(axes: Any, row: int, name: str) -> None:
    """Name a param below its column and, but for the first, beside its row."""
    last = len(axes) - 1
    for column in range(len(axes)):
        axes[row, column].locator_params(axis="x", nbins=4)
        axes[row, column].tick_params(labelsize=7.5)
        if 0 < column < row:
            axes[row, column].tick_params(labelleft=False)
    axes[last, row].set_xlabel(name, parse_math=False)
    if row:
        axes[row, 0].set_ylabel(name, parse_math=False)


@styled
def residuals(residual: ArrayLike, title: str = "") -> "Figure":
    """Draw the residual of a fit: where, how large, and how correlated at neighboring pixels.

    Left the residual, an image or a signal; in the middle its histogram with the normal density of
    the same standard deviation; right the correlation of pixels at a distance, with the band ±2/√n
    for n pairs within which 95 % would be for white noise. Where it leaves the band, the standard
    errors to trust are those for "correlated" noise.

    Args:
        residual: of one sample, shape (rows, columns) or (points,); NaN where missing.
        title: text before the standard deviation; never read as mathematics.

    Returns:
        The figure.

    Raises:
        ValueError: for another shape, or without two finite values.
    """
    values = np.asarray(residual, float)
    if values.ndim not in (1, 2):
        raise ValueError(f"residual: expected an image or a signal, got shape {values.shape}")
    finite = values[np.isfinite(values)]
    if finite.size < 2:
        raise ValueError(f"residual: expected two finite values or more, got {finite.size}")
    figure = new_figure(3.5)
    left, middle, right = figure.subplots(1, 3)
    (_draw_image if values.ndim == 2 else _draw_signal)(left, values)
    _draw_histogram(middle, finite)
    _draw_correlation(right, values)
    add_title(figure, *filter(None, [title]), f"residual, standard deviation {np.std(finite):#.3g}")
    add_legend(figure, *middle.get_legend_handles_labels())
    return figure


def _draw_image(ax: "Axes", values: NDArray[np.floating]) -> None:
    reach = np.nanquantile(np.abs(values[np.isfinite(values)]), 0.995) or 1.0
    colors = load_matplotlib().colormaps["RdBu_r"].with_extremes(bad=MISSING)
    masked = np.ma.masked_invalid(values)
    artist = ax.imshow(masked, cmap=colors, vmin=-reach, vmax=reach, interpolation="nearest")
    ax.spines[:].set_visible(True)
    ax.set(title="Residual", xlabel="column [px]", ylabel="row [px]")
    ax.figure.colorbar(artist, ax=ax, shrink=0.8, extend="both")


def _draw_signal(ax: "Axes", values: NDArray[np.floating]) -> None:
    ax.axhline(0, color=QUIET, linewidth=1)
    ax.plot(values, ".", color=BLUE, markersize=3)
    ax.set(title="Residual", xlabel="point", ylabel="residual")


def _draw_histogram(ax: "Axes", finite: NDArray[np.floating]) -> None:
    std = float(np.std(finite)) or 1.0
    center = float(np.mean(finite))
    bins = list(center + std * np.linspace(-5, 5, min(51, 11 + finite.size // 20)))
    ax.hist(finite, bins, density=True, color=BLUE, alpha=0.35, label="residual")
    x = center + std * np.linspace(-5, 5, 201)
    density = np.exp(-0.5 * ((x - center) / std) ** 2) / (std * math.sqrt(2 * math.pi))
    ax.plot(x, density, color=INK, linewidth=1.2, label="normal")
    ax.set(title="Distribution", xlabel="residual", yticks=[])


def _draw_correlation(ax: "Axes", values: NDArray[np.floating]) -> None:
    lag, correlation, pairs = correlogram(values)
    band = 2 / np.sqrt(pairs[1:])
    ax.fill_between(lag[1:], -band, band, color=QUIET, alpha=0.25, linewidth=0)
    ax.axhline(0, color=QUIET, linewidth=1)
    ax.plot(lag, correlation, "o-", color=BLUE, markersize=3, linewidth=1)
    ax.set(title="Correlation", xlabel="distance [px]", ylim=(min(-0.3, correlation.min()), 1.05))


def correlogram(
    values: NDArray[np.floating],
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
    """Return distances [px], the mean correlation of pixels so far apart, and how many pairs.

    Distances are rounded to whole pixels and go up to half of the longest axis.

    Args:
        values: an image or a signal; NaN is missing.
    """
    seen = np.isfinite(values)
    centered = np.where(seen, values - np.mean(values[seen]), 0)
    axes = list(range(values.ndim))
    shape = [2 * n for n in values.shape]  # zeros keep the ends from meeting

    def products(x: NDArray[Any]) -> NDArray[np.floating]:
        return np.fft.irfftn(np.abs(np.fft.rfftn(x, shape, axes)) ** 2, shape, axes)

    lags = np.meshgrid(*[np.fft.fftfreq(n, 1 / n) for n in shape], indexing="ij")
    distance = np.rint(np.sqrt(sum(lag**2 for lag in lags))).astype(int).ravel()
    sums = np.bincount(distance, products(centered).ravel())
    pairs = np.bincount(distance, np.rint(products(seen.astype(float))).ravel())
    reach = max(values.shape) // 2 + 1
    sums, pairs = sums[:reach], pairs[:reach]
    there = pairs > 0
    mean = sums[there] / pairs[there]
    scale = mean[0] if mean[0] > 0 else 1.0
    return np.flatnonzero(there).astype(float), mean / scale, np.maximum(pairs[there] / 2, 1)
