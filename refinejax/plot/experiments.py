"""Figures of experiments: paired deltas with intervals, seeds of both arms, progress of a log."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from refinejax.experiments import Comparison, Records
from refinejax.plot.style import BLUE, GRAY, QUIET, add_title, count, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = {"KEEP": BLUE, "INCONCLUSIVE": "#E69F00", "REVERT": "#882255"}
_MARKERS = {"KEEP": "o", "INCONCLUSIVE": "s", "REVERT": "v"}
_LINE: dict[str, Any] = {"color": QUIET, "linewidth": 1}
_MARGIN: dict[str, Any] = {"color": QUIET, "linewidth": 1, "linestyle": (0, (4, 3))}

_SMALL: dict[str, Any] = {"markersize": 4, "alpha": 0.6, "markeredgewidth": 0}
_BESIDE: dict[str, Any] = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}


@styled
def deltas(comparisons: Mapping[str, Comparison]) -> "Figure":
    """Draw the deltas of each pair, their mean and its interval, a row for each comparison.

    Marked are 0 and, dashed, the margin. Above 0 the candidate is better.

    Args:
        comparisons: name → comparison, from top to bottom.

    Raises:
        ValueError: if there are none.
    """
    if not comparisons:
        raise ValueError("comparisons: expected one or more, got none")
    figure = new_figure(1.4 + 0.45 * len(comparisons))
    ax = figure.subplots()
    ax.axvline(0, **_LINE)
    for row, found in enumerate(comparisons.values()):
        color = _COLORS[str(found.verdict)]
        ax.plot([found.margin] * 2, [row - 0.4, row + 0.4], **_MARGIN)
        ax.plot(found.deltas, [row + 0.22] * found.n, "o", color=color, **_SMALL)
        if math.isfinite(found.interval[0]):
            ax.plot(found.interval, [row, row], "-", color=color, linewidth=1.6)
        ax.plot(found.mean, row, _MARKERS[str(found.verdict)], color=color)
    names = [f"{name}: {found.verdict}" for name, found in comparisons.items()]
    ax.set_yticks(range(len(names)), [_plain(name) for name in names])
    ax.set(ylim=(len(names) - 0.5, -0.5))
    ax.set_xlabel(_plain(f"delta of {_metrics(comparisons)}, positive is better"))
    add_title(figure, "Paired deltas, their means and intervals")
    return figure


def _metrics(comparisons: Mapping[str, Comparison]) -> str:
    return ", ".join(dict.fromkeys(found.metric for found in comparisons.values()))


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # no mathematics in names


@styled
def seed_scatter(comparison: Comparison) -> "Figure":
    """Draw the values of both arms, a line for each pair, and the mean and span of each arm.

    Args:
        comparison: of two arms.
    """
    figure = new_figure(3.6)
    ax = figure.subplots()
    for pair, *values in zip(
        comparison.pairs, comparison.baseline, comparison.candidate, strict=True
    ):
        up = (values[1] > values[0]) == (comparison.direction == "higher")
        color = GRAY if values[0] == values[1] else BLUE if up else _COLORS["REVERT"]
        ax.plot([0, 1], values, ".-", color=color, linewidth=1)
        if comparison.n <= 12:
            ax.annotate(str(pair), (1, values[1]), **_BESIDE)
    for x, arm in ((-0.08, comparison.baseline_arm), (1.18, comparison.candidate_arm)):
        ax.plot([x, x], [arm.low, arm.high], **_LINE)
        ax.plot(x, arm.mean, "D", color=QUIET, markersize=4)
    ax.set_xticks([0, 1], ["baseline", "candidate"])
    ax.set_xlim(-0.3, 1.4)
    ax.set_ylabel(_plain(f"{comparison.metric}, {comparison.direction} is better"))
    add_title(figure, "Both arms", count(comparison.n, "pair"), str(comparison.verdict))
    return figure


@styled
def progress(records: Records) -> "Figure":
    """Draw the candidates of a log in order: every seed, the mean, and what is in use so far.

    The line is the mean of the group in use: that of the baseline of the first experiment, then of
    each candidate that was kept. Experiments of another metric than the first are left out.

    Args:
        records: what the log holds.

    Raises:
        ValueError: if none was judged.
    """
    judged = [e for e in records.experiments if records.verdict(e.id)]
    if not judged:
        raise ValueError("records: no experiment was judged yet; run refinejax experiments compare")
    shown = [e for e in judged if e.metric == judged[0].metric]
    figure = new_figure(3.4)
    ax = figure.subplots()
    first = records.looks_at(shown[0].id)[-1].comparison
    level, line = first["baseline_arm"]["mean"], []
    for x, experiment in enumerate(shown):
        look = records.looks_at(experiment.id)[-1]
        values, color = look.comparison["candidate"], _COLORS[look.verdict]
        ax.plot([x] * len(values), values, "o", color=color, **_SMALL)
        mean = look.comparison["candidate_arm"]["mean"]
        ax.plot(x, mean, _MARKERS[look.verdict], color=color)
        line.append(level)
        level = mean if look.verdict == "KEEP" else level
    ax.step(range(len(shown) + 1), [*line, level], where="post", **_LINE)
    ax.set_xticks(range(len(shown)), [_plain(f"{e.id}\n{records.verdict(e.id)}") for e in shown])
    ax.set_ylabel(_plain(f"{shown[0].metric}, {shown[0].direction} is better"))
    left_out = len(judged) - len(shown)
    note = [f"{count(left_out, 'experiment')} of other metrics left out"] if left_out else []
    add_title(figure, "Candidates, and what is in use", *note)
    return figure
