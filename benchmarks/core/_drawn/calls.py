"""Give a case to the library in the form that was drawn, and read what comes back."""

import functools
import inspect
import re
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import refinejax as rj
from benchmarks.core._drawn.cases import FRAMES, Case, Frame
from benchmarks.core._drawn.data import Drawn, as_arrays, leading
from benchmarks.core._drawn.models import (
    BARE,
    IN_CONTEXT,
    TIMES,
    InUnits,
    line_in_numpy,
    line_of_dict,
)

NAMED = re.compile(r"^([a-z_]+)\b[^:\n]*: \S")  # a refusal begins with the name of an argument
ARGUMENTS = {
    "covariance",  # of a result: names itself
    *inspect.signature(rj.refine).parameters,
    *inspect.signature(rj.run_batch).parameters,
    *inspect.signature(rj.run_stream).parameters,
    *rj.InverseProblem.__dataclass_fields__,
    *inspect.signature(rj.ParameterSpace.create).parameters,
}
METHODS = {"lm": rj.LevenbergMarquardt(), "lbfgs": rj.Gradient(optax.lbfgs)}
STEPS = 200


class Answer(NamedTuple):
    """What a fit says.

    Attributes:
        params: (B, n), float64.
        loss: (B,).
        initial_loss: (B,).
        status: (B,).
        converged: (B,).
        std: standard errors, (B, n); None where they were not asked for or were refused.
        warned: the warnings, in words.
    """

    params: np.ndarray
    loss: np.ndarray
    initial_loss: np.ndarray
    status: np.ndarray
    converged: np.ndarray
    std: np.ndarray | None
    warned: tuple[str, ...]


class Refused(NamedTuple):
    """A `ValueError` that names an argument."""

    said: str


class Broken(NamedTuple):
    """Any other exception."""

    said: str


def is_refusal(said: str) -> bool:
    """Return whether a message names an argument in its first line.

    Args:
        said: of a `ValueError`.
    """
    found = NAMED.match(said)
    return found is not None and found[1] in ARGUMENTS


def fit(case: Case, drawn: Drawn) -> Answer | Refused | Broken:
    """Refine a case.

    Args:
        case: what was drawn.
        drawn: its numbers.
    """
    frame = FRAMES[case.frame]
    with warnings.catch_warnings(record=True) as caught, jax.enable_x64(frame.dtype == "float64"):
        warnings.simplefilter("always")
        try:
            result, std = _call(case, frame, drawn)
        except ValueError as error:
            said = str(error).partition("\n")[0]
            return Refused(said) if is_refusal(said) else Broken(f"ValueError: {said}")
        except Exception as error:  # whatever it raises is what is looked for
            return Broken(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
    return _read(case, frame, result, std, tuple(str(w.message) for w in caught))


def _call(case: Case, frame: Frame, drawn: Drawn) -> tuple[Any, Any]:
    observations, start = _arrays(case, frame, drawn)
    if frame.entry == "refine":
        result = _refine(case, frame, drawn, observations, start)
        return result, _errors(result) if case.errors else None
    problem = _problem(case, frame, drawn, observations)
    if frame.entry == "run_batch":
        result = rj.run_batch(METHODS[frame.method], problem, start, max_steps=STEPS)
        return result, _errors_of(problem, result) if case.errors else None
    parts = [slice(0, 1), slice(1, None)]
    chunks = [(_part(problem, at), start[at]) for at in parts]
    return [*rj.run_stream(METHODS[frame.method], chunks, max_steps=STEPS)], None


def _arrays(case: Case, frame: Frame, drawn: Drawn) -> tuple[Any, Any]:
    hidden = drawn.hidden if case.missing == "mask" else None
    seen = np.where(drawn.hidden & (hidden is None), np.nan, drawn.observed)
    engine = frame.entry != "refine"  # reads arrays of NumPy or JAX
    kind = "plain" if engine and case.arrays == "list" else case.arrays
    observations = as_arrays(kind, frame.dtype, leading(case, seen), leading(case, hidden))
    start = as_arrays(kind, frame.dtype, leading(case, drawn.start))
    if frame.form == "dict":
        columns = np.moveaxis(np.asarray(leading(case, drawn.start)), -1, 0)
        start = {
            name: as_arrays(kind, frame.dtype, column)
            for name, column in zip(("level", "slope"), columns, strict=True)
        }
    elif case.start == "shared" and case.samples and frame.entry == "refine":
        start = as_arrays(kind, frame.dtype, drawn.start[0])
    return observations, start


def _forward(frame: Frame, drawn: Drawn) -> Any:
    if frame.form == "object":
        t, unit, scale = _in_dtype(frame, (TIMES, drawn.unit, drawn.scale))
        return InUnits(frame.model, t, unit, scale)
    if frame.form == "context":
        return IN_CONTEXT[frame.model]
    return {"dict": line_of_dict, "black box": line_in_numpy}.get(frame.form) or BARE[frame.model]


def _in_dtype(frame: Frame, tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf, frame.dtype), tree)


