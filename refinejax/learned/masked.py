"""Gradients over a batch, without the parts that are not finite."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, PyTree

from refinejax._core import Scalar


class Masked(NamedTuple):
    """Means over the finite parts of a batch.

    Attributes:
        loss: mean loss.
        gradient: mean gradient, a pytree like the weights.
        kept: whether each part is in the means, shape (P,).
        aux: other outputs of each part, with a leading axis P.
    """

    loss: Scalar
    gradient: Any
    kept: Bool[Array, " P"]
    aux: PyTree


def masked_average(
    one: Callable[[Any, Any], tuple[tuple[Scalar, PyTree], PyTree]],
    weights: Any,
    groups: PyTree,
    longest: Any = None,
) -> Masked:
    """Average loss and gradient over the parts of a batch whose numbers are all finite.

    A part is left out of both means if its loss or its gradient holds a NaN or an infinity. If all
    parts are left out, both means are NaN.

    Args:
        one: (weights, part) → ((loss, aux), gradient), such as ``jax.value_and_grad`` returns.
        weights: pytree of floating arrays.
        groups: pytree with a leading axis P, one part each (see `divide`).
        longest: largest norm of a part's gradient; longer ones are scaled to it. None: no limit.

    Returns:
        The means, which parts they contain, and ``aux`` of every part.
    """
    (values, aux), gradients = jax.vmap(one, in_axes=(None, 0))(weights, groups)
    kept = finite_lanes((values, gradients))
    loss, gradient = masked_mean((values, shorten(gradients, longest)), kept)
    return Masked(loss, gradient, kept, aux)


def masked_gradient(
    loss: Callable[[Any, Any], tuple[Scalar, PyTree]],
    weights: Any,
    samples: PyTree,
    parts: int,
    longest: Any = None,
) -> Masked:
    """Differentiate the mean loss of each part of a batch, and average the finite parts.

    Args:
        loss: (weights, sample) → (loss, aux).
        weights: pytree of floating arrays.
        samples: pytree with a leading axis B.
        parts: P, the number of equal parts; each is kept or left out as a whole.
        longest: largest norm of a part's gradient; longer ones are scaled to it. None: no limit.

    Returns:
        As `masked_average`, but ``kept`` and ``aux`` have a leading axis B, one entry a sample.

    Raises:
        ValueError: if ``parts`` does not divide B.
    """
    count = jax.tree.leaves(samples)[0].shape[0]

    def mean(weights: Any, group: Any) -> tuple[Scalar, PyTree]:
        losses, aux = jax.vmap(loss, in_axes=(None, 0))(weights, group)
        return jnp.mean(losses), aux

    found = masked_average(
        jax.value_and_grad(mean, has_aux=True), weights, divide(samples, parts), longest
    )
    aux = jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[2:]), found.aux)
    return found._replace(kept=jnp.repeat(found.kept, count // parts), aux=aux)


def divide(samples: PyTree, parts: int) -> PyTree:
    """Reshape a leading axis B to (parts, B / parts).

    Args:
        samples: pytree with a leading axis B.
        parts: a divisor of B.

    Returns:
        The same leaves with two leading axes.

    Raises:
        ValueError: if ``parts`` does not divide B.
    """
    count = jax.tree.leaves(samples)[0].shape[0]
    if parts < 1 or count % parts:
        raise ValueError(
            f"parts: {count} tasks cannot be divided into {parts} equal parts; choose a divisor of "
            "the batch"
        )
    return jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), samples)


def shorten(gradients: PyTree, longest: Any) -> PyTree:
    """Scale each gradient along a leading axis to a global norm of at most ``longest``.

    Args:
        gradients: pytree with a leading axis B, one gradient each.
        longest: the largest norm; None leaves all gradients unchanged.

    Returns:
        The gradients, in their dtypes.
    """
    if longest is None:
        return gradients
    norms = jax.vmap(optax.tree.norm)(gradients)
    factors = jnp.where(norms > longest, longest / norms, 1)
    return jax.tree.map(
        lambda g: g * factors.reshape(-1, *[1] * (g.ndim - 1)).astype(g.dtype), gradients
    )


def finite_lanes(tree: PyTree) -> Bool[Array, " B"]:
    """Return, for each index of the leading axis, whether all floating numbers are finite.

    Args:
        tree: pytree with a leading axis B.

    Returns:
        Shape (B,).
    """
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    finite = [jnp.all(jnp.isfinite(x.reshape(x.shape[0], -1)), axis=1) for x in leaves]
    return jnp.all(jnp.stack(finite), axis=0)


def masked_mean(tree: PyTree, kept: Bool[Array, " B"]) -> PyTree:
    """Return means along the leading axis over the entries that are kept.

    Args:
        tree: pytree with a leading axis B.
        kept: which entries count, shape (B,).

    Returns:
        The means, in the dtypes of the leaves; NaN if no entry is kept.
    """
    count = jnp.where(jnp.any(kept), jnp.sum(kept), jnp.nan)

    def average(leaf: Array) -> Array:
        mask = kept.reshape(-1, *[1] * (leaf.ndim - 1))
        return (jnp.sum(jnp.where(mask, leaf, 0), axis=0) / count).astype(leaf.dtype)

    return jax.tree.map(average, tree)
