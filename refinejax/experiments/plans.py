"""What is tried and why, what came of it, and what is taken for granted."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from refinejax.experiments.arguments import check_looks, check_number, check_texts

Direction = Literal["higher", "lower"]
Phase = Literal["A", "B"]
ASSUMED = ("open", "tested", "refuted")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A change that is tried: what is expected of it, and by what it is judged, said beforehand.

    Args:
        id: for people, such as "E5.5".
        hypothesis: why it should help.
        change: what is different from the baseline.
        baseline: id of the group it is measured against (an id, not a name).
        candidate: id of the group with the change.
        metric: the one that decides.
        direction: which way is better, "higher" or "lower".
        margin: the least mean gain that is worth having, in units of the metric, 0 or more.
        guards: metrics that must not get worse, and by how much they may: name → tolerance ≥ 0.
        lower: those of the guards of which lower is better.
        looks: numbers of seeds at which it is judged, ascending; none: once, at any number.
        phase: "A" (short budget, few seeds) or "B" (full budget).
        touches: for a change of the evaluation alone, which metrics it may change; all others must
            be equal bit by bit. None for any other change.
        confirms: id of an experiment of the same groups whose verdict this one puts to the test,
            on seeds that did not enter it.

    Raises:
        ValueError: for any of these that is of the wrong type or out of range.
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
    """What a look at an experiment came to; ``comparison`` holds its numbers."""

    experiment: str
    verdict: str
    promote: bool
    action: str
    seeds: Sequence[int]
    comparison: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assumption:
    """What was taken for granted; added again under the same id, it replaces the earlier one.

    Args:
        id: for people, such as "A1".
        choice: what is assumed.
        why: the reason.
        alternatives: what else could have been chosen.
        notice: how one would notice that it is wrong.
        status: "open", "tested" or "refuted".

    Raises:
        ValueError: if one is empty or not a text, or the status is none of these.
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
