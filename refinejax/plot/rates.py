"""A figure of how fast a batch converged."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from refinejax.diagnostics.rates import Rates
from refinejax.plot.style import BLUE, GRAY, INK, add_legend, add_title, count, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 60  # samples with an error bar each; of more, quantiles are drawn


@styled
def rates(traces: ArrayLike, measured: Rates, floor: float = 0.0) -> "Figure":
    """Draw the best loss against the step with the fitted line, and the rates with their errors.

    Args:
        traces: as given to `convergence_rates`, shape (n, steps + 1).
        measured: what it returned.
        floor: as given to it.

    Returns:
        The figure.

    Raises:
        ValueError: if traces and rates are not of as many samples.
    """
    losses = np.asarray(traces, float) - floor
    if losses.ndim != 2 or len(losses) != len(measured.rate):
        raise ValueError(
            f"traces: expected shape ({len(measured.rate)}, steps + 1), as the rates are of, got "
            f"{losses.shape}"
        )
    figure = new_figure(3.8)
    left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
    _draw_losses(left, losses, measured)
    _draw_rates(right, measured)
    add_title(figure, f"Convergence of {count(len(losses), 'sample')}")
    add_legend(figure, *left.get_legend_handles_labels())
    return figure


def _draw_losses(ax: "Axes", losses: np.ndarray, measured: Rates) -> None:
    best = np.maximum(np.fmin.accumulate(losses, axis=1), np.finfo(np.float64).tiny)
    low, middle, high = np.quantile(best, (0.1, 0.5, 0.9), axis=0)
    steps = np.arange(best.shape[1])
    ax.fill_between(steps, low, high, color=BLUE, alpha=0.22, linewidth=0, label="10–90 %")
    ax.plot(steps, middle, color=BLUE, linewidth=1.8, label="median of the best so far")
    known = np.flatnonzero(np.isfinite(measured.rate))
    if len(known):
        rate = np.median(measured.rate[known])
        far = steps[: int(np.median(measured.fitted[known])) + 1]
        line = middle[0] * np.exp(-rate * far)
        label = f"rate {rate:.3g} per step"
        ax.plot(far, line, color=INK, linewidth=1, linestyle="--", label=label)
    ax.set_yscale("log")
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("step")
    ax.set_ylabel("loss above the floor")
    ax.grid(axis="y")


def _draw_rates(ax: "Axes", measured: Rates) -> None:
    known = np.flatnonzero(np.isfinite(measured.rate))
    order = known[np.argsort(measured.rate[known])]
    if len(order) > _MOST:
        order = order[np.linspace(0, len(order) - 1, _MOST).astype(int)]
    share = 100 * (np.arange(len(order)) + 0.5) / max(len(order), 1)
    how = {"fmt": "o", "markersize": 3, "linewidth": 0.8}
    rate, error = measured.rate[order], measured.rate_error[order]
    ax.errorbar(share, rate, error, color=BLUE, ecolor=GRAY, **how)
    ax.axhline(0, color=INK, linewidth=0.7)
    ax.set_xlim(0, 100)
    ax.set_xlabel("share of samples [%]")
    ax.set_ylabel("rate ± standard error [1/step]")
    ax.grid(axis="y")
