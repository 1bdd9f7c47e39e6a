"""From phase maps of a metalens to its geometry."""

import functools
import os
import time
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from refinejax._checks import as_key, as_stop, check_seconds
from refinejax._core import Refiner, Status, Stop
from refinejax._deadline import Deadline
from refinejax._methods import METHODS, POPULATIONS, choose
from refinejax._refine import refine
from refinejax._run import run
from refinejax.apps.metalens import population, portions
from refinejax.apps.metalens.cascade.lines import choose_lines, nearest_line
from refinejax.apps.metalens.cascade.scale import (
    OTHERS,
    REFERENCE,
    WAVELENGTH,
    nearest_multiple,
    reference_space,
)
from refinejax.apps.metalens.cascade.slopes import SlopeFit, fit_slopes
from refinejax.apps.metalens.cascade.stages import SMALLEST
from refinejax.apps.metalens.learned import LearnedSlopes
from refinejax.apps.metalens.prediction import predict_maps
from refinejax.apps.metalens.tasks import SMALLEST as SMALLEST_LEARNED
from refinejax.apps.metalens.tasks import LensTasks as LensTasks
from refinejax.batch import BatchResult, Execution
from refinejax.batch.execution import as_execution
from refinejax.diagnostics import Fit
from refinejax.models import pretrained
from refinejax.networks.predictor import Prediction, Predictor
from refinejax.physics import metalens
from refinejax.physics.noise import PhaseNoise, apply_noise
from refinejax.physics.phase import phase_rmse, wrapped_difference
from refinejax.problems import InverseProblem, ParameterSpace

NOTE_SCALE = (
    "wavelength unknown: scaling all five params together changes nothing that can be seen, so "
    "only their ratios are determined; give the wavelength to determine the rest"
)
NOTE_RUNG = (
    "{} of {} samples: lenses a whole number of fringes off explain the map about as well (odds "
    "below 20 : 1, margins['rung'] below 3); their params may be further off than std says"
)
NOTE_LINE = (
    "{} of {} samples: the lens, scaled, explains the map about as well at another line (odds "
    "below 20 : 1, margins['line'] below 3); of lines that explain it equally, the one that brings "
    "the params nearest to {} is given"
)
NOTE_START = (
    "no initial params: started from the middle of the ranges, where few samples are solved"
)
CASCADE = "cascade: slopes, then phase but for a piston, then all, each by Levenberg–Marquardt"
LEARNED = "learned: slopes by a learned refiner; then as the cascade"
PREDICTOR, UPDATE = "metalens_predictor", "metalens_update"  # pretrained
_KNOWN = 1.0  # rad; above it a fit explains little (π/√3 = 1.81 is a random phase)


