"""The normal equations of least squares: a quadratic model of the loss around a point.

With residuals r, weights w per pixel and J = ∂r/∂x,

    loss(x + s) ≈ loss + gᵀs + ½ sᵀM s,   g = 2c·Jᵀ(w r),   M = 2c·Jᵀ W J

where c turns sums over pixels into the loss (1/m for a mean). M is the Gauss–Newton matrix: the
part of the Hessian that does not need second derivatives. J is made of forward-mode columns that
share one evaluation of the forward model.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from refinejax._core import Scalar, as_problem
from refinejax._problem import FunctionProblem

_BLOCK = 24  # sums formed in one pass: more do not fit the registers


class Normal(struct.PyTreeNode):
    """A quadratic model of the loss in the flattened params (``ravel_pytree``), of length n.

    Attributes:
        loss: the loss.
        gradient: its gradient, shape (n,).
        matrix: its Gauss–Newton matrix, symmetric, shape (n, n).
        count: how many numbers the loss is the mean of: their rounding averages out.
    """

    loss: Scalar
    gradient: Float[Array, " n"]
    matrix: Float[Array, "n n"]
    count: Any = 1

    def along(self, basis: Any) -> "Normal":
        """Return the model as a function of z, x + basis·z.

        Args:
            basis: shape (n, k).
        """
        matrix = jnp.matmul(basis.T, jnp.matmul(self.matrix, basis, precision="highest"))
        return Normal(self.loss, self.gradient @ basis, matrix, self.count)


class Sums(NamedTuple):
    """Σρ, Jᵀ(w r) and JᵀWJ over all pixels.

    Attributes:
        penalty: Σρ.
        slope: Jᵀ(w r), shape (n,).
        matrix: JᵀWJ, shape (n, n).
    """

    penalty: Scalar
    slope: Float[Array, " n"]
    matrix: Float[Array, "n n"]

    def normal(self, loss: Scalar, count: Any) -> Normal:
        """Return the quadratic model of ``loss``, the mean penalty of ``count`` or more.

        Args:
            loss: the loss.
            count: m, how many residuals the loss is the mean of.
        """
        return Normal(loss, 2 / count * self.slope, 2 / count * self.matrix, count)


Weigh = Callable[[Array], tuple[Array, Array]]
Product = Callable[[Array], Array]


def square(residual: Array) -> tuple[Array, Array]:
    """Return penalty and weight of each pixel for plain least squares.

    Args:
        residual: r, of any shape.
    """
    return residual**2, jnp.ones_like(residual)


def normal_equations(
    objective: Any, params: PyTree, basis: Float[Array, "n n"] | None = None
) -> Normal:
    """Return the quadratic model of an objective at ``params``.

    Uses ``objective.normal``, or where that is None ``objective.residual``, the mean of whose
    squares is taken for the loss.

    Args:
        objective: with a residual, or its own normal equations.
        params: where, of n numbers in all.
        basis: T, upper triangular, for the model as a function of z in x + T z: TᵀMT has lost what
            M determines less well than ε of the best; the columns of J·T keep it, where T makes
            them alike.

    Raises:
        ValueError: if the objective has no residual.
    """
    problem = as_problem(objective)
    supplied = problem.normal(params, basis)
    if supplied is not None:
        return supplied
    residual = residual_of(problem)
    flat, unravel = ravel_pytree(params)
    sums = accumulate(lambda flat: residual(unravel(flat)), flat, basis=basis)
    return sums.normal(objective(params), _count(residual, params))


def curvature(objective: Any, params: PyTree) -> Product | None:
    """Return v → M v, the Gauss–Newton matrix at ``params`` times a vector, both flat.

    Costs a forward- and a reverse-mode pass a product, and no matrix. Uses ``objective.curvature``,
    or where that is None ``objective.residual``. None for a problem that gives its matrix alone, by
    ``objective.normal``.

    Args:
        objective: a problem with products, a residual or a matrix.
        params: where, of n numbers in all.

    Raises:
        ValueError: if the objective has no residual.
    """
    problem = as_problem(objective)
    supplied = problem.curvature(params)
    if supplied is not None:
        return supplied
    if problem.normal(params) is not None:
        return None
    residual = residual_of(problem)
    flat, unravel = ravel_pytree(params)
    apply = product(lambda flat: residual(unravel(flat)), flat)
    factor = 2 / _count(residual, params)
    return lambda v: factor * apply(v)


def _count(residual: Callable[[Any], PyTree], params: PyTree) -> int:
    return sum(r.size for r in jax.tree.leaves(jax.eval_shape(residual, params)))


def residual_of(objective: Any) -> Callable[[Any], PyTree]:
    """Return the residual function of an objective.

    The function raises `ValueError` where the objective has no residual.

    Args:
        objective: a problem, or a function of the params.
    """
    problem = as_problem(objective)

    def residual(params: PyTree) -> PyTree:
        found = problem.residual(params)
        if found is None:
            inside = problem.function if isinstance(problem, FunctionProblem) else problem
            raise ValueError(
                f"objective: {type(inside).__name__} has no residual, which least squares needs; "
                "state it as an InverseProblem, or use Gradient(optax.lbfgs)"
            )
        return found

    return residual


def accumulate(
    residual: Callable[[Array], PyTree],
    flat: Float[Array, " n"],
    weigh: Weigh = square,
    *,
    pointwise: bool = False,
    basis: Float[Array, "n n"] | None = None,
) -> Sums:
    """Return the sums of penalty, slope and matrix over the pixels.

    Args:
        residual: flat params → pytree of residuals, real or complex.
        flat: where, shape (n,).
        weigh: residuals → (penalty, weight), elementwise.
        pointwise: whether each residual depends on the coordinates of its pixel only: then nothing
            of the size of J is kept.
        basis: T, upper triangular, for J·T instead of J.
    """
    parts = (_fused if pointwise else _columns)(residual, flat, weigh, basis)
    return jax.tree.map(lambda *leaves: sum(leaves[1:], start=leaves[0]), *parts)


def product(
    residual: Callable[[Array], PyTree], flat: Float[Array, " n"], weigh: Weigh = square
) -> Product:
    """Return v → JᵀWJ v at ``flat``. See `accumulate`.

    Args:
        residual: flat params → pytree of residuals.
        flat: where, shape (n,).
        weigh: residuals → (penalty, weight), elementwise.
    """
    value, push = jax.linearize(lambda flat: _real(residual(flat)), flat)
    pull = jax.linear_transpose(push, flat)
    weights = [weigh(r)[1] for r in value]

    def apply(v: Array) -> Array:
        along = push(v.astype(flat.dtype))
        return pull([w * t for w, t in zip(weights, along, strict=True)])[0]

    return apply


def _real(tree: PyTree) -> list[Array]:
    """Return the leaves; real and imaginary parts of complex ones separately."""
    pairs = [(r.real, r.imag) if jnp.iscomplexobj(r) else (r,) for r in jax.tree.leaves(tree)]
    return list(itertools.chain.from_iterable(pairs))


def _columns(residual: Any, flat: Array, weigh: Weigh, basis: Array | None) -> list[Sums]:
    """Form J by columns."""
    value, push = jax.linearize(lambda flat: _real(residual(flat)), flat)
    unit = jnp.eye(flat.size, dtype=flat.dtype)
    columns = jax.vmap(push)(unit if basis is None else basis.T.astype(flat.dtype))
    sums = []
    for r, rows in zip(value, columns, strict=True):
        r, rows = r.ravel(), rows.reshape(flat.size, -1)
        penalty, weight = weigh(r)
        slope = jnp.matmul(rows, weight * r, precision="highest")
        matrix = jnp.matmul(rows * weight, rows.T, precision="highest")
        sums.append(Sums(jnp.sum(penalty), slope, matrix))
    return sums


def _fused(residual: Any, flat: Array, weigh: Weigh, basis: Array | None) -> list[Sums]:
    """Form all sums in as few passes over the pixels as registers allow."""
    size = flat.size

    def column(i: int) -> tuple[list[Array], list[Array]]:
        def along(x: Array) -> list[Array]:
            entries = [x if j == i else flat[j] for j in range(size)]
            return _real(residual(jnp.stack(entries)))

        return jax.jvp(along, (flat[i],), (jnp.ones((), flat.dtype),))

    columns = [column(i) for i in range(size)]
    sums = []
    for k, r in enumerate(columns[0][0]):
        penalty, weight = weigh(r)
        slopes = [tangents[k] for _, tangents in columns]
        if basis is not None:
            slopes = [_combined(slopes[: j + 1], basis[: j + 1, j]) for j in range(size)]
        terms = [penalty, *(weight * r * c for c in slopes)]
        upper = [(i, j) for i in range(size) for j in range(i, size)]
        terms += [weight * slopes[i] * slopes[j] for i, j in upper]
        total = _sum_all(terms)
        rest = total[1 + size :]
        index = {pair: q for q, pair in enumerate(upper)}
        order = [index[min(i, j), max(i, j)] for i in range(size) for j in range(size)]
        matrix = jnp.stack([rest[q] for q in order]).reshape(size, size)
        slope = jnp.stack(total[1 : 1 + size])
        if basis is not None:
            scale = jnp.diagonal(basis)
            slope, matrix = slope * scale, matrix * scale[:, None] * scale[None, :]
        sums.append(Sums(total[0], slope, matrix))
    return sums


def _combined(columns: list[Array], weights: Array) -> Array:
    """Return Σ weights·columns over the last weight: what scales all pixels alike can wait."""
    *before, last = columns
    return last + sum(c * (weights[i] / weights[-1]) for i, c in enumerate(before))


def _sum_all(terms: list[Array]) -> list[Array]:
    """Sum arrays of one shape, blocks of them in one variadic reduction."""
    shape = jnp.broadcast_shapes(*[jnp.shape(t) for t in terms])
    totals: list[Array] = []
    for start in range(0, len(terms), _BLOCK):
        block = terms[start : start + _BLOCK]
        full = tuple(jnp.broadcast_to(t, shape) for t in block)
        zeros = tuple(jnp.zeros((), t.dtype) for t in full)
        totals += jax.lax.reduce(full, zeros, _add, tuple(range(len(shape))))
    return totals


def _add(a: tuple[Array, ...], b: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))
