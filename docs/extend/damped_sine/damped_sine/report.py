"""What a report of damped sines shows: signals with their fits, RMSE in V, half-lives."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from damped_sine.problem import SPACE, predict, rmse
from refinejax import BatchResult, plot
from refinejax.report import Measure, Presentation, Section, number, paragraph, table, write_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write(
    folder: Path, arrays: Mapping[str, np.ndarray], initial: np.ndarray, result: BatchResult
) -> Path:
    """Write the report.

    Args:
        folder: where; made if it is not there.
        arrays: ``times``, ``signals`` and perhaps ``truth``, as in the input file.
        initial: where the fits began, (B, 3).
        result: of `damped_sine.problem.fit`.

    Returns:
        The path of the page.
    """
    times, signals = arrays["times"], arrays["signals"]
    measure = Measure(
        before=rmse(times, signals, initial),
        after=rmse(times, signals, result.params),
        label="residual RMSE",
        unit="V",
        note="Residual RMSE: root mean square of prediction minus signal.",
    )
    shown = Presentation(
        title="Damped sines",
        names=SPACE.names,
        units=SPACE.units,
        initial=initial,
        truth=arrays.get("truth"),
        measure=measure,
        covariance=result.covariance(),
        picture=lambda sample: draw(times, signals[sample], result.params[sample]),
        picture_text="Signal and fit",
        sections=[half_lives(result)],
    )
    return write_report(folder, result, shown)


@plot.styled
def draw(times: np.ndarray, signal: np.ndarray, params: np.ndarray) -> "Figure":
    """Draw a signal and its fit.

    Args:
        times: shape (n,) [s].
        signal: shape (n,) [V].
        params: shape (3,) [V, 1/s, Hz].
    """
    figure = plot.new_figure(3.2)
    ax = figure.subplots()
    ax.plot(times, signal, ".", color=plot.GRAY, label="signal")
    ax.plot(times, predict(times, params[None])[0], color=plot.BLUE, label="fit")
    ax.set(xlabel="time [s]", ylabel="signal [V]")
    plot.add_legend(figure, *ax.get_legend_handles_labels())
    return figure


def half_lives(result: BatchResult) -> Section:
    """Return a section of our own: how long the signals last.

    Args:
        result: of `damped_sine.problem.fit`.
    """
    times = np.log(2) / np.maximum(result.params[:, SPACE.names.index("decay")], 1e-12)
    cells = [number(value) for value in np.quantile(times, [0.1, 0.5, 0.9])]
    rows = [("half-life [s]", *cells)]
    about = paragraph("A signal falls to a half of its height in log 2 / decay.")
    return Section("Half-lives", [about, table(("", "10 %", "median", "90 %"), rows)])
