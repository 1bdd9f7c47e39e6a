"""Training a model from a configuration: what `refinejax train` does."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import optax

from refinejax._config import check_tables, read_config
from refinejax.apps._meta_plan import meta_plan
from refinejax.apps.latent.tables import TableTaskConfig, plan_table
from refinejax.apps.metalens.tasks import LensTasks
from refinejax.apps.metalens.train import PredictorTask
from refinejax.learned import Imitation, Unrolled, builder
from refinejax.models import save_model
from refinejax.physics.noise import COMPONENTS, PhaseNoise
from refinejax.refiners import Gradient, LevenbergMarquardt
from refinejax.tasks.damped_sine import DampedSines
from refinejax.training import Trained, TrainingConfig, train


@dataclasses.dataclass(frozen=True)
class RefinerTaskConfig:
    """The table [task] for a learned refiner: on what problems it is trained, and how.

    Attributes:
        problems: "damped_sine" or "metalens".
        by: "unrolled", on the loss after each of its steps; "imitation", on the way of Adam and
            Levenberg–Marquardt to the optimum.
        horizon: steps that are unrolled.
        batch: tasks of a step.
        parts: of the batch; one whose gradient is not finite is left out as a whole.
        held_out: tasks of a validation.
        size: observations of a damped sine; pixels along each side of a phase map.
        noise: standard deviation, for damped sines.
        components: of the noise of phase maps; see `physics.noise`.
        error: of the starts: its size for damped sines; least and largest for phase maps.
        learning_rate: of the Adam that is imitated.

    Raises:
        ValueError: names what does not fit.
    """

    problems: str
    by: str = "unrolled"
    horizon: int = 5
    batch: int = 128
    parts: int = 16
    held_out: int = 512
    size: int = 64
    noise: float = 0.05
    components: tuple[str, ...] = COMPONENTS
    error: tuple[float, ...] = (0.6,)
    learning_rate: float = 0.05

    def __post_init__(self) -> None:
        """Check what nothing else does."""
        _check_name("problems", self.problems, ("damped_sine", "metalens"))
        _check_name("by", self.by, ("unrolled", "imitation"))
        for name in ("horizon", "batch", "parts", "held_out", "size"):
            if getattr(self, name) < 1:
                raise ValueError(f"task.{name}: expected 1 or more, got {getattr(self, name)}")
        if self.batch % self.parts:
            raise ValueError(
                f"task.parts: expected a divisor of the batch of {self.batch}, got {self.parts}"
            )
        count = 1 if self.problems == "damped_sine" else 2
        if len(self.error) != count or min(self.error) <= 0:
            raise ValueError(
                f"task.error: expected {count} positive number{'s' * (count > 1)} for "
                f"{self.problems}, got {list(self.error)}"
            )

    def tasks(self) -> Any:
        """Return the distribution of tasks."""
        if self.problems == "damped_sine":
            return DampedSines(self.noise, self.error[0], count=self.size)
        least, largest = self.error
        return LensTasks(PhaseNoise.only(*self.components), (least, largest), size=self.size)


def _as_it_is(weights: Any) -> Any:
    return weights


class Plan(NamedTuple):
    """What is trained, and what to call it.

    Attributes:
        task: for `refinejax.training.train`.
        architecture, config: of the model.
        finish: makes the model of the weights.
    """

    task: Any
    architecture: str
    config: dict[str, Any]
    finish: Callable[[Any], Any] = _as_it_is


def train_model(
    kind: str,
    config: Mapping[str, Any],
    folder: str | os.PathLike[str],
    *,
    resume: bool = False,
    progress: bool = False,
) -> Trained:
    """Train what a configuration describes, and keep it.

    The folder will hold ``checkpoints`` and ``metrics.jsonl`` while it trains, and in the end
    ``model``, for `refinejax.models.load_model`.

    Args:
        kind: "predictor", of lenses from phase maps, "refiner", "meta", or "multitask", of a table.
        config: tables "training" (`TrainingConfig`) and "task", and "network" for a predictor
            (see `PredictorTask.of`) and a model of a table (see `TableTaskConfig`), else "refiner"
            (see `learned.builder`).
        folder: where.
        resume: go on with what was interrupted.
        progress: draw a progress bar on stderr.

    Raises:
        ValueError: names what is unknown or does not fit.
        OSError: if the folder cannot be written.
    """
    _check_name("kind", kind, tuple(PLANS))
    tables = ("training", "task", *_TABLES[kind])
    check_tables(config, tables, "config")
    settings = TrainingConfig.from_dict(config.get("training", {}))
    plan = PLANS[kind](config)
    trained = train(
        plan.task,
        settings,
        folder,
        description={"kind": kind, **{name: config.get(name, {}) for name in tables[1:]}},
        resume=resume,
        progress=progress,
    )
    evaluation = [line for line in trained.history if line["step"] == trained.best_step]
    provenance = {
        "kind": kind,
        "configuration": {name: config.get(name, {}) for name in tables},
        "status": trained.status.name,
        "steps": trained.step,
        "validation": {k: v for line in evaluation for k, v in line.items() if "validation" in k},
    }
    save_model(
        Path(folder) / "model",
        plan.finish(trained.weights),
        architecture=plan.architecture,
        config=plan.config,
        provenance=provenance,
    )
    return trained


def plan_predictor(config: Mapping[str, Any]) -> Plan:
    """Return how a predictor of lenses is trained."""
    task = PredictorTask.of(config.get("task", {}), config.get("network", {}))
    return Plan(task, *task.architecture)


def plan_refiner(config: Mapping[str, Any]) -> Plan:
    """Return how a learned refiner is trained."""
    task = read_config(RefinerTaskConfig, config.get("task", {}), "task")
    table = dict(config.get("refiner", {}))
    name = table.pop("architecture", None)
    build = builder(name, table)
    sizes = {"batch": task.batch, "parts": task.parts, "held_out": task.held_out}
    if task.by == "unrolled":
        return Plan(Unrolled(task.tasks(), build, task.horizon, **sizes), name, table)
    teacher = Gradient(optax.adam, {"learning_rate": task.learning_rate})
    made = Imitation(
        task.tasks(), teacher, LevenbergMarquardt(), build, steps=task.horizon, **sizes
    )
    return Plan(made, name, table)


def _check_name(what: str, name: Any, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ValueError(f"{what}: expected one of {', '.join(known)}, got {name!r}")


def plan_meta(config: Mapping[str, Any]) -> Plan:
    """Return how a learned refiner is meta-trained."""
    return Plan(*meta_plan(config))


def plan_multitask(config: Mapping[str, Any]) -> Plan:
    """Return how a model of a table is trained."""
    read = read_config(TableTaskConfig, config.get("task", {}), "task")
    seed = TrainingConfig.from_dict(config.get("training", {})).seed
    task, made = plan_table(read, config.get("network", {}), seed)
    return Plan(task, "multitask", made, task.model)


PLANS: dict[str, Callable[[Mapping[str, Any]], Plan]] = {
    "predictor": plan_predictor,
    "refiner": plan_refiner,
    "meta": plan_meta,
    "multitask": plan_multitask,
}
_TABLES = {
    "predictor": ("network",),
    "refiner": ("refiner",),
    "meta": ("refiner",),
    "multitask": ("network",),
}
