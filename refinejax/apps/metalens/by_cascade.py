"""Inversion by the cascade: at known wavelengths, at one of several lines, or at none known."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from refinejax.apps.metalens import portions
from refinejax.apps.metalens.cascade.lines import choose_lines, nearest_line
from refinejax.apps.metalens.cascade.scale import (
    OTHERS,
    REFERENCE,
    WAVELENGTH,
    nearest_multiple,
    reference_space,
)
from refinejax.apps.metalens.cascade.slopes import SlopeFit, fit_slopes
from refinejax.apps.metalens.cascade.stages import SMALLEST, CascadeOptions
from refinejax.apps.metalens.inversion import Inversion
from refinejax.apps.metalens.lenses import (
    insert_wavelength,
    residual_rmse,
    space,
    touches_bound,
    widen,
)
from refinejax.batch import BatchResult
from refinejax.batch.pipeline import Pipeline
from refinejax.problems import ParameterSpace

CASCADE = "cascade: slopes, then phase but for a piston, then all, each by Levenberg–Marquardt"
LEARNED = "learned: slopes by a learned refiner; then as the cascade"


def by_cascade(task: Inversion, lines: np.ndarray | None, slopes: SlopeFit) -> BatchResult:
    """Solve by slopes, piston and rungs; with an unknown wavelength, at one for all.

    Args:
        task: maps, starts and options.
        lines: wavelengths [µm] one of which it is; None if it is known, or any.
        slopes: the first stage.

    Returns:
        `BatchResult` with params (B, 5) [µm] and margins.

    Raises:
        ValueError: for maps that are too small, or devices of several processes.
    """
    size = task.maps.shape[-1]
    if size < SMALLEST:
        raise ValueError(
            f"method: the cascade needs maps of {SMALLEST} × {SMALLEST} pixels or more, got "
            f"{size} × {size}; use another method"
        )
    options = CascadeOptions(task.given, slopes, task.max_steps, task.stop)
    with task.pipeline(identity=[lines, task.starts]) as pipeline:
        mesh = pipeline.execution.mesh
        if mesh is not None and mesh.is_multi_process:
            raise ValueError(
                "execution: the cascade runs on the devices of one process, got a mesh of several; "
                "give each process a part of the maps"
            )
        if task.known is not None:
            result = _at_known(pipeline, task, options)
        elif lines is None:
            result = _unknown(pipeline, task, options)
        else:
            result = _at_lines(pipeline, task, options, lines)
    fixed = task.known is not None or lines is not None
    trace = None if result.trace is None else _with_ends(result, task, known=task.known is not None)
    return replace(
        result,
        at_bound=touches_bound(result.params, known=fixed),
        seconds=pipeline.seconds,
        trace=trace,
        method=CASCADE if slopes is fit_slopes else LEARNED,
    )


def _with_ends(result: BatchResult, task: Inversion, *, known: bool) -> np.ndarray:
    """Return the trace between the losses at the start and of the lenses that were chosen.

    The loss of the start is the square of `residual_rmse`; at the
    wavelengths chosen, the fit may have another loss than at the reference.
    """
    assert result.trace is not None
    count = len(result.trace)
    starts = task.starts[:count]
    inside = np.asarray(space().clip(starts))
    inside = widen(inside[:, OTHERS], starts, OTHERS) if known else inside
    first = residual_rmse(task.maps[:count], inside).astype(float) ** 2
    between = np.fmin(result.trace[:, 1:-1], first[:, None])
    return np.column_stack([first, between, result.loss[:count]])


def _at_known(pipeline: Pipeline, task: Inversion, options: CascadeOptions) -> BatchResult:
    """Solve at known wavelengths."""
    assert task.known is not None
    box, dtype = space(wavelength=False), task.maps.dtype
    begin = np.asarray(box.clip(jnp.asarray(task.starts[:, OTHERS], dtype)))
    length = task.known.astype(dtype)
    result = portions.solve(pipeline, task.maps, length, begin, box, options, trace=task.trace)
    return replace(result, params=insert_wavelength(result.params, task.known))


def _unknown(pipeline: Pipeline, task: Inversion, options: CascadeOptions) -> BatchResult:
    """Solve at a reference wavelength, and scale each lens to be nearest to its start."""
    inside = np.asarray(space().clip(task.starts))
    scaled = task.starts * (REFERENCE / inside[:, [WAVELENGTH]])
    result = _at_reference(pipeline, task, options, scaled, reference_space())
    length = np.full(len(task.maps), REFERENCE)
    params = insert_wavelength(result.params, length)
    wide, within = nearest_multiple(params, task.starts)
    result = replace(result, params=wide)
    rows = np.flatnonzero(~within)
    if len(rows):
        again = _Refit(pipeline, task, options)(rows, wide[rows])
        result = _with_fits(result, rows, again)
    return _no_worse(result, space().clip(task.starts))


def _at_lines(
    pipeline: Pipeline, task: Inversion, options: CascadeOptions, lines: np.ndarray
) -> BatchResult:
    """Solve at a reference wavelength, and choose the line that explains each map best."""
    starts = task.starts.copy()
    starts[:, WAVELENGTH] = nearest_line(starts[:, WAVELENGTH], lines)
    scaled = starts * (REFERENCE / starts[:, [WAVELENGTH]])
    box = reference_space(lines.min(), lines.max())
    result = _at_reference(pipeline, task, options, scaled, box)
    refit = _Refit(pipeline, task, options)
    result = choose_lines(task.maps, result, lines, starts, refit)
    inside = np.asarray(space().clip(starts))
    return _no_worse(result, widen(inside[:, OTHERS], starts, OTHERS))


def _at_reference(
    pipeline: Pipeline,
    task: Inversion,
    options: CascadeOptions,
    scaled: np.ndarray,
    box: ParameterSpace,
) -> BatchResult:
    dtype = task.maps.dtype
    begin = np.asarray(box.clip(jnp.asarray(scaled[:, OTHERS], dtype)))
    length = np.full(len(task.maps), REFERENCE, dtype)
    return portions.solve(pipeline, task.maps, length, begin, box, options, trace=task.trace)


class _Refit:
    """Fits lenses again at their wavelengths, where the ranges forced them to move.

    Those for which no time is left stay as they are.
    """

    def __init__(self, pipeline: Pipeline, task: Inversion, options: CascadeOptions) -> None:
        self.pipeline, self.maps = pipeline, task.maps
        self.options = replace(options, given=True)
        self.calls = 0

    def __call__(self, rows: np.ndarray, wide: np.ndarray) -> BatchResult:
        """Return the fits of maps of these numbers, from lenses (n, 5) [µm]."""
        self.calls += 1
        maps, length = self.maps[rows], wide[:, WAVELENGTH]
        fit = portions.solve(
            self.pipeline, maps, length, wide[:, OTHERS], space(wavelength=False), self.options,
            name=f"again {self.calls}",
        )  # fmt: skip
        loss = np.where(np.isnan(fit.loss), residual_rmse(maps, wide) ** 2, fit.loss)
        return replace(fit, params=insert_wavelength(fit.params, length), loss=loss)


def _with_fits(result: BatchResult, rows: np.ndarray, fits: BatchResult) -> BatchResult:
    """Return the results with some samples replaced; their steps are added."""

    def put(values: np.ndarray, some: np.ndarray) -> np.ndarray:
        changed = values.copy()
        changed[rows] = some
        return changed

    margins = {name: put(result.margins[name], margin) for name, margin in fits.margins.items()}
    counts = result.counted()
    counts[rows] += fits.counted()
    return replace(
        result.with_counts(counts),
        params=put(result.params, fits.params),
        loss=put(result.loss, fits.loss),
        status=put(result.status, fits.status),
        steps=put(result.steps, result.steps[rows] + fits.steps),
        margins={**result.margins, **margins},
    )


def _no_worse(result: BatchResult, starts: np.ndarray) -> BatchResult:
    """Return the results, with the start where it was better."""
    worse = result.loss > result.initial_loss
    params = np.where(worse[:, None], np.asarray(starts, result.params.dtype), result.params)
    return replace(result, params=params, loss=np.where(worse, result.initial_loss, result.loss))
