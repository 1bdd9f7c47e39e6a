"""`optimize_latent`: inputs for which a model meets targets."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from refinejax._checks import as_key, as_stop
from refinejax._core import Refiner, Stop
from refinejax.apps.latent.checks import check_initial
from refinejax.apps.latent.closeness import Closeness
from refinejax.apps.latent.columns import asked, column_names
from refinejax.apps.latent.constraints import Equality, Inequality
from refinejax.apps.latent.description import LatentModel, describe_heads, measure
from refinejax.apps.latent.method import choose_method
from refinejax.apps.latent.result import LatentResult
from refinejax.apps.latent.rounds import Rounds
from refinejax.apps.latent.settings import (
    Asked,
    Search,
    as_tuple,
    make_objective,
    make_setting,
)
from refinejax.apps.latent.shortcuts import as_targets
from refinejax.apps.latent.targets import Target
from refinejax.batch.execution import Execution, as_execution
from refinejax.batch.pipeline import Pipeline
from refinejax.problems.transforms import Transform

# Starts at the same time, whatever B and R: one program, and the same arithmetic for every row.
_LANES = {"cpu": 128}
_LANES_ACCELERATOR = 4096


def optimize_latent(
    model: Any,
    targets: Any,
    initial: Any,
    *,
    bounds: tuple[Any, Any] | str | None = None,
    transform: Transform | None = None,
    constraints: Sequence[Any] = (),
    closeness: Sequence[Closeness] = (),
    search: Search | None = None,
    method: str | Refiner = "auto",
    max_steps: int | None = None,
    stop: Stop | None = None,
    key: Any = 0,
    ids: Any = None,
    trajectory: bool = False,
    execution: Execution | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    time_limit: float | None = None,
) -> LatentResult:
    """Search for inputs for which a trained model meets targets, starting from samples.

    What counts is the round trip: a latent is judged by what the model says of the input that is
    decoded from it. The loss of a sample is its own: it does not depend on the batch.

    Args:
        model: a `MultiTaskModel`; functions of one latent (Z,) by name, each giving a number or a
            vector (logits, for classes), or one function that gives all by name; an `Ensemble` or
            `MonteCarlo` of these; or any of them in a `LatentModel`, with encoder, decoder, units,
            ranges and classes. Functions, flax modules or pytrees; define functions once, another
            function compiles anew.
        targets: `Maximize`, `Match` and the like, one or several; a mapping from heads to "max",
            "min", a value, (low, high), a class, or an array as a curve; or one of these, for a
            model with one head.
        initial: samples to start from, shape (B, D) or (D,).
        bounds: (lower, upper) of the input, never crossed; "data": of the model's training data.
        transform: makes an input that is allowed of any numbers, see `problems.transforms`; for a
            search over the input, in place of bounds and scale.
        constraints: what must hold, one or several: targets with a limit, closeness (its limit),
            `Inequality` or `Equality` of the input; kept by an augmented Lagrangian.
        closeness: what keeps candidates near to data or start, one or several.
        search: over what, from which starts, and how careful, see `Search`.
        method: "auto", "bfgs", a name as for `refine`, or a `Refiner`.
        max_steps: most steps of a start, in each round where there are constraints.
        stop: when a start is done; `Stop()` by default.
        key: seed or PRNG key; a start's draws are by this, the number of its sample and its own.
        ids: numbers of the samples, shape (B,); by default 0 to B − 1. A sample of a number has the
            same answer alone and in any batch.
        trajectory: also return what the model says after each step; this runs the search again.
        execution: as for `run_batch`, of each start of each sample as one sample.
        progress: draw a progress bar on stderr.
        checkpoint: as for `run_batch`.
        time_limit: seconds, after which the search ends with what there is.

    Returns:
        `LatentResult`.

    Raises:
        ValueError: for an unknown task, a target outside what a head can produce, descriptors of
            another number or NaN, contradictory ranges, a single class, or another argument that
            does not fit; names it and how to mend it.
    """
    search = as_search(search)
    pipeline = Pipeline(
        _with_lanes(as_execution(execution)),
        progress=progress,
        checkpoint=checkpoint,
        time_limit=time_limit,
    )
    described = model if isinstance(model, LatentModel) else LatentModel(model)
    info = describe_heads(described)
    samples = check_initial(initial, info)
    shapes = measure(info, samples)
    setting = make_setting(info, samples, search, bounds, transform)
    classes = {name: len(names) for name, names in info.classes.items()}
    wanted = Asked(
        as_targets(targets, classes, sizes=shapes.heads),
        as_tuple(constraints, Target | Closeness | Inequality | Equality),
        as_tuple(closeness, Closeness),
        shapes.heads,
    )
    objective = make_objective(info, setting, samples, wanted, search)
    size = shapes.latent if setting.over == "latent" else samples.shape[1]
    rounds = Rounds(
        pipeline=pipeline,
        method=choose_method(method, max_steps, size),
        stop=as_stop(stop),
        key=as_key(key),
        search=replace(search, std=search.deviations(size)),
        trajectory=trajectory,
    )
    shown = column_names(
        asked(objective.targets, objective.constraints), shapes.heads, info.classes
    )
    with pipeline:
        return rounds.run(objective, _numbers(ids, len(samples)), setting.shown, shown)


def as_search(search: Search | None) -> Search:
    """Return the options, or the defaults for None.

    Args:
        search: options, or None.

    Raises:
        ValueError: for anything else.
    """
    if search is None:
        return Search()
    if not isinstance(search, Search):
        raise ValueError(
            f"search: expected options, such as Search(restarts=16), or None, got {search!r}"
        )
    return search


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
