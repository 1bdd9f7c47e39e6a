"""Singular values, ranks and inverses of many small matrices, on the host, in float64."""

from typing import NamedTuple

import numpy as np

from refinejax.diagnostics.linear import Linear


class Solution(NamedTuple):
    """What a linearization says of fits.

    Attributes:
        covariance: of the params, (B, n, n); NaN where not determined.
        determined: which params are, (B, n).
        freedom: degrees of freedom, (B,).
        shift: the Gauss–Newton step from the fit to the optimum, (B, n); NaN where not determined.
    """

    covariance: np.ndarray
    determined: np.ndarray
    freedom: np.ndarray
    shift: np.ndarray


class Factors(NamedTuple):
    """U diag(values) vectors = A, (B, k, n), and which values are not 0.

    All n values are there, also where k < n. Rows of ``vectors`` are right singular vectors.
    """

    u: np.ndarray
    values: np.ndarray
    vectors: np.ndarray
    kept: np.ndarray
    tolerance: np.ndarray


def decompose(matrix: np.ndarray, eps: float) -> Factors:
    """Decompose A (B, k, n) whose columns have length 1, or 0, up to eps.

    What is 0 comes out as up to about eps of the greatest, for rounding in the columns.
    """
    k, n = matrix.shape[1:]
    square = np.pad(matrix, ((0, 0), (0, max(n - k, 0)), (0, 0)))
    u, values, vectors = np.linalg.svd(square, full_matrices=False)
    tolerance = 2 * n * eps * values[:, :1]
    return Factors(u[:, :k], values, vectors, values > tolerance, tolerance[:, 0])


def solve(linear: Linear, *, known: bool = False) -> Solution:
    """Return what the linearization says of the errors; ``known``: the noise has variance 1.

    With R = U₁SVᵀ and the root of the prior's part U₂SVᵀ, and M = QᵀCQ or s²·1,

        cov = VS⁻¹ (U₁ᵀMU₁ + s²·U₂ᵀU₂) S⁻¹Vᵀ,   shift = −VS⁻¹ (U₁ᵀQᵀr + S⁻¹Vᵀ·½m∇prior)
    """
    stack, size = _with_prior(linear)
    k = linear.triangle.shape[1]
    safe = np.all(np.isfinite(stack), axis=(1, 2)) & np.all(np.isfinite(size), axis=1)
    found = decompose(np.where(safe[:, None, None], stack, 0), linear.eps)
    freedom = linear.weight - found.kept.sum(axis=1)
    scatter = np.ones_like(freedom) if known else _ratio(linear.squares, freedom)
    top, rest = found.u[:, :k], found.u[:, k:]
    inner = scatter[:, None, None] * (rest.swapaxes(1, 2) @ rest)
    middle = scatter[:, None, None] * np.eye(k) if linear.middle is None else linear.middle
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
    )


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def _with_prior(linear: Linear) -> tuple[np.ndarray, np.ndarray]:
    """Return R over a root of the prior's matrix, columns scaled to length 1, and their lengths.

    The negative part of a prior that is not convex is left out.
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
    """Return True for params orthogonal to the directions whose singular value is 0, (B, n)."""
    kept = found.kept
    free = np.sqrt(np.sum(np.where(kept[:, :, None], 0, found.vectors) ** 2, axis=1))
    # A component beyond rounding is enough: the error along such a direction is without bound.
    return (free <= found.tolerance[:, None]) & kept.any(axis=1, keepdims=True)