def space(*, wavelength: bool = True) -> ParameterSpace:
    """Return names, ranges and units of the params, with or without the wavelength [µm]."""
    chosen = range(len(metalens.NAMES)) if wavelength else OTHERS
    return ParameterSpace.create(
        [metalens.NAMES[i] for i in chosen],
        [metalens.LOWER[i] for i in chosen],
        [metalens.UPPER[i] for i in chosen],
        [metalens.UNITS[i] for i in chosen],
    )


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
        uncertainty: whether to find the standard errors.

    Returns:
        `BatchResult` with ``params`` (B, 5) [µm]; ``std`` (B, 5), the standard errors by
        linearization [µm]: 0 for a wavelength that was given, NaN where the data do not determine
        the param, where it is on a bound, or where the fit is worse than 1 rad; ``notes`` says what
        is not known, ``covariance()`` and ``identifiability()`` how far to trust it. From the
        cascade also ``margins``: "rung", the log of the odds that the lens is on the right rung of
        the fringe ladder rather than the next best one (see `apps.metalens.cascade.rungs`; std and
        covariance are those on the rung); with ``lines`` also "line". Below 3 the map does not
        decide.

    Raises:
        ValueError: names the argument that does not fit.
    """
    maps, single = check_maps(phase)
    as_key(key)  # complains, as do the next two
    as_stop(stop)
    check_seconds("time_limit", time_limit)
    known = None if wavelength is None else _wavelengths(wavelength, len(maps))
    cascade = _is_cascade(method, maps.shape[-1])
    predictor = initial if isinstance(initial, Predictor) else None
    if predictor is not None:
        initial = predict_maps(predictor, maps, known).params
    slopes = _learned(predictor, maps, initial) if method == "learned" else fit_slopes
    among = None if lines is None else _lines(lines, wavelength, cascade)
    starts, notes = _starts(initial, known, len(maps), maps.dtype)
    options: dict[str, Any] = {
        "max_steps": max_steps,
        "stop": stop,
        "execution": as_execution(execution),
        "progress": progress,
        "checkpoint": checkpoint,
        "time_limit": time_limit,
    }
    if cascade:
        given = initial is not None
        options |= {"slopes": slopes, "lines": among, "given": given}
        result, notes = _cascade(maps, known, starts, **options), []
    elif isinstance(method, str) and known is not None and _is_population(method, maps.shape[-1]):
        result = _evolve(maps, known, starts, method=method, key=key, **options)
    else:
        result = _refine(maps, known, starts, method=method, key=key, **options)
    fixed = known is not None or among is not None
    notes = [
        *notes,
        *([] if fixed else [NOTE_SCALE]),
        *_undecided(result, given=initial is not None),
    ]
    fit = _fit(maps, known=fixed)
    std = _standard_errors(maps, result, fit) if fixed and uncertainty else None
    std = np.full_like(result.params, np.nan) if std is None else std
    result = replace(result, std=std, notes=tuple(notes), fit=fit)
    return result.squeeze() if single else result


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
    known = None if wavelength is None else _wavelengths(wavelength, len(maps))
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


def _undecided(result: BatchResult, *, given: bool) -> list[str]:
    """Return notes on choices that the maps do not decide."""
    found = []
    near = "the start" if given else "the middle of the ranges"
    for choice, note in (("rung", NOTE_RUNG), ("line", NOTE_LINE)):
        if choice in result.margins and (number := int(np.sum(result.undecided(choice)))):
            found.append(note.format(number, len(result), near))
    return found


def _is_cascade(method: str | Refiner, size: int) -> bool:
    if not isinstance(method, str):
        return False
    names = ["auto", "cascade", "learned", *METHODS]
    if method not in names:
        raise ValueError(
            f"method: expected one of {', '.join(names)}, or a Refiner, got {method!r}"
        )
    return method in ("cascade", "learned") or (method == "auto" and size >= SMALLEST)


def _is_population(method: str, size: int) -> bool:
    """Whether a population is asked for by name, and the maps are large enough to thin them."""
    return method in POPULATIONS and size >= 2 * population.COARSE


def _evolve(
    maps: np.ndarray,
    known: np.ndarray,
    starts: np.ndarray,
    *,
    method: str,
    max_steps: int | None,
    **options: Any,
) -> BatchResult:
    """Refine by a population on few pixels, then by least squares on all."""
    chosen = choose(method, differentiable=True, size=len(OTHERS))
    box = space(wavelength=False)
    result = population.solve(
        maps,
        known,
        starts[:, OTHERS],
        box,
        chosen.refiner.replace(population_size=population.SIZE, std=population.STD),
        max_steps=chosen.max_steps if max_steps is None else max_steps,
        **options,
    )
    params = _widen(result.params, starts, OTHERS)
    coarse = population.COARSE
    said = f"{method}: as asked, on {coarse} × {coarse} pixels; then lm on all"
    at_bound = _touches_bound(params, known=True)
    return replace(result, params=params, at_bound=at_bound, method=said)


def _cascade(
    maps: np.ndarray,
    known: np.ndarray | None,
    starts: np.ndarray,
    *,
    lines: np.ndarray | None,
    given: bool,
    slopes: SlopeFit,
    **options: Any,
) -> BatchResult:
    """Solve by slopes, piston and rungs; with an unknown wavelength, at one for all."""
    if maps.shape[-1] < SMALLEST:
        raise ValueError(
            f"method: the cascade needs maps of {SMALLEST} × {SMALLEST} pixels or more, got "
            f"{maps.shape[1]} × {maps.shape[2]}; use another method"
        )
    end = Deadline(options["time_limit"]).end
    if lines is not None:
        starts = _widen(starts[:, OTHERS], starts, OTHERS)
        starts[:, WAVELENGTH] = nearest_line(starts[:, WAVELENGTH], lines)
    if known is None:
        box = reference_space() if lines is None else reference_space(lines.min(), lines.max())
        length = np.full(len(maps), REFERENCE)
        inside = starts if lines is not None else np.asarray(space().clip(starts))
        scaled = starts * (REFERENCE / inside[:, [WAVELENGTH]])
    else:
        box, length, scaled = space(wavelength=False), known, starts
    begin = np.asarray(box.clip(jnp.asarray(scaled[:, OTHERS], maps.dtype)))
    result = portions.solve(
        maps, length.astype(maps.dtype), begin, box, given=given, slopes=slopes, **options
    )
    again = functools.partial(_again, maps, result, end, options)
    if lines is not None:
        result = choose_lines(maps, result, lines, starts, again)
    elif known is None:
        wide, inside = nearest_multiple(_insert(result.params, length), starts)
        result = replace(result, params=wide)
        if not inside.all():
            _put(result, np.flatnonzero(~inside), again(np.flatnonzero(~inside), wide[~inside]))
    else:
        result = replace(result, params=_insert(result.params, length))
    if known is None:
        worse = result.loss > result.initial_loss
        result.params[worse] = _clip(starts[worse], fixed=lines is not None)
        result.loss[worse] = result.initial_loss[worse]
    fixed = known is not None or lines is not None
    at_bound = _touches_bound(result.params, known=fixed)
    said = CASCADE if slopes is fit_slopes else LEARNED
    return replace(result, at_bound=at_bound, method=said)


def _insert(lenses: np.ndarray, wavelength: np.ndarray) -> np.ndarray:
    """Return all five params."""
    return np.insert(lenses, WAVELENGTH, wavelength, axis=1).astype(lenses.dtype)


def _clip(params: np.ndarray, *, fixed: bool) -> np.ndarray:
    """Move params into the ranges, but for a wavelength that is fixed."""
    inside = np.asarray(space().clip(params))
    return _widen(inside[:, OTHERS], params, OTHERS) if fixed else inside


def _again(
    maps: np.ndarray,
    before: BatchResult,
    end: float,
    options: dict[str, Any],
    rows: np.ndarray,
    wide: np.ndarray,
) -> BatchResult:
    """Fit some lenses (n, 5) again at their wavelengths, where the ranges forced them to move.

    Those for which no time is left stay as they are.
    """
    interrupted = np.any(before.status == int(Status.STOPPED))
    left = 0.0 if interrupted else end - time.monotonic()
    fit = portions.solve(
        maps[rows],
        wide[:, WAVELENGTH],
        wide[:, OTHERS],
        space(wavelength=False),
        given=True,
        time_limit=None if np.isinf(left) else max(left, 0.0),
        **{name: options[name] for name in ("max_steps", "stop", "execution")},
    )
    loss = np.where(np.isnan(fit.loss), residual_rmse(maps[rows], wide) ** 2, fit.loss)
    status = np.where(interrupted, int(Status.STOPPED), fit.status).astype(np.int8)
    return replace(fit, params=_insert(fit.params, wide[:, WAVELENGTH]), loss=loss, status=status)


def _put(result: BatchResult, rows: np.ndarray, again: BatchResult) -> None:
    """Put fits in the place of others."""
    result.params[rows], result.loss[rows] = again.params, again.loss
    result.status[rows] = again.status
    result.steps[rows] += again.steps
    for name, margin in again.margins.items():
        result.margins[name][rows] = margin


def _touches_bound(params: np.ndarray, *, known: bool) -> np.ndarray:
    """Return which params are on their bounds; a wavelength that was given is on none."""
    lower, upper = (np.asarray(bound, params.dtype) for bound in space().bounds)
    touches = (params <= lower) | (params >= upper)
    touches[:, WAVELENGTH] &= not known
    return touches


def _refine(
    maps: np.ndarray, known: np.ndarray | None, starts: np.ndarray, **options: Any
) -> BatchResult:
    """Refine by any method of `refine`; "auto" is one that needs only the start."""
    options["method"] = "lm" if options["method"] == "auto" else options["method"]
    columns = list(range(5)) if known is None else OTHERS
    result = refine(
        _model(maps.shape[-1], known is not None),
        maps,
        starts[:, columns],
        bounds=space(wavelength=known is None),
        difference=wrapped_difference,
        context=None if known is None else known.astype(maps.dtype),
        **options,
    )
    params = _widen(result.params, starts, columns)
    at_bound = _widen(result.at_bound, np.zeros(starts.shape, bool), columns)
    return replace(result, params=params, at_bound=at_bound)


def starts(initial: Any, wavelength: Any, maps: np.ndarray) -> np.ndarray:
    """Return where `invert` starts, shape (B, 5) [µm]: in the ranges, a known wavelength set."""
    known = None if wavelength is None else _wavelengths(wavelength, len(maps))
    found, _ = _starts(initial, known, len(maps), maps.dtype)
    columns = list(range(5)) if known is None else OTHERS
    inside = np.asarray(space().clip(found))
    return _widen(inside[:, columns], found, columns)


def residual_rmse(phase: Any, params: Any) -> np.ndarray:
    """Return the root mean square of the wrapped residual of each map, shape (B,) [rad]."""
    maps, params = np.asarray(phase), np.asarray(params)
    return np.asarray(_rmse(params.astype(maps.dtype), maps))


def predict(params: Any, size: int) -> np.ndarray:
    """Return the wrapped phase map of one lens, shape (N, N) [rad]."""
    return np.asarray(metalens.wrapped_phase(jnp.asarray(params), size))


def convergence(
    phase: Any,
    initial: Any,
    *,
    wavelength: Any = None,
    method: str | Refiner = "auto",
    num_steps: int = 100,
    key: Any = 0,
) -> np.ndarray:
    """Return the best residual RMSE so far after each step, shape (B, num_steps + 1) [rad].

    The cascade has two steps: to a lens that fits the slopes, and to the fit.
    """
    maps, _ = check_maps(phase)
    known = None if wavelength is None else _wavelengths(wavelength, len(maps))
    starts, _ = _starts(initial, known, len(maps), maps.dtype)
    if _is_cascade(method, maps.shape[-1]):
        return _stages(maps, known, starts, num_steps, method)
    columns = list(range(5)) if known is None else OTHERS
    box, model = space(wavelength=known is None), _model(maps.shape[-1], known is not None)
    refiner = choose(method, differentiable=True, size=len(columns)).refiner

    def one(image: Array, start: Array, length: Array | None) -> Array:
        problem = InverseProblem(
            model, image, difference=wrapped_difference, space=box, context=length
        )
        return run(refiner, problem, start, key, num_steps=num_steps).trace

    context = None if known is None else known.astype(maps.dtype)
    losses = jax.jit(jax.vmap(one))(maps, starts[:, columns], context)
    return np.sqrt(np.minimum.accumulate(np.asarray(losses), axis=1))


def _stages(
    maps: np.ndarray,
    known: np.ndarray | None,
    starts: np.ndarray,
    num_steps: int,
    method: str | Refiner,
) -> np.ndarray:
    """Return the residual RMSE at the start, after the slopes, and of the fit from then on."""
    options: dict[str, Any] = {"wavelength": known, "initial": starts, "method": method}
    fits = [invert(maps, max_steps=limit, uncertainty=False, **options) for limit in (0, None)]
    stages = [residual_rmse(maps, params) for params in (starts, *(fit.params for fit in fits))]
    columns = [stages[min(step, 2)] for step in range(num_steps + 1)]
    return np.minimum.accumulate(np.stack(columns, axis=1), axis=1)


def simulate(
    count: int,
    size: int,
    *,
    noise: PhaseNoise | None = None,
    error: float | None = None,
    key: Any = 0,
) -> dict[str, np.ndarray]:
    """Make phase maps of lenses drawn uniformly from the ranges.

    Args:
        count: B, how many.
        size: N, pixels along each side.
        noise: of measurement and fabrication; none by default.
        error: if given, also ``initial``: the truth plus Gaussian errors with this share of each
            range as standard deviation, as a network would predict it, within the ranges.
        key: seed or PRNG key.

    Returns:
        ``phase`` (B, N, N) [rad], ``truth`` (B, 5) [µm], ``wavelength`` (B,) [µm], and ``initial``
        (B, 5) [µm], all float32.

    Raises:
        ValueError: for a count below 1, a size below 2, or a negative error.
    """
    if count < 1:
        raise ValueError(f"count: expected 1 or more, got {count}")
    if error is not None and not 0 <= error < np.inf:
        raise ValueError(f"error: expected a share of each range of 0 or more, got {error}")
    keys = jax.random.split(jax.random.key(key) if isinstance(key, int) else key, 3)
    box = space()
    truth = box.sample(keys[0], count).astype(jnp.float32)
    noise = PhaseNoise.none() if noise is None else noise
    maps = _simulate(truth, jax.random.split(keys[1], count), noise, size)
    made = {"phase": maps, "truth": truth, "wavelength": truth[:, WAVELENGTH]}
    if error is not None:
        spread = error * (box.upper - box.lower)
        made["initial"] = box.clip(truth + spread * jax.random.normal(keys[2], truth.shape))
    return {name: np.asarray(array, np.float32) for name, array in made.items()}


def check_maps(phase: Any) -> tuple[np.ndarray, bool]:
    """Return maps of shape (B, N, N), and whether there was just one without a sample axis.

    Raises:
        ValueError: for another shape, no maps, no floats.
    """
    maps = np.asarray(phase)
    if not np.issubdtype(maps.dtype, np.floating):
        raise ValueError(
            f"phase: expected floating-point radians, got dtype {maps.dtype}; convert gray levels "
            "with phase = 2 * np.pi * levels / number_of_levels - np.pi"
        )
    single = maps.ndim == 2
    maps = maps[None] if single else maps
    if maps.ndim != 3 or maps.shape[1] != maps.shape[2] or maps.shape[1] < 2:
        raise ValueError(f"phase: expected shape (B, N, N) with N ≥ 2, got {np.shape(phase)}")
    if not len(maps):
        raise ValueError("phase: empty batch; there is nothing to refine")
    return _reals("phase", maps, np.float64 if maps.itemsize > 4 else np.float32), single


def _reals(name: str, values: Any, dtype: Any) -> np.ndarray:
    """Return an array in the native float32 or float64 that JAX computes with.

    Raises:
        ValueError: for texts, complex numbers, objects.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{name}: expected real numbers, got dtype {values.dtype}")
    with np.errstate(over="ignore"):  # to ∞, which ends as the status of its sample
        return values.astype(jax.dtypes.canonicalize_dtype(dtype), copy=False)


