"""Two arms compared pair by pair, and the verdict."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refinejax.experiments.arguments import check_direction, check_looks, check_number
from refinejax.experiments.checks import (
    RefusedError,
    Unmatched,
    Values,
    identical,
    match,
    refuse_unlike,
    same_start,
    unfinished,
)
from refinejax.experiments.comparison import Comparison
from refinejax.experiments.intervals import (
    Interval,
    bca_interval,
    check_level,
    probability_better,
    sample_std,
    sign_flip,
    t_interval,
    t_p,
)
from refinejax.experiments.looks import Spending, look_levels, repeated_p
from refinejax.experiments.plans import Direction
from refinejax.experiments.runs import Group
from refinejax.experiments.sample_size import detectable_effect, seeds_to_decide
from refinejax.experiments.verdict import Arm, Guard, Verdict


def compare(
    baseline: Group | Values,
    candidate: Group | Values,
    metric: str,
    *,
    margin: float = 0.0,
    guards: Mapping[str, float] | None = None,
    direction: Direction = "higher",
    lower: Sequence[str] = (),
    level: float = 0.95,
    looks: Sequence[int] = (),
    spending: Spending = "pocock",
    unmatched: Unmatched = "refuse",
    others: Sequence[Group] = (),
) -> Comparison:
    """Compare a candidate with a baseline, pair by pair, and give a verdict.

    The verdict follows from the t interval of the mean of the deltas:

    - KEEP: the interval lies above 0, the mean is at least ``margin``, every guard is held;
    - REVERT: the interval lies below ``margin``, or a guard is broken;
    - INCONCLUSIVE: neither; ``promote`` if the mean is at least ``margin`` and every pair is up.

    A change without effect is kept with probability (1 − level)/2 at most. If all deltas are equal
    their spread is unknown, and the verdict is INCONCLUSIVE.

    Args:
        baseline: a group of runs, or pair → value, such as test instance → value.
        candidate: the same.
        metric: the metric that decides; for pair → value, its name.
        margin: the least mean gain worth having, 0 or more, in units of the metric.
        guards: metrics that must not get worse → by how much they may (see `Guard`).
        direction: "higher" or "lower" is better.
        lower: the guards of which lower is better.
        level: of the two-sided interval, for all looks together.
        looks: numbers of pairs at which a look was planned; none: only now.
        spending: how the looks share the error (see `look_levels`).
        unmatched: "drop" leaves out pairs that one arm lacks, with a warning.
        others: all groups on record; a warning if the candidate's metrics equal another's.

    Returns:
        Deltas, interval, p-values, verdict and warnings.

    Raises:
        RefusedError: if the groups differ in data, metric version or budget; if the pairs differ;
            for one seed against several; for a number of pairs at which no look is planned.
        ValueError: for fewer than 2 pairs, or an argument out of range.
    """
    check_number("margin", margin, least=0.0)
    check_level(level)
    check_direction(direction)
    old, new, warnings = _values(baseline, candidate, metric, others, unmatched)
    pairs, dropped = match(old, new, unmatched)
    level = _level_of(len(pairs), looks, level, spending)
    held = _guards(baseline, candidate, guards or {}, lower, pairs, level)
    x, y = (np.array([arm[pair] for pair in pairs], np.float64) for arm in (old, new))
    sign = 1.0 if direction == "higher" else -1.0
    deltas = sign * (y - x)
    mean, sd, interval = float(deltas.mean()), sample_std(deltas), t_interval(deltas, level)
    if sd == 0.0:
        warnings.append(f"all deltas are equal ({mean:g}): their spread is unknown")
    verdict = _verdict(mean, interval, margin, held)
    ups = int(np.count_nonzero(deltas > 0))
    inconclusive = verdict is Verdict.INCONCLUSIVE
    return Comparison(
        metric=metric,
        direction=direction,
        margin=float(margin),
        pairs=tuple(pairs),
        baseline=tuple(x.tolist()),
        candidate=tuple(y.tolist()),
        deltas=tuple(deltas.tolist()),
        baseline_arm=Arm.of(x),
        candidate_arm=Arm.of(y),
        mean=mean,
        sd=sd,
        level=level,
        interval=interval,
        p=repeated_p(t_p(deltas), len(pairs), looks, spending),
        flips=sign_flip(deltas),
        bootstrap=bca_interval(deltas, level),
        better=probability_better(sign * x, sign * y),
        ups=ups,
        ties=int(np.count_nonzero(deltas == 0)),
        detectable=detectable_effect(sd, len(pairs), level=level),
        needed=seeds_to_decide(mean, sd, margin=margin, level=level) if inconclusive else None,
        looks=tuple(looks),
        guards=held,
        verdict=verdict,
        promote=inconclusive and sd > 0 and mean >= margin and ups == len(pairs),
        warnings=(*warnings, *dropped),
    )


def _values(
    baseline: Group | Values,
    candidate: Group | Values,
    metric: str,
    others: Sequence[Group],
    unmatched: Unmatched,
) -> tuple[Values, Values, list[str]]:
    """Return pair → value of both arms, and warnings; refuse groups that cannot be compared."""
    if isinstance(baseline, Group) and isinstance(candidate, Group):
        refuse_unlike(baseline, candidate)
        failed = [*unfinished(baseline), *unfinished(candidate)]
        if failed and unmatched == "refuse":
            raise RefusedError(
                f"seeds: {', '.join(failed)}; run again what failed by accident, or leave the "
                "seeds out of both arms with unmatched='drop'"
            )
        warnings = [*same_start(baseline), *same_start(candidate), *identical(candidate, others)]
        if baseline.id not in {group.id for group in others}:
            warnings += identical(candidate, [baseline])
        warnings += [f"left out: {', '.join(failed)}"] if failed else []
        return baseline.values(metric), candidate.values(metric), warnings
    if isinstance(baseline, Group) or isinstance(candidate, Group):
        raise ValueError("candidate: give two groups, or two mappings of pair → value")
    for name, arm in (("baseline", baseline), ("candidate", candidate)):
        for pair, value in arm.items():
            check_number(f"{name}[{pair!r}]", value)
    return baseline, candidate, []


def _level_of(n: int, looks: Sequence[int], level: float, spending: Spending) -> float:
    check_looks(looks)
    if not looks:
        return level
    if n not in looks:
        later = [look for look in looks if look > n]
        remedy = f"run {later[0] - n} more" if later else "the planned looks are over"
        raise RefusedError(
            f"looks: there are {n} pairs, and the looks are planned at {list(looks)}; {remedy}"
        )
    return look_levels(looks, level, spending)[n]


def _guards(
    baseline: Group | Values,
    candidate: Group | Values,
    guards: Mapping[str, float],
    lower: Sequence[str],
    pairs: Sequence[Any],
    level: float,
) -> tuple[Guard, ...]:
    if unknown := set(lower) - guards.keys():
        raise ValueError(f"lower: {', '.join(sorted(unknown))} are not among the guards")
    if not guards:
        return ()
    if not isinstance(baseline, Group) or not isinstance(candidate, Group):
        raise ValueError("guards: need groups of runs, as pair → value holds one metric only")
    found = []
    for metric, tolerance in guards.items():
        check_number(f"guards[{metric!r}]", tolerance, least=0.0)
        old, new = baseline.values(metric), candidate.values(metric)
        deltas = np.array([new[pair] - old[pair] for pair in pairs])
        deltas = -deltas if metric in lower else deltas
        mean, interval = float(deltas.mean()), t_interval(deltas, level)
        state = "held" if mean >= -tolerance else "broken" if interval[1] < 0 else "in doubt"
        found.append(Guard(metric, float(tolerance), mean, interval, state))
    return tuple(found)


def _verdict(mean: float, interval: Interval, margin: float, guards: Sequence[Guard]) -> Verdict:
    states = {guard.state for guard in guards}
    if interval[1] < margin or "broken" in states:
        return Verdict.REVERT
    if interval[0] > 0 and mean >= margin and states <= {"held"}:
        return Verdict.KEEP
    return Verdict.INCONCLUSIVE
