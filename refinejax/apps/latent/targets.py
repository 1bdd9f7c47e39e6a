"""Targets for the heads of a model: how far an answer misses them, and on which side.

A target knows nothing of batches: its numbers belong to one sample. ``quantity`` makes of a head's
output what the target is about, ``loss`` says how bad that is, and ``excess``, for those that can
be constraints, what must be 0 or less (0, for an equality). Where a prediction is uncertain both
take a margin, κσ, and count the worse end of mean ± margin; values to match, which have no worse
end, add its square to the loss, and as constraints are about the mean.
"""

import abc
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from refinejax._core import Scalar


class Target(struct.PyTreeNode, abc.ABC):
    """One wish about one head. Its fields ``task`` and ``weight`` are those of every target.

    Attributes:
        of_class: whether it is about a head of logits.
        equality: whether, as a constraint, it is one of equality.
        numbers: the fields that may differ from sample to sample, beside weight and scale.
    """

    of_class: ClassVar[bool] = False
    equality: ClassVar[bool] = False
    numbers: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def loss(self, mean: Float[Array, " k"], margin: Float[Array, " k"]) -> Scalar:
        """Return how bad it is, in units of ``scale``; without the weight."""

    def quantity(self, output: Float[Array, " k"]) -> Float[Array, " m"]:
        """Return what it is about: the numbers themselves.

        Args:
            output: of a head, shape (k,).
        """
        return output

    def shown(self, quantity: Float[Array, " m"]) -> Float[Array, " m"]:
        """Return the quantity as people read it.

        Args:
            quantity: shape (m,).
        """
        return quantity

    def excess(self, mean: Float[Array, " k"], margin: Float[Array, " k"]) -> Float[Array, " g"]:
        """Return g of the constraint g ≤ 0, or g = 0.

        Args:
            mean: shape (n,).
            margin: κσ, shape (k,).

        Raises:
            ValueError: if this target cannot be a constraint.
        """
        del mean, margin
        raise ValueError(
            f"constraints: {type(self).__name__} of {named(self)} has no limit that could be kept; "
            "make it a target"
        )

    def range(self) -> tuple[Any, Any]:
        """Return the least and the greatest value that satisfy it."""
        return -np.inf, np.inf


def named(target: Any) -> str:
    """Return the name of a target's task, in quotes.

    Args:
        target: with a task.
    """
    return repr(target.task)


class Maximize(Target):
    """As much as possible: loss −mean(y)/s.

    Attributes:
        task: the head; static.
        weight: of the loss.
        scale: s, the unit in which differences count; None for the head's own.
    """

    task: str = struct.field(pytree_node=False)
    weight: Any = 1.0
    scale: Any = None

    def loss(self, mean: Array, margin: Array) -> Scalar:
        """Return −mean((y − margin)/s)."""
        return -jnp.mean((mean - margin) / self.scale)


class Minimize(Target):
    """As little as possible: loss mean(y)/s.

    Attributes:
        task: the head; static.
        weight: of the loss.
        scale: s; None for the head's own.
    """

    task: str = struct.field(pytree_node=False)
    weight: Any = 1.0
    scale: Any = None

    def loss(self, mean: Array, margin: Array) -> Scalar:
        """Return mean((y + margin)/s)."""
        return jnp.mean((mean + margin) / self.scale)


class Match(Target):
    """A value: loss mean(((y − v)/s)²), with a margin m mean(((y − v)² + m²)/s²).

    Attributes:
        task: the head; static.
        value: v, a number or as long as the head's output; for a sample each with a leading axis.
        weight: of the loss.
        scale: s; None for the head's own.
    """

    task: str = struct.field(pytree_node=False)
    value: Any
    weight: Any = 1.0
    scale: Any = None
    equality: ClassVar[bool] = True
    numbers: ClassVar[tuple[str, ...]] = ("value",)

    def loss(self, mean: Array, margin: Array) -> Scalar:
        """Return the mean square."""
        return jnp.mean(((mean - self.value) ** 2 + margin**2) / self.scale**2)

    def excess(self, mean: Array, margin: Array) -> Array:
        """Return (y − v)/s, which must be 0."""
        del margin
        return (mean - self.value) / self.scale

    def range(self) -> tuple[Any, Any]:
        """Return v twice."""
        return self.value, self.value


