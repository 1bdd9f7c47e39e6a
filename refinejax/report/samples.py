"""The sections on single samples: the worst, the median and the best."""

import html

import numpy as np
from numpy.typing import ArrayLike

from refinejax import plot
from refinejax._core import Status
from refinejax.report.numbers import LOSS, deviation, number, row_format
from refinejax.report.parts import Picture, Section, badge, table
from refinejax.report.presentation import ReportData

ROLES = ("worst", "median", "best")


def choose_samples(after: ArrayLike, status: ArrayLike) -> dict[str, int]:
    """Return the numbers of the worst, the median and the best sample by a measure of the fit.

    Samples that failed, or whose measure is not finite, rank below all others.

    Args:
        after: the measure of the refined params, (B,); the less, the better.
        status: codes of `Status`, (B,).

    Returns:
        Sample numbers by "worst", "median" and "best".
    """
    after, status = np.asarray(after, float), np.asarray(status)
    finite = np.isfinite(after)
    order = np.lexsort((np.where(finite, after, np.inf), ~finite | (status < 0)))
    places = (len(order) - 1, (len(order) - 1) // 2, 0)
    return {role: int(order[place]) for role, place in zip(ROLES, places, strict=True)}


def sample_sections(data: ReportData) -> list[Section]:
    """Return a section for each chosen sample; one that plays several roles has one section.

    Args:
        data: of the report.
    """
    roles: dict[int, list[str]] = {}
    for role, sample in choose_samples(data.measure.after, data.result.status).items():
        roles.setdefault(sample, []).append(role)
    return [_sample(data, sample, tuple(names)) for sample, names in roles.items()]


def covariance_sections(data: ReportData) -> list[Section]:
    """Return the section on the errors of the params of the median sample, if they are known.

    Args:
        data: of the report.
    """
    covariance = data.presentation.covariance
    sample = choose_samples(data.measure.after, data.result.status)["median"]
    if covariance is None or not np.any(covariance.std[sample] > 0):
        return []
    truth = None if data.truth is None else data.truth[sample]
    text = f"Standard errors and correlations of the params of sample {sample}"
    picture = Picture(plot.corner(covariance, truth, sample), ("covariance",), text)
    return [Section(f"How well the params are known: sample {sample}", [picture])]


def _sample(data: ReportData, sample: int, roles: tuple[str, ...]) -> Section:
    measure, status = data.measure, Status(int(data.result.status[sample]))
    before, after = (np.asarray(x)[sample] for x in (measure.before, measure.after))
    steps = int(data.result.steps[sample])
    change = f"{number(before, LOSS)} → {number(after, LOSS)} {html.escape(measure.unit)}".rstrip()
    line = (
        f"<p>{badge(status)} {steps:,} {'step' if steps == 1 else 'steps'}, "
        f"{html.escape(measure.label)} {change}{_margins(data, sample)}</p>"
    )
    name = " and ".join(filter(None, [", ".join(roles[:-1]), roles[-1]]))
    return Section(
        f"{name.capitalize()} sample: number {sample}",
        [line, *_pictures(data, sample, roles), _params(data, sample)],
    )


def _pictures(data: ReportData, sample: int, roles: tuple[str, ...]) -> list[Picture]:
    draw = data.presentation.picture
    if draw is None:
        return []
    return [Picture(draw(sample), roles, f"{data.presentation.picture_text} of sample {sample}")]


def _margins(data: ReportData, sample: int) -> str:
    margins = data.result.margins.items()
    found = ((name, np.asarray(margin, float)[sample]) for name, margin in margins)
    return "".join(f", margin of the {html.escape(name)} {number(x, '.3g')}" for name, x in found)


def _params(data: ReportData, sample: int) -> str:
    """Return the table of a sample's params: start, end, standard error, and the truth."""
    columns = {"refined": data.params[sample]}
    if data.initial is not None:
        columns = {html.escape(data.presentation.start): data.initial[sample], **columns}
    known = list(columns)
    if data.truth is not None:
        columns["truth"] = data.truth[sample]
        columns["refined − truth"] = data.params[sample] - data.truth[sample]
    rows = []
    for k, (name, unit) in enumerate(zip(data.names, data.units, strict=True)):
        std = float(data.std[sample, k])
        form = row_format([float(column[k]) for column in columns.values()], std)
        values = [number(column[k], form) for column in columns.values()]
        values.insert(len(known), deviation(std))
        rows.append((html.escape(name), html.escape(unit), *values))
    heads = list(columns)
    return table(["parameter", "unit", *known, "± std", *heads[len(known) :]], rows, "params")
