"""Whether other starts lead to other optima, so that a local method is not enough."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from refinejax._scales import samples_of
from refinejax.batch import BatchResult
from refinejax.batch.pipeline import BatchJob, Pipeline
from refinejax.problems import InverseProblem

SAMPLES, STARTS = 8, 2  # looked at, at most; other starts of each
SHIFT = 0.1  # standard deviation of those, as a share of each range
SHARE = 0.25  # of the samples that end elsewhere: then starts are said to disagree
_SAME = 0.1  # relative difference of losses that are taken for the same


class Probe(NamedTuple):
    """Of how many samples that were looked at some start led to another loss.

    Only fits that have converged say anything: two that have not differ anyway.
    """

    elsewhere: int
    of: int
    counts: np.ndarray  # evaluations that it took, of values and of derivatives, (B, 2)

    @property
    def disagree(self) -> bool:
        """Whether local methods depend on the start."""
        return self.of > 0 and self.elsewhere >= SHARE * self.of


def probe(pipeline: Pipeline, job: BatchJob, result: BatchResult) -> Probe:
    """Refine some samples again from other starts, with the program that is compiled already.

    Without a finite range there is no scale to move the starts by: nothing is looked at.

    Args:
        pipeline: in which the job was run.
        job: a local method, its problem an `InverseProblem`.
        result: how the samples ended.
    """
    nothing = np.zeros((len(result), 2), np.int32)
    if job.problem.space is None or not _ranged(job.problem):
        return Probe(0, 0, nothing)
    ended = np.flatnonzero(result.converged)
    if not len(ended):
        return Probe(0, 0, nothing)
    rows = ended[np.linspace(0, len(ended) - 1, min(SAMPLES, len(ended))).astype(int)]
    twice = np.repeat(rows, STARTS)
    problem = samples_of(job.problem, job.axes, twice)
    starts = _moved(problem, jax.tree.map(lambda leaf: np.asarray(leaf)[twice], job.params))
    moved = replace(job, problem=problem, params=starts, key=None)
    again = pipeline.run(moved, recorded=False)
    others = np.where(again.converged, again.loss, result.loss[twice])
    losses = np.column_stack([result.loss[rows], others.reshape(-1, STARTS)])
    small = 1e-6 * np.abs(result.initial_loss[rows])
    best, worst = losses.min(axis=1), losses.max(axis=1)
    counts = nothing.copy()
    np.add.at(counts, twice, again.counted())
    return Probe(int(np.sum(worst > (1 + _SAME) * best + small)), len(rows), counts)


def _ranged(problem: InverseProblem) -> bool:
    """Return whether some param has a range that gives the size of its steps."""
    return any(bool(np.any(leaf > 0)) for leaf in jax.tree.leaves(_ranges(problem)))


def _ranges(problem: InverseProblem) -> Any:
    """Return the range of each param of each sample, 0 where it is not the scale of the param."""
    assert problem.space is not None

    def width(scale: Any, low: Any, high: Any) -> np.ndarray:
        wide = np.asarray(high, float) - np.asarray(low, float)
        return np.where(np.isfinite(wide) & (wide <= 2 * np.asarray(scale)), wide, 0)

    scale = problem.space.scale if problem.scale is None else problem.scale
    return jax.tree.map(width, scale, *problem.space.bounds)


def _moved(problem: InverseProblem, starts: Any) -> Any:
    """Return starts moved at random, within the bounds; always the same."""
    rng = np.random.default_rng(0)
    assert problem.space is not None

    def move(start: np.ndarray, width: np.ndarray) -> np.ndarray:
        return (start + SHIFT * width * rng.normal(size=start.shape)).astype(start.dtype)

    moved = jax.tree.map(move, starts, _ranges(problem))
    return jax.tree.map(np.asarray, jax.vmap(problem.space.clip)(moved))
