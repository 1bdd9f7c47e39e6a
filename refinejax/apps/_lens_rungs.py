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

from refinejax.apps._chunks import by_chunks
from refinejax.physics import metalens

_REGIONS = 4  # along each side
_POINTS = 16  # blocks along each side, at most
_MAPS = 16  # at once: more do not fit the cache
_TRIED = np.arange(-2, 3)  # rungs around the one that is nearest to k* and within bounds
_UNKNOWN = 5  # xc, yc, S, focal_length and the piston


class Ladder(NamedTuple):
    """The rungs around B lenses, counted from the one each is on: NumPy, float64.

    Attributes:
        loss: at the lenses, (B,) [rad²].
        best: k*, the rung that fits best, not whole, (B,).
        std: σ, its standard error, (B,).
        least: |e|²/m, the loss there, (B,) [rad²].
        own: |e|²/m + γ·k*²/m, the least loss on the rung of the lens, (B,) [rad²].
        lens: the optimum on the rung of each lens, by linearization, (B, 4) [µm].
        step: from there to the optimum on the next rung, (B, 4) [µm].
        error: standard errors of the params on a rung, (B, 4) [µm]; 0 for those held.
    """

    loss: np.ndarray
    best: np.ndarray
    std: np.ndarray
    least: np.ndarray
    own: np.ndarray
    lens: np.ndarray
    step: np.ndarray
    error: np.ndarray

    def take(self, rows: np.ndarray) -> "Ladder":
        """Return that of some lenses."""
        return Ladder(*(part[rows] for part in self))


def ladder(turns: Any, wavelength: Any, lenses: Any, free: Any) -> Ladder:
    """Return the rungs around lenses; NaN where a map or a lens tells nothing.

    Args:
        turns: phase maps, shape (B, N, N) [turns]; NaN is missing.
        wavelength: shape (B,) [µm].
        lenses: xc, yc, S, focal_length, shape (B, 4) [µm].
        free: False for params that are held where they are, on a bound, shape (B, 4).
    """
    wavelength, lenses = np.asarray(wavelength, float), np.asarray(lenses, float)
    with jax.enable_x64(True):
        return by_chunks(
            lambda rows: _ladder((turns[rows], wavelength[rows], lenses[rows], free[rows])),
            len(lenses),
        )


@jax.jit
def _ladder(samples: Any) -> Ladder:
    return jax.lax.map(lambda sample: _one(*sample), samples, batch_size=_MAPS)


def _one(turns: Float[Array, "n n"], wavelength: Array, lens: Float[Array, "4"], free: Array) -> Any:
    size = turns.shape[-1]
    u, v = metalens.pixel_grid(size, lens.dtype)
    residual = metalens.turns_at(lens, wavelength, u[:1], v[:, :1]) - turns
    residual = residual - jnp.round(residual)
    seen = ~jnp.isnan(turns)
    residual = jnp.where(seen, residual, 0)
    number, total = (_blocks(x.astype(lens.dtype)) for x in (seen, residual))
    middles = _middles(u[0])
    model = functools.partial(metalens.turns_at, wavelength=wavelength, u=middles, v=middles[:, None])
    columns = jnp.moveaxis(jax.jacfwd(model)(lens), -1, 0) * free[:, None, None]
    lengths = jnp.linalg.norm(columns.reshape(4, -1), axis=1)
    columns = columns / jnp.where(lengths > 0, lengths, 1)[:, None, None]
    weight = jnp.sqrt(number)
    mean = total / jnp.maximum(number, 1)
    rows = weight * jnp.concatenate([columns, jnp.ones_like(mean)[None], mean[None]])
    basis, triangle = jnp.linalg.qr(rows.reshape(6, -1).T)
    # columns of the triangle: those of J, 1, r; a param that is held has a column of zeros
    held = jnp.diag(jnp.where(lengths > 0, 0, 1).astype(lens.dtype))
    inverse = jnp.linalg.inv(triangle[:4, :4] + held) / jnp.where(lengths > 0, lengths, jnp.inf)[:, None]
    step, shift = -inverse @ triangle[:4, 4], -inverse @ triangle[:4, 5]
    across, along = triangle[4, 4], triangle[4, 5]
    best = -along / across
    count, squares = jnp.sum(number), jnp.sum(residual**2)
    rest = squares - jnp.sum(triangle[:5, 5] ** 2)
    white = rest / (count - _UNKNOWN)
    parts = _regions((basis[:, 4] * basis[:, 5] * triangle[5, 5]).reshape(mean.shape))
    regions = _REGIONS**2
    clustered = jnp.sum(parts**2) * (regions / (regions - _UNKNOWN))
    variance = jnp.maximum(white, clustered)
    radian2 = (2 * jnp.pi) ** 2
    return Ladder(
        loss=radian2 * squares / count,
        best=best,
        std=jnp.sqrt(variance) / jnp.abs(across),
        least=radian2 * rest / count,
        own=radian2 * (rest + along**2) / count,
        lens=lens + shift,
        step=step,
        error=jnp.sqrt(variance * jnp.sum(inverse**2, axis=1)),
    )


