"""Which comparisons are refused, and which come with a warning."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from refinejax.experiments.runs import Group

Unmatched = Literal["refuse", "drop"]
Values = Mapping[Any, float]  # pair → value


class RefusedError(ValueError):
    """The arms differ in more than the change. The message names the difference and the remedy."""


def refuse_unlike(baseline: Group, candidate: Group) -> None:
    """Refuse arms that differ in data, metric version or budget, or do not differ at all.

    Args:
        baseline: a group of runs.
        candidate: the group it is compared with.

    Raises:
        RefusedError: names the difference.
    """
    if baseline.id == candidate.id:
        raise RefusedError(f"candidate: is the baseline, group {baseline.id}: nothing changed")
    remedies = {
        "data": "run both arms on the same data",
        "metric_version": "evaluate both arms with the same version",
        "budget": "give both arms the same budget",
    }
    for name, remedy in remedies.items():
        ours, theirs = getattr(baseline.first, name), getattr(candidate.first, name)
        if ours != theirs:
            raise RefusedError(
                f"{name}: {ours!r} for the baseline {baseline.id} ({baseline.name}) and {theirs!r} "
                f"for the candidate {candidate.id} ({candidate.name}); {remedy}"
            )


def refuse_touched(baseline: Group, candidate: Group, touches: Sequence[str]) -> None:
    """Refuse a change of the evaluation that changes a metric it should not touch.

    Args:
        baseline: the group before the change.
        candidate: the group after it.
        touches: the metrics that may change.

    Raises:
        RefusedError: names the metric, the seed and both values.
    """
    theirs = {run.seed: run for run in candidate.runs}
    for run in baseline.runs:
        other = theirs.get(run.seed)
        if other is None:
            continue
        for metric in dict.fromkeys([*run.metrics, *other.metrics]):
            ours, new = run.metrics.get(metric), other.metrics.get(metric)
            if metric not in touches and ours != new:
                raise RefusedError(
                    f"touches: the change may touch {', '.join(touches) or 'nothing'} only, "
                    f"but {metric} of seed {run.seed} went from {ours!r} to {new!r}: the runs were "
                    "trained anew, or the change does more; evaluate the same trained weights"
                )


def match(baseline: Values, candidate: Values, unmatched: Unmatched) -> tuple[list, list[str]]:
    """Return the pairs that both arms have, in the baseline's order, and warnings.

    Args:
        baseline: pair → value.
        candidate: the same.
        unmatched: "refuse" or "drop" pairs that one arm lacks.

    Raises:
        RefusedError: for one value against several; for unmatched pairs, unless they are dropped.
        ValueError: for fewer than 2 pairs, or another ``unmatched``.
    """
    if unmatched not in ("refuse", "drop"):
        raise ValueError(f"unmatched: expected 'refuse' or 'drop', got {unmatched!r}")
    counts = len(baseline), len(candidate)
    if min(counts) == 1 < max(counts):
        raise RefusedError(
            f"seeds: {counts[0]} of the baseline against {counts[1]} of the candidate: one seed "
            "against a mean proves nothing; run the same seeds for both"
        )
    pairs = [pair for pair in baseline if pair in candidate]
    lone = [
        f"{arm} alone has {_some(extra)}"
        for arm, extra in (
            ("the baseline", [pair for pair in baseline if pair not in candidate]),
            ("the candidate", [pair for pair in candidate if pair not in baseline]),
        )
        if extra
    ]
    if lone and unmatched == "refuse":
        raise RefusedError(
            f"seeds: {'; '.join(lone)}; run the missing seeds, or drop them with unmatched='drop'"
        )
    if len(pairs) < 2:
        raise ValueError(f"seeds: a comparison needs 2 pairs or more, got {len(pairs)}")
    dropped = "dropped, which may flatter one of them if runs failed: "
    return pairs, [dropped + "; ".join(lone)] if lone else []


def _some(pairs: Sequence[Any]) -> str:
    rest = f" and {len(pairs) - 10} more" if len(pairs) > 10 else ""
    return ", ".join(map(str, pairs[:10])) + rest


def unfinished(group: Group) -> list[str]:
    """Return the runs whose status is not "done", as text.

    Args:
        group: the group of runs.
    """
    return [f"seed {r.seed} of {group.name} {r.status}" for r in group.runs if r.status != "done"]


def same_start(group: Group) -> list[str]:
    """Return a warning for seeds that do not change the initial params.

    Args:
        group: the group of runs.
    """
    starts: dict[str, list[int]] = {}
    for run in group.runs:
        if run.initial:
            starts.setdefault(run.initial, []).append(run.seed)
    return [
        f"seeds {', '.join(map(str, seeds))} of {group.name} begin from the same initial params: "
        "the seed does not reach them, and the spread over seeds is too small"
        for seeds in starts.values()
        if len(seeds) > 1
    ]


def identical(candidate: Group, others: Iterable[Group]) -> list[str]:
    """Return a warning for each group whose metrics equal the candidate's bit by bit.

    Only seeds that both groups have are compared.

    Args:
        candidate: the group of runs.
        others: the groups to compare it with.
    """
    metrics = {run.seed: run.metrics for run in candidate.runs if run.metrics}
    found = []
    for group in others:
        theirs = {run.seed: run.metrics for run in group.runs if run.metrics}
        shared = metrics.keys() & theirs.keys()
        same = all(dict(metrics[seed]) == dict(theirs[seed]) for seed in shared)
        if group.id != candidate.id and shared and same:
            found.append(
                f"the metrics of {candidate.name} equal those of group {group.id} ({group.name}) "
                "bit by bit: the change does nothing, or the runs are the same"
            )
    return found
