"""What is known of two arms that were compared pair by pair."""

import dataclasses
import math
from collections.abc import Hashable
from typing import Any

from refinejax.experiments.intervals import Interval, SignFlip
from refinejax.experiments.plans import Direction
from refinejax.experiments.verdict import Arm, Guard, Verdict
from refinejax.experiments.words import explain


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare` found. Deltas are positive where the candidate is better.

    Attributes:
        metric: the one that decides.
        direction: which way is better.
        margin: the least mean that is worth having.
        pairs: by which the arms were paired: seeds, or test instances.
        baseline: values of the baseline, in the order of the pairs.
        candidate: values of the candidate.
        deltas: how much better the candidate is.
        baseline_arm: mean, sd and span of the baseline.
        candidate_arm: the same of the candidate.
        mean: of the deltas.
        sd: of the deltas.
        level: of the interval; with planned looks, that of this look.
        interval: t interval of the mean; (−∞, ∞) where all deltas are equal.
        p: two-sided, of the paired t test; with planned looks, mended for them.
        flips: the p-values of the test that flips signs.
        bootstrap: the BCa interval; None below 10 pairs.
        better: P(a run of the candidate is better than one of the baseline), ties half.
        ups: pairs in which the candidate is better.
        ties: pairs in which both are equal.
        detectable: the true mean that so many pairs at this sd show in 4 cases of 5.
        needed: pairs that would decide in 4 cases of 5, if mean and sd are as seen; None if none.
        looks: numbers of pairs at which it was planned to look.
        guards: one for each guarded metric.
        verdict: KEEP, REVERT or INCONCLUSIVE.
        promote: inconclusive, but the mean reaches the margin and every pair is up.
        warnings: what may make all this worthless.
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
        """Return it as JSON can hold it: infinite ends of intervals are None."""
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