def _blocks(image: Float[Array, "n n"]) -> Float[Array, "m m"]:
    """Return sums over blocks of pixels; those at the far ends may have fewer."""
    size = image.shape[-1]
    width = -(-size // _POINTS)
    rest = -size % width
    padded = jnp.pad(image, (0, rest)).reshape((size + rest) // width, width, -1, width)
    return jnp.sum(padded, axis=(1, 3))


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


class Choice(NamedTuple):
    """The rung that fits best among those within bounds.

    Attributes:
        rung: counted from the one that the lens is on, (B,).
        cost: its log-likelihood below that of k*, (B,).
        margin: log of the odds of the rung that the lens is on against the best other one, (B,);
            below 0 where ``rung`` is not 0.
    """

    rung: np.ndarray
    cost: np.ndarray
    margin: np.ndarray


def choose(rungs: Ladder, lower: np.ndarray, upper: np.ndarray) -> Choice:
    """Rank the rungs around lenses.

    The cost of a rung is (k − k*)²/2σ² + max_j d_j²/2σ_j² with d_j by how much its optimum lies
    beyond the bounds of param j, and σ_j its standard error: no lens within them costs less.

    Args:
        rungs: of B lenses.
        lower: bounds of (xc, yc, S, focal_length), shape (4,) or (B, 4) [µm].
        upper: likewise.
    """
    moves = rungs.step != 0
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.stack([(lower - rungs.lens) / rungs.step, (upper - rungs.lens) / rungs.step])
    low = np.max(np.where(moves, ends.min(0), -np.inf), axis=1)
    high = np.min(np.where(moves, ends.max(0), np.inf), axis=1)
    best = np.where(np.isfinite(rungs.best), rungs.best, 0)
    near = np.round(np.clip(best, low, np.maximum(low, high)))
    tried = np.concatenate([np.zeros((len(near), 1)), near[:, None] + _TRIED], axis=1)
    cost = _cost(rungs, tried, lower, upper)
    first = np.argmin(cost, axis=1)
    rung = np.take_along_axis(tried, first[:, None], axis=1)[:, 0]
    others = np.min(np.where(tried == 0, np.inf, cost), axis=1)
    return Choice(rung, np.min(cost, axis=1), others - cost[:, 0])


def _cost(rungs: Ladder, tried: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return the cost of rungs (B, k)."""
    lens = rungs.lens[:, None] + tried[..., None] * rungs.step[:, None]
    lower, upper = (np.broadcast_to(end, rungs.lens.shape)[:, None] for end in (lower, upper))
    beyond = np.maximum(np.maximum(lower - lens, lens - upper), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        far = np.where(beyond > 0, beyond / rungs.error[:, None], 0)
        off = (tried - rungs.best[:, None]) / rungs.std[:, None]
    return 0.5 * (off**2 + np.max(far, axis=2) ** 2)
