"""From phase maps to lenses, wherever one starts: slopes, then phase but for a piston, then all.

1. Slopes and curvatures of the map give lenses in closed form, one for each way in which the slopes
   can be aliased. They, and the start that is given, are fitted to the slopes of all blocks.
2. The best, and what fits nearly as well, is fitted to the phase with a constant unknown (the
   piston). Its residual is the least that any rung of the fringe ladder can have.
3. The piston is moved to a whole number of turns: the exact problem.
4. The rungs around that fit are ranked, and the best is taken (see `apps.metalens.cascade.climb`).

Params are (xc, yc, S, focal_length) in µm throughout, phases in turns, losses in rad².
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from refinejax._core import Status, Stop
from refinejax._status import have_converged
from refinejax.apps.metalens.cascade.climb import CLEAN, MOVES, climb
from refinejax.apps.metalens.cascade.slopes import SlopeFit, fit_slopes
from refinejax.apps.metalens.problem import losses, pistons, take
from refinejax.batch import BatchResult
from refinejax.batch.engine import Finished
from refinejax.batch.pipeline import BatchJob, Pipeline
from refinejax.problems import InverseProblem, ParameterSpace, thinned
from refinejax.problems.phase import free_piston, held_piston
from refinejax.refiners import LevenbergMarquardt

SMALLEST = 12  # pixels along a side, below which there are too few blocks
_STEPS = 50
_SLOPE_STEPS = 8
_HELD_STEPS = 5
_FEW = 32  # pixels along a side for the fit with the piston free
_SHARES = (1 / 3, 2 / 3, 1)  # of the way of the piston to a rung
_TIE = 1.3  # a lens whose slopes fit nearly as well as the best is tried too
_TIES = 2  # at most so many
_SAME = 1e-3  # share of the ranges by which lenses differ that are the same
_SLACK = 1.02  # loss on the right rung over that with the piston free, at most
_FINE = 1e-7  # rad²; where float64 goes on with what float32 has fitted
# The loss is known to 1e-4 where noise in the params scatters it by more.
_ROUGH = Stop(loss=1e-4, target=CLEAN)
_UNEXPLAINED = 0.5  # rad²; a fit that explains most of a map leaves less


@dataclass(frozen=True)
class CascadeOptions:
    """How the cascade goes.

    Attributes:
        given: whether the start was given by the user, and is fitted too.
        slopes: the first stage.
        max_steps: the most steps of each fit; None for the default.
        stop: ends the last fit; None for the default.
    """

    given: bool
    slopes: SlopeFit = fit_slopes
    max_steps: int | None = None
    stop: Stop | None = None


class Cascade:
    """Maps to be solved, and the best lenses so far.

    Args:
        problem: of B maps (see `exact_problem`).
        space: its bounds.
        start: shape (B, 4).
        options: how to go on.
        pipeline: in which the fits are run; says when to end early.

    Attributes:
        by_slopes: lenses that fit the slopes best, (B, 4) [µm].
        lenses, loss, status, steps: the best so far; at first the start.
        evaluations: of the phase and its derivatives in all fits, (B, 2).
        initial_loss: the loss there.
        free: the loss with the piston free, ∞ where it is not known.
        lens_free, pistons: the fit with the piston free [µm], [turns].
        margin: of the rung, see `apps.metalens.cascade.rungs.Choice`; NaN where it is not known.
    """

    def __init__(
        self,
        problem: InverseProblem,
        space: ParameterSpace,
        start: np.ndarray,
        options: CascadeOptions,
        pipeline: Pipeline,
    ) -> None:
        self.problem, self.start, self.space = problem, start, space
        self.options, self.pipeline = options, pipeline
        self.few = thinned(problem, _FEW)
        self.most = _STEPS if options.max_steps is None else options.max_steps
        count = len(start)
        self.lenses = start.copy()
        self.initial_loss = losses(problem, start)
        self.loss = self.initial_loss.copy()
        bad = ~np.isfinite(self.loss)
        self.status = np.where(bad, int(Status.NONFINITE_START), int(Status.STALLED)).astype(
            np.int8
        )
        self.steps = np.zeros(count, np.int32)
        self.evaluations = np.tile(np.array([1, 0], np.int32), (count, 1))  # the start
        self.free = np.full(count, np.inf, self.loss.dtype)
        self.margin = np.full(count, np.nan)
        self.by_slopes = start.copy()
        self.lens_free, self.pistons = start.copy(), np.zeros(count, start.dtype)

    def solve(self) -> None:
        """Run all stages; end early, with the best so far, if the deadline says so."""
        self._solve()
        status = self.pipeline.status()
        if status is not None:
            self.status[~have_converged(self.status) & (self.status > 0)] = int(status)

    def finished(self, ids: np.ndarray) -> Finished:
        """Return the best so far, of maps of these numbers.

        Args:
            ids: numbers of the maps, shape (n,).
        """
        return Finished(
            ids=ids,
            params=[self.lenses],
            loss=self.loss,
            initial_loss=self.initial_loss,
            steps=self.steps,
            evaluations=self.evaluations,
            status=self.status,
            margins={"rung": self.margin},
        )

    def _solve(self) -> None:
        found, misfit = self.options.slopes(
            self.problem, self.space, self.start, given=self.options.given, steps=_SLOPE_STEPS
        )
        self.by_slopes = found[:, 0]
        tries = misfit <= _TIE * misfit[:, :1]
        tries[:, 1 + _TIES :] = False
        others = np.isfinite(misfit) & ~self._repeated(found)
        self._fit_free(found, tries & others)
        lost = ~(self.free <= _UNEXPLAINED)
        self._fit_free(found, others & ~tries & lost[:, None])
        self._fit_exact(np.arange(len(self.start)), self.lens_free)
        fits_ill = self.loss > np.maximum(_SLACK * self.free, CLEAN)
        self._fit_rung(np.flatnonzero(fits_ill & (self.free <= _UNEXPLAINED)))
        for rank in range(found.shape[1]):  # noise beyond half a turn: whatever fits best
            rows = np.flatnonzero(~(self.loss <= _UNEXPLAINED) & others[:, rank])
            self._fit_exact(rows, found[rows, rank])
        as_it_came = self.status == int(Status.STALLED)
        rows = np.flatnonzero(as_it_came | (self.options.given & ~(self.loss <= _UNEXPLAINED)))
        self._fit_exact(rows, self.start[rows])
        rows = np.flatnonzero(self.loss <= _UNEXPLAINED)
        if not len(rows) or self.pipeline.status() is not None:
            return
        moves = min(self.most, MOVES)
        found = climb(self.problem, self.space, rows, self.lenses[rows], moves=moves)
        kept = found.loss <= self.initial_loss[rows]  # float32 may have called the start better
        self.steps[rows] += found.moves
        self.evaluations[rows] += 1 + found.moves[:, None]  # each by a linearization
        self.margin[rows] = np.where(kept, found.margin, found.margin_before)
        self.lenses[rows[kept]], self.loss[rows[kept]] = found.lenses[kept], found.loss[kept]

    def _repeated(self, lenses: np.ndarray) -> np.ndarray:
        """Return whether each of k lenses is the same as one before it, shape (B, k)."""
        unit = lenses / np.asarray(self.space.upper - self.space.lower)
        apart = np.max(np.abs(unit[:, :, None] - unit[:, None, :]), axis=-1)
        return np.any(np.tril(apart < _SAME, -1), axis=2)

    def _fit_free(self, lenses: np.ndarray, wanted: np.ndarray) -> None:
        """Fit lenses (B, k, 4) where ``wanted`` (B, k), with the piston free; keep the best."""
        rows, ranks = np.nonzero(wanted)
        if not len(rows):
            return
        begin = lenses[rows, ranks]
        few = take(self.few, rows)
        fit = self._run(free_piston(few), (begin, pistons(few, begin)), self.most, _ROUGH)
        if fit is None:
            return
        self._count(rows, fit)
        loss = losses(free_piston(take(self.problem, rows)), fit.params)
        order = np.argsort(-loss, kind="stable")  # of several, the last is kept: the best
        order = order[loss[order] < self.free[rows[order]]]
        at = rows[order]
        self.free[at], self.pistons[at] = loss[order], fit.params[1][order]
        self.lens_free[at] = fit.params[0][order]

    def _fit_rung(self, rows: np.ndarray) -> None:
        """Move the piston to the nearest whole number by steps, and fit exactly from there."""
        problem, here, lenses = take(self.problem, rows), self.pistons[rows], self.lens_free[rows]
        there = np.round(here)
        for share in _SHARES:
            held = held_piston(problem, (here + share * (there - here)).astype(here.dtype))
            fit = self._run(held, lenses, min(_HELD_STEPS, self.most), _ROUGH)
            if fit is None:
                return
            lenses = fit.params
            self._count(rows, fit)
        self._fit_exact(rows, lenses)

    def _fit_exact(self, rows: np.ndarray, lenses: np.ndarray) -> None:
        """Fit exactly, and keep lenses that fit better."""
        stop = self.options.stop
        if stop is None and self.loss.dtype == np.float32:
            stop = Stop(target=_FINE)
        fit = self._run(take(self.problem, rows), lenses, self.most, stop)
        if fit is None:
            return
        status = fit.status
        if self.options.stop is None:  # the target is the stage's, not the user's
            reached = status == int(Status.TARGET_REACHED)
            status = np.where(reached, np.int8(Status.CONVERGED_LOSS), status)
        self._count(rows, fit)
        better = (fit.loss <= self.loss[rows]) | ~np.isfinite(self.loss[rows])
        better &= np.isfinite(fit.loss)
        at = rows[better]
        self.lenses[at], self.loss[at] = fit.params[better], fit.loss[better]
        self.status[at] = status[better]

    def _count(self, rows: np.ndarray, fit: BatchResult) -> None:
        """Add what fits of these rows cost; a row may occur several times."""
        np.add.at(self.steps, rows, fit.steps)
        np.add.at(self.evaluations, rows, fit.counted())

    def _run(
        self, problem: InverseProblem, start: Any, max_steps: int, stop: Stop | None
    ) -> BatchResult | None:
        """Run a batch within the time that is left; None if there are no samples, or no time."""
        if self.pipeline.status() is not None or not len(jax.tree.leaves(start)[0]):
            return None
        job = BatchJob(LevenbergMarquardt(), problem, start, max_steps, stop=stop)
        return self.pipeline.run(job, recorded=False)
