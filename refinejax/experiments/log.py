"""The log of experiments: a file of records that is only appended to."""

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
    """The content of a log, in the order in which it was added.

    Attributes:
        runs: one seed of one config each.
        experiments: planned comparisons.
        decisions: verdicts on experiments.
        assumptions: the latest of each id.
    """

    runs: tuple[Run, ...] = ()
    experiments: tuple[Experiment, ...] = ()
    decisions: tuple[Decision, ...] = ()
    assumptions: tuple[Assumption, ...] = ()

    @property
    def groups(self) -> dict[str, Group]:
        """Id → group. A seed that failed and was run again counts with its last run."""
        found: dict[str, dict[int, Run]] = {}
        for run in self.runs:
            found.setdefault(run.group, {})[run.seed] = run
        return {name: Group(seeds.values()) for name, seeds in found.items()}

    def group(self, group: str) -> Group:
        """Return the group with this id.

        Args:
            group: the id.

        Raises:
            ValueError: if there is none; for the name of a group the message gives its id.
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

        Args:
            name: the id.

        Raises:
            ValueError: if there is none.
        """
        for experiment in self.experiments:
            if experiment.id == name:
                return experiment
        known = ", ".join(experiment.id for experiment in self.experiments) or "none"
        raise ValueError(f"experiment: expected one on record, got {name!r}; there are {known}")

    def looks_at(self, name: str) -> tuple[Decision, ...]:
        """Return the decisions on an experiment; the last is in force.

        Args:
            name: id of the experiment.
        """
        return tuple(d for d in self.decisions if d.experiment == name)

    def verdict(self, name: str) -> str:
        """Return the verdict in force; "" if the experiment was not judged yet.

        Args:
            name: id of the experiment.
        """
        looks = self.looks_at(name)
        return looks[-1].verdict if looks else ""

    @property
    def rejected(self) -> dict[str, str]:
        """Group → the experiment that rejected it, if none has kept it."""
        by = {e.candidate: e.id for e in self.experiments if self.verdict(e.id) == "REVERT"}
        kept = {e.candidate for e in self.experiments if self.verdict(e.id) == "KEEP"}
        return {group: name for group, name in by.items() if group not in kept}


class Log:
    """A file of records, one JSON object per line.

    Any number of processes may append at once; lines are never changed. The incomplete line of a
    process that was killed is skipped.

    Args:
        path: the file; made when the first record is added.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def read(self) -> Records:
        """Return the records.

        Raises:
            OSError: if the file cannot be read.
            ValueError: for a line that is JSON but not a record (says why).
        """
        return _records([from_json(content) for content in read_lines(self.path)])

    def add(self, *records: Record) -> None:
        """Add records, all or none. A record that is already there is not added again.

        Args:
            *records: runs, experiments and assumptions.

        Raises:
            ValueError: for a finished seed of a group with other metrics; a name that another group
                has; an experiment whose id is taken, whose baseline is not on record or was
                rejected, or which confirms an experiment of other groups; a decision, which
                `decide` makes.
            OSError: if the file cannot be written; it is then as it was.
        """
        if any(isinstance(record, Decision) for record in records):
            raise ValueError("records: a decision is made by `decide`, and not added")
        self.extend(lambda _: records)

    def extend(self, make: Callable[[Records], Iterable[Record]]) -> None:
        """Add the records that ``make`` returns; no other process writes in between.

        Args:
            make: takes the records in the file and returns the new ones.

        Raises:
            ValueError: as `add`.
            OSError: if the file cannot be written; it is then as it was.
        """

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
    """Raise ValueError if a record contradicts the log."""
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
                "numbers; a seed is run once: repeating it until it fits proves nothing"
            )


def _admit_experiment(new: Experiment, held: Records) -> None:
    if any(other.id == new.id for other in held.experiments):
        raise ValueError(
            f"id: there is an experiment {new.id!r}, and a plan is not changed; "
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
