"""Targets of classes: how probable some of them are, by a head of logits."""

from collections.abc import Iterable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array

from refinejax._core import Scalar
from refinejax.apps.latent.targets import Target


class OfClasses(Target):
    """The base of `InClasses` and `NotInClasses`: the log-probability of a mask of classes.

    Attributes:
        task: the head; static.
        classes: numbers or names; static.
        weight: of the loss.
        probability: the least probability, as a constraint.
        mask: True for the classes that count.
    """

    task: str = struct.field(pytree_node=False)
    classes: Any = struct.field(pytree_node=False)
    weight: Any = 1.0
    probability: Any = 0.5
    mask: Any = None
    of_class: ClassVar[bool] = True
    numbers: ClassVar[tuple[str, ...]] = ("probability",)

    def __post_init__(self) -> None:
        """Let one class stand for itself."""
        object.__setattr__(self, "classes", _several(self.classes))

    def quantity(self, output: Array) -> Array:
        """Return the logarithm of the probability of what the mask marks, shape (1,)."""
        return _log_probability(output, self.mask)

    def shown(self, quantity: Array) -> Array:
        """Return that probability."""
        return jnp.exp(quantity)

    def loss(self, mean: Array, margin: Array) -> Scalar:
        """Return its negative logarithm + margin."""
        return jnp.sum(margin - mean)

    def excess(self, mean: Array, margin: Array) -> Array:
        """Return log(``probability``) minus the logarithm, plus the margin."""
        return jnp.log(self.probability) - mean + margin


class InClasses(OfClasses):
    """To be of one of some classes: loss −log p, p the sum of their softmax probabilities.

    Computed as log(1 + exp(l̄ − l)), with l and l̄ the log-sum-exp of the logits of these classes and
    of the others: exact also where p is near 0 or 1.

    Attributes:
        task: the head, of logits; static.
        classes: numbers or names; static.
        weight: of the loss.
        probability: the least p, where it is a constraint.
        mask: True for the classes; made of ``classes`` when the head is known.
    """


class NotInClasses(OfClasses):
    """To be of none of some classes: loss −log(1 − p), see `InClasses`.

    Attributes:
        task: the head, of logits; static.
        classes: numbers or names; static.
        weight: of the loss.
        probability: the least 1 − p, where it is a constraint.
        mask: True for the other classes; made of ``classes`` when the head is known.
    """


def _several(classes: Any) -> tuple[Any, ...]:
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        return (classes,)
    if isinstance(classes, np.ndarray | jax.Array) and classes.ndim == 0:
        return (classes,)
    return tuple(classes)


def _log_probability(logits: Array, mask: Array) -> Array:
    inside = jax.nn.logsumexp(jnp.where(mask, logits, -jnp.inf))
    outside = jax.nn.logsumexp(jnp.where(mask, -jnp.inf, logits))
    return -jax.nn.softplus(outside - inside)[None]
