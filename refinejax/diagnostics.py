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
        Shape (B, n) for n numbers a sample, in the units of the params. NaN where JᵀJ, scaled to a
        unit diagonal, is singular in the precision of the params, or where m ≤ n.
    """
    layout, leaves = describe(problem, axes, count_samples(params))
    data, shared = layout.split(leaves)
    normal, scatter = _normal(data, params, shared, layout)
    return _invert(np.asarray(normal, float), np.asarray(scatter, float), normal.dtype)


@functools.partial(jax.jit, static_argnames="layout")
def _normal(data: list[Array], params: Any, shared: list[Any], layout: Any) -> tuple[Array, Array]:
    """Return JᵀJ (B, n, n) and s² (B,)."""

    def one(sample: tuple[list[Array], Any]) -> tuple[Array, Array]:
        problem = layout.join(sample[0], shared)
        flat, unravel = ravel_pytree(sample[1])

        def residual(flat: Array) -> Array:
            return ravel_pytree(problem.residual(unravel(flat)))[0]

        value, push = jax.linearize(residual, flat)
        columns = jax.vmap(push)(jnp.eye(flat.size, dtype=flat.dtype))
        freedom = problem.weight() - flat.size
        scatter = jnp.where(freedom > 0, jnp.sum(value**2) / jnp.maximum(freedom, 1), jnp.nan)
        return columns @ columns.T, scatter

    return jax.lax.map(one, (data, params), batch_size=32)


def _invert(normal: np.ndarray, scatter: np.ndarray, dtype: Any) -> np.ndarray:
    """Invert JᵀJ scaled to a unit diagonal, in float64, where that says anything."""
    diagonal = np.sqrt(np.einsum("bii->bi", normal))
    std = np.full(diagonal.shape, np.nan)
    safe = np.all(np.isfinite(normal), axis=(1, 2)) & np.all(diagonal > 0, axis=1)
    safe &= np.isfinite(scatter)
    size = diagonal[safe]
    scaled = normal[safe] / (size[:, :, None] * size[:, None, :])
    values, vectors = np.linalg.eigh(scaled)
    # Eigenvalues of a sum of products are good to n·eps of the largest.
    determined = values[:, 0] > values.shape[1] * np.finfo(dtype).eps * values[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.einsum("bik,bk->bi", vectors**2, 1 / values)
        found = np.sqrt(scatter[safe, None] * variance) / size
    std[safe] = np.where(determined[:, None], found, np.nan)
    return std
