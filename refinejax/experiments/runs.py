"""Runs, and groups of them: one config over seeds."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

from refinejax.experiments.arguments import check_number, check_texts
from refinejax.experiments.hashing import hash_config

STATUSES = ("done", "failed", "diverged", "stopped")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One seed of one config: config, data, budget, and the metrics it reached.

    Args:
        name: of the group, for people; in a log it belongs to one group only.
        seed: of the run's random numbers; runs are paired by it.
        metrics: name → number. ``task/metric`` is a metric of one of several tasks. A run that is
            not done may lack them.
        config: the settings, as JSON can hold them, without the seed.
        revision: of the code, such as `code_revision` gives.
        data: hash of the data, such as `hash_arrays` or `hash_files` give.
        metric_version: changes with the definition of any metric.
        budget: the limits of a run: steps, epochs, evaluations.
        initial: hash of the initial params; "" if unknown, or if there are none.
        seconds: wall time; None if unknown.
        status: "done", "failed", "diverged" or "stopped".

    Raises:
        ValueError: for a value of the wrong type, or not finite.
    """

    name: str
    seed: int
    metrics: Mapping[str, float]
    config: Mapping[str, Any]
    revision: str
    data: str
    metric_version: str
    budget: Mapping[str, Any]
    initial: str = ""
    seconds: float | None = None
    status: str = "done"

    def __post_init__(self) -> None:
        texts = ("name", "revision", "data", "metric_version")
        check_texts(self, texts)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ValueError(f"seed: expected an integer, got {self.seed!r}")
        if self.status not in STATUSES:
            raise ValueError(f"status: expected one of {', '.join(STATUSES)}, got {self.status!r}")
        if self.status == "done" and not self.metrics:
            raise ValueError("metrics: a run that is done has at least one, got none")
        for name, value in self.metrics.items():
            check_number(f"metrics[{name!r}]", value)
        if self.seconds is not None:
            check_number("seconds", self.seconds, least=0.0)
        if "seed" in self.config:
            raise ValueError("config: holds 'seed', which makes a group of each run; leave it out")
        hash_config(dict(self.config))
        hash_config(dict(self.budget), "budget")

    @property
    def config_hash(self) -> str:
        """The hash of the config alone."""
        return hash_config(dict(self.config))

    @functools.cached_property
    def group(self) -> str:
        """The id of its group: the hash of config, revision, data, metric version and budget."""
        same = {name: getattr(self, name) for name in ("revision", "data", "metric_version")}
        return hash_config(same | {"config": dict(self.config), "budget": dict(self.budget)})

    @property
    def id(self) -> str:
        """The group's id and the seed."""
        return f"{self.group}-{self.seed}"


class Group:
    """One config over seeds.

    Args:
        runs: in any order.

    Raises:
        ValueError: if there are none, if they differ in config, revision, data, metric version or
            budget (names it), or if a seed appears twice.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs = tuple(runs)
        if not self.runs:
            raise ValueError("runs: a group needs at least one, got none")
        first = self.runs[0]
        for run in self.runs[1:]:
            if run.group != first.group:
                raise ValueError(
                    f"runs: seed {run.seed} ({run.name!r}) is not of the group of seed "
                    f"{first.seed} ({first.name!r}): they differ in {differences(run, first)}"
                )
        seeds = [run.seed for run in self.runs]
        if twice := {seed for seed in seeds if seeds.count(seed) > 1}:
            raise ValueError(f"runs: seeds {sorted(twice)} are there more than once")
        self.id, self.name, self.first = first.group, first.name, first

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, in the order of the runs."""
        return tuple(run.seed for run in self.runs)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that any of its runs has."""
        return tuple(dict.fromkeys(name for run in self.runs for name in run.metrics))

    def values(self, metric: str) -> dict[int, float]:
        """Return seed → value for the runs that are done.

        Args:
            metric: its name.

        Raises:
            ValueError: if one of them lacks the metric.
        """
        done = [run for run in self.runs if run.status == "done"]
        for run in done:
            if metric not in run.metrics:
                raise ValueError(
                    f"metric: seed {run.seed} of group {self.id} ({self.name}) has no {metric!r}; "
                    f"it has {', '.join(run.metrics)}"
                )
        return {run.seed: float(run.metrics[metric]) for run in done}

    def tasks(self, metric: str) -> dict[str, dict[int, float]]:
        """Return task → seed → value, from the metrics named ``task/metric``.

        Args:
            metric: its name, without the task's.

        Raises:
            ValueError: if there are none, or a run lacks one.
        """
        names = [name for name in self.metrics if name.endswith(f"/{metric}")]
        if not names:
            raise ValueError(f"metric: no metric of group {self.id} is named task/{metric}")
        return {name[: -len(metric) - 1]: self.values(name) for name in names}

    def __repr__(self) -> str:
        return f"Group({self.id}, {self.name!r}, seeds {list(self.seeds)})"


def differences(run: Run, other: Run) -> str:
    """Return the names of the fields that put two runs into different groups, as text.

    Args:
        run: a run.
        other: another run.
    """
    names = ("config", "revision", "data", "metric_version", "budget")
    return ", ".join(name for name in names if getattr(run, name) != getattr(other, name))
