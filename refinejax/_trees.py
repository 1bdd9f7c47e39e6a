"""Helpers for pytrees: wrapping functions, broadcasting, selecting, clipping to bounds."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

Bounds = tuple[PyTree, PyTree]


def structure_hash(*trees: Any) -> int:
    """Return a number that differs where classes of pytrees do; for a static argument of a jit.

    To jaxlib (0.10) the structures of two classes registered as dataclasses, which those of
    flax.struct are, are equal where their static fields are, though their hashes differ: the table
    of compiled programs, which looks at a few bits of the hash before it asks for equality, now and
    then takes one class for the other.
    """
    return hash(tuple(jax.tree.structure(tree) for tree in trees))


def as_pytree(function: Any) -> Any:
    """Wrap a callable that is no pytree in ``jax.tree_util.Partial``; leave all else alone."""
    leaves = jax.tree.leaves(function)
    is_leaf = len(leaves) == 1 and leaves[0] is function
    return jax.tree_util.Partial(function) if is_leaf and callable(function) else function


def project(params: Any, bounds: Bounds | None) -> Any:
    """Return params, clipped to the bounds if there are any; NaN stays NaN.

    Args:
        params: a pytree.
        bounds: (lower, upper), each a pytree like the params or a number for all; or None.
    """
    if bounds is None:
        return params
    lower, upper = (broadcast_like(bound, params) for bound in bounds)
    return jax.tree.map(
        lambda p, low, high: jnp.clip(p, jnp.asarray(low, p.dtype), jnp.asarray(high, p.dtype)),
        params,
        lower,
        upper,
    )


def pressing(params: Any, grad: Any, bounds: Bounds) -> PyTree:
    """Return True where a param is at a bound and descent would take it outside."""
    lower, upper = (broadcast_like(bound, params) for bound in bounds)

    def press(p: Array, g: Array, low: Any, high: Any) -> Array:
        low, high = jnp.asarray(low, p.dtype), jnp.asarray(high, p.dtype)
        return ((p <= low) & (g > 0)) | ((p >= high) & (g < 0))

    return jax.tree.map(press, params, grad, lower, upper)


def broadcast_like(value: Any, like: Any) -> Any:
    """Give a single number or array, meant for every leaf, the structure of ``like``."""
    if jax.tree.structure(value) == jax.tree.structure(like):
        return value
    return jax.tree.map(lambda _: value, like)


def select(condition: Bool[Array, ""], yes: Any, no: Any) -> Any:
    """Return ``yes`` where the condition holds, else ``no``, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Return whether no number of a pytree is NaN or infinite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def is_key(leaf: Any) -> bool:
    """Return whether an array, or its shape and dtype, holds typed PRNG keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def as_numpy(leaf: Any) -> np.ndarray:
    """Return a leaf as a NumPy array; of typed PRNG keys their numbers."""
    if isinstance(leaf, jax.Array) and is_key(leaf):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)
