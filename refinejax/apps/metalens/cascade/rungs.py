"""Which rung of the fringe ladder a lens is on, and how surely.

Lenses with the slopes of a map differ by whole turns of the piston. With r the residual of a fit
[turns], J its Jacobian over m pixels and Q the projection off the columns of J, the residual of the
best lens k rungs further is, to first order, Q(r + k), and its square a parabola in k:

    |Q(r + k)|² = |e|² + γ·(k − k*)²,   γ = |Q1|²,   k* = −(Q1)ᵀr/γ,   e = Q(r + k*)

k* is the piston that fits best where it need not be whole, and σ² = s²/γ, s² = |e|²/(m − 5), its
variance for white noise. A whole number k then has the log-likelihood −(k − k*)²/2σ². The rung is
an integer ambiguity as in satellite navigation; the difference of two log-likelihoods, the log of
the odds of two rungs, is the difference test for it (Tiberius and De Jonge 1995; Verhagen and
Teunissen 2013, GPS Solutions 17, 535).

Noise that is correlated between pixels moves k* by more. Its variance is therefore also estimated
from sums over the c = 16 regions of a 4 × 4 division of the window (Liang and Zeger 1986,
Biometrika 73, 13, with a correction for 5 unknowns),

    σ² = c/(c − 5)·Σ_regions ((Q1)ᵀe)²/γ²,

and the greater of the two is taken. Correlations over more than a region cannot be told from
another lens; they are not accounted for.

All is in float64, whatever the maps are in: float32 gives the model to 3e-4 rad, and neighboring
rungs of clean maps often differ by less. J is taken at the middles of at most 16 × 16 blocks of
pixels, and r averaged over them: r is small, so that its slopes within a block do not matter.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from refinejax._chunks import by_chunks, pick
from refinejax._compiler import REORDER
from refinejax.physics import metalens
from refinejax.problems import InverseProblem
from refinejax.refiners.least_squares.linear_algebra import invert_upper

_REGIONS = 4  # along each side
_POINTS = 16  # blocks along each side, at most
_MAPS = 32  # at once: more do not fit the cache
_LEAP = 8  # rungs at once, at most: farther away the phase is not linear
_UNKNOWN = 5  # xc, yc, S, focal_length and the piston


class Ladder(NamedTuple):
    """The rungs around B lenses, counted from the one each is on: NumPy, float64.

    Attributes:
        loss: at the lenses, (B,) [rad²].
        best: k*, the rung that fits best, not whole, (B,).
        std: σ, its standard error, (B,).
        least: |e|²/m, the loss there, (B,) [rad²].
        unit: by how much the loss differs where the log-likelihood differs by 1, (B,) [rad²].
        lens: the optimum on the rung of each lens, (B, 4) [µm].
        step: from there to the optimum on the next rung, (B, 4) [µm].
        covariance: of the params on a rung, (B, 4, 4) [µm²].
    """

    loss: Any
    best: Any
    std: Any
    least: Any
    unit: Any
    lens: Any
    step: Any
    covariance: Any


class Choice(NamedTuple):
    """The rung that fits best among those within bounds.

    Attributes:
        rung: counted from the one that the lens is on, (B,).
        lens: its optimum within the bounds, (B, 4) [µm].
        cost: difference to the log-likelihood of the best fit without bounds on any rung, (B,).
        own: the same, of the rung that the lens is on, (B,).
        margin: log of the odds of the rung that the lens is on against the best other one, (B,).
    """

    rung: np.ndarray
    lens: np.ndarray
    cost: np.ndarray
    own: np.ndarray
    margin: np.ndarray


def ladder(
    problem: InverseProblem, lenses: Any, pistons: Any = 0.0, *, rows: np.ndarray | None = None
) -> Ladder:
    """Return the rungs around lenses; NaN where a map or a lens tells nothing.

    Args:
        problem: of maps (see `exact_problem`).
        lenses: xc, yc, S, focal_length, shape (B, 4) [µm].
        pistons: by how much the maps lead their lenses, about; shape (B,) or () [turns]. Pixels are
            unwrapped around it.
        rows: whose lenses they are, shape (B,); by default those of all maps.
    """
    pistons = np.broadcast_to(np.asarray(pistons, float), len(lenses))
    return _in_float64(_ladder, problem, rows, lenses, pistons)


def losses(problem: InverseProblem, lenses: Any, *, rows: np.ndarray | None = None) -> Any:
    """Return the ``loss`` of `ladder`, and nothing else, at a third of its cost.

    Args:
        problem: of maps (see `exact_problem`).
        lenses: shape (B, 4) [µm].
        rows: which maps; None for all.
    """
    return _in_float64(_losses, problem, rows, lenses)


def _in_float64(function: Any, problem: InverseProblem, rows: np.ndarray | None, *rest: Any) -> Any:
    maps, wavelength = problem.observation, np.asarray(problem.context, float)
    rest = tuple(np.asarray(part, float) for part in rest)
    rows = np.arange(len(maps)) if rows is None else rows

    def some(part: slice | np.ndarray) -> Any:
        at = pick(rows, part)
        return function([maps[at], wavelength[at], *(each[part] for each in rest)])

    with jax.enable_x64(True):
        return by_chunks(some, len(rows))


@functools.partial(jax.jit, compiler_options=REORDER)
def _ladder(samples: Any) -> Ladder:
    return jax.lax.map(lambda sample: _one(*sample), samples, batch_size=_MAPS)


@functools.partial(jax.jit, compiler_options=REORDER)
def _losses(samples: Any) -> Array:
    def one(turns: Array, wavelength: Array, lens: Array) -> Array:
        seen, residual = _residual(turns, wavelength, lens, jnp.zeros(()))
        return (2 * jnp.pi) ** 2 * jnp.sum(residual**2) / jnp.sum(seen)

    return jax.lax.map(lambda sample: one(*sample), samples, batch_size=_MAPS)


def _residual(turns: Array, wavelength: Array, lens: Array, piston: Array) -> tuple[Array, Array]:
    """Return which pixels are seen, and the residual there, else 0 [turns]."""
    u, v = metalens.pixel_grid(turns.shape[-1], lens.dtype)
    residual = metalens.turns_at(lens, wavelength, u[:1], v[:, :1]) - turns
    seen = ~jnp.isnan(turns)
    return seen, jnp.where(seen, residual - jnp.round(residual + piston), 0)


def _one(
    turns: Float[Array, "n n"], wavelength: Array, lens: Float[Array, "4"], piston: Array
) -> Any:
    seen, residual = _residual(turns, wavelength, lens, piston)
    number, total = (_blocks(x.astype(lens.dtype)) for x in (seen, residual))
    middles = _middles(metalens.pixel_grid(turns.shape[-1], lens.dtype)[0][0])
    columns = jax.jacfwd(metalens.turns_at)(lens, wavelength, middles, middles[:, None])
    columns = jnp.moveaxis(columns, -1, 0)
    lengths = jnp.linalg.norm(columns.reshape(4, -1), axis=1)
    mean = total / jnp.maximum(number, 1)
    images = [columns / lengths[:, None, None], jnp.ones_like(mean)[None], mean[None]]
    rows = jnp.sqrt(number) * jnp.concatenate(images)
    # (J, 1, r) = basis · triangle, the fifth column of the basis along Q1, the sixth along e
    basis, triangle = _orthogonal(rows.reshape(6, -1))
    inverse = invert_upper(triangle[:4, :4]) / lengths[:, None]
    across, along = triangle[4, 4], triangle[4, 5]
    count, squares = jnp.sum(number), jnp.sum(residual**2)
    rest = squares - jnp.sum(triangle[:5, 5] ** 2)
    products = (basis[4] * basis[5] * triangle[5, 5]).reshape(mean.shape)
    clustered = jnp.sum(_regions(products) ** 2) * (_REGIONS**2 / (_REGIONS**2 - _UNKNOWN))
    variance = jnp.maximum(rest / (count - _UNKNOWN), clustered)
    radian2 = (2 * jnp.pi) ** 2
    return Ladder(
        loss=radian2 * squares / count,
        best=-along / across,
        std=jnp.sqrt(variance) / jnp.abs(across),
        least=radian2 * rest / count,
        unit=2 * radian2 * variance / count,
        lens=lens - inverse @ triangle[:4, 5],
        step=-inverse @ triangle[:4, 4],
        covariance=variance * inverse @ inverse.T,
    )


def _orthogonal(rows: Float[Array, "k m"]) -> tuple[list[Array], Float[Array, "k k"]]:
    """Return orthonormal vectors, and the triangle R with rowsᵀ = basisᵀ·R.

    By the modified Gram–Schmidt process, whose triangle is as accurate as Householder's
    (Björck 1967, BIT 7, 1), and which needs no call of LAPACK for each map.
    """
    basis, triangle = [], []
    for k in range(len(rows)):
        first = rows[0]
        length = jnp.sqrt(jnp.sum(first**2))
        unit = first / length
        along = jnp.sum(rows * unit, axis=1)
        rows = rows[1:] - along[1:, None] * unit
        basis.append(unit)
        triangle.append(jnp.concatenate([jnp.zeros(k), along]))
    return basis, jnp.stack(triangle)


def _blocks(image: Float[Array, "n n"]) -> Float[Array, "m m"]:
    """Return sums over blocks of pixels; those at the far ends may have fewer."""
    size = image.shape[-1]
    width = -(-size // _POINTS)
    rest = -size % width
    padded = jnp.pad(image, (0, rest)).reshape(-1, width, size + rest)
    rows = jnp.sum(padded, axis=1)  # first, as these sums are vectorized
    return jnp.sum(rows.reshape(len(rows), -1, width), axis=2)


def _middles(axis: Float[Array, " n"]) -> Float[Array, " m"]:
    """Return the mean coordinates of the blocks along a side."""
    size = len(axis)
    width = -(-size // _POINTS)
    starts = range(0, size, width)
    return jnp.stack([jnp.mean(axis[start : start + width]) for start in starts])


def _regions(image: Float[Array, "m m"]) -> Float[Array, "c c"]:
    """Return sums over the regions of the window."""
    size = image.shape[-1]
    which = jnp.arange(size) * _REGIONS // size == jnp.arange(_REGIONS)[:, None]
    which = which.astype(image.dtype)
    return which @ image @ which.T


def choose(rungs: Ladder, lower: Any, upper: Any) -> Choice:
    """Rank the rungs around lenses: those nearest to k*, and to where the bounds begin.

    Args:
        rungs: of B lenses.
        lower: bounds of (xc, yc, S, focal_length), shape (4,) or (B, 4) [µm].
        upper: upper bounds, as ``lower``.

    Returns:
        The best rung of each lens, and its margins.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.stack([(lower - rungs.lens) / rungs.step, (upper - rungs.lens) / rungs.step])
    low, high = (
        np.nan_to_num(end, posinf=_LEAP, neginf=-_LEAP) for end in (ends.min(0), ends.max(0))
    )
    low, high = np.max(low, axis=1), np.min(high, axis=1)
    best = np.nan_to_num(rungs.best)
    near = [best, np.clip(best, low, np.maximum(low, high))]
    near = [np.round(np.clip(middle, -_LEAP, _LEAP)) for middle in near]
    tried = np.stack(
        [np.zeros_like(best), *(x + k for x in near for k in (-2, -1, 0, 1, 2))], axis=1
    )
    lenses = rungs.lens[:, None] + tried[..., None] * rungs.step[:, None]
    shape = tried.shape
    lower, upper = (np.broadcast_to(end, rungs.lens.shape)[:, None] for end in (lower, upper))
    covariance = np.broadcast_to(rungs.covariance[:, None], (*shape, 4, 4))
    lenses, cost = within(lenses, covariance, lower, upper)
    with np.errstate(divide="ignore", invalid="ignore"):
        cost += 0.5 * ((tried - rungs.best[:, None]) / rungs.std[:, None]) ** 2
    first = np.arange(len(best)), np.argmin(cost, axis=1)
    others = np.min(np.where(tried == 0, np.inf, cost), axis=1)
    own = cost[:, 0]
    return Choice(tried[first], lenses[first], cost[first], own, others - own)


