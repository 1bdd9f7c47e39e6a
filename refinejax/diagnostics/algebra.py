"""Singular values, ranks and inverses of many small matrices, on the host, in float64."""

from typing import NamedTuple

import numpy as np

from refinejax.diagnostics.linear import Linear


class Solution(NamedTuple):
    """Covariance and Gauss–Newton step of B linearized fits with n params.

    Attributes:
        covariance: of the params, (B, n, n); NaN where not determined.
        determined: True for params that the data determine, (B, n).
        freedom: degrees of freedom, (B,).
        shift: the Gauss–Newton step from the fit to the optimum, (B, n); NaN where not determined.
        variance: s², of a number observed, in units of the problem's noise, (B,).
        rounded: True where s² is the variance of rounding, (B,).
    """

    covariance: np.ndarray
    determined: np.ndarray
    freedom: np.ndarray
    shift: np.ndarray
    variance: np.ndarray
    rounded: np.ndarray


class Factors(NamedTuple):
    """The singular value decomposition U·diag(values)·vectors = A of B matrices (k, n).

    Attributes:
        u: left singular vectors as columns, (B, k, n).
        values: all n singular values, also where k < n, greatest first, (B, n).
        vectors: right singular vectors as rows, (B, n, n).
        kept: True for values above ``tolerance``, (B, n).
        tolerance: below it a value cannot be told from 0, (B,).
    """

    u: np.ndarray
    values: np.ndarray
    vectors: np.ndarray
    kept: np.ndarray
    tolerance: np.ndarray


def decompose(matrix: np.ndarray, eps: float) -> Factors:
    """Return the singular value decomposition of matrices with unit columns.

    A singular value that is exactly 0 comes out as up to about ``eps`` times the greatest, because
    the columns are rounded.

    Args:
        matrix: A, (B, k, n), with columns of length 1 or 0.
        eps: the relative rounding error of the columns.

    Returns:
        The factors, with all n values.
    """
    k, n = matrix.shape[1:]
    square = np.pad(matrix, ((0, 0), (0, max(n - k, 0)), (0, 0)))
    u, values, vectors = np.linalg.svd(square, full_matrices=False)
    tolerance = 2 * n * eps * values[:, :1]
    return Factors(u[:, :k], values, vectors, values > tolerance, tolerance[:, 0])


def solve(linear: Linear, *, known: bool = False) -> Solution:
    """Return the covariance and the Gauss–Newton step of a linearization.

    With R = U₁SVᵀ, the root of the prior's part U₂SVᵀ, and M = QᵀCQ or s²·1,

        cov = VS⁻¹ (U₁ᵀMU₁ + s²·U₂ᵀU₂) S⁻¹Vᵀ,   shift = −VS⁻¹ (U₁ᵀQᵀr + S⁻¹Vᵀ·½m∇prior)

    The numbers observed are known to their rounding at best: s² is at least its variance.

    Args:
        linear: the linearized fits.
        known: whether the noise has variance 1, in place of the variance s² of the residual.

    Returns:
        Covariance, determined params, degrees of freedom and step.
    """
    stack, size = _with_prior(linear)
    k = linear.triangle.shape[1]
    safe = np.all(np.isfinite(stack), axis=(1, 2)) & np.all(np.isfinite(size), axis=1)
    found = decompose(np.where(safe[:, None, None], stack, 0), linear.eps)
    freedom = linear.weight - found.kept.sum(axis=1)
    scatter = np.ones_like(freedom) if known else _ratio(linear.squares, freedom)
    rounded = scatter < linear.rounding
    scatter = np.where(rounded, linear.rounding, scatter)
    top, rest = found.u[:, :k], found.u[:, k:]
    inner = scatter[:, None, None] * (rest.swapaxes(1, 2) @ rest)
    middle = scatter[:, None, None] * np.eye(k)
    if linear.middle is not None:
        middle = np.where(rounded[:, None, None], middle, linear.middle)
    inner = inner + top.swapaxes(1, 2) @ middle @ top
    inverse = np.divide(1, found.values, out=np.zeros_like(found.values), where=found.kept)
    half = found.vectors.swapaxes(1, 2) * inverse[:, None, :] / size[:, :, None]
    covariance = half @ inner @ half.swapaxes(1, 2)
    pull = np.einsum("bkn,bk->bn", top, linear.along)
    if linear.slope is not None:
        pull = pull + np.einsum("bmn,bm->bn", half, np.where(linear.free, linear.slope, 0))
    shift = -np.einsum("bnk,bk->bn", half, pull)
    determined = linear.free & safe[:, None] & _determined(found)
    pairs = determined[:, :, None] & determined[:, None, :]
    return Solution(
        np.where(pairs, covariance, np.nan),
        determined,
        freedom,
        np.where(determined, shift, np.nan),
        scatter,
        rounded,
    )


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def _with_prior(linear: Linear) -> tuple[np.ndarray, np.ndarray]:
    """Return R stacked on a root of the prior's matrix, with unit columns, and their lengths.

    A negative part of the prior's matrix (of a prior that is not convex) is ignored.
    """
    size = linear.size
    if linear.prior is None:
        return linear.triangle, np.where(size > 0, size, 1)
    pairs = linear.free[:, :, None] & linear.free[:, None, :] & np.isfinite(linear.prior)
    values, vectors = np.linalg.eigh(np.where(pairs, linear.prior, 0))
    root = np.sqrt(np.maximum(values, 0))[:, :, None] * vectors.swapaxes(1, 2)
    total = np.sqrt(size**2 + np.sum(root**2, axis=1))
    total = np.where(total > 0, total, 1)
    top = linear.triangle * (size / total)[:, None, :]
    return np.concatenate([top, root / total[:, None, :]], axis=1), total


def _determined(found: Factors) -> np.ndarray:
    """Return True for params orthogonal to every direction whose singular value is 0, (B, n)."""
    kept = found.kept
    free = np.sqrt(np.sum(np.where(kept[:, :, None], 0, found.vectors) ** 2, axis=1))
    # Any component above rounding counts: the error along such a direction is unbounded.
    return (free <= found.tolerance[:, None]) & kept.any(axis=1, keepdims=True)