class Between(Target):
    """A range: loss 0 within, the mean square of the excess outside.

    Attributes:
        task: the head; static.
        low: the least value.
        high: the greatest.
        weight: of the loss.
        scale: s; None for the head's own.
    """

    task: str = struct.field(pytree_node=False)
    low: Any
    high: Any
    weight: Any = 1.0
    scale: Any = None
    numbers: ClassVar[tuple[str, ...]] = ("low", "high")

    def loss(self, mean: Array, margin: Array) -> Scalar:
        """Return mean(max(0, g)²)."""
        return _beyond(self.excess(mean, margin)) * 2  # below and above exclude each other

    def excess(self, mean: Array, margin: Array) -> Array:
        """Return (low − y)/s and (y − high)/s."""
        below, above = self.low - mean + margin, mean + margin - self.high
        return jnp.concatenate([below / self.scale, above / self.scale])

    def range(self) -> tuple[Any, Any]:
        """Return both ends."""
        return self.low, self.high


class Limit(Target):
    """A value on one side of which the loss is 0: `AtLeast` or `AtMost`.

    Attributes:
        task: the head; static.
        value: the limit v.
        weight: of the loss.
        scale: s; None for the head's own.
    """

    task: str = struct.field(pytree_node=False)
    value: Any
    weight: Any = 1.0
    scale: Any = None
    numbers: ClassVar[tuple[str, ...]] = ("value",)

    def loss(self, mean: Array, margin: Array) -> Scalar:
        """Return mean(max(0, g)²)."""
        return _beyond(self.excess(mean, margin))


class AtLeast(Limit):
    """A value or more: loss 0 there, the mean square of the shortfall below.

    Attributes:
        task: the head; static.
        value: the least.
        weight: of the loss.
        scale: s; None for the head's own.
    """

    def excess(self, mean: Array, margin: Array) -> Array:
        """Return (v − y)/s."""
        return (self.value - mean + margin) / self.scale

    def range(self) -> tuple[Any, Any]:
        """Return v and ∞."""
        return self.value, np.inf


class AtMost(Limit):
    """A value or less: loss 0 there, the mean square of the excess above.

    Attributes:
        task: the head; static.
        value: the greatest.
        weight: of the loss.
        scale: s; None for the head's own.
    """

    def excess(self, mean: Array, margin: Array) -> Array:
        """Return (y − v)/s."""
        return (mean + margin - self.value) / self.scale

    def range(self) -> tuple[Any, Any]:
        """Return −∞ and v."""
        return -np.inf, self.value


class Curve(Target):
    """A head's whole output, point by point, as a spectrum: loss mean(((y − c)/s)²).

    Attributes:
        task: the head; static.
        values: c, as long as the head's output; NaN where it does not matter.
        weight: of the loss.
        scale: s; None for the head's own.
    """

    task: str = struct.field(pytree_node=False)
    values: Any
    weight: Any = 1.0
    scale: Any = None
    equality: ClassVar[bool] = True
    numbers: ClassVar[tuple[str, ...]] = ("values",)

    def loss(self, mean: Array, margin: Array) -> Scalar:
        """Return the mean square over the points that matter."""
        seen = ~jnp.isnan(self.values)
        squares = self.excess(mean, margin) ** 2 + jnp.where(seen, margin / self.scale, 0) ** 2
        return jnp.sum(squares) / jnp.maximum(jnp.sum(seen), 1)

    def excess(self, mean: Array, margin: Array) -> Array:
        """Return (y − c)/s, 0 where it does not matter."""
        del margin
        seen = ~jnp.isnan(self.values)
        return jnp.where(seen, mean - jnp.where(seen, self.values, 0), 0) / self.scale


def _beyond(excess: Array) -> Scalar:
    return jnp.mean(jnp.maximum(excess, 0) ** 2)
