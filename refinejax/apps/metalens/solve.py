"""From phase maps of a metalens to its geometry."""

import functools
import os
from dataclasses import replace
from typing import Any

import numpy as np

from refinejax._checks import as_key, as_stop, check_seconds
from refinejax._core import Refiner, Stop
from refinejax._marks import door
from refinejax._methods import METHODS
from refinejax.apps.metalens.by_cascade import by_cascade
from refinejax.apps.metalens.cascade.scale import OTHERS
from refinejax.apps.metalens.cascade.slopes import fit_slopes
from refinejax.apps.metalens.cascade.stages import SMALLEST
from refinejax.apps.metalens.checks import check_lines, check_maps, check_wavelengths, read_starts
from refinejax.apps.metalens.inversion import Inversion
from refinejax.apps.metalens.learned import LearnedSlopes
from refinejax.apps.metalens.lenses import space, widen
from refinejax.apps.metalens.methods import by_population, by_refine, is_population
from refinejax.apps.metalens.notes import NOTE_SCALE, undecided_notes
from refinejax.apps.metalens.prediction import predict_maps
from refinejax.apps.metalens.tasks import SMALLEST as SMALLEST_LEARNED
from refinejax.apps.metalens.uncertainty import lens_fit, standard_errors
from refinejax.batch import BatchResult, Execution
from refinejax.batch.execution import as_execution
from refinejax.models import pretrained
from refinejax.networks.predictor import Prediction, Predictor

PREDICTOR, UPDATE = "metalens_predictor", "metalens_update"  # pretrained


@door
def invert(
    phase: Any,
    *,
    wavelength: Any = None,
    lines: Any = None,
    initial: Any = None,
    method: str | Refiner = "auto",
    key: Any = 0,
    max_steps: int | None = None,
    stop: Stop | None = None,
    execution: Execution | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    time_limit: float | None = None,
    trace: int = 0,
    uncertainty: bool = True,
) -> BatchResult:
    """Find the lens params that explain wrapped phase maps.

    The loss is the mean squared wrapped difference over the pixels observed [rad²]; its root is the
    residual RMSE.

    Args:
        phase: wrapped phase maps, shape (B, N, N), or (N, N) for one [rad]. NaN: missing.
        wavelength: if known, one for all or shape (B,) [µm]; four params are unknown then. If not,
            five, of which only the ratios are determined.
        lines: wavelengths [µm] one of which it is, such as `physics.metalens.LASER_LINES`, in place
            of ``wavelength``; by the cascade only. As a lens can be scaled, the ranges of the other
            params are all that tells them apart (see `cascade.lines`), often not enough.
        initial: where to start, shape (B, 5) (or (5,)): xc, yc, S, wavelength, focal_length [µm];
            or a predictor of lenses, such as ``pretrained("metalens_predictor").value``. The
            cascade needs none; other methods then start from the middle of the ranges.
        method: as for `refine`; or "cascade", which is "auto" for maps of 12 × 12 pixels or more: a
            lens is found from the slopes of the map, then refined (see `apps.metalens.cascade`); or
            "learned": the slopes are fitted by a pretrained refiner in a few steps from ``initial``
            (and from draws of the predictor, if that is one), the rest is as in the cascade.
        key: as for `refine`.
        max_steps: as for `refine`; in the cascade, of each of its fits.
        stop: as for `refine`; in the cascade, of the last fit.
        execution: as for `refine`.
        progress: as for `refine`.
        checkpoint: as for `refine`.
        time_limit: as for `refine`.
        trace: record the losses of the first so many maps in ``result.trace``, see `run_batch`; the
            cascade has two steps: to a lens that fits the slopes, and to the fit.
        uncertainty: whether to find the standard errors.

    Returns:
        `BatchResult` with ``params`` (B, 5) [µm]; ``std`` (B, 5), the standard errors by
        linearization [µm]: 0 for a wavelength that was given, NaN where the data do not determine
        the param, where it is on a bound, or where the fit is worse than 1 rad; ``notes`` says
        which params are not known, ``covariance()`` and ``identifiability()`` how far to trust it.
        From the cascade also ``margins``: "rung", the log of the odds that the lens is on the right
        rung of the fringe ladder rather than the next best one (see `apps.metalens.cascade.rungs`;
        std and covariance are those on the rung); with ``lines`` also "line". Below 3 the map does
        not decide.

    Raises:
        ValueError: names the argument that does not fit.
    """
    maps, single = check_maps(phase)
    as_key(key)
    as_stop(stop)
    check_seconds("time_limit", time_limit)
    known = None if wavelength is None else check_wavelengths(wavelength, len(maps))
    cascade = _is_cascade(method, maps.shape[-1])
    predictor = initial if isinstance(initial, Predictor) else None
    if predictor is not None:
        initial = predict_maps(predictor, maps, known).params
    slopes = _learned(predictor, maps, initial) if method == "learned" else fit_slopes
    among = None if lines is None else check_lines(lines, wavelength, cascade)
    begin, notes = read_starts(initial, known, len(maps), maps.dtype)
    task = Inversion(
        maps=maps,
        known=known,
        starts=begin,
        given=initial is not None,
        key=key,
        max_steps=max_steps,
        stop=stop,
        execution=as_execution(execution),
        progress=progress,
        checkpoint=checkpoint,
        time_limit=time_limit,
        trace=trace,
    )
    if cascade:
        result, notes = by_cascade(task, among, slopes), []
    elif known is not None and is_population(method, maps.shape[-1]):
        result = by_population(task, str(method))
    else:
        result = by_refine(task, method)
    fixed = known is not None or among is not None
    notes += [] if fixed else [NOTE_SCALE]
    notes += undecided_notes(result, given=task.given)
    fit = lens_fit(maps, known=fixed)
    std = standard_errors(maps, result, fit) if fixed and uncertainty else None
    std = np.full_like(result.params, np.nan) if std is None else std
    result = replace(result, std=std, notes=tuple(notes), fit=fit)
    return result.squeeze() if single else result


