"""Gradients over a batch of which some may be lost."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree

from refinejax._core import Scalar


class Masked(NamedTuple):
    """Means over what was finite.

    Attributes:
        loss: mean loss.
        gradient: its gradient.
        kept: of each sample, whether it is in the means, shape (B,).
        aux: what else the loss returned for each sample, with a leading axis B.
    """

    loss: Scalar
    gradient: Any
    kept: Bool[Array, " B"]
    aux: PyTree


def masked_mean_gradient(
    loss: Callable[[Any, PRNGKeyArray], Scalar], weights: Any, keys: Array, parts: int
) -> tuple[Scalar, Any, Scalar]:
    """Return the mean of a loss over keys, its gradient, and the share of parts that were finite.

    The gradient of each part of the batch is formed by itself; parts in which it or the loss is
    NaN or infinite are left out of both means. If all are, both are NaN.

    Raises:
        ValueError: if the keys cannot be divided into so many parts.
    """
    found = masked_gradient(lambda w, key: (loss(w, key), ()), weights, keys, parts)
    return found.loss, found.gradient, jnp.mean(found.kept)


def masked_gradient(
    loss: Callable[[Any, Any], tuple[Scalar, PyTree]],
    weights: Any,
    samples: PyTree,
    parts: int,
    longest: Any = None,
) -> Masked:
    """Do the same for samples that are any pytree with a leading axis, keeping what else is found.

    Args:
        loss: (weights, sample) → (loss, anything else).
        weights: pytree of floating arrays.
        samples: pytree with a leading axis B.
        parts: of the batch, each of which is left out as a whole.
        longest: gradient of a part; longer ones are shortened to it. None: none are.

    Raises:
        ValueError: if the batch cannot be divided into so many parts.
    """
    count = jax.tree.leaves(samples)[0].shape[0]
    groups = divide(samples, parts)

    def mean(weights: Any, group: Any) -> tuple[Scalar, PyTree]:
        losses, aux = jax.vmap(loss, in_axes=(None, 0))(weights, group)
        return jnp.mean(losses), aux

    forward = jax.value_and_grad(mean, has_aux=True)
    (values, aux), gradients = jax.vmap(forward, in_axes=(None, 0))(weights, groups)
    kept = finite_lanes((values, gradients))
    loss_, gradient = masked_mean((values, shorten(gradients, longest)), kept)
    aux = jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[2:]), aux)
    return Masked(loss_, gradient, jnp.repeat(kept, count // parts), aux)


def divide(samples: PyTree, parts: int) -> PyTree:
    """Divide a leading axis B into (parts, B / parts).

    Raises:
        ValueError: if it cannot be.
    """
    count = jax.tree.leaves(samples)[0].shape[0]
    if parts < 1 or count % parts:
        raise ValueError(
            f"parts: {count} tasks cannot be divided into {parts} equal parts; choose a divisor of "
            "the batch"
        )
    return jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), samples)


def shorten(gradients: PyTree, longest: Any) -> PyTree:
    """Scale the gradients along a leading axis to a global norm of at most ``longest``."""
    if longest is None:
        return gradients
    norms = jax.vmap(optax.tree.norm)(gradients)
    factors = jnp.where(norms > longest, longest / norms, 1)
    return jax.tree.map(
        lambda g: g * factors.reshape(-1, *[1] * (g.ndim - 1)).astype(g.dtype), gradients
    )


def finite_lanes(tree: PyTree) -> Bool[Array, " B"]:
    """Return along the leading axis where no floating number is NaN or infinite."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    finite = [jnp.all(jnp.isfinite(x.reshape(x.shape[0], -1)), axis=1) for x in leaves]
    return jnp.all(jnp.stack(finite), axis=0)


def masked_mean(tree: PyTree, kept: Bool[Array, " B"]) -> PyTree:
    """Return means along the leading axis over what is kept; NaN if nothing is."""
    count = jnp.where(jnp.any(kept), jnp.sum(kept), jnp.nan)

    def average(leaf: Array) -> Array:
        mask = kept.reshape(-1, *[1] * (leaf.ndim - 1))
        return (jnp.sum(jnp.where(mask, leaf, 0), axis=0) / count).astype(leaf.dtype)

    return jax.tree.map(average, tree)
