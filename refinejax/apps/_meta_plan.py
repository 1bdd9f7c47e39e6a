"""Meta-training of a learned refiner from a configuration."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from refinejax._config import read_config
from refinejax.apps.metalens.tasks import LensTasks
from refinejax.learned import builder
from refinejax.meta import (
    Estimator,
    FullUnroll,
    Trajectory,
    TruncatedUnroll,
    es,
    meta_task,
    nres,
    pes,
)
from refinejax.physics.noise import PhaseNoise
from refinejax.tasks.augmented import Augmented
from refinejax.tasks.damped_sine import DampedSines
from refinejax.tasks.diffusion import Diffusions
from refinejax.tasks.least_squares import LeastSquaresTasks
from refinejax.tasks.quadratics import Quadratics
from refinejax.tasks.rastrigins import Rastrigins
from refinejax.tasks.sparse import Lassos

PROBLEMS: dict[str, Callable[[], Any]] = {
    "quadratics": Quadratics,
    "uniform_quadratics": lambda: Quadratics(law="uniform"),
    "least_squares": LeastSquaresTasks,
    "rastrigins": Rastrigins,
    "lassos": Lassos,
    "damped_sines": DampedSines,
    "diffusions": Diffusions,
    "lenses": lambda: LensTasks(PhaseNoise()),
}
ESTIMATORS = ("full", "truncated", "pes", "nres", "es")


@dataclasses.dataclass(frozen=True)
class MetaTaskConfig:
    """The table [task] of a meta-training: on what problems, and by which estimator.

    Attributes:
        problems: a name of `PROBLEMS`.
        estimator: "full", "truncated", "pes", "nres" or "es".
        horizon: steps of an episode.
        window: steps an update, but for "full" and "es".
        batch: tasks at once.
        parts: of the batch, each left out as a whole if it is not finite; "full" and "truncated".
        std: of perturbations; "pes", "nres" and "es".
        segment: steps that are computed again in the reverse pass instead of kept; "full". 0: none.
        scale: "log", "plain" or "relative": what becomes of the loss before the mean over steps.
        units: log of the largest factor on the units of params, drawn for each; 0: none.
        validation_steps: of a validation; 0: the horizon.
        held_out: tasks of a validation.

    Raises:
        ValueError: names what does not fit.
    """

    problems: str
    estimator: str = "full"
    horizon: int = 20
    window: int = 5
    batch: int = 64
    parts: int = 8
    std: float = 0.01
    segment: int = 0
    scale: str = "log"
    units: float = 0.0
    validation_steps: int = 0
    held_out: int = 256

    def __post_init__(self) -> None:
        """Check what nothing else does."""
        known = {"problems": tuple(PROBLEMS), "estimator": ESTIMATORS}
        for name, names in known.items():
            if getattr(self, name) not in names:
                raise ValueError(
                    f"task.{name}: expected one of {', '.join(names)}, got {getattr(self, name)!r}"
                )
        for name in ("horizon", "window", "batch", "parts", "held_out"):
            if getattr(self, name) < 1:
                raise ValueError(f"task.{name}: expected 1 or more, got {getattr(self, name)}")
        for name in ("segment", "units", "validation_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"task.{name}: expected 0 or more, got {getattr(self, name)}")
        if self.std <= 0:
            raise ValueError(f"task.std: expected a number above 0, got {self.std}")

    def made(self, build: Any) -> Estimator:
        """Return the estimator for a refiner made by ``build``."""
        tasks = PROBLEMS[self.problems]()
        tasks = Augmented(tasks, self.units) if self.units else tasks
        inner = Trajectory(tasks, build, horizon=self.horizon, scale=self.scale)
        if self.estimator == "full":
            return FullUnroll(inner, batch=self.batch, parts=self.parts, segment=self.segment)
        if self.estimator == "truncated":
            return TruncatedUnroll(inner, window=self.window, lanes=self.batch, parts=self.parts)
        if self.estimator == "es":
            return es(inner, lanes=self.batch, std=self.std)
        make = {"pes": pes, "nres": nres}[self.estimator]
        return make(inner, window=self.window, lanes=self.batch, std=self.std)


def meta_plan(config: Mapping[str, Any]) -> tuple[Any, str, dict[str, Any]]:
    """Return what is trained, and architecture and config of the model."""
    read = read_config(MetaTaskConfig, config.get("task", {}), "task")
    table = dict(config.get("refiner", {}))
    name = table.pop("architecture", "rule")
    estimator = read.made(builder(name, table))
    steps = read.validation_steps or read.horizon
    return meta_task(estimator, steps=steps, count=read.held_out), name, table