@door
def predict_lenses(
    phase: Any, *, wavelength: Any = None, predictor: Predictor | None = None
) -> Prediction:
    """Predict lens params from wrapped phase maps by a network, without refining them.

    Args:
        phase: as for `invert`.
        wavelength: as for `invert`.
        predictor: of lenses; by default the pretrained one, for maps of 64 × 64 pixels.

    Returns:
        ``params`` and their standard deviations ``std``, both of shape (B, 5), or (5,) for one map
        [µm]; the latter 0 for a wavelength that is not predicted.

    Raises:
        ValueError: names the argument that does not fit.
    """
    maps, single = check_maps(phase)
    known = None if wavelength is None else check_wavelengths(wavelength, len(maps))
    chosen = _shipped(PREDICTOR) if predictor is None else predictor
    found = predict_maps(chosen, maps, known)
    return Prediction(*(part[0] for part in found)) if single else found


def _learned(predictor: Predictor | None, maps: np.ndarray, initial: Any) -> LearnedSlopes:
    """Return the first stage of "learned"."""
    size = maps.shape[-1]
    if initial is None:
        raise ValueError(
            'initial: method "learned" needs a start: expected params of shape (B, 5), or a '
            f'predictor such as pretrained("{PREDICTOR}").value, got None'
        )
    if size < SMALLEST_LEARNED:
        raise ValueError(
            f'method: "learned" needs maps of {SMALLEST_LEARNED} × {SMALLEST_LEARNED} pixels or '
            f'more, got {size} × {size}; use "cascade"'
        )
    return LearnedSlopes(_shipped(UPDATE), predictor)


@functools.cache
def _shipped(name: str) -> Any:
    """Return a pretrained model, read from disk once a process."""
    return pretrained(name).value


def _is_cascade(method: str | Refiner, size: int) -> bool:
    if not isinstance(method, str):
        return False
    names = ["auto", "cascade", "learned", *METHODS]
    if method not in names:
        raise ValueError(
            f"method: expected one of {', '.join(names)}, or a Refiner, got {method!r}"
        )
    return method in ("cascade", "learned") or (method == "auto" and size >= SMALLEST)


def starts(initial: Any, wavelength: Any, maps: np.ndarray) -> np.ndarray:
    """Return where `invert` starts, shape (B, 5) [µm]: in the ranges, a known wavelength set.

    Args:
        initial: shape (B, 5) or (5,) [µm]; None for the middle of the ranges.
        wavelength: known ones [µm], or None.
        maps: shape (B, N, N) [rad].
    """
    known = None if wavelength is None else check_wavelengths(wavelength, len(maps))
    found, _ = read_starts(initial, known, len(maps), maps.dtype)
    columns = list(range(5)) if known is None else OTHERS
    inside = np.asarray(space().clip(found))
    return widen(inside[:, columns], found, columns)
