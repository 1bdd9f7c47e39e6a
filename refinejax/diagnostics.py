"""How far an answer can be trusted."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from refinejax.batch.sources import count_samples, describe
from refinejax.problems import InverseProblem


def standard_errors(problem: InverseProblem, params: PyTree, *, axes: Any = None) -> np.ndarray:
    """Return standard errors of the params of a least-squares fit, by linearization at it.

    With J the Jacobian of the residual over the m pixels observed and s² = Σr²/(m − n),

        cov = s²·(JᵀJ)⁻¹,   std = √diag(cov)

    (Seber and Wild 2003, *Nonlinear Regression*, eq. 2.21 and 5.10). This holds for independent
    noise of equal size, at an optimum inside the bounds. Whether the noise is what
    ``problem.noise`` says does not matter: it is estimated from the residual.

    Args:
        problem: with a leading sample axis, as for `run_batch`.
        params: the fit, each leaf with a leading sample axis.
        axes: as for `run_batch`.

    Returns:
        Shape (B, n) for n numbers a sample, in the units of the params. NaN where the columns of J,
        scaled to the same length, are linearly dependent in the precision of the params, or where
        m ≤ n.
    """
    layout, leaves = describe(problem, axes, count_samples(params))
    data, shared = layout.split(leaves)
    triangle, size, scatter = _factor(data, params, shared, layout)
    found = (np.asarray(array, float) for array in (triangle, size, scatter))
    return _invert(*found, dtype=triangle.dtype)


@functools.partial(jax.jit, static_argnames="layout")
def _factor(
    data: list[Array], params: Any, shared: list[Any], layout: Any
) -> tuple[Array, Array, Array]:
    """Return R of J·diag(1/size) = Q·R, (B, n, n), the lengths of the columns, (B, n), and s² (B,).

    RᵀR is JᵀJ, scaled. To form that instead would square the condition, and half of the digits
    would be lost: in float32 few lenses off axis would have standard errors.
    """

    def one(sample: tuple[list[Array], Any]) -> tuple[Array, Array, Array]:
        problem = layout.join(sample[0], shared)
        flat, unravel = ravel_pytree(sample[1])

        def residual(flat: Array) -> Array:
            return ravel_pytree(problem.residual(unravel(flat)))[0]

        value, push = jax.linearize(residual, flat)
        rows = jax.vmap(push)(jnp.eye(flat.size, dtype=flat.dtype))
        size = jnp.linalg.norm(rows, axis=1)
        scaled = rows / jnp.where(size > 0, size, 1)[:, None]
        freedom = problem.weight() - flat.size
        scatter = jnp.where(freedom > 0, jnp.sum(value**2) / jnp.maximum(freedom, 1), jnp.nan)
        return jnp.linalg.qr(scaled.T, mode="r"), size, scatter

    return jax.lax.map(one, (data, params), batch_size=32)


def _invert(
    triangle: np.ndarray, size: np.ndarray, scatter: np.ndarray, *, dtype: Any
) -> np.ndarray:
    """Return √(s²·diag (JᵀJ)⁻¹), in float64, where the columns are independent."""
    std = np.full(size.shape, np.nan)
    safe = np.all(np.isfinite(triangle), axis=(1, 2)) & np.isfinite(scatter)
    safe &= np.all(np.isfinite(size) & (size > 0), axis=1)
    _, values, vectors = np.linalg.svd(triangle[safe], full_matrices=False)
    # What is 0 comes out as up to about eps of the greatest, for rounding in the columns.
    determined = values[:, -1] > 2 * size.shape[1] * np.finfo(dtype).eps * values[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.einsum("bki,bk->bi", vectors**2, 1 / values**2)
        found = np.sqrt(scatter[safe, None] * variance) / size[safe]
    std[safe] = np.where(determined[:, None], found, np.nan)
    return std
