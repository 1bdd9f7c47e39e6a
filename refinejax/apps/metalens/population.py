"""Phase maps by a population on few pixels, then by least squares on all."""

from dataclasses import replace

import numpy as np

from refinejax._core import Refiner
from refinejax.apps.metalens.cascade.scale import OTHERS
from refinejax.apps.metalens.inversion import Inversion
from refinejax.apps.metalens.lenses import space
from refinejax.apps.metalens.problem import exact_problem, losses
from refinejax.batch import BatchResult
from refinejax.batch.pipeline import BatchJob
from refinejax.problems import thinned
from refinejax.refiners import LevenbergMarquardt

COARSE = 16  # pixels along each side that the population looks at
SIZE, STD = 200, 0.03  # of the population: a hundred minima lie within a few per cent
_LM_STEPS = 50


def solve(task: Inversion, refiner: Refiner, max_steps: int) -> BatchResult:
    """Refine maps of known wavelengths; no sample is worse than it came in.

    Args:
        task: of known wavelengths.
        refiner: the population.
        max_steps: most generations.

    Returns:
        `BatchResult` with params (xc, yc, S, focal length), shape (B, 4) [µm].
    """
    assert task.known is not None
    box = space(wavelength=False)
    problem = exact_problem(task.maps, task.known.astype(task.maps.dtype), box)
    start = np.asarray(box.clip(task.starts[:, OTHERS]))
    job = BatchJob(
        refiner, thinned(problem, COARSE), task.starts[:, OTHERS], max_steps,
        key=task.key, stop=task.stop,
    )  # fmt: skip
    with task.pipeline(identity=[task.maps]) as pipeline:
        rough = pipeline.run(job, "few pixels", trace=task.trace)
        steps = min(_LM_STEPS, max_steps)
        job = replace(
            job, refiner=LevenbergMarquardt(), problem=problem, params=rough.params, max_steps=steps
        )
        fine = pipeline.run(job, "all pixels", trace=task.trace)
        first = losses(problem, start)
        skipped = np.isnan(fine.initial_loss)  # where no time was left for the second stage
        loss = np.where(skipped, losses(problem, rough.params), fine.loss)
        better = loss < first
        return replace(
            fine.with_counts(rough.counted() + fine.counted()),
            params=np.where(better[:, None], fine.params, start),
            loss=np.where(better, loss, first),
            initial_loss=first,
            steps=rough.steps + fine.steps,
            seconds=pipeline.seconds,
            trace=_trace(first, losses(problem, rough.params), fine, np.where(better, loss, first)),
        )


def _trace(
    first: np.ndarray, rough: np.ndarray, fine: BatchResult, loss: np.ndarray
) -> np.ndarray | None:
    """Return losses on all pixels: at the start, after the population, and step by step.

    Args:
        first: losses at the start, shape (B,).
        rough: after the population, shape (B,).
        fine: of the second stage, with its trace (K, T + 1) or without.
        loss: of the answers, shape (B,).
    """
    if fine.trace is None:
        return None
    count = len(fine.trace)
    steps = [first[:count, None], rough[:count, None], fine.trace[:, 1:], loss[:count, None]]
    return np.fmin.accumulate(np.concatenate(steps, axis=1), axis=1)
