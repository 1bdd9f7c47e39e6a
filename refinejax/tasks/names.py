"""Task distributions by name: those of this package, and those that applications register."""

from collections.abc import Callable, Mapping
from typing import Any

from refinejax._applications import resolve, with_registered
from refinejax._config import read_config
from refinejax.tasks.damped_sine import DampedSines
from refinejax.tasks.diffusion import Diffusions
from refinejax.tasks.least_squares import LeastSquaresTasks
from refinejax.tasks.noisy_quadratics import NoisyQuadratics
from refinejax.tasks.quadratics import Quadratics
from refinejax.tasks.rastrigins import Rastrigins
from refinejax.tasks.sinusoids import Sinusoids
from refinejax.tasks.sparse import Lassos

TASKS: Mapping[str, Callable[..., Any]] = {
    "quadratics": Quadratics,
    "noisy_quadratics": NoisyQuadratics,
    "least_squares": LeastSquaresTasks,
    "rastrigins": Rastrigins,
    "lassos": Lassos,
    "damped_sines": DampedSines,
    "diffusions": Diffusions,
    "sinusoids": Sinusoids,
}


def _registered() -> dict[str, str]:
    """Return the references of applications, none of which may take a name of this package."""
    every = with_registered("tasks", TASKS)
    return {name: reference for name, reference in every.items() if name not in TASKS}


def task_names() -> tuple[str, ...]:
    """Return the names of all task distributions, those of applications last.

    Returns:
        The names, as ``[task] problems = NAME`` takes them.
    """
    return (*TASKS, *_registered())


def task_distribution(name: str, numbers: Mapping[str, Any] | None = None) -> Any:
    """Return the task distribution of a name.

    Args:
        name: one of `task_names`.
        numbers: its arguments by name, as the table [task.distribution] gives them; those left out
            have their defaults.

    Returns:
        A `TaskDistribution`.

    Raises:
        ValueError: for an unknown name, or an argument that is unknown or of the wrong type.
    """
    others = _registered()
    if name not in (*TASKS, *others):
        raise ValueError(
            f"task.problems: expected one of {', '.join((*TASKS, *others))}, got {name!r}"
        )
    make = TASKS[name] if name in TASKS else resolve(others[name])
    return read_config(make, numbers or {}, "task.distribution")
