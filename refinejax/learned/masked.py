"""Gradients over a batch of which some may be lost."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from refinejax._core import Scalar


def masked_mean_gradient(
    loss: Callable[[Any, PRNGKeyArray], Scalar], weights: Any, keys: Array, parts: int
) -> tuple[Scalar, Any, Scalar]:
    """Return the mean of a loss over keys, its gradient, and the share of parts that were finite.

    The gradient of each part of the batch is formed by itself; parts in which it or the loss is
    NaN or infinite are left out of both means. If all are, both are NaN.

    Raises:
        ValueError: if the keys cannot be divided into so many parts.
    """
    if parts < 1 or keys.shape[0] % parts:
        raise ValueError(
            f"parts: {keys.shape[0]} tasks cannot be divided into {parts} equal parts; choose a "
            "divisor of the batch"
        )

    def mean(weights: Any, keys: Array) -> Scalar:
        return jnp.mean(jax.vmap(loss, in_axes=(None, 0))(weights, keys))

    groups = keys.reshape(parts, -1)
    values, gradients = jax.vmap(jax.value_and_grad(mean), in_axes=(None, 0))(weights, groups)
    leaves = [values, *jax.tree.leaves(gradients)]
    finite = [jnp.all(jnp.isfinite(leaf.reshape(parts, -1)), axis=1) for leaf in leaves]
    kept = jnp.all(jnp.stack(finite), axis=0)
    count = jnp.where(jnp.any(kept), jnp.sum(kept), jnp.nan)

    def average(leaf: Array) -> Array:
        mask = kept.reshape(parts, *[1] * (leaf.ndim - 1))
        return (jnp.sum(jnp.where(mask, leaf, 0), axis=0) / count).astype(leaf.dtype)

    return average(values), jax.tree.map(average, gradients), jnp.mean(kept)
