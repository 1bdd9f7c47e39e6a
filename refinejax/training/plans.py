"""Training a model from a configuration: what `refinejax train KIND` does."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from refinejax._applications import resolve, trainings
from refinejax._config import check_tables
from refinejax.models import save_model
from refinejax.training.config import TrainingConfig
from refinejax.training.loop import train
from refinejax.training.result import Trained


def _unchanged(weights: Any) -> Any:
    return weights


class TrainingPlan(NamedTuple):
    """What a configuration trains, and how the result is saved.

    Attributes:
        task: a `TrainingTask`.
        architecture: name of the model's builder, see `refinejax.models`.
        config: configuration of the model, for its builder.
        table: name of the table that configures the model, beside "training" and "task".
        finish: makes the model from the trained weights.
    """

    task: Any
    architecture: str
    config: dict[str, Any]
    table: str
    finish: Callable[[Any], Any] = _unchanged


def plan_training(kind: str, config: Mapping[str, Any]) -> TrainingPlan:
    """Return the plan that a configuration describes.

    Args:
        kind: a name of `refinejax._applications.trainings`: "refiner", or one that an application
            registers.
        config: tables by name: "training" (`TrainingConfig`), "task", and one for the model.

    Returns:
        The plan.

    Raises:
        ValueError: names the table or key that is unknown or does not fit.
    """
    known = trainings()
    if kind not in known:
        raise ValueError(f"kind: expected one of {', '.join(known)}, got {kind!r}")
    plan = resolve(known[kind])(config)
    check_tables(config, ("training", "task", plan.table), "config")
    return plan


def train_model(
    kind: str,
    config: Mapping[str, Any],
    folder: str | os.PathLike[str],
    *,
    progress: bool = False,
    time_limit: float | None = None,
) -> Trained:
    """Train the model that a configuration describes, and save it.

    While it trains, the folder holds ``checkpoints`` and ``metrics.jsonl``; in the end also
    ``model``, for `refinejax.models.load_model`. The rule of resume is the one of `train`: called
    again with the same arguments, an interrupted training goes on.

    Args:
        kind: as for `plan_training`.
        config: as for `plan_training`.
        folder: where.
        progress: draw a progress bar on stderr.
        time_limit: seconds after which the training is saved and ends; None for no limit.

    Returns:
        The outcome of the training.

    Raises:
        ValueError: names the key that is unknown or does not fit; if ``folder`` holds another
            training.
        OSError: if the folder cannot be written.
    """
    settings = TrainingConfig.from_dict(config.get("training", {}))
    plan = plan_training(kind, config)
    tables = {name: config.get(name, {}) for name in ("training", "task", plan.table)}
    trained = train(
        plan.task,
        settings,
        folder,
        description={"kind": kind, "task": tables["task"], plan.table: tables[plan.table]},
        progress=progress,
        time_limit=time_limit,
    )
    save_model(
        Path(folder) / "model",
        plan.finish(trained.weights),
        architecture=plan.architecture,
        config=plan.config,
        provenance={"kind": kind, "configuration": tables, **_evaluation(trained)},
    )
    return trained


def _evaluation(trained: Trained) -> dict[str, Any]:
    """Return how the training ended, and the validation of the weights that are saved."""
    lines = [line for line in trained.history if line["step"] == trained.best_step]
    return {
        "status": trained.status.name,
        "steps": trained.step,
        "validation": {k: v for line in lines for k, v in line.items() if "validation" in k},
    }
