"""`optimize_latent`: which input gives what is asked for?"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from refinejax._checks import as_key, as_stop, check_positive, check_seconds
from refinejax._core import Refiner, Stop
from refinejax._methods import LARGEST, METHODS
from refinejax._run import check_count
from refinejax.apps.latent.checks import (
    check_bounds,
    check_initial,
    check_parts,
    check_transform,
)
from refinejax.apps.latent.closeness import Closeness
from refinejax.apps.latent.columns import asked, column_names
from refinejax.apps.latent.constraints import Equality, Inequality
from refinejax.apps.latent.description import Heads, describe_heads, measure
from refinejax.apps.latent.objective import LatentObjective
from refinejax.apps.latent.resolving import resolve
from refinejax.apps.latent.result import LatentResult
from refinejax.apps.latent.rounds import Search
from refinejax.apps.latent.shortcuts import as_targets
from refinejax.apps.latent.targets import Target
from refinejax.batch.execution import Execution, as_execution
from refinejax.problems.transforms import Scaled, Transform
from refinejax.refiners import BFGS, Gradient

# Starts under way at once, whatever B and R: one program, and the same arithmetic for every row.
_LANES = {"cpu": 128}
_LANES_ACCELERATOR = 4096
_RATE = 5e-2  # of Adam, where a typical change is 1
_LONGEST = 1.0  # step of BFGS: longer ones leave more starts on a network's plateaus


def optimize_latent(
    heads: Any,
    targets: Any,
    initial: Any,
    *,
    encode: Callable[..., Any] | None = None,
    decode: Callable[..., Any] | None = None,
    over: str = "auto",
    task: str | None = None,
    mode: str | None = None,
    target_value: Any = None,
    task_targets: Mapping[str, Any] | None = None,
    restarts: int = 8,
    std: Any = 0.3,
    bounds: tuple[Any, Any] | str | None = None,
    transform: Transform | None = None,
    scale: Any = None,
    constraints: Sequence[Any] = (),
    closeness: Sequence[Closeness] = (),
    caution: float = 1.0,
    alignment: float = 0.5,
    scales: Mapping[str, Any] | None = None,
    ranges: Mapping[str, tuple[Any, Any]] | None = None,
    classes: Mapping[str, Any] | None = None,
    tradeoffs: bool = False,
    trajectory: bool = False,
    method: str | Refiner = "auto",
    max_steps: int | None = None,
    stop: Stop | None = None,
    key: Any = 0,
    ids: Any = None,
    execution: Execution | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> LatentResult:
    """Search for inputs for which a trained model predicts what is asked, from samples on.

    What counts is the round trip: a latent is judged by what the model says of the input that is
    decoded from it. The loss of a sample is its own: it does not depend on the batch.

    Args:
        heads: of a model: functions of one latent (Z,) by name, each giving a number or a vector
            (logits, for classes); or one function that gives all by name; or a `MultiTaskModel`; or
            an `Ensemble` or `MonteCarlo` of these. Functions, flax modules or pytrees; define
            functions once, another function compiles anew.
        targets: `Maximize`, `Match` and the like, or a mapping as ``task_targets``; or None.
        initial: samples to start from, shape (B, D) or (D,).
        encode: x (D,) → z (Z,). None: heads take the input itself.
        decode: z → x. With it the search is over the latent.
        over: "input" or "latent"; "auto": the latent if it can be decoded.
        task: the head that ``mode`` and ``target_value`` are about; not needed if there is one.
        mode: "max" or "min".
        target_value: a value, or class, for ``task``.
        task_targets: by name "max", "min", a value, (low, high), a class, or an array as a curve.
        restarts: R, starts of each sample: the sample itself, and others around it.
        std: standard deviation of the others, in units of ``scale`` (of the latent: in its own).
        bounds: (lower, upper) of the input, never crossed; "data": of the model's training data.
        transform: makes an input that is allowed of any numbers, see `problems.transforms`; for a
            search over the input, in place of bounds and scale.
        scale: typical size of a change of each descriptor; by default of the model's training data,
            else the widths of the bounds, else 1. Rounded to powers of two.
        constraints: what must hold, one or several: targets with a limit, closeness (its limit),
            `Inequality` or `Equality` of the input; kept by an augmented Lagrangian.
        closeness: what keeps candidates near to data or start, one or several.
        caution: κ: with an ensemble, what is κ standard deviations worse is what counts.
        alignment: weight of the mean squared difference of a latent and its round trip.
        scales: by head, the unit in which misses count, where a target has none of its own.
        ranges: by head, (least, greatest) output of heads that are bounded, to refuse what they
            cannot produce; where nothing else is known, the unit of misses is the width.
        classes: by head of logits, names of the classes or their number, for heads that are
            functions: a value for such a head is a class.
        tradeoffs: draw weights of the targets anew for each start but the first, so that candidates
            spread along the front where targets conflict.
        trajectory: also return what the model says after each step; this runs the search again.
        method: "auto", "bfgs", a name as for `refine`, or a `Refiner`.
        max_steps: most steps of a start, in each round where there are constraints.
        stop: when a start is done; `Stop()` by default.
        key: seed or PRNG key; a start's draws are by this, the number of its sample and its own.
        ids: numbers of the samples, shape (B,); by default 0 to B − 1. A sample of a number has the
            same answer alone and in any batch.
        execution: as for `run_batch`; of each start of each sample as one sample.
        progress: draw a progress bar on stderr.
        time_limit: seconds, after which the search ends with what there is.

    Returns:
        `LatentResult`.

    Raises:
        ValueError: for an unknown task, a target outside what a head can produce, descriptors of
            another number or NaN, contradictory ranges, a single class, or another argument that
            does not fit; names it and how to mend it.
    """
    begun = time.monotonic()
    check_seconds("time_limit", time_limit)
    check_positive("restarts", restarts, "1 start of each sample")
    info = describe_heads(heads, encode, decode, scales, ranges, classes)
    samples = check_initial(initial, info)
    shapes = measure(info, samples)
    setting = _setting(info, samples, over, bounds, transform, scale)
    wanted = as_targets(
        targets, {name: len(names) for name, names in info.classes.items()}, sizes=shapes.heads,
        task=_only(task, shapes.heads, mode, target_value), mode=mode,
        target_value=target_value, task_targets=task_targets,
    )  # fmt: skip
    objective = _objective(
        info,
        setting,
        samples,
        shapes.heads,
        wanted,
        _several(constraints, Target | Closeness | Inequality | Equality),
        _several(closeness, Closeness),
        caution,
        alignment,
    )
    size = shapes.latent if setting.over == "latent" else samples.shape[1]
    search = Search(
        *_method(method, max_steps, size), as_stop(stop), as_key(key), int(restarts),
        _std(std, size), tradeoffs, trajectory, _with_lanes(as_execution(execution)),
        progress, begun, time_limit,
    )  # fmt: skip
    shown = column_names(
        asked(objective.targets, objective.constraints), shapes.heads, info.classes
    )
    return search.run(objective, _numbers(ids, len(samples)), setting.shown, shown)


def _several(given: Any, kind: Any) -> tuple[Any, ...]:
    return (given,) if isinstance(given, kind) else tuple(given)


def _std(std: Any, size: int) -> np.ndarray:
    try:
        array = np.asarray(std, float)
        fits = array.shape in ((), (size,)) and bool(np.all(np.isfinite(array) & (array >= 0)))
    except (TypeError, ValueError):
        fits, array = False, np.zeros(())
    if not fits:
        raise ValueError(f"std: expected one number of 0 or more, or {size}, got {std!r}")
    return array


class _Setting(NamedTuple):
    """Where the search goes on: over what, within what, and in which units."""

    over: str
    transform: Any
    bounds: tuple[np.ndarray, np.ndarray] | None
    shown: np.ndarray


def _setting(
    info: Heads, samples: np.ndarray, over: str, bounds: Any, transform: Any, scale: Any
) -> _Setting:
    if over not in ("auto", "input", "latent"):
        raise ValueError(f"over: expected 'auto', 'input' or 'latent', got {over!r}")
    if over == "latent" and not info.decodes:
        raise ValueError("over: a search over the latent needs decode, to return inputs")
    latent = info.decodes and transform is None if over == "auto" else over == "latent"
    width = samples.shape[1]
    limits = check_bounds(bounds, width, samples.dtype, info)
    if transform is not None:
        if latent:
            raise ValueError("transform: it is for a search over the input; say over='input'")
        if limits is not None or scale is not None:
            raise ValueError(
                "transform: it says what is allowed, and in which units; leave out bounds and "
                "scale, or put a Box into Columns"
            )
        check_transform(transform, samples)
        return _Setting("input", transform, None, np.ones(width))
    given = scale is not None
    if scale is None and info.trained is not None:
        scale = info.trained.input_scale
    if scale is None:
        scale = np.ones(width) if limits is None else limits[1] - limits[0]
    try:
        wide = np.broadcast_to(np.asarray(scale, float), (width,))
    except (TypeError, ValueError):
        raise ValueError(f"scale: expected one number or {width}, got {scale!r}") from None
    if given and not np.all(np.isfinite(wide) & (wide > 0)):
        raise ValueError(f"scale: expected finite numbers above 0, got {scale!r}")
    made = Scaled.near(wide)
    return _Setting("latent" if latent else "input", made, limits, np.asarray(made.scale, float))


def _only(task: Any, sizes: Mapping[str, int], mode: Any, value: Any) -> Any:
    """Return the head that a mode is about: the only one, if none is named."""
    if task is not None or (mode is None and value is None):
        return task
    if len(sizes) > 1:
        raise ValueError(f"task: mode and target_value are about one of {', '.join(sizes)}; say it")
    return next(iter(sizes))


def _objective(
    info: Heads,
    setting: _Setting,
    samples: np.ndarray,
    sizes: Mapping[str, int],
    targets: tuple[Target, ...],
    constraints: tuple[Any, ...],
    closeness: tuple[Any, ...],
    caution: float,
    alignment: float,
) -> LatentObjective:
    """Return the objective with a leading axis of samples; the latents of the start are blank."""
    count, dtype = len(samples), samples.dtype
    for name, number in (("caution", caution), ("alignment", alignment)):
        if not np.ndim(number) == 0 or not float(number) >= 0:
            raise ValueError(f"{name}: expected a number of 0 or more, got {number!r}")
    for one in closeness:
        if not isinstance(one, Closeness):
            raise ValueError(f"closeness: expected Mahalanobis and the like, got {one!r}")
    for one in constraints:
        if not isinstance(one, Target | Closeness | Inequality | Equality):
            raise ValueError(
                f"constraints: expected targets with a limit, closeness, Inequality or Equality, "
                f"got {one!r}"
            )
    held = [one for one in constraints if isinstance(one, Target)]
    made = resolve(targets, info, sizes, count, dtype)
    rest = iter(resolve(tuple(held), info, sizes, count, dtype, "constraints"))
    low, high = setting.bounds or (None, None)
    objective = LatentObjective(
        model=info.model,
        transform=setting.transform,
        targets=made,
        constraints=tuple(next(rest) if isinstance(c, Target) else c for c in constraints),
        closeness=closeness,
        start=(samples, samples),
        multipliers=np.zeros((count, 0), dtype),
        stiffness=np.ones(count, dtype),
        alignment=np.asarray(alignment, dtype),
        caution=np.asarray(caution, dtype),
        lower=low,
        upper=high,
        key_ids=(np.zeros(count, np.int32), np.zeros(count, np.int32)),
        over=setting.over,
        members=info.members,
    )
    check_parts(objective)
    return objective


def _auto(size: int) -> tuple[Refiner, int, str]:
    """Return what suits an unknown of this many numbers."""
    if size <= LARGEST:
        return BFGS(longest=_LONGEST), 200, f"bfgs: chosen because {size} numbers are few"
    rate = {"learning_rate": _RATE}
    return Gradient(optax.adam, rate), 500, f"adam: chosen because {size} numbers are many"


def _method(method: str | Refiner, max_steps: int | None, size: int) -> tuple[Refiner, int, str]:
    """Return the refiner, the most steps, and why."""
    if max_steps is not None:
        check_count("max_steps", max_steps)
    if isinstance(method, Refiner):
        chosen, steps, why = method, 300, f"{type(method).__name__}: as asked"
    elif method == "auto":
        chosen, steps, why = _auto(size)
    elif method == "bfgs":
        chosen, steps, why = BFGS(longest=_LONGEST), 200, "bfgs: as asked"
    elif method == "adam":
        chosen, steps, why = Gradient(optax.adam, {"learning_rate": _RATE}), 500, "adam: as asked"
    elif method == "lm":
        raise ValueError("method: targets are no sum of squares; use 'auto', 'adam' or 'cma_es'")
    elif method in METHODS:
        known = METHODS[method]()
        chosen, steps, why = known.refiner, known.max_steps, f"{method}: as asked"
    else:
        names = ", ".join(["auto", "bfgs", *(name for name in METHODS if name != "lm")])
        raise ValueError(f"method: expected one of {names}, or a Refiner, got {method!r}")
    return chosen, steps if max_steps is None else int(max_steps), why


def _numbers(ids: Any, count: int) -> np.ndarray:
    if ids is None:
        return np.arange(count, dtype=np.int32)
    numbers = np.asarray(ids)
    if numbers.shape != (count,) or not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(f"ids: expected {count} whole numbers, one a sample, got {ids!r}")
    return numbers.astype(np.int32)


def _with_lanes(execution: Execution) -> Execution:
    """Return the options with a number of lanes: always the same program."""
    if execution.lanes is not None:
        return execution
    lanes = _LANES.get(jax.devices()[0].platform, _LANES_ACCELERATOR)
    return replace(execution, lanes=lanes)
