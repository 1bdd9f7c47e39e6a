"""Figures of experiments: paired deltas, seeds of both arms, profiles over tasks, progress."""

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from refinejax.experiments import Comparison, Records, performance_profile, profile_interval
from refinejax.experiments.arguments import check_direction
from refinejax.experiments.plans import Direction
from refinejax.experiments.tasks import Scores, matrix
from refinejax.plot.style import BLUE, GRAY, QUIET, add_title, count, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = {"KEEP": BLUE, "INCONCLUSIVE": "#E69F00", "REVERT": "#882255"}
_CYCLE = (BLUE, "#E69F00", "#882255", GRAY)
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

    Returns:
        The figure.

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

    Returns:
        The figure.
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
def profiles(arms: Mapping[str, Scores], direction: Direction = "higher") -> "Figure":
    """Draw performance profiles: the share of runs that are better than a score, over all scores.

    Bands are 95 % intervals at each score by itself, seeds drawn anew within each task (Agarwal et
    al. 2021, figure 4). Where one curve is above another throughout, that arm is better throughout.

    Args:
        arms: name → task → seed → score, as `Group.tasks` gives, on a common scale.
        direction: "higher" or "lower" is better.

    Returns:
        The figure.

    Raises:
        RefusedError: if the tasks of an arm have different seeds.
        ValueError: if there are no arms, fewer than 2 seeds, or for another direction.
    """
    if not arms:
        raise ValueError("arms: expected one or more, got none")
    check_direction(direction)
    sign = 1.0 if direction == "higher" else -1.0
    scores = {name: sign * matrix(one) for name, one in arms.items()}
    every = np.unique(np.concatenate([x.ravel() for x in scores.values()]))
    edge = 0.05 * (every[-1] - every[0]) or 1.0
    levels = np.concatenate([[every[0] - edge], every, [every[-1] + edge]])
    figure = new_figure(3.4)
    ax = figure.subplots()
    for color, (name, x) in zip(itertools.cycle(_CYCLE), scores.items()):
        low, high = profile_interval(x, levels)
        ax.fill_between(sign * levels, low, high, step="post", color=color, alpha=0.2, linewidth=0)
        shares = performance_profile(x, levels)
        ax.step(sign * levels, shares, where="post", color=color, label=_plain(name))
    ax.set(xlabel=f"score, {direction} is better", ylabel="share of runs that are better")
    ax.set_ylim(-0.02, 1.02)
    ax.legend(frameon=False)
    tasks, seeds = next(iter(scores.values())).shape
    add_title(figure, "Performance profiles", count(tasks, "task"), count(seeds, "seed"))
    return figure


@styled
def progress(records: Records) -> "Figure":
    """Draw the candidates of a log in order: every seed, the mean, and the mean in use.

    The line is the mean of the group in use: first the baseline of the first experiment, then each
    candidate that was kept. Experiments of another metric than the first are left out.

    Args:
        records: of the log.

    Returns:
        The figure.

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
    add_title(figure, "Candidates, and the mean in use", *note)
    return figure
