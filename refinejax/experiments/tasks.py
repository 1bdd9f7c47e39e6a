"""Several tasks, several seeds each: interquartile mean, bootstrap, performance profiles.

Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical precipice".
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from refinejax.experiments.arguments import check_direction
from refinejax.experiments.checks import RefusedError
from refinejax.experiments.intervals import Interval, check_level
from refinejax.experiments.plans import Direction

RESAMPLES = 5_000
Scores = Mapping[str, Mapping[int, float]]


class TaskComparison(NamedTuple):
    """Two arms over the same tasks and seeds; positive deltas where the candidate is better.

    The interval comes from a bootstrap that resamples seeds within each task, for both arms alike:
    it holds for other seeds on these tasks, and not for other tasks.

    Attributes:
        tasks: their names.
        baseline: interquartile mean of the baseline.
        candidate: interquartile mean of the candidate.
        delta: how much better the candidate is.
        interval: of ``delta``.
        means: task → mean delta over seeds.
        better: P(a run of the candidate is better than one of the baseline on the same task).
    """

    tasks: tuple[str, ...]
    baseline: float
    candidate: float
    delta: float
    interval: Interval
    means: dict[str, float]
    better: float


def interquartile_mean(scores: ArrayLike) -> float:
    """Return the mean of the middle half of all scores, parts of scores at its ends included.

    Args:
        scores: any shape.

    Raises:
        ValueError: if there are none, or one is not finite.
    """
    flat = np.asarray(scores, np.float64).ravel()
    if not flat.size or not np.isfinite(flat).all():
        raise ValueError(f"scores: expected finite numbers, one or more, got {flat!r}")
    return float(_iqm(flat[None])[0])


def _iqm(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the interquartile mean of each row; a score at a quartile counts in part."""
    n = rows.shape[1]
    k = np.arange(n)
    weight = np.clip(np.minimum(k + 1, 0.75 * n) - np.maximum(k, 0.25 * n), 0, 1)
    return np.sort(rows, axis=1) @ weight / weight.sum()


def stratified_interval(scores: ArrayLike, level: float = 0.95, seed: int = 0) -> Interval:
    """Return the percentile bootstrap interval of the interquartile mean, seeds drawn by task.

    Args:
        scores: shape (tasks, seeds), 2 seeds or more.
        level: between 0 and 1.
        seed: of the resamples.

    Raises:
        ValueError: for another shape.
    """
    x = _matrix(scores)
    check_level(level)
    return _ends(_iqm(_resampled(x[None], seed)[0]), level)


def _matrix(scores: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(scores, np.float64)
    if x.ndim != 2 or x.shape[0] < 1 or x.shape[1] < 2 or not np.isfinite(x).all():
        raise ValueError(
            f"scores: expected finite numbers of shape (tasks, seeds), 2 seeds or more, got shape "
            f"{x.shape}"
        )
    return x


def _resampled(arms: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Return resampled scores (arms, resamples, scores): seeds drawn within each task."""
    _, tasks, seeds = arms.shape
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, seeds, (RESAMPLES, tasks, seeds))
    return arms[:, np.arange(tasks)[:, None], picks].reshape(len(arms), RESAMPLES, -1)


def _ends(resampled: NDArray[np.float64], level: float) -> Interval:
    low, high = np.quantile(resampled, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> NDArray[np.float64]:
    """Return the share of runs, over all tasks, with a score above each threshold.

    Args:
        scores: any shape.
        thresholds: shape (k,).
    """
    flat = np.sort(np.asarray(scores, np.float64).ravel())
    above = len(flat) - np.searchsorted(flat, np.asarray(thresholds, np.float64), "right")
    return above / len(flat)


def profile_interval(
    scores: ArrayLike, thresholds: ArrayLike, level: float = 0.95, seed: int = 0
) -> NDArray[np.float64]:
    """Return the ends of the interval of each share of a performance profile, shape (2, k).

    For each threshold by itself, by the same bootstrap as `stratified_interval`.

    Args:
        scores: shape (tasks, seeds), 2 seeds or more.
        thresholds: shape (k,).
        level: between 0 and 1.
        seed: of the resamples.

    Raises:
        ValueError: for another shape.
    """
    x = _matrix(scores)
    check_level(level)
    rows = _resampled(x[None], seed)[0]
    levels = np.asarray(thresholds, np.float64)
    shares = [np.mean(rows > threshold, axis=1) for threshold in levels]
    return np.quantile(shares, [0.5 - level / 2, 0.5 + level / 2], axis=1)


def compare_tasks(
    baseline: Scores,
    candidate: Scores,
    *,
    direction: Direction = "higher",
    level: float = 0.95,
    seed: int = 0,
) -> TaskComparison:
    """Compare two arms over tasks × seeds by the difference of their interquartile means.

    Args:
        baseline: task → seed → score, such as `Group.tasks` gives; scores on a common scale.
        candidate: the same tasks and seeds.
        direction: "higher" or "lower" is better.
        level: of the bootstrap interval.
        seed: of the resamples.

    Returns:
        Interquartile means, their difference and its interval.

    Raises:
        RefusedError: if tasks or seeds differ.
        ValueError: for fewer than 2 seeds, another direction, or a level out of range.
    """
    check_direction(direction)
    check_level(level)
    x, y = _aligned(baseline, candidate)
    sign = 1.0 if direction == "higher" else -1.0
    resampled = _resampled(np.stack([x, y]), seed)
    old, new = interquartile_mean(x), interquartile_mean(y)
    wins = sign * (y[:, :, None] - x[:, None, :])  # within a task, all pairs of runs
    return TaskComparison(
        tasks=tuple(baseline),
        baseline=old,
        candidate=new,
        delta=sign * (new - old),
        interval=_ends(sign * (_iqm(resampled[1]) - _iqm(resampled[0])), level),
        means=dict(zip(baseline, (sign * (y - x)).mean(axis=1).tolist(), strict=True)),
        better=float(np.mean((wins > 0) + 0.5 * (wins == 0))),
    )


def matrix(scores: Scores) -> NDArray[np.float64]:
    """Return task → seed → score as an array (tasks, seeds), seeds in ascending order.

    Args:
        scores: the same seeds for every task.

    Raises:
        RefusedError: if the tasks have different seeds.
        ValueError: if there are none, or fewer than 2 seeds.
    """
    return _aligned(scores, scores)[0]


def _aligned(
    baseline: Scores, candidate: Scores
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not baseline or set(baseline) != set(candidate):
        raise RefusedError(
            f"tasks: {sorted(baseline)} of the baseline, {sorted(candidate)} of the candidate; run "
            "the same tasks for both"
        )
    seeds = sorted(next(iter(baseline.values())))
    for arm, name in ((baseline, "baseline"), (candidate, "candidate")):
        for task, values in arm.items():
            if sorted(values) != seeds:
                raise RefusedError(
                    f"seeds: {sorted(values)} on task {task!r} of the {name}, {seeds} on the "
                    "first; run the same seeds on every task"
                )
    old, new = ([[arm[t][s] for s in seeds] for t in baseline] for arm in (baseline, candidate))
    return _matrix(old), _matrix(new)
