"""Training of a learned refiner from a configuration: the tables [task] and [refiner]."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import optax

from refinejax._config import read_config
from refinejax._core import Refiner
from refinejax.learned import Imitation, builder
from refinejax.meta.antithetic import es, nres, pes
from refinejax.meta.convergence import MEASURES
from refinejax.meta.estimator import Estimator
from refinejax.meta.full import FullUnroll
from refinejax.meta.training import meta_task
from refinejax.meta.trajectory import Trajectory
from refinejax.meta.truncated import TruncatedUnroll
from refinejax.refiners import Gradient, LevenbergMarquardt
from refinejax.tasks import task_distribution
from refinejax.tasks.augmented import Augmented
from refinejax.training.plans import TrainingPlan

ESTIMATORS = ("full", "truncated", "pes", "nres", "es", "imitation")
_COUNTS = ("horizon", "window", "batch", "parts", "held_out")


@dataclasses.dataclass(frozen=True)
class RefinerTaskConfig:
    """The table [task] of a learned refiner: on what problems it is trained, and by which gradient.

    Attributes:
        problems: name of a task distribution, see `refinejax.tasks.task_distribution`.
        distribution: arguments of that distribution by name, the table [task.distribution].
        estimator: gradient of the loss after unrolled steps: "full", "truncated", "pes", "nres" or
            "es"; or "imitation" of Adam, followed by Levenberg–Marquardt to the optimum.
        horizon: steps of an episode; for "imitation" steps from each example.
        window: steps of an update; for "truncated", "pes" and "nres".
        batch: tasks of an update.
        parts: equal parts of the batch; a part whose gradient is not finite is left out. For
            "full", "truncated" and "imitation".
        std: standard deviation of perturbations; for "pes", "nres" and "es".
        segment: steps that the reverse pass computes again instead of keeping them, 0 for none; for
            "full".
        scale: "log", "plain" or "relative": the loss of a step, see `Trajectory`.
        units: largest |log c| of the random unit c of each param, see `Augmented`; 0: none.
        learning_rate: of Adam, for "imitation".
        validate_by: measure by which the best weights are chosen, see `meta_train`; "": the loss of
            the training.
        validation_steps: steps of a validation; 0: the horizon.
        held_out: tasks of a validation.

    Raises:
        ValueError: names the key that does not fit.
    """

    problems: str
    distribution: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    estimator: str = "full"
    horizon: int = 20
    window: int = 5
    batch: int = 64
    parts: int = 8
    std: float = 0.01
    segment: int = 0
    scale: str = "log"
    units: float = 0.0
    learning_rate: float = 0.05
    validate_by: str = ""
    validation_steps: int = 0
    held_out: int = 256

    def __post_init__(self) -> None:
        """Check every key that no other class checks."""
        for name, known in (("estimator", ESTIMATORS), ("validate_by", ("", *MEASURES))):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name}: expected one of {', '.join(filter(None, known))}, got "
                    f"{getattr(self, name)!r}"
                )
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        for name in ("segment", "units", "validation_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        for name in ("std", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: expected a number above 0, got {getattr(self, name)}")

    def tasks(self) -> Any:
        """Return the task distribution, in random units if ``units`` is above 0."""
        tasks = task_distribution(self.problems, self.distribution)
        return Augmented(tasks, self.units) if self.units else tasks

    def training_task(self, build: Any) -> Any:
        """Return what `refinejax.training.train` trains.

        Args:
            build: makes the untrained refiner from a key.

        Returns:
            A `MetaTraining`, or for "imitation" an `Imitation`.

        Raises:
            ValueError: names the key that does not fit.
        """
        if self.estimator == "imitation":
            return self._imitation(build)
        return meta_task(
            self.made(build),
            steps=self.validation_steps or self.horizon,
            count=self.held_out,
            validate_by=self.validate_by or None,
        )

    def made(self, build: Any) -> Estimator:
        """Return the estimator of the gradient.

        Args:
            build: makes the untrained refiner from a key.

        Returns:
            The estimator.

        Raises:
            ValueError: names the key that does not fit.
        """
        inner = Trajectory(self.tasks(), build, horizon=self.horizon, scale=self.scale)
        match self.estimator:
            case "full":
                return FullUnroll(inner, batch=self.batch, parts=self.parts, segment=self.segment)
            case "truncated":
                return TruncatedUnroll(
                    inner, window=self.window, lanes=self.batch, parts=self.parts
                )
            case "es":
                return es(inner, lanes=self.batch, std=self.std)
        make = {"pes": pes, "nres": nres}[self.estimator]
        return make(inner, window=self.window, lanes=self.batch, std=self.std)

    def _imitation(self, build: Any) -> Imitation:
        if self.batch % self.parts:
            raise ValueError(
                f"task.parts: expected a divisor of the batch of {self.batch}, got {self.parts}"
            )
        teacher: Refiner = Gradient(optax.adam, {"learning_rate": self.learning_rate})
        return Imitation(
            self.tasks(),
            teacher,
            LevenbergMarquardt(),
            build,
            steps=self.horizon,
            batch=self.batch,
            parts=self.parts,
            held_out=self.held_out,
        )


def plan_refiner(config: Mapping[str, Any]) -> TrainingPlan:
    """Return how a learned refiner is trained.

    Args:
        config: tables "task" (`RefinerTaskConfig`) and "refiner": the key "architecture", "rule" if
            it is left out, and the configuration of that architecture (see `learned.builder`).

    Returns:
        The plan.

    Raises:
        ValueError: names the table or key that is unknown or does not fit.
    """
    task = read_config(RefinerTaskConfig, config.get("task", {}), "task")
    table = dict(config.get("refiner", {}))
    name = table.pop("architecture", "rule")
    return TrainingPlan(task.training_task(builder(name, table)), name, table, "refiner")
