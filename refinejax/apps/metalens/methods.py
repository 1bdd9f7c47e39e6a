"""Inversion by a population, or by any other method of `refine`."""

from dataclasses import replace

import numpy as np

from refinejax._checks import as_key
from refinejax._core import Refiner
from refinejax._methods import POPULATIONS, choose
from refinejax._refine import refine
from refinejax.apps.metalens import population
from refinejax.apps.metalens.cascade.scale import OTHERS
from refinejax.apps.metalens.inversion import Inversion
from refinejax.apps.metalens.lenses import lens_map, space, touches_bound, widen
from refinejax.batch import BatchResult
from refinejax.physics.phase import wrapped_difference


def is_population(method: str | Refiner, size: int) -> bool:
    """Whether a population is asked for by name, and the maps are large enough to thin them.

    Args:
        method: by name, or a `Refiner`.
        size: N, pixels along a side.
    """
    return isinstance(method, str) and method in POPULATIONS and size >= 2 * population.COARSE


def by_population(task: Inversion, method: str) -> BatchResult:
    """Refine by a population on few pixels, then by least squares on all.

    Args:
        task: maps, starts and options.
        method: by name, or a `Refiner`.

    Returns:
        `BatchResult` with params (B, 5) [µm].
    """
    chosen = choose(method, differentiable=True, size=len(OTHERS))
    refiner = chosen.refiner.replace(population_size=population.SIZE, std=population.STD)
    steps = chosen.max_steps if task.max_steps is None else task.max_steps
    result = population.solve(task, refiner, steps)
    params = widen(result.params, task.starts, OTHERS)
    coarse = population.COARSE
    said = f"{method}: as asked, on {coarse} × {coarse} pixels; then lm on all"
    return replace(result, params=params, at_bound=touches_bound(params, known=True), method=said)


def by_refine(task: Inversion, method: str | Refiner) -> BatchResult:
    """Refine by any method of `refine`; "auto" is one that needs only the start.

    Args:
        task: maps, starts and options.
        method: by name, or a `Refiner`.

    Returns:
        `BatchResult` with params (B, 5) [µm].
    """
    known, size = task.known, task.maps.shape[-1]
    columns = list(range(5)) if known is None else OTHERS
    result = refine(
        lens_map(size, known is not None),
        task.maps,
        task.starts[:, columns],
        bounds=space(wavelength=known is None),
        difference=wrapped_difference,
        context=None if known is None else known.astype(task.maps.dtype),
        batched=True,
        method="lm" if isinstance(method, str) and method == "auto" else method,
        key=as_key(task.key),
        max_steps=task.max_steps,
        stop=task.stop,
        execution=task.execution,
        progress=task.progress,
        checkpoint=task.checkpoint,
        time_limit=task.time_limit,
        trace=task.trace,
    )
    at_bound = widen(result.at_bound, np.zeros(task.starts.shape, bool), columns)
    return replace(result, params=widen(result.params, task.starts, columns), at_bound=at_bound)
