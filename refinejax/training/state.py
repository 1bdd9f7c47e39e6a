"""Where a training stands, and the numbers and names it goes by."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from refinejax._trees import structure_hash
from refinejax.training.config import TrainingConfig


class Recipe(NamedTuple):
    """The settings that are compiled in, and the structure of the task.

    Attributes:
        optimizer, schedule: by name.
        averaging: whether there is an average.
        structure: the hash of the task's. To jaxlib (as of 0.10) the structures of two classes
            registered by ``register_dataclass``, as those of flax.struct are, are equal if their
            fields are alike, though their hashes differ; and a table of compiled programs that
            looks at a few bits of the hash and then asks for equality now and then takes one class
            for the other.
    """

    optimizer: str
    schedule: str
    averaging: bool
    structure: int

    @classmethod
    def of(cls, config: TrainingConfig, task: Any) -> "Recipe":
        """Take it from the settings and the task.

        Args:
            config: the settings.
            task: to be trained.

        Returns:
            The recipe.
        """
        structure = structure_hash(task)
        return cls(config.optimizer, config.schedule, config.average > 0, structure)


class Numbers(struct.PyTreeNode):
    """The other settings of a `TrainingConfig`, as leaves: new numbers do not compile anew.

    Attributes:
        learning_rate: at its highest.
        weight_decay: see `TrainingConfig`.
        clip: largest norm of a gradient; ∞ for no limit.
        average: decay of the average; 0 for none.
        steps: of the training.
        warmup: steps in which the learning rate rises.
        give_up: steps in a row without a finite gradient before the training ends.
        log_every: steps between lines in the log.
    """

    learning_rate: Any
    weight_decay: Any
    clip: Any
    average: Any
    steps: Any
    warmup: Any
    give_up: Any
    log_every: Any

    @classmethod
    def of(cls, config: TrainingConfig) -> "Numbers":
        """Take them from the settings.

        Args:
            config: the settings.

        Returns:
            The numbers.
        """
        return cls(
            learning_rate=jnp.asarray(config.learning_rate),
            weight_decay=jnp.asarray(config.weight_decay),
            clip=jnp.asarray(config.clip or jnp.inf),
            average=jnp.asarray(config.average),
            steps=jnp.int32(config.steps),
            warmup=jnp.int32(config.warmup),
            give_up=jnp.int32(config.give_up),
            log_every=jnp.int32(config.log_every),
        )


class Window(struct.PyTreeNode):
    """Sums over the steps since the last line of the log.

    Attributes:
        sums: by name; skipped steps are left out.
        count: how many steps are in them.
    """

    sums: dict[str, Float[Array, ""]]
    count: Int[Array, ""]

    def means(self) -> dict[str, Float[Array, ""]]:
        """Return the means; NaN if there was no step."""
        return {name: total / self.count for name, total in self.sums.items()}


class Live(struct.PyTreeNode):
    """What a step of the training changes.

    Attributes:
        step: steps begun, also those skipped.
        weights: under training.
        optimizer: its state.
        average: of the weights, in float32 or better; None without.
        memory: of the estimator of the gradient.
        skipped: steps without a finite gradient.
        lost: such steps in a row.
        window: for the log.
    """

    step: Int[Array, ""]
    weights: Any
    optimizer: Any
    average: Any
    memory: Any
    skipped: Int[Array, ""]
    lost: Int[Array, ""]
    window: Window

    def current(self) -> Any:
        """Return the weights to be validated: the average, in their dtypes, if there is one."""
        if self.average is None:
            return self.weights
        return jax.tree.map(lambda a, w: a.astype(w.dtype), self.average, self.weights)


class Best(NamedTuple):
    """The best weights by validation, and how long nothing was better.

    Attributes:
        weights: those of the first validation, if none was finite.
        loss: of the validation; ∞ if none was finite.
        step: after which they were validated.
        waited: validations since.
    """

    weights: Any
    loss: float
    step: int
    waited: int
