"""Judge the experiments of a log, and record the decisions."""

import dataclasses
import math

from refinejax.experiments.checks import RefusedError, Unmatched, refuse_touched
from refinejax.experiments.comparing import compare
from refinejax.experiments.comparison import Comparison
from refinejax.experiments.log import Log, Records
from refinejax.experiments.looks import holm
from refinejax.experiments.plans import Decision, Experiment
from refinejax.experiments.runs import Group
from refinejax.experiments.text import action

_FINAL = ("KEEP", "REVERT")


def judge(records: Records, experiment: str, *, unmatched: Unmatched = "refuse") -> Comparison:
    """Compare the groups of an experiment as it was planned.

    Args:
        records: the content of the log.
        experiment: its id.
        unmatched: "drop" leaves out seeds that one group lacks, with a warning.

    Returns:
        The comparison, with its verdict.

    Raises:
        RefusedError: as `compare`; if a change of the evaluation changes other metrics; if the
            experiment was judged before and this look was not planned; if a confirmation has no
            fresh seeds.
        ValueError: if there is no such experiment or group.
    """
    asked = records.experiment(experiment)
    baseline, candidate = records.group(asked.baseline), records.group(asked.candidate)
    if asked.touches is not None:
        refuse_touched(baseline, candidate, asked.touches)
    if asked.confirms:
        used = {s for look in records.looks_at(asked.confirms) for s in look.seeds}
        baseline, candidate = (_fresh(group, used, asked) for group in (baseline, candidate))
    found = compare(
        baseline,
        candidate,
        asked.metric,
        margin=asked.margin,
        guards=asked.guards,
        direction=asked.direction,
        lower=asked.lower,
        looks=asked.looks,
        unmatched=unmatched,
        others=tuple(records.groups.values()),
    )
    _refuse_peeking(records, asked, found)
    tried = _tried_before(records, asked)
    return dataclasses.replace(found, warnings=(*found.warnings, *tried)) if tried else found


def _tried_before(records: Records, asked: Experiment) -> list[str]:
    """Return a warning for each experiment that judged the same groups before."""
    arms = (asked.baseline, asked.candidate)
    begun = records.experiments[: records.experiments.index(asked)]
    others = [e for e in begun if (e.baseline, e.candidate) == arms and records.looks_at(e.id)]
    return [
        f"the same groups were judged before, by {e.metric}: {e.id} {records.verdict(e.id)}"
        for e in others
        if e.id != asked.confirms
    ]


def _fresh(group: Group, used: set[int], asked: Experiment) -> Group:
    runs = [run for run in group.runs if run.seed not in used]
    if not runs:
        raise RefusedError(
            f"confirms: all seeds of group {group.id} ({group.name}) entered the verdict on "
            f"{asked.confirms}; run fresh ones"
        )
    return Group(runs)


def _refuse_peeking(records: Records, asked: Experiment, found: Comparison) -> None:
    earlier = [look for look in records.looks_at(asked.id) if set(look.seeds) != set(found.pairs)]
    if not earlier:
        return
    seeds = len(earlier[-1].seeds)
    if earlier[-1].verdict in _FINAL:
        raise RefusedError(
            f"experiment: {asked.id} was decided at {seeds} seeds, {earlier[-1].verdict}; to test "
            f"that on fresh seeds, add an experiment with confirms={asked.id!r}"
        )
    if not asked.looks:
        raise RefusedError(
            f"experiment: {asked.id} was judged at {seeds} seeds, and no further look was planned: "
            "to look until it fits keeps changes that do nothing; plan looks=(3, 6, 10), or add an "
            f"experiment with confirms={asked.id!r}"
        )


def decide(log: Log, experiment: str, *, unmatched: Unmatched = "refuse") -> Comparison:
    """Judge an experiment and record the decision; the same look is recorded once.

    Args:
        log: holds the experiment.
        experiment: its id.
        unmatched: "drop" leaves out seeds that one group lacks, with a warning.

    Returns:
        The comparison, with its verdict.

    Raises:
        RefusedError: as `judge`; nothing is recorded.
        ValueError: if there is no such experiment or group.
        OSError: if the log cannot be written.
    """
    made: list[Comparison] = []

    def record(records: Records) -> list[Decision]:
        found = judge(records, experiment, unmatched=unmatched)
        made.append(found)
        seeds = [pair for pair in found.pairs if isinstance(pair, int)]
        if any(set(look.seeds) == set(seeds) for look in records.looks_at(experiment)):
            return []
        content = found.as_dict()
        verdict, text = str(found.verdict), action(found)
        return [
            Decision(
                experiment=experiment,
                verdict=verdict,
                promote=found.promote,
                action=text,
                seeds=seeds,
                comparison=content,
            )
        ]

    log.extend(record)
    return made[0]


def corrected_p(records: Records) -> dict[str, float]:
    """Return experiment → p, corrected by Holm over all experiments of a log that were judged.

    Args:
        records: the content of the log.
    """
    last = {e.id: records.looks_at(e.id)[-1] for e in records.experiments if records.verdict(e.id)}
    return holm({name: float(look.comparison["p"]) for name, look in last.items()})


def gain(look: Decision) -> tuple[float, tuple[float, float]]:
    """Return the mean delta of a decision, and its interval.

    Args:
        look: the decision.
    """
    low, high = look.comparison["interval"]
    ends = (-math.inf if low is None else low, math.inf if high is None else high)
    return look.comparison["mean"], ends
