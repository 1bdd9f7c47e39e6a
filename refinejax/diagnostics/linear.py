"""Least-squares problems linearized at their fits, as small matrices on the host."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from refinejax._core import as_problem
from refinejax._marks import door
from refinejax.batch.sources import count_samples, describe, host
from refinejax.diagnostics.spectrum import check_shape, middle
from refinejax.problems import InverseProblem, Robust
from refinejax.problems.normal import residual_of

_BYTES = 1 << 28  # of data sent to the device at once


class Linear(NamedTuple):
    """B fits, linearized in the n params that vary. NumPy, float64.

    With J the Jacobian of the residual over m numbers, J·diag(1/size) = Q·R. RᵀR equals JᵀJ,
    scaled. Forming JᵀJ itself would square the condition and lose half of the digits.

    Attributes:
        free: False for params that are held, (B, n).
        triangle: R, (B, k, n) with k = min(m, n).
        along: Qᵀψ, (B, k): 0 at an optimum without a prior.
        size: lengths of the columns of J, (B, n); the column of a held param is 0.
        squares: Σψ², (B,). ψ is the residual, or for a robust loss its score ρ′·r over mean ψ′.
        weight: how many numbers were observed, (B,).
        rounding: the mean of (ε·|y|)² over the numbers observed, (B,), in units of ψ²: the variance
            of their rounding, y being observation or prediction, whichever is greater.
        prior: ½·m·∇²prior, (B, n, n); or None.
        slope: ½·m·∇prior, (B, n); or None.
        middle: QᵀCQ, with C the covariance of ψ between pixels, (B, k, k); or None.
        eps: of the dtype in which J was computed.
    """

    free: np.ndarray
    triangle: np.ndarray
    along: np.ndarray
    size: np.ndarray
    squares: np.ndarray
    weight: np.ndarray
    rounding: np.ndarray
    prior: np.ndarray | None
    slope: np.ndarray | None
    middle: np.ndarray | None
    eps: float


@door
def linearize(
    problem: Any,
    params: PyTree,
    *,
    axes: Any = None,
    vary: Sequence[int],
    free: np.ndarray,
    correlated: bool = False,
) -> Linear:
    """Linearize every sample of a batch at its params.

    Args:
        problem: with a leading sample axis, as for `run_batch`.
        params: the fits, with a leading sample axis.
        axes: as for `run_batch`.
        vary: numbers of the flat params that are unknown.
        free: False for the params of a sample that are held, shape (B, n).
        correlated: whether to estimate ``middle``.

    Returns:
        The factors of the Jacobian and the prior's derivatives.

    Raises:
        ValueError: for a problem without a residual.
    """
    problem = as_problem(problem)
    params = host(params)
    count = count_samples(params)
    layout, leaves = describe(problem, axes, count)
    data, shared = layout.split(leaves)
    each = sum(np.asarray(leaf[:1]).nbytes for leaf in data)
    rows = min(count, max(1, _BYTES // max(each, 1)), 1 << 16)
    found = []
    for start in range(0, count, rows):
        begin = min(start, count - rows)  # the last part overlaps the one before: one program
        part = slice(begin, begin + rows)
        cut = [leaf[part] for leaf in data], jax.tree.map(lambda p, s=part: p[s], params)
        parts = _linearize(
            cut, free[part], shared, layout=layout, vary=tuple(vary), correlated=correlated
        )
        found.append(jax.tree.map(lambda x, s=start - begin: np.asarray(x)[s:], parts))
    whole: Any = jax.tree.map(lambda *x: np.concatenate(x), *found)
    *parts, eps = jax.tree.map(lambda x: np.asarray(x, float), whole)
    linear = Linear(free, *parts, eps=float(eps[0]))
    # Squared here, in float64: in the dtype of the fit the squares may over- or underflow.
    squares, rounding = linear.squares**2, linear.rounding**2
    sandwich = None if linear.middle is None else linear.middle * squares[:, None, None]
    return linear._replace(squares=squares, rounding=rounding, middle=sandwich)


@functools.partial(jax.jit, static_argnames=("layout", "vary", "correlated"))
def _linearize(
    samples: Any, free: Any, shared: Any, *, layout: Any, vary: tuple[int, ...], correlated: bool
) -> Any:
    def one(sample: Any) -> Any:
        (data, params), unheld = sample
        return _linearize_one(layout.join(data, shared), params, unheld, vary, correlated)

    return jax.lax.map(one, (samples, free), batch_size=32)


def _linearize_one(
    problem: Any, params: Any, free: Array, vary: tuple[int, ...], correlated: bool
) -> Any:
    inner = _inner(problem)
    residual, chosen = residual_of(inner), np.array(vary, int)
    flat, unravel = ravel_pytree(params)
    value, push = jax.linearize(lambda flat: _real(residual(unravel(flat))), flat)
    rows = jax.vmap(push)(jnp.eye(flat.size, dtype=flat.dtype)[chosen])
    limits, wide = jnp.finfo(rows.dtype), jnp.promote_types(rows.dtype, jnp.float32)
    rows = jnp.where(free[:, None], rows, 0).astype(wide)  # no QR in half precision
    size = _lengths(rows)
    scaled = rows / jnp.where(size > 0, size, 1)[:, None]
    seen = _seen(inner, residual, params)
    weight = jnp.sum(seen)
    score = _score(problem, value, seen).astype(wide)
    length = _lengths(score[None])[0]
    # the last column of the triangle of (J, ψ) is Qᵀψ, then the length of the rest of ψ
    whole = jnp.linalg.qr(jnp.concatenate([scaled, score[None]]).T, mode="r")
    triangle, along = whole[: len(rows), :-1], whole[: len(rows), -1]
    sandwich = None
    if correlated:
        shape = check_shape(jax.eval_shape(residual, params))
        basis, triangle = jnp.linalg.qr(scaled.T)
        along = jnp.matmul(basis.T, score, precision="highest")
        # where a column depends on earlier ones, the column of Q is normalized rounding error
        real = jnp.abs(jnp.diagonal(triangle)) > 2 * len(rows) * limits.eps
        unit = score / jnp.where(length > 0, length, 1)
        sandwich = middle(unit, jnp.where(real[:, None], basis.T, 0), seen, shape)
    prior, slope = _prior(inner, flat, unravel, chosen, weight)
    terms = jnp.sum(jnp.abs(rows * flat[chosen][:, None]), axis=0)
    rounded = float(limits.eps) * _rounding(inner, params, terms).astype(wide)
    rounded = jnp.maximum(rounded, float(limits.tiny))
    seen_only = jnp.where(seen, rounded, 0)[None]
    rounding = _lengths(seen_only)[0] / jnp.sqrt(weight.astype(wide))
    eps = jnp.full((), limits.eps, wide)
    return triangle, along, size, length, weight, rounding, prior, slope, sandwich, eps


def _inner(problem: Any) -> Any:
    """Return the least-squares problem inside a robust loss, or the problem itself."""
    return problem.problem if isinstance(problem, Robust) else problem


def _lengths(rows: Float[Array, "n m"]) -> Float[Array, " n"]:
    """Return the lengths of the rows; their squares cannot overflow."""
    peak = jnp.max(jnp.abs(rows), axis=1, initial=0)
    peak = jnp.where((peak > 0) & jnp.isfinite(peak), peak, 1)
    return peak * jnp.linalg.norm(rows / peak[:, None], axis=1)


def _real(tree: Any) -> Float[Array, " m"]:
    """Return all numbers in one row; real and imaginary parts of complex ones."""
    parts = [part for x in jax.tree.leaves(tree) for part in _parts(x)]
    return jnp.concatenate([jnp.ravel(part) for part in parts])


def _parts(x: Array) -> tuple[Array, ...]:
    return (x.real, x.imag) if jnp.iscomplexobj(x) else (x,)


def _seen(problem: Any, residual: Any, params: Any) -> Array:
    """Return True for each number of `_real` that was observed and has weight."""
    shapes = jax.eval_shape(residual, params)
    seen = problem.seen() if isinstance(problem, InverseProblem) else _known(problem, shapes)
    pairs = zip(jax.tree.leaves(seen), jax.tree.leaves(shapes), strict=True)
    masks = [
        jnp.ravel(x)
        for x, s in pairs
        for _ in range(2 if jnp.issubdtype(s.dtype, jnp.complexfloating) else 1)
    ]
    return jnp.concatenate(masks)


def _known(problem: Any, shapes: Any) -> Any:
    """Return where the observation of another least-squares problem is not NaN."""
    observation = getattr(problem, "observation", None)
    if observation is None:
        return jax.tree.map(lambda s: jnp.ones(s.shape, bool), shapes)
    return jax.tree.map(lambda x: ~jnp.isnan(x), observation)


def _rounding(problem: Any, params: Any, terms: Array) -> Array:
    """Return by how much each number of `_real` changes if y changes by |y|.

    Args:
        problem: of one sample.
        params: the fit.
        terms: Σⱼ|∂r/∂pⱼ·pⱼ|, which stands for |y| where a problem has no observation, (m,).
    """
    if not isinstance(problem, InverseProblem):
        return terms

    def widen(prediction: Any, observation: Any) -> Array:
        dtype = jnp.promote_types(jnp.result_type(prediction), jnp.result_type(observation))
        return jnp.broadcast_to(prediction, jnp.shape(observation)).astype(dtype)

    def size(prediction: Array, observation: Any) -> Array:
        length = jnp.fmax(jnp.abs(prediction), jnp.abs(observation))
        both = 1 + 1j if jnp.iscomplexobj(prediction) else 1
        return length.astype(prediction.dtype) * both

    prediction = jax.tree.map(widen, problem.predict(params), problem.observation)
    sizes = jax.tree.map(size, prediction, problem.observation)
    return jnp.abs(_real(jax.jvp(problem.compare, (prediction,), (sizes,))[1]))


def _score(problem: Any, value: Array, seen: Array) -> Array:
    """Return the residual; for a robust loss ψ(r)/mean ψ′ with ψ(r) = r·ρ′((r/s)²).

    Least squares with this score as the residual has the covariance of the M-estimator (Huber 1981,
    *Robust Statistics*, eq. 7.6.5, without its correction of order n/m).
    """
    if not isinstance(problem, Robust):
        return value
    slope = jax.vmap(jax.grad(problem.rho))

    def psi(r: Array) -> Array:
        return r * jnp.maximum(slope((r / problem.scale) ** 2), 0)

    score, sensitivity = jax.jvp(psi, (value,), (jnp.ones_like(value),))
    return score / (jnp.sum(jnp.where(seen, sensitivity, 0)) / jnp.sum(seen))


def _prior(problem: Any, flat: Array, unravel: Any, chosen: Any, weight: Array) -> Any:
    """Return ½·m·∇²prior and ½·m·∇prior, which the prior adds to JᵀJ and Jᵀr."""
    prior = getattr(problem, "prior", None)
    if prior is None:
        return None, None

    def of(flat: Array) -> Array:
        return prior(unravel(flat))

    half = 0.5 * weight
    return half * jax.hessian(of)(flat)[np.ix_(chosen, chosen)], half * jax.grad(of)(flat)[chosen]
