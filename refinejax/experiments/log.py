"""The log of experiments: a file that is only added to, and what it holds."""

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from refinejax.experiments.hashing import LENGTH
from refinejax.experiments.jsonl import append_lines, read_lines
from refinejax.experiments.plans import Assumption, Decision, Experiment
from refinejax.experiments.records import Record, from_json, to_json
from refinejax.experiments.runs import Group, Run


@dataclasses.dataclass(frozen=True)
class Records:
    """What a log holds at a moment, in the order in which it was added."""

    runs: tuple[Run, ...] = ()
    experiments: tuple[Experiment, ...] = ()
    decisions: tuple[Decision, ...] = ()
    assumptions: tuple[Assumption, ...] = ()

    @property
    def groups(self) -> dict[str, Group]:
        """Id → group. Of a seed that failed and was run again, the later run."""
        found: dict[str, dict[int, Run]] = {}
        for run in self.runs:
            found.setdefault(run.group, {})[run.seed] = run
        return {name: Group(seeds.values()) for name, seeds in found.items()}

    def group(self, group: str) -> Group:
        """Return the group with this id.

        Raises:
            ValueError: if there is none; where it is a name, says of which group.
        """
        groups = self.groups
        if group in groups:
            return groups[group]
        named = [known.id for known in groups.values() if known.name == group]
        hint = f"{group!r} is the name of group {named[0]}; " if named else ""
        raise ValueError(
            f"group: expected the id of a group on record, got {group!r}; {hint}there are "
            f"{', '.join(f'{g.id} ({g.name})' for g in groups.values()) or 'none'}"
        )

    def experiment(self, name: str) -> Experiment:
        """Return the experiment with this id.

        Raises:
            ValueError: if there is none.
        """
        for experiment in self.experiments:
            if experiment.id == name:
                return experiment
        known = ", ".join(experiment.id for experiment in self.experiments) or "none"
        raise ValueError(f"experiment: expected one on record, got {name!r}; there are {known}")

    def looks_at(self, name: str) -> tuple[Decision, ...]:
        """Return the decisions on an experiment, the last of which holds."""
        return tuple(d for d in self.decisions if d.experiment == name)

    def verdict(self, name: str) -> str:
        """Return the verdict that holds; "" where it was not judged yet."""
        looks = self.looks_at(name)
        return looks[-1].verdict if looks else ""

    @property
    def rejected(self) -> dict[str, str]:
        """Group → the experiment that rejected it, if none has kept it."""
        by = {e.candidate: e.id for e in self.experiments if self.verdict(e.id) == "REVERT"}
        kept = {e.candidate for e in self.experiments if self.verdict(e.id) == "KEEP"}
        return {group: name for group, name in by.items() if group not in kept}


class Log:
    """A file of records, a JSON object on each line.

    Lines are added whole, behind those that are there, by any number of processes at once; none is
    changed. What a process left that was killed in mid-line is passed over.

    Args:
        path: of the file; made when the first record is added.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def read(self) -> Records:
        """Return what it holds.

        Raises:
            OSError: if it cannot be read.
            ValueError: for a line that is JSON but no record; says what is wrong with it.
        """
        return _records([from_json(content) for content in read_lines(self.path)])

    def add(self, *records: Record) -> None:
        """Add records, all or none. What is there already, equal in all, is not added again.

        Raises:
            ValueError: for a seed of a group that is done already with other numbers; for a name
                that stands for another group; for an experiment whose id is taken, whose baseline
                is no group on record or was rejected, or which confirms none of the same groups;
                for a decision, which `decide` makes.
            OSError: if it cannot be written; it is then as it was.
        """
        if any(isinstance(record, Decision) for record in records):
            raise ValueError("records: a decision is made by `decide`, and not added")
        self.extend(lambda _: records)

    def extend(self, make: Callable[[Records], Iterable[Record]]) -> None:
        """Add the records that ``make`` returns for those that are there; nobody else writes."""

        def lines(contents: list[dict[str, Any]]) -> list[dict[str, Any]]:
            held = [from_json(content) for content in contents]
            new = []
            for record in make(_records(held)):
                content = to_json(record)
                record = from_json(json.loads(json.dumps(content)))  # tuples are lists, as there
                if record in held and not isinstance(record, Assumption):
                    continue
                _admit(record, _records(held))
                held.append(record)
                new.append(content)
            return new

        append_lines(self.path, lines)


def _records(found: Sequence[Record]) -> Records:
    assumptions = {record.id: record for record in found if isinstance(record, Assumption)}
    return Records(
        tuple(record for record in found if isinstance(record, Run)),
        tuple(record for record in found if isinstance(record, Experiment)),
        tuple(record for record in found if isinstance(record, Decision)),
        tuple(assumptions.values()),
    )


def _admit(record: Record, held: Records) -> None:
    """Raise ValueError if a record contradicts those that are there."""
    if isinstance(record, Run):
        _admit_run(record, held)
    elif isinstance(record, Experiment):
        _admit_experiment(record, held)


def _admit_run(run: Run, held: Records) -> None:
    for other in held.runs:
        if other.name == run.name and other.group != run.group:
            raise ValueError(
                f"name: {run.name!r} is the name of group {other.group}, and seed {run.seed} is of "
                f"group {run.group}: their config, revision, data, metric version or budget "
                "differ; give it another name"
            )
        if other.id == run.id and other.status == "done":
            raise ValueError(
                f"seed: {run.seed} of group {run.group} ({other.name}) is done already, with other "
                "numbers; a seed is run once: one that is run again until it fits proves nothing"
            )


def _admit_experiment(new: Experiment, held: Records) -> None:
    if any(other.id == new.id for other in held.experiments):
        raise ValueError(
            f"id: there is an experiment {new.id!r}, and what was said beforehand stays; "
            "give the new one another id"
        )
    held.group(new.baseline)
    if new.baseline in held.rejected:
        raise ValueError(
            f"baseline: group {new.baseline} was rejected by experiment "
            f"{held.rejected[new.baseline]}; measure against the group that is in use"
        )
    if len(new.candidate) != LENGTH or set(new.candidate) - set("0123456789abcdef"):
        held.group(new.candidate)  # a name: says of which group
    if new.confirms:
        old = held.experiment(new.confirms)
        if (old.baseline, old.candidate) != (new.baseline, new.candidate):
            raise ValueError(
                f"confirms: {old.id} compared groups {old.baseline} and {old.candidate}; a "
                f"confirmation compares the same, got {new.baseline} and {new.candidate}"
            )
