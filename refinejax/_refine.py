"""The one call, for people who do not want to choose."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refinejax._core import Refiner, Status, Stop
from refinejax._methods import beyond, choose
from refinejax._probe import Probe, probe
from refinejax._trees import broadcast_like
from refinejax.batch import BatchResult, Execution, run_batch
from refinejax.diagnostics import Fit
from refinejax.physics.phase import wrapped_difference
from refinejax.problems import BlackBox, InverseProblem, ParameterSpace

_DIFFERENCES = {"subtract": jnp.subtract, "wrapped": wrapped_difference}


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
    method: str | Refiner = "auto",
    key: Any = 0,
    max_steps: int | None = None,
    stop: Stop | None = None,
    execution: Execution | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    time_limit: float | None = None,
) -> BatchResult:
    """Move params until the forward model explains the observations.

    Args:
        forward: the model of one sample: params → prediction, or with ``context`` (params, context)
            → prediction. Written in JAX; or anything, with ``differentiable=False``. Define it once
            and pass the same function each time: another function compiles anew.
        observations: what was observed; a pytree of arrays with a leading sample axis, or without
            for a single sample. NaN means missing.
        initial: where to start; params with a leading sample axis, or without.
        bounds: (lower, upper), each like the params of a sample or a single number, ±∞ for none; or
            a `ParameterSpace`. Starts outside are moved onto them. Finite bounds also set the
            scale on which each param is moved.
        noise: standard deviation of the observations: a number, or an array of the shape of one
            observation, of all, or of the sample axis. Default 1.
        difference: how prediction and observation differ: "subtract", "wrapped" for phases in
            radians, or a function. "auto": the forward model's own attribute ``difference``, else
            subtract.
        prior: a penalty on the params of a sample, added to the mean squared residual.
        context: what the forward model needs beside the params; leading sample axis.
        differentiable: False for a black box: NumPy, a subprocess, a compiled library. Where it
            raises an exception, the params that it was asked for count as NaN, with a warning.
        vectorized: whether a black box takes params (and context) of many candidates, along a
            leading axis, and returns as many predictions.
        method: "auto", "lm" (Levenberg–Marquardt), "lbfgs", "adam", "random"; a population:
            "cma_es", "ga", "de", "pso" or another strategy of `Evolution`; or a `Refiner`. "auto"
            takes a local method; with finite bounds it refines up to eight samples again from other
            starts, and where these disagree, goes on with a population for all.
        key: seed or PRNG key, for methods that draw random numbers.
        max_steps: most steps for a sample; by default what suits the method.
        stop: when a sample is done; `Stop()` by default.
        execution: as for `run_batch`.
        progress: as for `run_batch`.
        checkpoint: as for `run_batch`.
        time_limit: as for `run_batch`.

    Returns:
        `BatchResult`; no sample is worse than it came in. ``method`` says what was used and why;
        ``covariance()``, ``identifiability()`` and ``goodness_of_fit()`` how far to trust it.
        For a single sample the arrays have no sample axis.

    Raises:
        ValueError: names the argument that does not fit, what came and what was expected.
    """
    observations, initial = _numbers(observations), _numbers(initial)
    context = jax.tree.map(_array_if_list, context, is_leaf=_is_list_of_numbers)
    if vectorized and differentiable:
        raise ValueError("vectorized: expected with differentiable=False; JAX vectorizes by itself")
    single = _is_single(forward, observations, initial, context, differentiable, vectorized)
    if single:
        observations, initial, context = (
            jax.tree.map(lambda leaf: np.asarray(leaf)[None], tree)
            for tree in (observations, initial, context)
        )
    first = jax.tree.map(lambda leaf: leaf[0], initial)
    chosen = choose(
        method,
        differentiable=differentiable,
        size=_size(first),
        forward_mode=differentiable and _has_forward_mode(forward, first, context),
    )
    noise, noise_axis = _noise(noise, observations)
    problem = InverseProblem(
        forward if differentiable else BlackBox.wrap(forward, observations, vectorized=vectorized),
        observations,
        noise=noise,
        difference=_difference(difference, forward),
        prior=prior,
        space=_space(bounds, first),
        context=context,
    )
    axes = problem.batch_axes().replace(noise=noise_axis)
    steps = chosen.max_steps if max_steps is None else max_steps
    options: dict[str, Any] = {
        "stop": stop,
        "axes": axes,
    }
    begun = time.monotonic()
    shown: dict[str, Any] = {"execution": execution, "progress": progress}
    result = run_batch(
        chosen.refiner,
        problem,
        initial,
        key,
        max_steps=steps,
        checkpoint=checkpoint,
        time_limit=time_limit,
        **shown,
        **options,
    )
    result = replace(result, method=chosen.reason)
    if chosen.local and not _interrupted(result):
        others = probe(
            chosen.refiner,
            problem,
            initial=initial,
            result=result,
            execution=execution,
            max_steps=steps,
            time_limit=_left(time_limit, begun),
            **options,
        )
        if others.disagree:
            result = _globally(
                chosen.refiner,
                result,
                problem,
                key,
                others,
                max_steps=max_steps,
                checkpoint=checkpoint,
                time_limit=_left(time_limit, begun),
                **shown,
                **options,
            )
    fit = Fit(problem, axes) if differentiable else None
    result = replace(result, fit=fit)
    return result.squeeze() if single else result


def _left(time_limit: float | None, begun: float) -> float | None:
    """Return the seconds that are left of a limit for several runs."""
    return None if time_limit is None else max(time_limit - (time.monotonic() - begun), 0.0)


def _interrupted(result: BatchResult) -> bool:
    """Whether some samples have not been brought to their end."""
    return bool(np.any(np.isin(result.status, (Status.TIME_LIMIT, Status.STOPPED))))


def _globally(
    refiner: Refiner,
    local: BatchResult,
    problem: InverseProblem,
    key: Any,
    others: Probe,
    *,
    max_steps: int | None,
    checkpoint: Any,
    **options: Any,
) -> BatchResult:
    """Go on from where a local method has ended by a population, then locally again."""
    chosen = beyond(refiner, local.method.split(":")[0])
    found = run_batch(
        chosen.refiner,
        problem,
        local.params,
        key,
        max_steps=chosen.max_steps if max_steps is None else max_steps,
        checkpoint=None if checkpoint is None else os.path.join(checkpoint, "population"),
        **options,
    )
    why = f"from other starts {others.elsewhere} of {others.of} samples ended elsewhere"
    return replace(
        found,
        initial_loss=local.initial_loss,
        steps=local.steps + found.steps,
        seconds=local.seconds + found.seconds,
        method=f"{local.method}; then {chosen.reason}, because {why}",
    )


def _numbers(tree: Any) -> Any:
    """Make lists and integers floating arrays; leave floating arrays (also mapped ones) alone."""

    def convert(leaf: Any) -> Any:
        array = leaf if isinstance(leaf, np.ndarray) else np.asarray(leaf)
        whole = np.issubdtype(array.dtype, np.integer) or array.dtype == bool
        return array.astype(jax.dtypes.canonicalize_dtype(float)) if whole else array

    return jax.tree.map(convert, tree, is_leaf=_is_list)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_list_of_numbers(value: Any) -> bool:
    return _is_list(value) and all(np.isscalar(leaf) for leaf in jax.tree.leaves(value))


def _array_if_list(value: Any) -> Any:
    return np.asarray(value) if _is_list(value) else value


def _size(params: Any) -> int:
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params))


def _is_single(
    forward: Callable[..., Any],
    observations: Any,
    initial: Any,
    context: Any,
    differentiable: bool,
    vectorized: bool,
) -> bool:
    """Say whether the arrays are those of one sample, by what the forward model makes of them.

    Where both readings fit, the leading axis is taken for samples.
    """
    arrays = jax.tree.leaves((observations, initial, context))
    lengths = {np.shape(leaf)[:1] for leaf in arrays}
    batched = len(lengths) == 1 and () not in lengths
    if batched and 0 in next(iter(lengths)):
        raise ValueError("initial: empty batch; there is nothing to refine")
    whole = (observations, initial, context)
    error: Exception | None = None
    for parts in ([jax.tree.map(lambda x: x[0], whole)] if batched else []) + [whole]:
        try:
            shape = _shape(forward, parts[1], parts[2], differentiable, vectorized)
        except Exception as why:  # reported below, if no reading fits
            error = error or why
            continue
        if shape == _shapes(parts[0]):
            return parts is whole
        error = error or ValueError(
            f"it gives {shape} where the observation is {_shapes(parts[0])}"
        )
    raise ValueError(
        f"forward: does not fit the arrays. Params of shape {_shapes(initial)} and observations of "
        f"shape {_shapes(observations)}, taken as samples along the leading axis (which must be "
        f"the same) or as one sample: {type(error).__name__}: {error}"
    ) from error


def _shape(
    forward: Callable[..., Any], params: Any, context: Any, differentiable: bool, vectorized: bool
) -> Any:
    args = (params,) if context is None else (params, context)
    if differentiable:
        return _shapes(jax.eval_shape(forward, *args))
    if not vectorized:
        return _shapes(_numbers(forward(*args)))
    one = jax.tree.map(lambda leaf: np.asarray(leaf)[None], args)
    return jax.tree.map(lambda leaf: np.shape(leaf)[1:], _numbers(forward(*one)))


def _has_forward_mode(forward: Callable[..., Any], params: Any, context: Any) -> bool:
    """Whether JAX can push derivatives through the model (not through a ``custom_vjp``)."""
    first = () if context is None else (jax.tree.map(lambda leaf: leaf[0], context),)
    params = jax.tree.map(jnp.asarray, params)
    try:  # abstract evaluation alone does not notice
        jax.jit(lambda p: jax.jvp(lambda q: forward(q, *first), (p,), (p,))).lower(params)
    except TypeError:
        return False
    return True


def _shapes(tree: Any) -> Any:
    return jax.tree.map(np.shape, tree)


def _difference(difference: Any, forward: Any) -> Callable[[Any, Any], Any]:
    if isinstance(difference, str) and difference == "auto":
        return getattr(forward, "difference", jnp.subtract)
    if callable(difference):
        return difference
    if not isinstance(difference, str) or difference not in _DIFFERENCES:
        raise ValueError(
            f"difference: expected 'auto', 'subtract', 'wrapped' or a function, got {difference!r}"
        )
    return _DIFFERENCES[difference]


def _space(bounds: Any, first: Any) -> ParameterSpace | None:
    """Make a space of bounds, each broadcast to the params of a sample."""
    if bounds is None:
        return None
    space = bounds if isinstance(bounds, ParameterSpace) else None
    bounds = space.bounds if space is not None else bounds
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ValueError(f"bounds: expected (lower, upper) or a ParameterSpace, got {bounds!r}")

    def like(name: str, bound: Any) -> Any:
        def broadcast(b: Any, p: Any) -> np.ndarray:
            try:
                return np.broadcast_to(np.asarray(b, p.dtype), np.shape(p))
            except (TypeError, ValueError):
                raise ValueError(
                    f"bounds: {name} of shape {np.shape(b)} does not fit params of shape "
                    f"{np.shape(p)}"
                ) from None

        if isinstance(first, np.ndarray | np.generic):
            return broadcast(bound, first)
        try:
            return jax.tree.map(lambda p, b: broadcast(b, p), first, broadcast_like(bound, first))
        except TypeError:
            raise ValueError(f"bounds: {name} is not a pytree like the params: {bound!r}") from None

    lower, upper = like("lower", bounds[0]), like("upper", bounds[1])
    return ParameterSpace.create((), lower, upper) if space is None else space


def _noise(noise: Any, observations: Any) -> tuple[Any, Any]:
    """Return the noise and the axis of samples in it (a pytree of 0 and None)."""
    if noise is None:
        return np.asarray(1.0), None
    noise = _numbers(noise)
    leaves = jax.tree.leaves(noise)
    if not all(np.all(np.asarray(leaf) > 0) for leaf in leaves):
        raise ValueError("noise: expected standard deviations above 0")
    if all(np.ndim(leaf) == 0 for leaf in leaves):
        return noise, None
    noise = broadcast_like(noise, observations)
    if jax.tree.structure(noise) != jax.tree.structure(observations):
        raise ValueError("noise: expected numbers, an array, or a pytree like the observations")
    pairs = jax.tree.map(_noise_leaf, noise, observations)
    is_pair = lambda x: isinstance(x, _Pair)  # noqa: E731
    return (
        jax.tree.map(lambda pair: pair.noise, pairs, is_leaf=is_pair),
        jax.tree.map(lambda pair: pair.axis, pairs, is_leaf=is_pair),
    )


class _Pair:
    """A noise and its sample axis; a pytree leaf."""

    def __init__(self, noise: Any, axis: int | None) -> None:
        self.noise, self.axis = noise, axis


def _noise_leaf(noise: Any, observation: Any) -> _Pair:
    noise, shape = np.asarray(noise), np.shape(observation)
    each, shared = noise.shape == shape[:1], noise.shape == shape[1:]
    if each and shared and shape[0] > 1:
        raise ValueError(
            f"noise: shape {noise.shape} may mean samples or pixels, which are as many here; "
            f"broadcast it to {shape}"
        )
    if each:
        return _Pair(noise.reshape(shape[:1] + (1,) * (len(shape) - 1)), 0)
    if noise.shape == shape:
        return _Pair(noise, 0)
    if shared or noise.ndim == 0:
        return _Pair(noise, None)
    raise ValueError(
        f"noise: expected a number or shape {shape}, {shape[1:]} or {shape[:1]}, got {noise.shape}"
    )
