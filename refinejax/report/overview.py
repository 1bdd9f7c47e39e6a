"""The sections on the whole batch: how far it came, and how its samples ended."""

import html

import numpy as np

from refinejax import plot
from refinejax.report.numbers import LOSS, median, number, quantile_row
from refinejax.report.parts import Picture, Section, badge, code_to_html, table
from refinejax.report.presentation import ReportData


def tiles(data: ReportData) -> str:
    """Return the four numbers that are asked for first, as HTML.

    Args:
        data: of the report.
    """
    counts, measure = plot.count_statuses(data.result.status), data.measure
    share = 100 * sum(n for code, n in counts.items() if code.converged) / len(data.result)
    label = html.escape(f"median {measure.label}{measure.brackets}, before → after")
    shown = {
        "samples": f"{len(data.result):,}",
        "converged": f"{number(share, '.3g')} %",
        label: f"{median(measure.before)} → {median(measure.after)}",
        "median steps": number(float(np.median(np.asarray(data.result.steps, float)))),
    }
    items = (f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in shown.items())
    return f'<dl class="tiles">{"".join(items)}</dl>'


def summary(data: ReportData) -> Section:
    """Return the section on the measure of the fit before and after.

    Args:
        data: of the report.
    """
    measure, trace = data.measure, data.presentation.trace
    how = (measure.label, measure.unit, measure.marks)
    label = measure.label[:1].upper() + measure.label[1:]
    figure = plot.before_after(measure.before, measure.after, *how)
    parts = [_quantiles(data), Picture(figure, ("before_after",), f"{label} before and after")]
    if trace is not None and np.any(np.isfinite(trace)):
        text = f"{label} against the step"
        parts.append(Picture(plot.convergence(trace, *how), ("convergence",), text))
    return Section("Before and after", parts)


def _quantiles(data: ReportData) -> str:
    measure = data.measure
    head = ("", "least", "10 %", "median", "90 %", "greatest", "not finite")
    rows = [
        quantile_row(html.escape(f"{measure.label} {when}{measure.brackets}"), values, LOSS)
        for when, values in (("before", measure.before), ("after", measure.after))
    ]
    rows.append(quantile_row("steps", data.result.steps))
    for name, margin in data.result.margins.items():
        rows.append(quantile_row(f"margin of the {html.escape(name)} [log odds]", margin, LOSS))
    return table(head, rows)


def endings(data: ReportData) -> Section:
    """Return the section on statuses, with their explanations.

    Args:
        data: of the report.
    """
    counts = plot.count_statuses(data.result.status)
    total = sum(counts.values())
    rows = [
        (badge(code), f"{n:,}", f"{number(100 * n / total, '.3g')} %", code_to_html(code.explain()))
        for code, n in counts.items()
    ]
    explained = table(("status", "samples", "share", "what it means"), rows, "statuses")
    figure = Picture(plot.statuses(data.result.status), ("statuses",), "Statuses")
    return Section("How the samples ended", [figure, explained])
