"""How a result is presented: names, units, a measure of the fit, pictures, sections."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from refinejax.batch import BatchResult
from refinejax.diagnostics import Covariance
from refinejax.diagnostics.params import flatten, names_of
from refinejax.plot import count_statuses
from refinejax.report.parts import Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How well each sample is explained, before and after.

    Attributes:
        before: at the start, shape (B,).
        after: of the refined params, shape (B,); the less, the better.
        label: name of the measure, such as "residual RMSE".
        unit: such as "rad"; "" for none.
        marks: label → value, to compare with, such as what a guess scores.
        note: a definition of the measure, a sentence for the foot of the page.
    """

    before: ArrayLike
    after: ArrayLike
    label: str = "loss"
    unit: str = ""
    marks: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def brackets(self) -> str:
        """The unit in brackets, after a space; empty without a unit."""
        return f" [{self.unit}]" if self.unit else ""


@dataclass(frozen=True, kw_only=True)
class Presentation:
    """How a result of B samples of n numbers each is presented. Every field has a default.

    Attributes:
        title: of the page.
        names: of the params, n; by default those of the problem's `ParameterSpace`, else their
            places in the tree of params.
        units: of the params, n; by default those of the space, else none.
        initial: params at the start, like those of the result.
        truth: the true params, like those of the result, where they are known.
        start: what the initial params are called, such as "predicted".
        measure: how well samples are explained; by default the loss.
        trace: the measure at the start and after each step, (K, steps + 1), of any K samples; NaN
            after a sample's end.
        covariance: of the params; the section on it shows the median sample.
        picture: sample number → figure of its data and its fit.
        picture_text: what a picture shows, for readers who cannot see it.
        sections: to add, between those on the whole batch and those on single samples.
    """

    title: str = "Refinement report"
    names: Sequence[str] = ()
    units: Sequence[str] = ()
    initial: ArrayLike | None = None
    truth: ArrayLike | None = None
    start: str = "initial"
    measure: Measure | None = None
    trace: ArrayLike | None = None
    covariance: Covariance | None = None
    picture: "Callable[[int], Figure] | None" = None
    picture_text: str = "Data and fit"
    sections: Sequence[Section] = ()


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """A result and its presentation, checked, with params as rows of numbers.

    Attributes:
        result: with a sample axis.
        presentation: of it.
        measure: of the presentation, else the loss.
        names: of the params, n.
        units: of the params, n.
        params: refined params, (B, n).
        initial: params at the start, (B, n), or None.
        std: their standard errors, (B, n), NaN where unknown.
        truth: the true params, (B, n), or None.
    """

    result: BatchResult
    presentation: Presentation
    measure: Measure
    names: tuple[str, ...]
    units: tuple[str, ...]
    params: np.ndarray
    initial: np.ndarray | None
    std: np.ndarray
    truth: np.ndarray | None


def check(result: BatchResult, presentation: Presentation) -> ReportData:
    """Return what a report is made of.

    Args:
        result: with a sample axis.
        presentation: of it.

    Raises:
        ValueError: for an empty batch, arrays that do not fit each other, an unknown status.
    """
    if np.ndim(result.status) == 0:
        raise ValueError("result: expected a sample axis, got a single sample; refine a batch of 1")
    if not len(result):
        raise ValueError("result: empty batch; there is nothing to report")
    count_statuses(result.status)  # raises for a code that is no status
    params = flatten(result.params)
    problem = None if result.fit is None else result.fit.problem
    names = tuple(presentation.names or names_of(problem, result.params))
    measure = presentation.measure or Measure(before=result.initial_loss, after=result.loss)
    data = ReportData(
        result=result,
        presentation=presentation,
        measure=measure,
        names=names,
        units=tuple(presentation.units or _units(problem, names)),
        params=params,
        initial=None if presentation.initial is None else flatten(presentation.initial),
        std=_std(result, presentation, params),
        truth=None if presentation.truth is None else flatten(presentation.truth),
    )
    _check_shapes(data)
    return data


def _units(problem: Any, names: tuple[str, ...]) -> Sequence[str]:
    space = getattr(problem, "space", None)
    return space.units if space is not None and space.names == names else [""] * len(names)


def _std(result: BatchResult, presentation: Presentation, params: np.ndarray) -> np.ndarray:
    if result.std is not None:
        return flatten(result.std)
    if presentation.covariance is not None:
        return presentation.covariance.std
    return np.full(params.shape, np.nan)


def _check_shapes(data: ReportData) -> None:
    samples, rows = (len(data.result),), data.params.shape
    found = {"names": (data.names, rows[1:]), "units": (data.units, rows[1:])}
    found |= {"params": (data.params, (*samples, *rows[1:])), "std": (data.std, rows)}
    found |= {"steps": (data.result.steps, samples)}
    found |= {"before": (data.measure.before, samples), "after": (data.measure.after, samples)}
    found |= {f"margin {name}": (m, samples) for name, m in data.result.margins.items()}
    for name, values in (("initial", data.initial), ("truth", data.truth)):
        if values is not None:
            found[name] = (values, rows)
    for name, (value, shape) in found.items():
        if np.shape(value) != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {np.shape(value)}")