def within(
    lenses: np.ndarray, covariance: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return optima (..., 4) within bounds, and by how much their log-likelihood is below.

    The param that is beyond its bounds by most standard errors is held there, at a cost of d²/2σ²,
    the others follow it, and so on: a quadratic program, solved by an active set that only grows.

    Args:
        lenses: optima without bounds, (..., 4).
        covariance: of their errors, (..., 4, 4).
        lower: shapes that broadcast to (..., 4).
        upper: upper bounds, as ``lower``.
    """
    lower, upper = (np.broadcast_to(end, lenses.shape) for end in (lower, upper))
    cost = np.zeros(lenses.shape[:-1])
    for _ in range(lenses.shape[-1]):
        beyond = lenses - np.clip(lenses, lower, upper)
        if not np.any(beyond):
            break
        variance = np.maximum(np.diagonal(covariance, axis1=-2, axis2=-1), 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            far = np.where(beyond != 0, beyond**2 / variance, 0)
        worst = np.argmax(np.where(np.isfinite(far), far, -1), axis=-1)[..., None]
        row = np.take_along_axis(covariance, worst[..., None], axis=-2)[..., 0, :]
        spread = np.take_along_axis(variance, worst, axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            pull = np.where(spread > 0, row / spread, 0)
        cost = cost + 0.5 * np.max(np.where(np.isfinite(far), far, 0), axis=-1)
        lenses = lenses - pull * np.take_along_axis(beyond, worst, axis=-1)
        covariance = covariance - pull[..., :, None] * row[..., None, :]
    return np.clip(lenses, lower, upper), cost
