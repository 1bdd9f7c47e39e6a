"""Small linear algebra for many samples at once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from refinejax._core import Scalar

_UNROLLED = 8  # up to here a Cholesky factorization is written out, entry by entry
_PASSES = 3  # over the active set of a bounded quadratic

Solve = Callable[[Array, Array], Array]


def solve(matrix: Float[Array, "n n"], right: Float[Array, " n"]) -> Float[Array, " n"]:
    """Solve a positive definite system by Cholesky; NaN where the matrix is not.

    LAPACK is called once a sample; for small n, sums of numbers that run over all samples are
    several times faster.
    """
    n = right.shape[0]
    if n > _UNROLLED:
        factor = jax.scipy.linalg.cholesky(matrix, lower=True)
        return jax.scipy.linalg.cho_solve((factor, True), right)
    low, pivots = _factor(matrix)
    inverse = [jax.lax.rsqrt(pivot) for pivot in pivots]
    x = [right[i] for i in range(n)]
    for j in range(n):
        x[j] = (x[j] - sum(low[j][k] * x[k] for k in range(j))) * inverse[j]
    for j in reversed(range(n)):
        x[j] = (x[j] - sum(low[i][j] * x[i] for i in range(j + 1, n))) * inverse[j]
    return jnp.stack(x)


def least_pivot(matrix: Float[Array, "n n"]) -> Scalar:
    """Return the least pivot of the Cholesky factorization; NaN where there is none.

    For a matrix of unit diagonal it is 1 − R², R the multiple correlation of a column of J with
    those before it: about ε where one is a combination of others.
    """
    if matrix.shape[0] > _UNROLLED:
        factor = jax.scipy.linalg.cholesky(matrix, lower=True)
        return jnp.min(jnp.diagonal(factor) ** 2)
    return jnp.min(jnp.stack(_factor(matrix)[1]))


def _factor(matrix: Array) -> tuple[list[list[Array]], list[Array]]:
    """Return L, without its diagonal, and the diagonal squared."""
    n = matrix.shape[0]
    low = [[jnp.zeros((), matrix.dtype)] * n for _ in range(n)]
    pivots = []
    for j in range(n):
        pivots.append(matrix[j, j] - sum(low[j][k] ** 2 for k in range(j)))
        inverse = jax.lax.rsqrt(pivots[j])
        for i in range(j + 1, n):
            rest = matrix[i, j] - sum(low[i][k] * low[j][k] for k in range(j))
            low[i][j] = rest * inverse
    return low, pivots


def reduced(matrix: Float[Array, "n n"], free: Bool[Array, " n"]) -> Float[Array, "n n"]:
    """Put 0 in the rows and columns that are not free, 1 on their diagonal."""
    both = free[:, None] & free[None, :]
    return jnp.where(both, matrix, jnp.diag(jnp.where(free, 0, 1).astype(matrix.dtype)))


def solve_reduced(matrix: Float[Array, "n n"]) -> Solve:
    """Return (right, free) → the solution among the free entries, 0 in the others."""
    return lambda right, free: solve(reduced(matrix, free), jnp.where(free, right, 0))


def conjugate_gradients(apply: Callable[[Array], Array], iterations: int) -> Solve:
    """Return the same as `solve_reduced`, nearly, for a matrix given by its products.

    As many iterations on every lane (Hestenes and Stiefel 1952); those after convergence change
    nothing. Each iterate lowers the quadratic more than the one before.
    """

    def solver(right: Array, free: Array) -> Array:
        right = jnp.where(free, right, 0)
        power = jnp.vdot(right, right)
        end = power * jnp.finfo(right.dtype).eps ** 2

        def body(_: int, carry: tuple) -> tuple:
            x, rest, along, power = carry
            product = jnp.where(free, apply(along), 0)
            curvature = jnp.vdot(along, product)
            going = (power > end) & (curvature > 0)
            length = jnp.where(going, power / jnp.where(going, curvature, 1), 0)
            x, rest = x + length * along, rest - length * product
            after = jnp.where(going, jnp.vdot(rest, rest), power)
            share = after / jnp.where(going, power, 1)
            return x, rest, jnp.where(going, rest + share * along, along), after

        start = (jnp.zeros_like(right), right, right, power)
        return jax.lax.fori_loop(0, iterations, body, start)[0]

    return solver


def minimize_within(
    solver: Solve,
    apply: Callable[[Array], Array],
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
        right = -gradient - apply(jnp.where(fixed, step, 0))
        trial = jnp.where(fixed, step, solver(right, ~fixed))
        step = jnp.clip(trial, low, high)  # NaN stays NaN
        fixed = fixed | (trial < low) | (trial > high)
    return step
