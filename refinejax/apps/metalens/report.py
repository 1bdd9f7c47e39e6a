"""What a report of lenses shows: phase maps, residual RMSE in rad, rungs and lines."""

import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from refinejax.apps.metalens.figures import MARKS, maps
from refinejax.apps.metalens.lenses import predict
from refinejax.batch import BatchResult
from refinejax.batch.result import DECISIVE
from refinejax.physics.metalens.lens import NAMES, UNITS
from refinejax.report import Measure, Presentation, Section, paragraph, table, write_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTE = (
    "Residual RMSE: root mean square of the wrapped difference of predicted and observed phase, "
    "over the pixels observed; a phase at random has π/√3 ≈ 1.81 rad."
)
CHOICES = {
    "rung": "Lenses whose phase at the edge differs by whole fringes explain a map almost as well: "
    "they are the rungs of a ladder. The rung was chosen by the fit.",
    "line": "A lens scaled to another laser line explains a map almost as well. The line was "
    "chosen by the ranges of the params, then by the fit.",
}


@dataclass(frozen=True, kw_only=True)
class LensReport:
    """What a report of B lenses is made of.

    Attributes:
        phase: the wrapped phase maps, (B, N, N), NaN where missing [rad].
        initial: params at the start, (B, 5) [µm].
        rmse: residual RMSE of the refined params, (B,) [rad].
        initial_rmse: residual RMSE of the initial params, (B,) [rad].
        truth: the true params, (B, 5) [µm], if they are known.
        trace: residual RMSE at the start and after each step, (K, steps + 1) [rad], of any K maps.
        title: of the page.
        start: what the initial params are called, such as "predicted".
    """

    phase: np.ndarray
    initial: np.ndarray
    rmse: np.ndarray
    initial_rmse: np.ndarray
    truth: np.ndarray | None = None
    trace: np.ndarray | None = None
    title: str = "refinejax metalens"
    start: str = "initial"


def write_lens_report(
    folder: str | os.PathLike[str], result: BatchResult, lenses: LensReport
) -> Path:
    """Write the report of lenses.

    Args:
        folder: where; made if it is not there.
        result: of `invert`, params (B, 5) [µm].
        lenses: what else is shown.

    Returns:
        The path of ``index.html``.

    Raises:
        ValueError: as `refinejax.report.write_report`.
        ImportError: without matplotlib.
    """
    return write_report(folder, result, present(result, lenses))


def present(result: BatchResult, lenses: LensReport) -> Presentation:
    """Return how lenses are presented.

    Args:
        result: of `invert`, params (B, 5) [µm].
        lenses: what else is shown.
    """

    def picture(sample: int) -> "Figure":
        predicted = predict(result.params[sample], lenses.phase.shape[-1])
        return maps(lenses.phase[sample], predicted, title=f"Sample {sample}")

    return Presentation(
        title=lenses.title,
        names=NAMES,
        units=UNITS,
        initial=lenses.initial,
        truth=lenses.truth,
        start=lenses.start,
        measure=rmse_measure(lenses.initial_rmse, lenses.rmse),
        trace=lenses.trace,
        picture=picture,
        picture_text="Observed, predicted and residual phase",
        sections=choices(result.margins),
    )


def rmse_measure(before: Any, after: Any) -> Measure:
    """Return the residual RMSE as a measure of the fit.

    Args:
        before: at the start, (B,) [rad].
        after: of the refined params, (B,) [rad].
    """
    return Measure(
        before=before, after=after, label="residual RMSE", unit="rad", marks=MARKS, note=NOTE
    )


def choices(margins: Mapping[str, np.ndarray]) -> Sequence[Section]:
    """Return the section on rungs and lines, if any were chosen.

    Args:
        margins: of each choice, the log of the odds of what was chosen, (B,); NaN where unknown.
    """
    if not margins:
        return []
    rows = []
    for name, margin in margins.items():
        decided, unknown = int(np.sum(margin >= DECISIVE)), int(np.sum(np.isnan(margin)))
        numbers = (decided, len(margin) - decided - unknown, unknown)
        rows.append((html.escape(name), *(f"{number:,}" for number in numbers)))
    words = [paragraph(CHOICES[name]) for name in margins if name in CHOICES]
    head = ("choice", "decided by the map", "not decided", "unknown")
    return [Section("Rungs and lines", [*words, table(head, rows)])]
