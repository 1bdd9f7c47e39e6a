"""Phase maps by a population on few pixels, then by least squares on all."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from refinejax._core import Refiner, Status
from refinejax.apps.metalens.problem import exact_problem, losses
from refinejax.batch import BatchResult, run_batch
from refinejax.problems import ParameterSpace, thinned
from refinejax.refiners import LevenbergMarquardt

COARSE = 16  # pixels along each side that the population looks at
SIZE, STD = 200, 0.03  # of the population: a hundred minima lie within a few per cent
_LM_STEPS = 50


def solve(
    maps: np.ndarray,
    wavelength: np.ndarray,
    starts: np.ndarray,
    space: ParameterSpace,
    refiner: Refiner,
    *,
    key: Any,
    max_steps: int,
    stop: Any = None,
    checkpoint: Any = None,
    time_limit: float | None = None,
    **options: Any,
) -> BatchResult:
    """Refine maps of a known wavelength; no sample is worse than it came in.

    Args:
        maps: shape (B, n, n) [rad].
        wavelength: shape (B,) [µm].
        starts: (xc, yc, S, focal length), shape (B, 4) [µm].
        space: of those.
        refiner: the population.
        key: as for `run_batch`, like the rest.
        max_steps: most generations.
        stop: as for `run_batch`.
        checkpoint: a folder; each of the two stages has its own in it.
        time_limit: for both.
        options: execution, progress.
    """
    begun = time.monotonic()
    problem = exact_problem(maps, wavelength.astype(maps.dtype), space)
    folders = [None if checkpoint is None else Path(checkpoint) / part for part in ("few", "all")]
    few = thinned(problem, COARSE)
    rough = run_batch(
        refiner,
        few,
        starts,
        key,
        max_steps=max_steps,
        stop=stop,
        checkpoint=folders[0],
        time_limit=time_limit,
        **options,
    )
    stopped = rough.status == Status.STOPPED
    left = None if time_limit is None else max(time_limit - (time.monotonic() - begun), 0.0)
    left = 0.0 if np.any(stopped) else left
    fine = run_batch(
        LevenbergMarquardt(),
        problem,
        rough.params,
        key,
        max_steps=min(_LM_STEPS, max_steps),
        stop=stop,
        checkpoint=folders[1],
        time_limit=left,
        **options,
    )
    first = losses(problem, np.asarray(space.clip(starts)))
    better = fine.loss < first
    return replace(
        fine,
        params=np.where(better[:, None], fine.params, np.asarray(space.clip(starts))),
        loss=np.where(better, fine.loss, first),
        initial_loss=first,
        steps=rough.steps + fine.steps,
        status=np.where(stopped, np.int8(Status.STOPPED), fine.status),
        seconds=time.monotonic() - begun,
    )
