"""From phase maps to lenses, wherever one starts: slopes, then phase but for a piston, then all.

1. Slopes and curvatures of the map give lenses in closed form, one for each way in which the slopes
   can be aliased. They, and the start that is given, are fitted to the slopes of all blocks.
2. The best is fitted to the phase with a constant unknown (the piston). Its residual is the least
   that any rung of the fringe ladder can have.
3. The piston is moved to a whole number of turns, which is the exact problem. Where the residual
   then shows that the rung is wrong, its neighbors are tried; where even the piston did not help,
   the lenses that came second.

Phases are in turns, params (xc, yc, S, focal_length) in µm, throughout.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from refinejax._run import run
from refinejax.batch import run_batch
from refinejax.batch.lanes import REORDER
from refinejax.physics import metalens
from refinejax.physics.metalens_slopes import lens_from_slopes
from refinejax.physics.slopes import Blocks, block_phasors, expand, slopes
from refinejax.problems import InverseProblem, ParameterSpace, Pointwise
from refinejax.problems.phase import free_piston, held_piston, piston, slope_problem, turn_problem
from refinejax.refiners import LevenbergMarquardt

SMALLEST = 12  # pixels along a side, below which there are too few blocks
_CANDIDATES = 4  # lenses in closed form that are fitted to the slopes
_SLOPE_STEPS = 10
_FREE_STEPS = 50
_CHUNK = 64
_LM = LevenbergMarquardt()
_CLEAN = 1e-3  # rad; float32 gives a phase map no better
_SLACK = 1.01  # residual on the right rung over that with the piston free, at most
_UNEXPLAINED = 0.7  # rad; a fit that explains most of a map leaves less


@functools.cache
def model(size: int, dtype: Any) -> Pointwise:
    """Return the phase of a lens [turns]: (params, wavelength) → (n, n)."""
    u, v = metalens.pixel_grid(size, dtype)
    return Pointwise(metalens.turns_at, (u[:1], v[:, :1]), reorder=True)


def exact_problem(maps: Any, wavelength: Any, space: ParameterSpace) -> InverseProblem:
    """Return the problem whose loss is the mean squared residual [rad²], batched or not."""
    turns = maps * np.asarray(1 / (2 * np.pi), maps.dtype)
    forward = model(maps.shape[-1], maps.dtype)
    return turn_problem(forward, turns, space=space, context=wavelength)


class Cascade:
    """The maps that are to be solved, and the best lenses so far.

    Args:
        maps: (B, N, N) [rad]; NaN is missing.
        wavelength: (B,) [µm].
        start: (B, 4).
        space: bounds of (xc, yc, S, focal_length).
        given: whether the start is the user's, and worth trying.
        options: for `run_batch`.
    """

    def __init__(
        self,
        maps: np.ndarray,
        wavelength: np.ndarray,
        start: np.ndarray,
        space: ParameterSpace,
        *,
        given: bool,
        options: dict[str, Any],
    ) -> None:
        self.problem = exact_problem(maps, wavelength, space)
        self.wavelength, self.options, self.given = wavelength, options, given
        self.start = start
        self.best = start
        self.loss = np.full(len(maps), np.inf, maps.dtype)
        self.free = np.full(len(maps), np.inf, maps.dtype)
        self.steps = np.zeros(len(maps), np.int32)

    def solve(self) -> np.ndarray:
        """Return lenses near the best fits, (B, 4)."""
        lenses = self._from_slopes()
        everyone = np.arange(len(self.start))
        self._climb(everyone, lenses[:, 0])
        for rank in range(1, lenses.shape[1]):
            self._climb(self._unexplained(), lenses[self._unexplained(), rank])
        if self.given:
            lost = self._unexplained()
            self._exact(lost, self.start[lost])
        return self.best

    def _unexplained(self) -> np.ndarray:
        return np.flatnonzero(~(self.loss <= _UNEXPLAINED**2))

    def _from_slopes(self) -> np.ndarray:
        """Return lenses that fit the slopes, the best first, (B, k, 4)."""
        space = self.problem.space
        found = []
        for first in range(0, len(self.start), _CHUNK):
            rows = np.minimum(np.arange(first, first + _CHUNK), len(self.start) - 1)
            lenses = _fit_slopes(
                self.problem.observation[rows],
                self.wavelength[rows],
                self.start[rows],
                self.problem.forward,
                space,
                size=self.problem.observation.shape[-1],
                aliases=self._aliases(),
                given=self.given,
            )
            found.append(np.asarray(lenses))
        return np.concatenate(found)[: len(self.start)]

    def _aliases(self) -> int:
        """Return by how many turns a pixel the slopes can be wrong at most."""
        steepest = float(self.problem.space.upper[2]) / float(np.nanmin(self.wavelength))
        return min(int(np.ceil(steepest / (self.problem.observation.shape[-1] - 1) - 0.5)), 4)

    def _climb(self, rows: np.ndarray, lenses: np.ndarray) -> None:
        """Fit up to a piston, then find the rung."""
        if not len(rows):
            return
        problem = _rows(self.problem, rows)
        pistons = _pistons(problem, lenses)
        fit = run_batch(
            _LM, free_piston(problem), (lenses, pistons), max_steps=_FREE_STEPS, **self.options
        )
        lenses, pistons = fit.params
        self.steps[rows] += fit.steps
        self.free[rows] = np.fmin(self.free[rows], fit.loss)
        self._exact(rows, lenses)
        for offset in (0, 1, -1, 2, -2):
            left = ~(self.loss[rows] <= np.maximum((_SLACK**2) * fit.loss, _CLEAN**2))
            left &= fit.loss <= _UNEXPLAINED**2
            if not left.any():
                return
            nearest = np.round(pistons[left])
            side = np.where(pistons[left] >= nearest, 1, -1)
            self._rung(rows[left], lenses[left], pistons[left], nearest + offset * side)

    def _rung(
        self, rows: np.ndarray, lenses: np.ndarray, pistons: np.ndarray, rung: np.ndarray
    ) -> None:
        """Move the piston to a whole number in three steps, and fit exactly from there."""
        problem = _rows(self.problem, rows)
        for share in (1 / 3, 2 / 3, 1):
            held = held_piston(problem, (pistons + share * (rung - pistons)).astype(pistons.dtype))
            fit = run_batch(_LM, held, lenses, max_steps=5, **self.options)
            lenses = fit.params
            self.steps[rows] += fit.steps
        self._exact(rows, lenses)

    def _exact(self, rows: np.ndarray, lenses: np.ndarray) -> None:
        """Fit exactly and keep what is better."""
        if not len(rows):
            return
        fit = run_batch(
            _LM, _rows(self.problem, rows), lenses, max_steps=_FREE_STEPS, **self.options
        )
        better = fit.loss < self.loss[rows]
        self.best = self.best.copy()
        self.best[rows[better]] = fit.params[better]
        self.loss[rows[better]] = fit.loss[better]
        self.steps[rows] += fit.steps


def _rows(problem: InverseProblem, rows: np.ndarray) -> InverseProblem:
    """Return the problem of some samples."""
    return problem.replace(observation=problem.observation[rows], context=problem.context[rows])


@functools.partial(jax.jit, static_argnames=("size", "aliases", "given"), compiler_options=REORDER)
def _fit_slopes(
    turns: Float[Array, "b n n"],
    wavelength: Float[Array, " b"],
    start: Float[Array, "b 4"],
    forward: Pointwise,
    space: ParameterSpace,
    *,
    size: int,
    aliases: int,
    given: bool,
) -> Float[Array, "b k 4"]:
    """Return lenses that fit the slopes, the best first."""
    blocks = Blocks.of(size)

    def one(image: Array, length: Array, start: Array) -> Array:
        phasors = block_phasors(image, blocks)
        lenses = _closed_form(phasors, blocks, length, space, aliases)
        lenses = jnp.concatenate([start[None], lenses]) if given else lenses
        known = slopes(phasors[0]), slopes(phasors[1])
        problem = slope_problem(forward, known, blocks, space=space, context=length)
        fits = jax.vmap(lambda lens: run(_LM, problem, lens, num_steps=_SLOPE_STEPS))(lenses)
        losses = fits.loss.at[0].multiply(0.8) if given else fits.loss  # a tie is the user's
        order = jnp.argsort(jnp.where(jnp.isnan(losses), jnp.inf, losses))
        fitted = fits.params[order]
        return jnp.where(jnp.isfinite(fitted), fitted, start)

    return jax.vmap(one)(turns, wavelength, start)


def _closed_form(
    phasors: Any, blocks: Blocks, wavelength: Array, space: ParameterSpace, aliases: int
) -> Float[Array, "k 4"]:
    """Return the most plausible lenses with the slopes of the map, for all aliases."""
    shape = expand(*phasors, blocks)
    turns = jnp.arange(-aliases, aliases + 1)
    offsets = jnp.stack(jnp.meshgrid(turns, turns), -1).reshape(-1, 2)
    scale = blocks.size - 1  # pixels in a window

    def lens(offset: Array) -> Any:
        slope, curvature = (shape.slope + offset) * scale, shape.curvature * scale
        return lens_from_slopes(slope, curvature, wavelength, space.upper[2])

    guesses = jax.vmap(lens)(offsets)
    plain = len(offsets) // 2  # slopes as they are: where noise hides the curvature, most plausible
    few = jnp.argsort(guesses.misfit.at[plain].set(-1))[:_CANDIDATES]
    return space.clip(guesses.lens[few])


@jax.jit
def _pistons(problem: InverseProblem, lenses: Array) -> Array:
    """Return the piston of each map."""
    return jax.lax.map(
        lambda pair: piston(problem.replace(observation=pair[0], context=pair[1]), pair[2]),
        (problem.observation, problem.context, lenses),
        batch_size=_CHUNK,
    )
