"""Optimizers by name."""

from collections.abc import Callable
from typing import Any

import optax

OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "lamb": optax.lamb,
    "lion": optax.lion,
    "nadam": optax.nadam,
    "radam": optax.radam,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
}
DECAYING = frozenset({"adamw", "lamb", "lion"})


def optimizer(name: str, learning_rate: Any, weight_decay: Any) -> optax.GradientTransformation:
    """Build an optimizer inside a trace, so that its numbers can be traced values.

    Args:
        name: a key of `OPTIMIZERS`.
        learning_rate: may be traced.
        weight_decay: for optimizers of `DECAYING`; others ignore it.

    Returns:
        The optax optimizer.
    """
    numbers = {"weight_decay": weight_decay} if name in DECAYING else {}
    return OPTIMIZERS[name](learning_rate, **numbers)