def _wavelengths(wavelength: Any, count: int) -> np.ndarray:
    values = _reals("wavelength", wavelength, float).astype(float)
    if values.shape not in ((), (1,), (count,)):
        raise ValueError(
            f"wavelength: expected one number or shape ({count},), got shape {values.shape}"
        )
    there = values[~np.isnan(values)]  # one that is NaN ends as the status of its sample
    _checked_lengths("wavelength", there)
    return np.broadcast_to(values, (count,))


def _checked_lengths(name: str, values: np.ndarray) -> np.ndarray:
    """Return wavelengths that are some, and in µm.

    Raises:
        ValueError: if they are not.
    """
    low, high = metalens.LOWER[WAVELENGTH], metalens.UPPER[WAVELENGTH]
    if not values.size or not np.all((values > 0) & np.isfinite(values)):
        raise ValueError(f"{name}: expected numbers above 0 [µm]")
    if not np.all((values >= low / 10) & (values <= high * 10)):
        raise ValueError(
            f"{name}: expected µm (visible light is {low} to {high}), got "
            f"{values.min():g} to {values.max():g}; nm / 1000 = µm"
        )
    return values


def _lines(lines: Any, wavelength: Any, cascade: bool) -> np.ndarray:
    """Return the wavelengths of which it is one.

    Raises:
        ValueError: names what does not fit.
    """
    if wavelength is not None:
        raise ValueError("lines: expected no wavelength beside them, got both; give one of the two")
    if not cascade:
        raise ValueError(
            f"lines: only the cascade chooses among them (method 'auto', maps of {SMALLEST} × "
            f"{SMALLEST} pixels or more); with another method, invert at each wavelength and "
            "compare the losses"
        )
    values = np.unique(_reals("lines", lines, float).astype(float))
    if values.ndim != 1 or not values.size:
        raise ValueError(f"lines: expected wavelengths [µm], got {lines!r}")
    return _checked_lengths("lines", values)


