"""Planned experiments, decisions on them, and assumptions."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from refinejax.experiments.arguments import check_looks, check_number, check_texts

Direction = Literal["higher", "lower"]
Phase = Literal["A", "B"]
ASSUMED = ("open", "tested", "refuted")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A change under test: the hypothesis and the rules of judgment, fixed beforehand.

    Args:
        id: a short name, such as "E5.5".
        hypothesis: why it should help.
        change: the difference from the baseline.
        baseline: id of the group it is measured against (an id, not a name).
        candidate: id of the group with the change.
        metric: the metric that decides.
        direction: "higher" or "lower" is better.
        margin: the least mean gain worth having, in units of the metric, 0 or more.
        guards: metrics that must not get worse, and by how much they may: name → tolerance ≥ 0.
        lower: the guards of which lower is better.
        looks: numbers of seeds at which it is judged, ascending; none: once, at any number.
        phase: "A" (short budget, few seeds) or "B" (full budget).
        touches: for a change of the evaluation alone, the metrics it may change; all others must be
            equal bit by bit. None for any other change.
        confirms: id of an experiment of the same groups whose verdict this one tests, on seeds that
            did not enter it.

    Raises:
        ValueError: for a value of the wrong type or out of range.
    """

    id: str
    hypothesis: str
    change: str
    baseline: str
    candidate: str
    metric: str
    direction: Direction = "higher"
    margin: float = 0.0
    guards: Mapping[str, float] = dataclasses.field(default_factory=dict)
    lower: Sequence[str] = ()
    looks: Sequence[int] = ()
    phase: Phase = "A"
    touches: Sequence[str] | None = None
    confirms: str = ""

    def __post_init__(self) -> None:
        check_texts(self, ("id", "hypothesis", "change", "baseline", "candidate", "metric"))
        for name, choices in (("direction", Direction), ("phase", Phase)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name}: expected one of {', '.join(get_args(choices))}, got "
                    f"{getattr(self, name)!r}"
                )
        check_number("margin", self.margin, least=0.0)
        for name, tolerance in self.guards.items():
            check_number(f"guards[{name!r}]", tolerance, least=0.0)
        check_looks(self.looks)
        if self.baseline == self.candidate:
            raise ValueError(f"candidate: is the baseline, {self.baseline}; nothing has changed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """The result of one look at an experiment.

    Attributes:
        experiment: id of the experiment.
        verdict: KEEP, REVERT or INCONCLUSIVE.
        promote: inconclusive, but the mean reaches the margin and every pair is up.
        action: the next step, as text.
        seeds: the seeds that were compared.
        comparison: the numbers, as `Comparison.as_dict` gives them.
    """

    experiment: str
    verdict: str
    promote: bool
    action: str
    seeds: Sequence[int]
    comparison: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assumption:
    """An assumption of the work. Added again under the same id, it replaces the earlier one.

    Args:
        id: a short name, such as "A1".
        choice: the assumption.
        why: the reason.
        alternatives: the other choices.
        notice: how a wrong assumption would show.
        status: "open", "tested" or "refuted".

    Raises:
        ValueError: for an empty text, or another status.
    """

    id: str
    choice: str
    why: str
    alternatives: str
    notice: str
    status: str = "open"

    def __post_init__(self) -> None:
        check_texts(self, ("id", "choice", "why", "alternatives", "notice"))
        if self.status not in ASSUMED:
            raise ValueError(f"status: expected one of {', '.join(ASSUMED)}, got {self.status!r}")
