"""The result of a comparison of two arms."""

import dataclasses
import math
from collections.abc import Hashable
from typing import Any

from refinejax.experiments.intervals import Interval, SignFlip
from refinejax.experiments.plans import Direction
from refinejax.experiments.text import explain
from refinejax.experiments.verdict import Arm, Guard, Verdict


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The result of `compare`. Deltas are positive where the candidate is better.

    Attributes:
        metric: the metric that decides.
        direction: "higher" or "lower" is better.
        margin: the least mean worth having.
        pairs: seeds, or test instances.
        baseline: values of the baseline, in the order of the pairs.
        candidate: values of the candidate.
        deltas: how much better the candidate is.
        baseline_arm: mean, sd and range of the baseline.
        candidate_arm: mean, sd and range of the candidate.
        mean: of the deltas.
        sd: of the deltas.
        level: of the interval; with planned looks, the level of this look.
        interval: t interval of the mean; (−∞, ∞) if all deltas are equal.
        p: two-sided, of the paired t test; with planned looks, corrected for them.
        flips: p-values of the sign-flip test.
        bootstrap: the BCa interval; None below 10 pairs.
        better: P(a run of the candidate is better than one of the baseline), ties half.
        ups: pairs in which the candidate is better.
        ties: pairs in which both are equal.
        detectable: the true mean that this many pairs at this sd show with power 0.8.
        needed: pairs that would decide with power 0.8, if mean and sd are as seen; None if no
            number would.
        looks: numbers of pairs at which a look was planned.
        guards: one for each guarded metric.
        verdict: KEEP, REVERT or INCONCLUSIVE.
        promote: inconclusive, but the mean reaches the margin and every pair is up.
        warnings: reasons to doubt the comparison.
    """

    metric: str
    direction: Direction
    margin: float
    pairs: tuple[Hashable, ...]
    baseline: tuple[float, ...]
    candidate: tuple[float, ...]
    deltas: tuple[float, ...]
    baseline_arm: Arm
    candidate_arm: Arm
    mean: float
    sd: float
    level: float
    interval: Interval
    p: float
    flips: SignFlip
    bootstrap: Interval | None
    better: float
    ups: int
    ties: int
    detectable: float
    needed: int | None
    looks: tuple[int, ...]
    guards: tuple[Guard, ...]
    verdict: Verdict
    promote: bool
    warnings: tuple[str, ...]

    @property
    def n(self) -> int:
        """The number of pairs."""
        return len(self.pairs)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them; infinite ends of intervals are None."""
        content = _plain(self)
        return content | {"pairs": [p if isinstance(p, int) else str(p) for p in self.pairs]}

    def __str__(self) -> str:
        return explain(self)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items()}  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Verdict) else value
