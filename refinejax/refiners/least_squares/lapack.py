"""LAPACK for matrices too large to be written out, without its parallel batches.

On a CPU, jaxlib 0.10 splits a batch of LAPACK calls over the threads that XLA works on, and one of
them waits for the rest. As many calls at a time as there are threads then wait for ever: two on two
cores. Batches are cut here into parts that are too small to be split.

The functions take matrices of shape (n, n), and under ``vmap`` stacks of them. Their derivatives
are products of matrices, forward and reverse.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_WORK = 2**17  # operations in a part: jaxlib splits above about 2 · 10⁵


def _stacked(function: Callable[..., Array], work: Callable[[int], float]) -> Callable[..., Array]:
    """Return a function of matrices (and vectors) that takes stacks of them, part by part."""

    @jax.custom_batching.custom_vmap
    def whole(*arrays: Array) -> Array:
        lead = arrays[0].shape[:-2]
        if not lead:
            return function(*arrays)
        return jax.lax.platform_dependent(*arrays, cpu=in_parts, default=function)

    def in_parts(*arrays: Array) -> Array:
        lead, size = arrays[0].shape[:-2], arrays[0].shape[-1]
        flat = [a.reshape(-1, *a.shape[len(lead) :]) for a in arrays]
        part = max(1, int(_WORK / work(size)))
        if part >= math.prod(lead):
            return function(*arrays)
        found = jax.lax.map(lambda one: function(*one), tuple(flat), batch_size=part)
        return found.reshape(*lead, *found.shape[1:])

    @whole.def_vmap
    def _more(size: int, batched: Any, *arrays: Array) -> tuple[Array, bool]:
        full = [
            a if b else jnp.broadcast_to(a, (size, *a.shape))
            for a, b in zip(arrays, batched, strict=True)
        ]
        return whole(*full), True

    return whole


def _cholesky(matrix: Array) -> Array:
    return jax.lax.linalg.cholesky(matrix, symmetrize_input=False).mT


def _inverse(upper: Array) -> Array:
    eye = jnp.broadcast_to(jnp.eye(upper.shape[-1], dtype=upper.dtype), upper.shape)
    return jax.lax.linalg.triangular_solve(upper, eye, left_side=True, lower=False)


def _solution(upper: Array, right: Array) -> Array:
    column = right[..., None]
    half = jax.lax.linalg.triangular_solve(
        upper, column, left_side=True, lower=False, transpose_a=True
    )
    return jax.lax.linalg.triangular_solve(upper, half, left_side=True, lower=False)[..., 0]


_factor = _stacked(_cholesky, lambda n: n**3 / 3)
_invert = _stacked(_inverse, lambda n: n**3)
_solve = _stacked(_solution, lambda n: n**2)


@jax.custom_jvp
def factor(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Return the upper triangle U with UᵀU = matrix; NaN where there is none.

    Args:
        matrix: symmetric.
    """
    return _factor(matrix)


@factor.defjvp
def _factor_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    """Return U and Φ(U⁻ᵀ dA U⁻¹) U, Φ the upper triangle, half the diagonal (Murray 2016, §3)."""
    (matrix,), (change,) = primals, tangents
    upper = factor(matrix)
    basis = invert(upper)
    inner = _product(basis.T, _product((change + change.T) / 2, basis))
    half = jnp.triu(inner) - jnp.diag(jnp.diagonal(inner)) / 2
    return upper, _product(half, upper)


@jax.custom_jvp
def invert(upper: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Return the inverse of an upper triangle.

    Args:
        upper: U.
    """
    return _invert(upper)


@invert.defjvp
def _invert_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (upper,), (change,) = primals, tangents
    basis = invert(upper)
    return basis, -_product(basis, _product(jnp.triu(change), basis))


@jax.custom_jvp
def solve(upper: Float[Array, "n n"], right: Float[Array, " n"]) -> Float[Array, " n"]:
    """Return the solution x of UᵀU x = right.

    Args:
        upper: U.
        right: the right-hand side.
    """
    return _solve(upper, right)


@solve.defjvp
def _solve_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (upper, right), (change, moved) = primals, tangents
    x, basis, change = solve(upper, right), invert(upper), jnp.triu(change)
    rest = moved - _product(change.T, _product(upper, x)) - _product(upper.T, _product(change, x))
    return x, _product(basis, _product(basis.T, rest))


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")