def _starts(
    initial: Any, known: np.ndarray | None, count: int, dtype: Any
) -> tuple[np.ndarray, list[str]]:
    """Return starts of shape (B, 5), with the wavelength that is known, and notes on them."""
    notes = []
    if initial is None:
        middle = (np.asarray(metalens.LOWER) + np.asarray(metalens.UPPER)) / 2
        initial, notes = np.broadcast_to(middle, (count, 5)), [NOTE_START]
    starts = np.array(_reals("initial", initial, dtype), ndmin=2)
    if starts.shape != (count, 5):
        raise ValueError(
            f"initial: expected shape ({count}, 5), {', '.join(metalens.NAMES)} [µm] for each map, "
            f"got {np.shape(initial)}"
        )
    if known is not None:
        starts[:, WAVELENGTH] = known
    return starts, notes


def _widen(some: np.ndarray, all_: np.ndarray, columns: list[int]) -> np.ndarray:
    """Put columns in their places among all five."""
    wide = np.array(all_)
    wide[:, columns] = some
    return wide


@functools.cache
def _model(size: int, known: bool) -> Any:
    """Return the forward model for maps of a size: the same function each time (it is static)."""
    if not known:
        return lambda params: metalens.phase(params, size)

    def four(params: Float[Array, "4"], wavelength: Array) -> Array:
        return metalens.phase(jnp.insert(params, WAVELENGTH, wavelength), size)

    return four


