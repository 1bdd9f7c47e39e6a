"""Small dense linear algebra for many samples at once."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_UNROLLED = 8  # up to here a Cholesky factorization is written out, entry by entry
_PASSES = 3  # over the active set of a bounded quadratic


def solve(matrix: Float[Array, "n n"], right: Float[Array, " n"]) -> Float[Array, " n"]:
    """Solve a positive definite system by Cholesky; NaN where the matrix is not.

    LAPACK is called once a sample; for small n, sums of numbers that run over all samples are
    several times faster.
    """
    if right.shape[0] > _UNROLLED:
        factor = jax.scipy.linalg.cholesky(matrix, lower=True)
        return jax.scipy.linalg.cho_solve((factor, True), right)
    n = right.shape[0]
    low = [[jnp.zeros((), matrix.dtype)] * n for _ in range(n)]
    x = [right[i] for i in range(n)]
    inverse = list(x)
    for j in range(n):
        pivot = matrix[j, j] - sum(low[j][k] ** 2 for k in range(j))
        inverse[j] = jax.lax.rsqrt(pivot)
        for i in range(j + 1, n):
            rest = matrix[i, j] - sum(low[i][k] * low[j][k] for k in range(j))
            low[i][j] = rest * inverse[j]
        x[j] = (x[j] - sum(low[j][k] * x[k] for k in range(j))) * inverse[j]
    for j in reversed(range(n)):
        x[j] = (x[j] - sum(low[i][j] * x[i] for i in range(j + 1, n))) * inverse[j]
    return jnp.stack(x)


def solve_within(
    matrix: Float[Array, "n n"],
    gradient: Float[Array, " n"],
    low: Float[Array, " n"],
    high: Float[Array, " n"],
    held: Bool[Array, " n"],
) -> Float[Array, " n"]:
    """Minimize gᵀs + ½ sᵀA s over low ≤ s ≤ high, for positive definite A: nearly, and inside.

    Entries that are ``held`` stay 0. Those that the minimizer takes outside are put on their bound,
    and the others are solved for again, three times over; what is still outside then is projected.
    """
    step = jnp.zeros_like(gradient)
    fixed = held
    for _ in range(_PASSES):
        free = ~fixed
        right = -gradient - matrix @ jnp.where(fixed, step, 0)
        both = free[:, None] & free[None, :]
        reduced = jnp.where(both, matrix, jnp.diag(jnp.where(free, 0, 1).astype(matrix.dtype)))
        trial = jnp.where(free, solve(reduced, jnp.where(free, right, 0)), step)
        step = jnp.clip(trial, low, high)  # NaN stays NaN
        fixed = fixed | (trial < low) | (trial > high)
    return step
