"""A pytree as a list of named leaves: describe them, and compare them with the expected ones."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from refinejax._trees import is_key

_NUMBERS = {bool: "bool", int: "int", float: "float", complex: "complex"}
_KINDS = {
    "bool": jnp.bool_,
    "int": jnp.integer,
    "float": jnp.floating,
    "complex": np.complexfloating,
}
_DTYPES = re.compile(
    r"bool|int4|u?int(8|16|32|64)|bfloat16|float(16|32|64)|float8_\w+|complex(64|128)"
)


class Leaf(NamedTuple):
    """The description of a leaf, in values that JSON can hold.

    Attributes:
        path: the place in the tree, as ``jax.tree_util.keystr`` writes it.
        kind: "array", "key" (typed PRNG keys) or "number" (a Python number).
        dtype: of the array; for keys "key<...>", for numbers the Python type.
        shape: of the array.
        value: the exact number as text; for keys the name of the generator.
    """

    path: str
    kind: str
    dtype: str
    shape: tuple[int, ...] = ()
    value: str | None = None

    @classmethod
    def read(cls, entry: dict[str, Any]) -> "Leaf":
        """Return the leaf of which ``entry`` is ``_asdict()`` after a round trip through JSON.

        Args:
            entry: the fields by name.
        """
        path, kind, dtype, shape, value = (entry[name] for name in cls._fields)
        return cls(path, kind, dtype, tuple(shape), value)

    def number(self) -> Any:
        """Return the Python number.

        Raises:
            ValueError: if the leaf is not a number.
        """
        if self.value is None:
            raise ValueError(f"{self.path}: holds no number")
        if self.dtype == "complex":
            real, imaginary = self.value.split()
            return complex(float.fromhex(real), float.fromhex(imaginary))
        if self.dtype == "float":
            return float.fromhex(self.value)
        return int(self.value) if self.dtype == "int" else self.value == "True"

    def __str__(self) -> str:
        """Return the leaf as an error message names it."""
        return f"a Python {self.dtype}" if self.kind == "number" else f"{self.dtype}{[*self.shape]}"


def describe(tree: Any, name: str) -> list[Leaf]:
    """Return the description of each leaf of a pytree.

    Args:
        tree: arrays, typed keys and Python numbers; ``jax.ShapeDtypeStruct`` stands for an array.
        name: the argument to name in the error.

    Raises:
        ValueError: for any other leaf, or a dtype that cannot be saved (names the leaf).
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [_leaf(jax.tree_util.keystr(path), leaf, name) for path, leaf in leaves]


def _leaf(path: str, leaf: Any, name: str) -> Leaf:
    if (kind := _NUMBERS.get(type(leaf))) is not None:
        return Leaf(path, "number", kind, value=_text(leaf))
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
        raise ValueError(
            f"{name}{path}: expected an array, a typed key or a Python number, got "
            f"{type(leaf).__name__}; make it static (a field with pytree_node=False)"
        )
    if is_key(leaf):
        impl = str(jax.random.key_impl(leaf)) if isinstance(leaf, jax.Array) else None
        return Leaf(path, "key", str(leaf.dtype), leaf.shape, impl)
    if not _DTYPES.fullmatch(leaf.dtype.name):
        raise ValueError(
            f"{name}{path}: arrays of dtype {leaf.dtype} cannot be saved; convert it first"
        )
    return Leaf(path, "array", leaf.dtype.name, leaf.shape)


def _text(number: Any) -> str:
    if isinstance(number, complex):
        return f"{number.real.hex()} {number.imag.hex()}"
    return number.hex() if isinstance(number, float) else str(number)


def compare(there: Iterable[Leaf], expected: Iterable[Leaf], source: str, name: str) -> None:
    """Raise unless the leaves that were saved are those that are expected.

    An expected Python number matches any single number of its kind.

    Args:
        there: the leaves that were saved.
        expected: the leaves that are expected.
        source: where they were saved, for the error.
        name: the argument to name in the error.

    Raises:
        ValueError: if a leaf differs in kind, dtype or shape, is missing, or is not expected (names
            the leaf and both descriptions).
    """
    have, want = ({leaf.path: leaf for leaf in leaves} for leaves in (there, expected))
    for path, leaf in want.items():
        if path not in have:
            raise ValueError(
                f"{name}{path}: expected {leaf}, but {source} has no such leaf{_few(have)}"
            )
        if not _fits(have[path], leaf):
            raise ValueError(f"{name}{path}: expected {leaf}, but {source} has {have[path]}")
    for path, leaf in have.items():
        if path not in want:
            raise ValueError(f"{name}{path}: {source} has {leaf} there, and none was expected")


def _few(have: dict[str, Leaf]) -> str:
    names = sorted(have)
    return f" (there: {', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""


def _fits(there: Leaf, expected: Leaf) -> bool:
    if expected.kind == "number" and there.kind == "array" and there.shape == ():
        return bool(jnp.issubdtype(jnp.dtype(there.dtype), _KINDS[expected.dtype]))
    return there[1:4] == expected[1:4]
