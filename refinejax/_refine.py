"""The one call, for people who do not want to choose."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from refinejax._arguments import (
    Arrays,
    ForwardModel,
    as_difference,
    as_noise,
    check_prior,
    check_range,
    count_params,
    lost_notes,
)
from refinejax._boxes import as_space
from refinejax._checks import check_flag
from refinejax._core import Refiner, Stop
from refinejax._gate import check_outside_traces
from refinejax._marks import door, mark, mark_function
from refinejax._methods import beyond, choose
from refinejax._narrowing import range_notes
from refinejax._probe import probe
from refinejax._readings import read_samples
from refinejax._scales import UnitChoice, in_units
from refinejax.batch import BatchResult, Execution
from refinejax.batch.pipeline import BatchJob, Pipeline
from refinejax.batch.traces import join_traces
from refinejax.diagnostics import Fit
from refinejax.problems import BlackBox, InverseProblem, ParameterSpace
from refinejax.refiners import Gradient


@door
def refine(
    forward: Callable[..., Any],
    observations: Any,
    initial: Any,
    *,
    bounds: ParameterSpace | tuple[Any, Any] | None = None,
    noise: Any = None,
    difference: str | Callable[[Any, Any], Any] = "auto",
    prior: Callable[[Any], Any] | None = None,
    context: Any = None,
    differentiable: bool = True,
    vectorized: bool = False,
    batched: bool | None = None,
    method: str | Refiner = "auto",
    key: Any = 0,
    max_steps: int | None = None,
    stop: Stop | None = None,
    scale: Any = None,
    execution: Execution | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    time_limit: float | None = None,
    trace: int = 0,
) -> BatchResult:
    """Move params until the forward model explains the observations.

    Args:
        forward: the model of one sample: params → prediction, or with ``context`` (params, context)
            → prediction. Written in JAX; or anything, with ``differentiable=False``. What it reads
            (globals, closure, attributes) counts: a change compiles anew.
        observations: what was observed; a pytree of arrays with a leading sample axis, or without
            for a single sample. NaN means missing, so does a mask. As everywhere here an array is
            one of NumPy (mapped, read-only, of any byte order) or JAX, a list, or what NumPy makes
            one of, such as a DataFrame; ragged, sparse and dated ones are refused.
        initial: where to start; params with a leading sample axis, or without; also one start for
            all samples.
        bounds: (lower, upper), each like the params of a sample or a single number, ±∞ or None for
            none; or a pair (low, high) for each param, in a list, in a dict by name or in
            ``scipy.optimize.Bounds``; or a `ParameterSpace`. Equal bounds fix a param. Starts
            outside are moved onto them. Finite bounds also set the scale on which each param is
            moved. Two pairs for two params may mean either and are refused.
        noise: standard deviation of the observations: a number, or an array of the shape of one
            observation, of all, or of the sample axis. Infinite: no weight. Where nothing was
            observed it may be anything. Default 1, which is not taken for the standard deviation.
        difference: how prediction and observation differ: "subtract", "wrapped" for phases in
            radians, or a function. "auto": the forward model's own attribute ``difference``, else
            subtract.
        prior: a penalty on the params of a sample, added to the mean squared residual.
        context: what the forward model needs beside the params; with a leading sample axis, or the
            same for all samples.
        differentiable: False for a black box: NumPy, a subprocess, a compiled library. Where it
            raises an exception, the params that it was asked for count as NaN, with a warning.
        vectorized: whether a black box takes params (and context) of many candidates, along a
            leading axis, and returns as many predictions.
        batched: whether the arrays have a leading sample axis. None: as the forward model shows;
            where both readings fit it, it has to be said, and where it fits only all samples at
            once.
        method: "auto", "lm" (Levenberg–Marquardt), "lbfgs", "adam", "random"; a population:
            "cma_es", "ga", "de", "pso" or another strategy of `Evolution`; or a `Refiner`. "auto"
            takes a local method; with finite bounds it refines up to eight samples again from other
            starts, and where these disagree, goes on with a population for all.
        key: seed or PRNG key, for methods that draw random numbers.
        max_steps: most steps for a sample; by default what suits the method.
        stop: when a sample is done; `Stop()` by default.
        scale: the size of a step in each param, like the params of a sample or a number for all
            (SciPy's ``x_scale``), rounded to powers of two. By default the range; without a finite
            one, or where it is more than 10⁸ times as wide as the start is large, the size of the
            start; for methods that use the gradient alone, and a start of 0, by the slope there.
            Bounds 10¹⁵ times as far as that count as none. A `Refiner` of your own has
            numbers in units that you chose: it works on params and losses as they are, unless this
            is given, or it has none (``unit_free``).
        execution: as for `run_batch`.
        progress: as for `run_batch`.
        checkpoint: as for `run_batch`.
        time_limit: as for `run_batch`; for all that is done.
        trace: as for `run_batch`.

    Returns:
        `BatchResult`; no sample is worse than it came in. ``method`` says what was used and why;
        ``covariance()``, ``identifiability()`` and ``goodness_of_fit()`` how far to trust it.
        For a single sample the arrays have no sample axis. ``notes`` say where float64 that is cut
        to float32 loses what matters.

    Raises:
        ValueError: names the argument that does not fit, what came and what was expected; inside
            ``jit``, ``vmap`` or ``grad`` (`run` and `run_until` work there).
    """
    check_flag("differentiable", differentiable)
    check_flag("vectorized", vectorized)
    check_flag("batched", batched, none=True)
    forward = mark_function(forward) if differentiable else forward
    model = ForwardModel(forward, differentiable, vectorized)
    if vectorized and differentiable:
        raise ValueError("vectorized: expected with differentiable=False; JAX vectorizes by itself")
    check_outside_traces("refine", observations, initial, context, bounds, noise)
    given = Arrays.read(observations, initial, context)
    reading = read_samples(model, given.floating(), batched)
    given = reading.apply(given)
    check_range(given)
    arrays = given.floating()
    first = jax.tree.map(lambda leaf: leaf[0], arrays.initial)
    chosen = choose(
        method,
        differentiable=differentiable,
        size=count_params(first),
        forward_mode=differentiable and model.has_forward_mode(first, arrays.context),
    )
    check_prior(prior, first)
    space, given_noise = as_space(bounds, first), noise
    noise, noise_axis = as_noise(noise, arrays.observations)
    if not differentiable:
        forward = BlackBox.wrap(forward, arrays.observations, vectorized=vectorized)
    problem = mark(
        InverseProblem(
            forward,
            arrays.observations,
            noise=noise,
            difference=as_difference(difference, model.forward),
            prior=prior,
            space=space,
            context=arrays.context,
        )
    )
    axes = problem.batch_axes().replace(noise=noise_axis)
    units = UnitChoice(
        scale=not isinstance(method, Refiner) or scale is not None,
        residual=not isinstance(method, Refiner) or method.unit_free,
        target=None if stop is None else stop.target,
        slope=isinstance(chosen.refiner, Gradient),
    )
    scaled, scaled_axes = units.apply(problem, axes, arrays.initial, scale)
    stop = units.stop(stop, scaled.unit)
    steps = chosen.max_steps if max_steps is None else max_steps
    job = BatchJob(
        chosen.refiner, scaled, arrays.initial, steps, key=key, stop=stop, axes=scaled_axes
    )
    with Pipeline(
        execution,
        progress=progress,
        checkpoint=checkpoint,
        time_limit=time_limit,
        identity=[max_steps],
    ) as pipeline:
        result = replace(pipeline.run(job, trace=trace), method=chosen.reason)
        if chosen.local and pipeline.early is None:
            result = _globally_if_needed(pipeline, job, result, max_steps)
    result = in_units(result, scaled.unit)
    notes = lost_notes(given, given_noise, result.initial_loss)
    notes += () if space is None else range_notes(*space.bounds)
    fit = Fit(problem, axes, noise_given=given_noise is not None) if differentiable else None
    result = replace(result, notes=(*result.notes, *notes), fit=fit)
    return result.squeeze() if reading.single else result


def _globally_if_needed(
    pipeline: Pipeline, job: BatchJob, local: BatchResult, max_steps: int | None
) -> BatchResult:
    """Where other starts lead elsewhere, go on by a population, then locally again."""
    others = probe(pipeline, job, local)
    local = local.with_counts(local.counted() + others.counts)
    if not others.disagree or pipeline.early is not None:
        return local
    chosen = beyond(job.refiner, local.method.split(":")[0])
    steps = chosen.max_steps if max_steps is None else max_steps
    further = replace(job, refiner=chosen.refiner, params=local.params, max_steps=steps)
    traced = 0 if local.trace is None else len(local.trace)
    found = pipeline.run(further, "population", trace=traced)
    why = f"from other starts {others.elsewhere} of {others.of} samples ended elsewhere"
    whole = found.with_counts(local.counted() + found.counted())
    return replace(
        whole,
        loss=np.where(np.isnan(found.initial_loss), local.loss, found.loss),  # not begun
        initial_loss=local.initial_loss,
        steps=local.steps + found.steps,
        seconds=local.seconds + found.seconds,
        trace=join_traces(local.trace, found.trace),
        method=f"{local.method}; then {chosen.reason}, because {why}",
    )