@jax.jit
def _rmse(params: Array, maps: Array) -> Array:
    size = maps.shape[-1]
    return jax.lax.map(
        lambda pair: phase_rmse(metalens.phase(pair[0], size), pair[1]),
        (params, maps),
        batch_size=32,
    )


def _fit(maps: np.ndarray, *, known: bool) -> Fit:
    """Return the problem in all five params, for diagnostics; a known wavelength is fixed."""
    problem = InverseProblem(
        _model(maps.shape[-1], False), maps, difference=wrapped_difference, space=space()
    )
    return Fit(problem, fixed=("wavelength",) if known else ())


def _standard_errors(maps: np.ndarray, result: BatchResult, fit: Fit) -> np.ndarray:
    """Return standard errors (B, 5), NaN where the fit explains little."""
    std = fit.covariance(result.params).std.astype(result.params.dtype)
    lost = ~(residual_rmse(maps, result.params) < _KNOWN)
    std[lost[:, None] & (np.arange(len(metalens.NAMES)) != WAVELENGTH)] = np.nan
    return std


@functools.partial(jax.jit, static_argnames="size")
def _simulate(truth: Array, keys: Array, noise: PhaseNoise, size: int) -> Array:
    one = lambda pair: apply_noise(noise, pair[1], metalens.phase(pair[0], size))  # noqa: E731
    return jax.lax.map(one, (truth, keys), batch_size=32)
