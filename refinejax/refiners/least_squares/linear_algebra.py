"""Small linear algebra for many samples at once, and quadratics within bounds."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from refinejax._core import Scalar
from refinejax.refiners.least_squares import lapack

_UNROLLED = 8  # up to here a Cholesky factorization is written out, entry by entry
_PIVOTS, _CHANCES = 2, 3  # most passes for each entry; passes in which their number may stay

Solve = Callable[[Array, Array], Array]


def dot(a: Array, b: Array) -> Array:
    """Return a·b for matrices and vectors, in full precision.

    Small ones are written out: XLA on CPU calls a routine for each of a batch of tiny products, but
    fuses sums of numbers that run over all samples with the operations around them.

    Args:
        a: a matrix or vector with last axis n.
        b: a vector of shape (n,), or a matrix of shape (n, k).
    """
    size = a.shape[-1]
    if size > _UNROLLED:
        return jnp.matmul(a, b, precision="highest")
    columns = [a[..., k] if b.ndim == 1 else a[..., k, None] for k in range(size)]
    products = [column * b[k] for k, column in enumerate(columns)]
    return sum(products[1:], start=products[0])


def solve(matrix: Float[Array, "n n"], right: Float[Array, " n"]) -> Float[Array, " n"]:
    """Return the solution of a positive definite system, by Cholesky; NaN where it is not.

    LAPACK is called once a sample; for small n, sums of numbers that run over all samples are
    several times faster.

    Args:
        matrix: A.
        right: b of A x = b.
    """
    if right.shape[0] > _UNROLLED:
        return solve_factored(cholesky_upper(matrix), right)
    low, pivots = _factor(matrix)
    return _substitute(low, [jax.lax.rsqrt(pivot) for pivot in pivots], right)


def cholesky_upper(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Return the upper triangle U with UᵀU = matrix; NaN where there is none.

    Args:
        matrix: symmetric.
    """
    n = matrix.shape[0]
    if n > _UNROLLED:
        return lapack.factor(matrix)
    rows, number = [], jnp.arange(n)
    for j in range(n):
        row = jnp.where(number >= j, matrix[j], 0) * jax.lax.rsqrt(matrix[j, j])
        rows.append(row)
        matrix = matrix - row[:, None] * row[None, :]
    return jnp.stack(rows)


def solve_factored(upper: Float[Array, "n n"], right: Float[Array, " n"]) -> Float[Array, " n"]:
    """Return the solution x of UᵀU x = right.

    Args:
        upper: U, an upper triangle.
        right: the right-hand side.
    """
    n = right.shape[0]
    if n > _UNROLLED:
        return lapack.solve(upper, right)
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
    """Return the inverse of an upper triangle.

    Args:
        upper: U.
    """
    n = upper.shape[0]
    if n > _UNROLLED:
        return lapack.invert(upper)
    eye = jnp.eye(n, dtype=upper.dtype)
    rows: list[Any] = [eye[i] for i in range(n)]
    for i in reversed(range(n)):
        rest = rows[i] - sum(upper[i, j] * rows[j] for j in range(i + 1, n))
        rows[i] = rest / upper[i, i]
    return jnp.stack(rows)


def least_pivot(matrix: Float[Array, "n n"]) -> Scalar:
    """Return the least pivot of the Cholesky factorization; NaN where there is none.

    For a matrix of unit diagonal it is 1 − R², R the multiple correlation of a column of J with
    those before it: about ε where one is a combination of others.

    Args:
        matrix: symmetric.
    """
    if matrix.shape[0] > _UNROLLED:
        return jnp.min(jnp.diagonal(lapack.factor(matrix)) ** 2)
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
    """Return the matrix with 0 in the rows and columns that are not free, 1 on their diagonal.

    Args:
        matrix: symmetric.
        free: True for entries that may move.
    """
    both = free[:, None] & free[None, :]
    return jnp.where(both, matrix, jnp.diag(jnp.where(free, 0, 1).astype(matrix.dtype)))


def solve_reduced(matrix: Float[Array, "n n"]) -> Solve:
    """Return (right, free) → the solution among the free entries, 0 in the others.

    Args:
        matrix: positive definite.
    """
    return lambda right, free: solve(reduced(matrix, free), jnp.where(free, right, 0))