def _context(case: Case, frame: Frame, drawn: Drawn) -> Any:
    if frame.form != "context":
        return None
    context = _in_dtype(frame, {"t": TIMES, "unit": drawn.unit, "scale": drawn.scale})
    count = len(drawn.start)
    every = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (count, *leaf.shape)), context)
    return leading(case, every)


def _noise(case: Case, frame: Frame, drawn: Drawn) -> Any:
    if drawn.sigma is None:
        return None
    sigma = drawn.sigma.astype(frame.dtype)
    if frame.noise == "pixels" or not case.samples:
        return sigma[0]
    return sigma[:, 0] if frame.noise == "samples" else sigma


def _bounds(case: Case, frame: Frame, drawn: Drawn) -> Any:
    lower, upper = drawn.lower, drawn.upper
    if lower is None or upper is None:
        return None
    if case.bounds == "numbers":
        return float(lower[0]), float(upper[0])
    if frame.form == "dict":
        return tuple(
            dict(zip(("level", "slope"), map(float, b), strict=True)) for b in (lower, upper)
        )
    if case.bounds == "pairs":
        return [*zip(lower.tolist(), upper.tolist(), strict=True)]
    if case.bounds == "with None":
        return lower.tolist(), [None] * len(upper)
    return lower.astype(frame.dtype), upper.astype(frame.dtype)


def _named(bound: np.ndarray) -> dict[str, float]:
    return {"level": float(bound[0]), "slope": float(bound[1])}


def _refine(case: Case, frame: Frame, drawn: Drawn, observations: Any, start: Any) -> Any:
    several = len(drawn.start) if case.samples else 0
    batched = bool(several) if frame.form == "black box" or several == 2 else None
    return rj.refine(
        _forward(frame, drawn),
        observations,
        start,
        bounds=_bounds(case, frame, drawn),
        noise=_noise(case, frame, drawn),
        context=_context(case, frame, drawn),
        differentiable=frame.form != "black box",
        batched=batched,
        method=frame.method,
        max_steps=None if frame.method == "auto" else STEPS,
    )


def _problem(case: Case, frame: Frame, drawn: Drawn, observations: Any) -> rj.InverseProblem:
    noise, space = _noise(case, frame, drawn), None
    if drawn.lower is not None and drawn.upper is not None:
        ends = _in_dtype(frame, (drawn.lower, drawn.upper))
        space = rj.ParameterSpace.create((), *ends)
    return rj.InverseProblem(
        _forward(frame, drawn),
        observations,
        noise=np.asarray(1.0, frame.dtype) if noise is None else noise,
        space=space,
        context=_context(case, frame, drawn),
    )


def _part(problem: rj.InverseProblem, at: slice) -> rj.InverseProblem:
    take = functools.partial(jax.tree.map, lambda leaf: leaf[at])
    return problem.replace(observation=take(problem.observation), context=take(problem.context))


def _errors(result: Any) -> np.ndarray | None:
    try:
        return np.atleast_2d(result.covariance().std)
    except ValueError as error:
        if not is_refusal(str(error)):
            raise
        return None


def _errors_of(problem: Any, result: Any) -> np.ndarray:
    return rj.diagnostics.covariance(problem, result.params).std


def _read(case: Case, frame: Frame, result: Any, std: Any, warned: tuple[str, ...]) -> Answer:
    results = result if isinstance(result, list) else [result]
    params = np.concatenate([_matrix(case, frame, one.params) for one in results])

    def joined(name: str) -> np.ndarray:
        return np.concatenate([np.atleast_1d(getattr(one, name)) for one in results])

    return Answer(
        params,
        joined("loss").astype(float),
        joined("initial_loss").astype(float),
        joined("status"),
        joined("converged"),
        std,
        warned,
    )


def _matrix(case: Case, frame: Frame, params: Any) -> np.ndarray:
    if frame.form == "dict":
        params = np.stack([params["level"], params["slope"]], axis=-1)
    params = np.asarray(params, float)
    return params if case.samples else params[None]
