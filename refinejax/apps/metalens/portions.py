"""The cascade over batches of any size, as a stage of a pipeline: portions of maps, one by one."""

from collections.abc import Iterator
from dataclasses import replace

import jax
import numpy as np

from refinejax._core import Status
from refinejax.apps.metalens.cascade.leap import LONGEST, leap
from refinejax.apps.metalens.cascade.slopes import fit_slopes
from refinejax.apps.metalens.cascade.stages import Cascade, CascadeOptions
from refinejax.apps.metalens.problem import exact_problem, losses, take
from refinejax.batch import BatchResult, Execution
from refinejax.batch.engine import Finished
from refinejax.batch.output import Output
from refinejax.batch.pipeline import Pipeline
from refinejax.batch.plan import make_plan
from refinejax.batch.sizing import lanes_within
from refinejax.batch.sources import check_steps
from refinejax.batch.traces import LossTraces
from refinejax.problems import InverseProblem, ParameterSpace
from refinejax.refiners import LevenbergMarquardt

_PORTION = 4096  # maps that go through the stages together


def solve(
    pipeline: Pipeline,
    maps: np.ndarray,
    wavelength: np.ndarray,
    start: np.ndarray,
    space: ParameterSpace,
    options: CascadeOptions,
    *,
    name: str = "",
    trace: int = 0,
) -> BatchResult:
    """Fit (xc, yc, S, focal_length) [µm] to maps (B, N, N) [rad] of known wavelengths (B,) [µm].

    Args:
        pipeline: the deadline, the bar and the folder; portions of 4096 maps are kept there.
        maps: NaN is missing.
        wavelength: of each map.
        start: shape (B, 4); no answer is worse.
        space: the bounds.
        options: of the cascade.
        name: of the stage.
        trace: record the losses of so many maps: at the start, after the slopes, and of the fit.

    Returns:
        `BatchResult` with the margin "rung".
    """
    if options.max_steps is not None:
        options = replace(options, max_steps=check_steps(options.max_steps))
    portions = _Portions(maps, wavelength, start, space, options)
    pipeline.execution = portions.execution(pipeline.execution)
    traces = LossTraces(min(trace, len(maps)))
    output = Output([start], len(maps), margins=("rung",), traces=traces, steps_traced=False)
    pipeline.open(output, name, portions.identity())
    restored = np.flatnonzero(output.ended)
    traces.note(restored, np.full(len(restored), 2), output.loss[restored])
    todo = np.flatnonzero(~output.ended)
    for first in range(0, len(todo), _PORTION):
        if pipeline.status() is not None:
            break
        for finished in portions.solve(pipeline, todo[first : first + _PORTION], traces):
            # An interrupted portion is refined again, though a fit in it may have converged.
            pipeline.keep(output, finished, recorded=pipeline.status() is None)
        pipeline.flush()
    return pipeline.close(output)


class _Portions:
    """The arguments of `solve`, by rows."""

    def __init__(
        self,
        maps: np.ndarray,
        wavelength: np.ndarray,
        start: np.ndarray,
        space: ParameterSpace,
        options: CascadeOptions,
    ) -> None:
        self.maps, self.wavelength, self.start = maps, wavelength, start
        self.space, self.options = space, options

    def identity(self) -> tuple[object, list[object], list[object]]:
        """Return what the answers depend on."""
        options = self.options
        learned = None if options.slopes is fit_slopes else options.slopes
        numbers = (options.max_steps, options.stop, self.space, learned)
        statics = ("cascade with margins", options.given, jax.tree.structure(numbers))
        return statics, [*jax.tree.leaves(numbers), self.start, self.wavelength], [self.maps]

    def problem(self, rows: slice | np.ndarray) -> InverseProblem:
        """Return the problem of some maps."""
        return exact_problem(self.maps[rows], self.wavelength[rows], self.space)

    def execution(self, given: Execution) -> Execution:
        """Return the options with a number of lanes: one program for all stages, however few."""
        if given.memory_limit is None:
            return replace(given, lanes=make_plan(given.lanes, len(self.maps), given.mesh).lanes)
        few = slice(0, min(len(self.maps), _PORTION))
        task = self.problem(few)
        lanes = lanes_within(given.memory_limit, LevenbergMarquardt(), task, self.start[few])
        devices = 1 if given.mesh is None else given.mesh.size
        return Execution(lanes=lanes * devices, threads=1, mesh=given.mesh)

    def solve(self, pipeline: Pipeline, rows: np.ndarray, traces: LossTraces) -> Iterator[Finished]:
        """Solve some maps: the short way those that it solves, the others by all stages."""
        problem, options = self.problem(rows), self.options
        start, left = self.start[rows], np.arange(len(rows))
        steps = options.max_steps
        quick = options.stop is None and (steps is None or steps >= LONGEST)
        if quick and self.maps.dtype == np.float32:
            found = leap(problem, self.space, start, given=options.given, slopes=options.slopes)
            initial = losses(problem, start)
            solved = found.solved & (found.loss <= initial)
            finished = Finished(
                ids=rows,
                params=[found.lenses],
                loss=found.loss,
                initial_loss=initial,
                steps=found.steps,
                evaluations=np.stack([1 + found.steps, found.steps], axis=1),
                status=np.full(len(rows), int(Status.CONVERGED_LOSS), np.int8),
                margins={"rung": found.margin},
            )
            left = np.flatnonzero(~solved)
            _record(traces, problem, finished, found.by_slopes, solved)
            yield finished.rows(solved)
        if len(left):
            cascade = Cascade(take(problem, left), self.space, start[left], options, pipeline)
            cascade.solve()
            finished = cascade.finished(rows[left])
            every = np.ones(len(left), bool)
            _record(traces, cascade.problem, finished, cascade.by_slopes, every)
            yield finished


def _record(
    traces: LossTraces,
    problem: InverseProblem,
    finished: Finished,
    by_slopes: np.ndarray,
    wanted: np.ndarray,
) -> None:
    """Record the losses at the start, of the lenses that fit the slopes, and of the fits."""
    rows = np.flatnonzero(wanted & (finished.ids < len(traces)))
    if not len(rows):
        return
    ids, stage = finished.ids[rows], np.ones(len(rows), int)
    traces.note(ids, 0 * stage, finished.initial_loss[rows])
    traces.note(ids, stage, losses(take(problem, rows), by_slopes[rows]))
    traces.note(ids, 2 * stage, finished.loss[rows])
