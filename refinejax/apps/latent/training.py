"""Training of a model of a table from a configuration: the kind "multitask"."""

from collections.abc import Mapping
from typing import Any

from refinejax._config import read_config
from refinejax.apps.latent.tables import TableTaskConfig, plan_table
from refinejax.training import TrainingConfig
from refinejax.training.plans import TrainingPlan


def plan_multitask(config: Mapping[str, Any]) -> TrainingPlan:
    """Return how a model of a table is trained.

    Args:
        config: tables "training", whose seed splits the rows, "task" (`TableTaskConfig`), and
            "network", the sizes of a `MultiTaskModel`.

    Returns:
        The plan.

    Raises:
        FileNotFoundError: if there is no such table.
        ValueError: names the setting that is unknown or does not fit.
    """
    read = read_config(TableTaskConfig, config.get("task", {}), "task")
    seed = TrainingConfig.from_dict(config.get("training", {})).seed
    task, made = plan_table(read, config.get("network", {}), seed)
    return TrainingPlan(task, "multitask", made, "network", task.model)
