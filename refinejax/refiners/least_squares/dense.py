"""Small linear algebra for many samples at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from refinejax._core import Scalar

_UNROLLED = 8  # up to here a Cholesky factorization is written out, entry by entry
_PASSES = 3  # over the active set of a bounded quadratic
_PIVOTS, _CHANCES = 2, 3  # passes for each entry, at most; those in which fewer need not fall

Solve = Callable[[Array, Array], Array]


def dot(a: Array, b: Array) -> Array:
    """Return a·b for matrices and vectors, in full precision.

    Small ones are written out: a batch of tiny products is a call each for XLA on CPU, sums of
    numbers that run over all samples are fused with what comes before and after.
    """
    size = a.shape[-1]
    if size > _UNROLLED:
        return jnp.matmul(a, b, precision="highest")
    columns = [a[..., k] if b.ndim == 1 else a[..., k, None] for k in range(size)]
    products = [column * b[k] for k, column in enumerate(columns)]
    return sum(products[1:], start=products[0])


def solve(matrix: Float[Array, "n n"], right: Float[Array, " n"]) -> Float[Array, " n"]:
    """Solve a positive definite system by Cholesky; NaN where the matrix is not.

    LAPACK is called once a sample; for small n, sums of numbers that run over all samples are
    several times faster.
    """
    if right.shape[0] > _UNROLLED:
        return solve_factored(cholesky_upper(matrix), right)
    low, pivots = _factor(matrix)
    return _substitute(low, [jax.lax.rsqrt(pivot) for pivot in pivots], right)


def cholesky_upper(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Return the upper triangle U with UᵀU = matrix; NaN where there is none."""
    n = matrix.shape[0]
    if n > _UNROLLED:
        return jax.scipy.linalg.cholesky(matrix, lower=False)
    rows, number = [], jnp.arange(n)
    for j in range(n):
        row = jnp.where(number >= j, matrix[j], 0) * jax.lax.rsqrt(matrix[j, j])
        rows.append(row)
        matrix = matrix - row[:, None] * row[None, :]
    return jnp.stack(rows)


def solve_factored(upper: Float[Array, "n n"], right: Float[Array, " n"]) -> Float[Array, " n"]:
    """Solve UᵀU x = right."""
    n = right.shape[0]
    if n > _UNROLLED:
        return jax.scipy.linalg.cho_solve((upper, False), right)
    low = [[upper[j, i] for j in range(n)] for i in range(n)]
    return _substitute(low, [1 / low[i][i] for i in range(n)], right)


def _substitute(low: list[list[Array]], inverse: list[Array], right: Array) -> Array:
    """Solve L Lᵀ x = right, given L and the inverse of its diagonal."""
    n = right.shape[0]
    x = [right[i] for i in range(n)]
    for j in range(n):
        x[j] = (x[j] - sum(low[j][k] * x[k] for k in range(j))) * inverse[j]
    for j in reversed(range(n)):
        x[j] = (x[j] - sum(low[i][j] * x[i] for i in range(j + 1, n))) * inverse[j]
    return jnp.stack(x)


