"""Checks of the return values of a task, made while it is traced, where they cost nothing."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from refinejax._trees import is_key

RESERVED = ("step", "loss", "grad_norm", "learning_rate", "skipped", "rate")


def firm(tree: Any) -> Any:
    """Make every leaf an array of its dtype, also where it was a Python number or like one.

    Args:
        tree: a pytree of arrays and numbers.

    Returns:
        The same numbers as arrays, none of them weakly typed.
    """

    def leaf(x: Any) -> Any:
        x = x if hasattr(x, "dtype") else jnp.asarray(x)
        return x if is_key(x) else jax.lax.convert_element_type(x, x.dtype)

    return jax.tree.map(leaf, tree)


def alike(new: Any, old: Any, name: str, *, cast: bool = False) -> Any:
    """Return ``new`` with the dtypes of ``old``, whose structure and shapes it must have.

    Args:
        new: a pytree.
        old: the pytree it must be like.
        name: of the pytree, in errors.
        cast: whether other dtypes are cast; if not, they are refused.

    Raises:
        ValueError: if it has another structure, or a leaf another shape or dtype; names the leaf.
    """
    new = firm(new)
    there, expected = (jax.tree_util.tree_flatten_with_path(tree) for tree in (new, old))
    if there[1] != expected[1]:
        raise ValueError(
            f"{name}: expected a pytree of the same structure after a step, {expected[1]}, got "
            f"{there[1]}"
        )
    for (path, a), (_, b) in zip(there[0], expected[0], strict=True):
        if a.shape != b.shape or (a.dtype != b.dtype and not cast):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)}: expected {b.dtype}{[*b.shape]} after a step "
                f"as before, got {a.dtype}{[*a.shape]}"
            )
    return jax.tree.map(lambda a, b: a.astype(b.dtype), new, old) if cast else new


def check_grad(grad: Any, weights: Any) -> None:
    """Raise `ValueError` unless a gradient has the structure and shapes of the weights.

    Args:
        grad: a gradient.
        weights: the weights.

    Raises:
        ValueError: if it has others; names the leaf.
    """
    alike(grad, weights, "grad", cast=True)


def check_scalars(numbers: Any, method: str) -> None:
    """Raise `ValueError` unless the numbers are a dict of real scalars.

    Args:
        numbers: returned by a task.
        method: that returned them.

    Raises:
        ValueError: if it is none; names the number.
    """
    if not isinstance(numbers, Mapping):
        raise ValueError(
            f"task: {method} must return numbers by name, got {type(numbers).__name__}"
        )
    for name, value in numbers.items():
        if jnp.shape(value) != () or not jnp.isrealobj(value):
            raise ValueError(
                f"task: {method} returned {name!r} of shape {jnp.shape(value)}; expected a single "
                "real number"
            )


def check_metrics(metrics: Any) -> None:
    """Raise `ValueError` unless the metrics are real scalars whose names are free.

    Args:
        metrics: numbers for the log.

    Raises:
        ValueError: if one is no single number, or its name is taken.
    """
    check_scalars(metrics, "loss_and_grad")
    for name in metrics:
        if name in RESERVED or name.startswith("validation_"):
            raise ValueError(f"task: loss_and_grad returned {name!r}, a name of the log's own")