class StepBounds(NamedTuple):
    """Bounds of a step from a state, in the coordinates of the step; None without bounds.

    Attributes:
        low, high: least and greatest step, shape (n,).
        active: params at a bound that descent presses against.
    """

    low: Float[Array, " n"] | None
    high: Float[Array, " n"] | None
    active: Bool[Array, " n"]

    def contains(self, step: Array) -> Bool[Array, ""]:
        """Return whether a step stays within.

        Args:
            step: shape (n,).
        """
        if self.low is None or self.high is None:
            return jnp.bool_(True)
        return jnp.all((step >= self.low) & (step <= self.high))


def minimize_bounded(
    matrix: Array, gradient: Array, bounds: StepBounds, needed: Any = True
) -> Array:
    """Return the minimizer of gᵀs + ½ sᵀA s within the bounds.

    Args:
        matrix: A, positive definite, shape (n, n).
        gradient: g, shape (n,).
        bounds: of s.
        needed: False where the result is not used: then it is inexact.
    """
    if bounds.low is None or bounds.high is None:
        return solve_reduced(matrix)(-gradient, ~bounds.active)
    return minimize_within(matrix, gradient, bounds.low, bounds.high, bounds.active, needed)


def minimize_within(
    matrix: Float[Array, "n n"],
    gradient: Float[Array, " n"],
    low: Float[Array, " n"],
    high: Float[Array, " n"],
    held: Bool[Array, " n"],
    needed: Any = True,
) -> Float[Array, " n"]:
    """Return the minimizer of gᵀs + ½ sᵀA s over low ≤ s ≤ high, for positive definite A.

    By block principal pivoting (Júdice and Pires 1994, Computers & Operations Research 21, 587)
    from the entries that are ``held`` at 0: entries that the minimizer takes outside are put on
    their bound, entries that the gradient pulls back from a bound are freed; all at once while
    their number falls, else one at a time, which ends. The number of passes depends on the data, at
    most 2n + 3, each a solve of n × n. Entries that rounding leaves outside are projected.
    Derivatives are those with the final set of bounds.

    Args:
        matrix: A.
        gradient: g.
        low: least s, 0 or below.
        high: largest s, 0 or above.
        held: entries that begin on their bound, at 0.
        needed: False where the result is not used: then no pass is made.
    """
    begin = held & (low >= 0), held & (high <= 0)
    sides = _pivot(*jax.lax.stop_gradient((matrix, gradient, low, high)), begin, needed)
    step = _pinned(matrix, gradient, low, high, *sides)
    return never_worse(step, lambda s: dot(matrix, s), gradient, low, high, jnp.trace(matrix))


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


def never_worse(
    step: Array,
    apply: Callable[[Array], Array],
    gradient: Array,
    low: Array,
    high: Array,
    curvature: Scalar,
) -> Array:
    """Return the step within its bounds, or the projected gradient step if that is better.

    The latter lowers the model wherever a step can.

    Args:
        step: s, shape (n,).
        apply: s → A s.
        gradient: g.
        low: least s, 0 or below.
        high: largest s, 0 or above.
        curvature: not below the largest eigenvalue of A.
    """
    step = jnp.clip(step, low, high)  # NaN stays NaN
    plain = jnp.clip(-gradient / curvature, low, high)

    def model(s: Array) -> Scalar:
        return gradient @ s + 0.5 * s @ apply(s)

    return jnp.where(model(step) > model(plain), plain, step)


def predicted_decrease(gradient: Array, product: Array, step: Array) -> Scalar:
    """Return −gᵀs − ½ sᵀMs, the decrease of a quadratic model.

    Args:
        gradient: g, shape (n,).
        product: M s, shape (n,).
        step: s, shape (n,).
    """
    return -(gradient @ step) - 0.5 * step @ product


def root(x: Array) -> Array:
    """Return √x, 0 where x is not positive, with derivatives that are not NaN.

    Args:
        x: of any shape.
    """
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def nonzero(scaling: Array) -> Array:
    """Return the scaling with 1 in place of 0, for params that the loss does not depend on.

    Args:
        scaling: shape (n,).
    """
    return jnp.where(scaling > 0, scaling, 1)
