"""The settings of a training."""

import dataclasses
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

from refinejax._config import read_config, suggest
from refinejax.learned.schedules import SCHEDULES
from refinejax.training.optimizers import DECAYING, OPTIMIZERS


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Attributes:
        steps: of the optimizer.
        optimizer: an optax optimizer by name: adam, adamw, lamb, lion, nadam, radam, rmsprop, sgd.
        learning_rate: at its highest.
        schedule: of the learning rate after the warm-up: "cosine" and "linear" fall to 0 at the
            last step, "constant" stays.
        warmup: steps in which the learning rate rises linearly.
        weight_decay: for the optimizers that have one: adamw, lamb, lion.
        clip: the largest global norm of a gradient; longer ones are shortened. 0: none are.
        average: decay of an exponential moving average of the weights, which then is validated and
            returned; (1 + t) / (10 + t) after t steps as long as that is less.
            0: no average.
        validate_every: steps between validations; there is one before the first step and one after
            the last in any case. 0: only those.
        patience: validations in a row that are no better than the best before the training ends.
            0: it goes on.
        give_up: steps in a row without a finite gradient before the training ends.
        log_every: steps between lines in the log, each the mean over these steps.
        checkpoint_every: steps between checkpoints; there is one at the start and one at the end in
            any case. 0: only those.
        keep: how many checkpoints to keep.
        seed: of all random numbers.

    Raises:
        ValueError: for a value of another type, out of range, or that fits no other; names it.
    """

    steps: int = 1000
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup: int = 0
    weight_decay: float = 0.0
    clip: float = 1.0
    average: float = 0.0
    validate_every: int = 100
    patience: int = 0
    give_up: int = 100
    log_every: int = 10
    checkpoint_every: int = 500
    keep: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every setting."""
        for name, least in _WHOLE.items():
            object.__setattr__(self, name, _whole(name, getattr(self, name), least))
        for name in ("learning_rate", "weight_decay", "clip", "average"):
            object.__setattr__(self, name, _nonnegative(name, getattr(self, name)))
        _check_choice("optimizer", self.optimizer, OPTIMIZERS)
        _check_choice("schedule", self.schedule, SCHEDULES)
        if self.learning_rate == 0:
            raise ValueError("learning_rate: expected a number above 0, got 0")
        if self.average >= 1:
            raise ValueError(
                f"average: expected a decay from 0 (no average) to below 1, got {self.average}"
            )
        if self.warmup >= self.steps:
            raise ValueError(
                f"warmup: expected fewer steps than the {self.steps} of the training, got "
                f"{self.warmup}"
            )
        if self.weight_decay and self.optimizer not in DECAYING:
            raise ValueError(
                f"weight_decay: {self.optimizer} has none; use {', '.join(sorted(DECAYING))}, or "
                "leave it out"
            )

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> "TrainingConfig":
        """Take the settings from a table, such as TOML gives; those left out have their defaults.

        Args:
            table: settings by name.

        Returns:
            The settings.

        Raises:
            ValueError: for an unknown name (with the nearest known one), or a value as above.
        """
        return read_config(cls, table, "training")

    def to_dict(self) -> dict[str, Any]:
        """Inverse of `from_dict`."""
        return dataclasses.asdict(self)


_WHOLE = {
    "steps": 1,
    "warmup": 0,
    "validate_every": 0,
    "patience": 0,
    "give_up": 1,
    "log_every": 1,
    "checkpoint_every": 0,
    "keep": 1,
    "seed": 0,
}
_MOST = 2**31 - 1  # steps and seed are 32-bit integers where they are used


def _whole(name: str, value: Any, least: int) -> int:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or not least <= int(value) <= _MOST:
        raise ValueError(
            f"{name}: expected a whole number from {least} to {_MOST:,}, got {value!r}"
        )
    return int(value)


def _nonnegative(name: str, value: Any) -> float:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not 0 <= float(value) < math.inf:
        raise ValueError(f"{name}: expected a finite number of 0 or more, got {value!r}")
    return float(value)


def _check_choice(name: str, value: Any, known: Iterable[str]) -> None:
    if value not in (names := sorted(known)):
        raise ValueError(f"{name}: {value!r} is unknown; {suggest(str(value), names)}")
