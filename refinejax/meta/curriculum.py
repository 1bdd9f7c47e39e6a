"""Curricula: tasks that become harder as the training goes on."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from refinejax._checks import check_above_zero
from refinejax._core import Scalar

WAYS = ("schedule", "success")


class Curriculum(struct.PyTreeNode):
    """From an easy distribution to the one to be learned, by interpolation of their numbers.

    At difficulty d the numbers of the distribution are easy + d·(hard − easy). By "schedule" d is
    step / ``steps`` up to 1; by "success" it begins at 0 and rises by 1 / ``steps`` with each step
    whose loss is below ``threshold``.

    Episodes under way keep their tasks, drawn at the difficulty of that time; numbers that the
    distribution does not put into its tasks are those of now.

    Attributes:
        easy: task distribution like the one of the inner loop: the same sizes, other numbers.
        steps: from d = 0 to 1.
        threshold: of the loss, for "success".
        by: "schedule" or "success"; static.

    Raises:
        ValueError: for another way.
    """

    easy: Any
    steps: Any = 1000
    threshold: Any = 0.0
    by: str = struct.field(pytree_node=False, default="schedule")

    def __post_init__(self) -> None:
        """Check."""
        if self.by not in WAYS:
            raise ValueError(f"by: expected one of {', '.join(WAYS)}, got {self.by!r}")

    def check(self, hard: Any) -> None:
        """Raise `ValueError` unless the distributions can be interpolated, in steps.

        Args:
            hard: the distribution to be learned.

        Raises:
            ValueError: if they are of other kinds or sizes, or there is no step.
        """
        check_above_zero("steps", self.steps)
        there, here = jax.tree.structure(hard), jax.tree.structure(self.easy)
        if there != here or type(hard) is not type(self.easy):
            raise ValueError(
                f"easy: expected a distribution like the hard one, {there}, got {here}"
            )

    def tasks(self, hard: Any, difficulty: Scalar) -> Any:
        """Return the distribution at difficulty d.

        Args:
            hard: the distribution to be learned.
            difficulty: d, from 0 to 1.
        """

        def between(easy: Any, hard: Any) -> Array:
            easy = jnp.asarray(easy)
            if not jnp.issubdtype(easy.dtype, jnp.inexact):
                return jnp.where(difficulty >= 1, hard, easy)
            return (easy + difficulty * (hard - easy)).astype(easy.dtype)

        return jax.tree.map(between, self.easy, hard)

    def difficulty(self, step: Any, reached: Float[Array, ""]) -> Scalar:
        """Return the difficulty d at a step.

        Args:
            step: of the training, from 0.
            reached: the last return value of `advance`, 0 at first.
        """
        if self.by == "success":
            return reached
        return jnp.clip(jnp.asarray(step, jnp.float32) / self.steps, 0, 1)

    def advance(self, reached: Float[Array, ""], loss: Scalar) -> Float[Array, ""]:
        """Return the difficulty that "success" has reached after a step.

        Args:
            reached: its last return value, 0 at first.
            loss: of the step.
        """
        return jnp.clip(reached + (loss < self.threshold) / self.steps, 0, 1).astype(jnp.float32)