def invert_upper(upper: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Invert an upper triangle, from its last row upwards."""
    n = upper.shape[0]
    eye = jnp.eye(n, dtype=upper.dtype)
    if n > _UNROLLED:
        return jax.scipy.linalg.solve_triangular(upper, eye, lower=False)
    rows: list[Any] = [eye[i] for i in range(n)]
    for i in reversed(range(n)):
        rest = rows[i] - sum(upper[i, j] * rows[j] for j in range(i + 1, n))
        rows[i] = rest / upper[i, i]
    return jnp.stack(rows)


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
    matrix: Float[Array, "n n"],
    gradient: Float[Array, " n"],
    low: Float[Array, " n"],
    high: Float[Array, " n"],
    held: Bool[Array, " n"],
    needed: Any = True,
) -> Float[Array, " n"]:
    """Minimize gᵀs + ½ sᵀA s over low ≤ s ≤ high, for positive definite A.

    By block principal pivoting (Júdice and Pires 1994, Computers & Operations Research 21, 587)
    from the entries that are ``held`` at 0: what the minimizer takes outside is put on its bound,
    what is pulled back from there is let go. All at once while their number falls, else one at a
    time, which ends. What rounding leaves outside is projected. Derivatives are those with the
    final set of bounds.

    Args:
        matrix: A.
        gradient: g.
        low: least s, 0 or below.
        high: largest s, 0 or above.
        held: entries that begin on their bound, at 0.
        needed: whether anybody wants the result; else no time is spent on it.
    """
    begin = held & (low >= 0), held & (high <= 0)
    sides = _pivot(*jax.lax.stop_gradient((matrix, gradient, low, high)), begin, needed)
    step = _pinned(matrix, gradient, low, high, *sides)
    return _never_worse(step, lambda s: dot(matrix, s), gradient, low, high, jnp.trace(matrix))


def _pivot(
    matrix: Array, gradient: Array, low: Array, high: Array, begin: Any, needed: Any
) -> tuple[Array, Array]:
    """Return which entries end on their lower bound, and which on their upper one."""
    count = gradient.size
    order = jnp.arange(count)

    def wrong(down: Array, up: Array) -> tuple[Array, Array]:
        step = _pinned(matrix, gradient, low, high, down, up)
        force = -gradient - dot(matrix, step)
        below, above = step < low, step > high
        return jnp.where(down, force > 0, jnp.where(up, force < 0, below | above)), below

    def going(carry: Any) -> Array:
        _, _, number, _, _, passes = carry
        return (number > 0) & (passes < _PIVOTS * count + _CHANCES)

    def body(carry: Any) -> Any:
        (down, up), (bad, below), number, fewest, chances, passes = carry
        falls = number < fewest
        chances = jnp.where(falls, jnp.int32(_CHANCES), chances - 1)
        one = bad & (order == jnp.max(jnp.where(bad, order, -1)))
        flip = jnp.where(chances >= 0, bad, one)
        freed = ~down & ~up
        down, up = (
            jnp.where(flip, freed & below, down),
            jnp.where(flip, freed & ~below, up),
        )
        found = wrong(down, up)
        fewest = jnp.minimum(number, fewest)
        return (down, up), found, _count(found[0]), fewest, chances, passes + 1

    first = wrong(*begin)
    number = jnp.where(needed, _count(first[0]), 0)
    carry = begin, first, number, jnp.int32(count + 1), jnp.int32(_CHANCES), jnp.int32(0)
    return jax.lax.while_loop(going, body, carry)[0]


def _count(entries: Array) -> Array:
    return jnp.sum(entries, dtype=jnp.int32)


def _pinned(
    matrix: Array, gradient: Array, low: Array, high: Array, down: Array, up: Array
) -> Array:
    """Return the minimizer with entries on their bounds."""
    fixed = jnp.where(down, low, jnp.where(up, high, 0))
    free = ~(down | up)
    right = jnp.where(free, -gradient - dot(matrix, fixed), 0)
    return jnp.where(free, solve(reduced(matrix, free), right), fixed)


def project_within(
    solver: Solve,
    apply: Callable[[Array], Array],
    gradient: Float[Array, " n"],
    low: Float[Array, " n"],
    high: Float[Array, " n"],
    held: Bool[Array, " n"],
    curvature: Scalar,
) -> Float[Array, " n"]:
    """Do the same as `minimize_within`, nearly, for a matrix given by its products.

    Bounds are taken and let go at once, three times over (the primal-dual active set method,
    Hintermüller, Ito and Kunisch 2002, algorithm 1). What is still outside then is projected.

    Args:
        solver: (right, free) → the solution among the free entries, 0 in the others.
        apply: s → A s.
        gradient: g.
        low: least s, 0 or below.
        high: largest s, 0 or above.
        held: entries that begin on their bound, at 0.
        curvature: not below the largest eigenvalue of A.
    """

    def improve(_: int, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        down, up = carry[1:]
        fixed = jnp.where(down, low, jnp.where(up, high, 0))
        right = -gradient - apply(fixed)
        step = jnp.where(down | up, fixed, solver(right, ~(down | up)))
        force = -gradient - apply(step)
        below, above = jnp.where(down, force < 0, step < low), jnp.where(up, force > 0, step > high)
        return step, below, above

    begin = jnp.zeros_like(gradient), held & (low >= 0), held & (high <= 0)
    step, _, _ = jax.lax.fori_loop(0, _PASSES, improve, begin)
    return _never_worse(step, apply, gradient, low, high, curvature)


def _never_worse(
    step: Array,
    apply: Callable[[Array], Array],
    gradient: Array,
    low: Array,
    high: Array,
    curvature: Scalar,
) -> Array:
    """Return the step within its bounds, or that of projected gradients if that is better.

    The latter lowers the model wherever that can be done.
    """
    step = jnp.clip(step, low, high)  # NaN stays NaN
    plain = jnp.clip(-gradient / curvature, low, high)

    def model(s: Array) -> Scalar:
        return gradient @ s + 0.5 * s @ apply(s)

    return jnp.where(model(step) > model(plain), plain, step)
