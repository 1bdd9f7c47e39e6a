"""Equality of results that hold arrays."""

from dataclasses import fields
from typing import Any

import jax
import numpy as np


class EqualByValue:
    """Makes ``==`` of a dataclass a bool: arrays are compared by shape and value, NaN equals NaN.

    For dataclasses with ``eq=False``. Fields with ``compare=False`` are left out.
    """

    def __eq__(self, other: object) -> bool:
        """Return whether all fields are equal."""
        if type(other) is not type(self):
            return NotImplemented
        names = [field.name for field in fields(self) if field.compare]  # pyright: ignore
        return all(same_values(getattr(self, name), getattr(other, name)) for name in names)

    __hash__ = None  # pyright: ignore


def same_values(one: Any, other: Any) -> bool:
    """Return whether two pytrees have the same structure, shapes and values; NaN equals NaN.

    Args:
        one: a pytree of arrays, numbers and texts.
        other: another one.
    """
    leaves, structure = jax.tree.flatten(one)
    others, other_structure = jax.tree.flatten(other)
    return structure == other_structure and all(map(_same, leaves, others))


def _same(one: Any, other: Any) -> bool:
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape:
        return False
    # Only NaN differs from itself, also among the dtypes that NumPy does not know.
    return bool(np.all((one == other) | ((one != one) & (other != other))))
