"""The cascade over batches of any size: portions, resume, progress, time limit."""

import os
import time
from dataclasses import replace

import jax
import numpy as np

from refinejax._core import Status, Stop
from refinejax._deadline import Deadline
from refinejax._progress import Bar
from refinejax.apps.metalens.cascade.leap import LONGEST, leap
from refinejax.apps.metalens.cascade.slopes import SlopeFit, fit_slopes
from refinejax.apps.metalens.cascade.stages import Cascade
from refinejax.apps.metalens.problem import exact_problem, losses, take
from refinejax.batch.execution import Execution, as_execution
from refinejax.batch.ledger import Ledger, fingerprint
from refinejax.batch.plan import make_plan
from refinejax.batch.result import BatchResult
from refinejax.batch.sizing import lanes_within
from refinejax.batch.sources import check_steps
from refinejax.problems import InverseProblem, ParameterSpace
from refinejax.refiners import LevenbergMarquardt

_PORTION = 4096  # maps that go through the stages together


def solve(
    maps: np.ndarray,
    wavelength: np.ndarray,
    start: np.ndarray,
    space: ParameterSpace,
    *,
    given: bool,
    slopes: SlopeFit = fit_slopes,
    max_steps: int | None = None,
    stop: Stop | None = None,
    execution: Execution | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    time_limit: float | None = None,
) -> BatchResult:
    """Fit (xc, yc, S, focal_length) [µm] to maps (B, N, N) [rad] of known wavelengths (B,) [µm].

    Args:
        maps: NaN is missing.
        wavelength: of each map.
        start: shape (B, 4); what is returned is not worse.
        space: the bounds.
        given: whether the start is somebody's, and worth trying.
        slopes: the first stage.
        max_steps: the most steps of each fit.
        stop: ends the last fit.
        execution: as for `run_batch`.
        progress: as for `run_batch`.
        checkpoint: as for `run_batch`; portions of 4096 maps are kept.
        time_limit: as for `run_batch`.

    Returns:
        `BatchResult` with the margin "rung".
    """
    begun, count = time.monotonic(), len(maps)
    how = as_execution(execution)
    if how.memory_limit is not None:
        few = slice(0, min(count, _PORTION))
        task = exact_problem(maps[few], wavelength[few], space)
        lanes = lanes_within(how.memory_limit, LevenbergMarquardt(), task, start[few])
        how = Execution(lanes=lanes, threads=1, mesh=how.mesh)
    else:  # as many in stages of few maps: one program for all, and for all batches
        how = replace(how, lanes=make_plan(how.lanes, count, how.mesh).lanes)
    if max_steps is not None:
        max_steps = check_steps(max_steps)
    kept = _Kept(start)
    ledger = None
    if checkpoint is not None:
        learned = None if slopes is fit_slopes else slopes
        numbers = jax.tree.leaves((max_steps, stop, space, learned))
        job = fingerprint(
            ("cascade with margins", given, learned is not None),
            [*numbers, start, wavelength],
            [maps],
        )
        ledger = Ledger(checkpoint, job)
        for columns in ledger.load():
            kept.put(*columns)
    with Bar(count, shown=progress) as bar, Deadline(time_limit) as deadline:
        bar.update(int(kept.ended.sum()), kept.converged(np.flatnonzero(kept.ended)))
        todo = np.flatnonzero(~kept.ended)
        for first in range(0, len(todo), _PORTION):
            rows = todo[first : first + _PORTION]
            if (status := deadline.status()) is not None:
                kept.status[rows] = int(status)
                continue
            problem = exact_problem(maps[rows], wavelength[rows], space)
            columns, left = [], np.arange(len(rows))
            if (
                stop is None
                and maps.dtype == np.float32
                and (max_steps is None or max_steps >= LONGEST)
            ):
                columns, left = _leap(rows, problem, space, start[rows], given, slopes)
            if len(left):
                cascade = Cascade(
                    take(problem, left),
                    space,
                    start[rows[left]],
                    given=given,
                    max_steps=max_steps,
                    stop=stop,
                    execution=how,
                    deadline=deadline,
                    slopes=slopes,
                )
                cascade.solve()
                columns.append(_columns(rows[left], cascade))
            for part in columns:
                kept.put(*part)
            bar.update(len(rows), kept.converged(rows))
            if ledger is not None and deadline.status() is None:
                for part in columns:
                    ledger.add(part)
                ledger.flush()
    return kept.result(time.monotonic() - begun)


def _leap(
    rows: np.ndarray,
    problem: InverseProblem,
    space: ParameterSpace,
    start: np.ndarray,
    given: bool,
    slopes: SlopeFit,
) -> tuple[list[list[np.ndarray]], np.ndarray]:
    """Return the columns of the maps that are solved the short way, and which are left."""
    found = leap(problem, space, start, given=given, slopes=slopes)
    initial_loss = losses(problem, start)
    solved = found.solved & (found.loss <= initial_loss)
    status = np.full(len(rows), int(Status.CONVERGED_LOSS), np.int8)
    columns = [
        rows, found.lenses, found.loss, initial_loss, found.steps, status, found.margin,
    ]  # fmt: skip
    return [[column[solved] for column in columns]], np.flatnonzero(~solved)


def _columns(rows: np.ndarray, cascade: Cascade) -> list[np.ndarray]:
    return [
        rows, cascade.lenses, cascade.loss, cascade.initial_loss, cascade.steps, cascade.status,
        cascade.margin,
    ]  # fmt: skip


class _Kept:
    """Results of all maps; those not begun stay as they came."""

    def __init__(self, start: np.ndarray) -> None:
        count = len(start)
        self.params = start.copy()
        self.loss = np.full(count, np.nan, start.dtype)
        self.initial_loss = np.full(count, np.nan, start.dtype)
        self.steps = np.zeros(count, np.int32)
        self.status = np.full(count, int(Status.STOPPED), np.int8)
        self.margin = np.full(count, np.nan)
        self.ended = np.zeros(count, bool)

    def put(self, rows: np.ndarray, *columns: np.ndarray) -> None:
        """Store the results of some maps, in the order of `_columns`."""
        mine = (
            self.params, self.loss, self.initial_loss, self.steps, self.status, self.margin,
        )  # fmt: skip
        for all_, some in zip(mine, columns, strict=True):
            all_[rows] = some
        self.ended[rows] = True

    def converged(self, rows: np.ndarray) -> int:
        """Return how many of these met a stopping rule."""
        return sum(Status(int(value)).converged for value in self.status[rows])

    def result(self, seconds: float) -> BatchResult:
        """Put the result together."""
        return BatchResult(
            params=self.params,
            loss=self.loss,
            initial_loss=self.initial_loss,
            steps=self.steps,
            status=self.status,
            margins={"rung": self.margin},
            seconds=seconds,
        )
