"""The units in which `refine` works: of the residual and of each param, powers of two.

Squares of data of 1e-20 underflow, those of 1e20 overflow, and a first step of 1 means nothing for
a param of 1e6. So `refine` divides residuals and params of every sample by a power of two near
their size, which changes no digit, and gives the answers in the units of the caller.
"""

import functools
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from refinejax._core import Stop
from refinejax._gate import read_tree
from refinejax._trees import broadcast_like
from refinejax.batch.result import BatchResult
from refinejax.problems import InverseProblem, ParameterSpace

FAR = 1e8  # a range this many times as wide as the start says nothing of the size of steps
NO_BOUND = 1e15  # a bound this many times as far as any start is none
_ROWS = 1024  # samples whose slopes are computed together
_PIXELS = 64  # of an observation that are looked at


class UnitChoice(NamedTuple):
    """Which units to choose.

    Attributes:
        scale: whether of the params.
        residual: whether of the residual.
        target: the loss at which to stop, or None; with one all samples share the residual's unit.
        slope: whether the slope of the loss gives the size of params that start at 0.
    """

    scale: bool
    residual: bool
    target: Any
    slope: bool

    def apply(
        self, problem: InverseProblem, axes: Any, initial: Any, scale: Any
    ) -> tuple[InverseProblem, Any]:
        """Return a problem in units of its own, and its axes.

        Args:
            problem: of all samples.
            axes: which leaves of it belong to a sample.
            initial: starts, each leaf with a leading sample axis.
            scale: the size of a step in each param, like the params of a sample or a number for
                all; None to choose.
        """
        space = problem.space if problem.space is None else _open(problem.space, initial)
        problem = problem.replace(space=space)
        if self.residual:
            unit = residual_unit(problem.observation, problem.noise, axes.noise)
            shared = self.target is not None
            problem = problem.replace(unit=np.full_like(unit, unit.max()) if shared else unit)
        if self.scale:
            scales = param_scale(initial, space, scale)
            if self.slope and scale is None and _begins_at_0(initial):
                where = axes.replace(unit=0 if self.residual else None)
                scales = scale_by_slope(problem, where, initial, scales)
            problem = problem.replace(scale=scales)
        return problem, axes.replace(unit=0, scale=0)

    def stop(self, stop: Stop | None, unit: np.ndarray | None) -> Stop | None:
        """Return stopping rules with the target in the unit of the residual.

        Args:
            stop: rules, or None.
            unit: of the residual of each sample, or None for 1.
        """
        if stop is None or stop.target is None or unit is None:
            return stop
        return stop.replace(target=stop.target / float(unit[0]) ** 2)


def residual_unit(observation: Any, noise: Any, noise_axes: Any) -> np.ndarray:
    """Return the power of two above the largest |observation|/noise of each sample, shape (B,).

    Of large observations a few pixels are looked at. 1 where all are 0 or missing.

    Args:
        observation: a pytree of arrays with a leading sample axis.
        noise: a number, or a pytree like the observation.
        noise_axes: 0 where a leaf of the noise has a sample axis, else None.
    """
    leaves = jax.tree.leaves(observation)
    structure = jax.tree.structure(observation)
    noises = jax.tree.leaves(broadcast_like(noise, observation))
    given = (
        [noise_axes] * len(leaves) if noise_axes is None else structure.flatten_up_to(noise_axes)
    )
    largest = np.zeros(len(leaves[0]))
    for leaf, sigma, axis in zip(leaves, noises, given, strict=True):
        largest = np.fmax(largest, _largest_ratio(leaf, np.asarray(sigma), axis))
    return power_of_two(largest).astype(jax.dtypes.canonicalize_dtype(leaves[0].real.dtype))


def _largest_ratio(leaf: Any, sigma: np.ndarray, axis: int | None) -> np.ndarray:
    """Return the largest |observation|/noise of each sample, of some pixels."""
    count, size = len(leaf), int(np.prod(leaf.shape[1:]))
    every = max(size // _PIXELS, 1)
    values = np.abs(np.asarray(leaf.reshape(count, size)[:, ::every], np.result_type(leaf, float)))
    if axis is None and sigma.ndim == 0:
        sigma = sigma.reshape(1, 1)
    else:
        shape = leaf.shape if axis == 0 else (1, *leaf.shape[1:])
        sigma = np.broadcast_to(sigma, shape).reshape(shape[0], size)[:, ::every]
    with np.errstate(all="ignore"):
        ratio = values / sigma
    return np.max(np.where(np.isfinite(ratio), ratio, 0), axis=1, initial=0)


def param_scale(initial: Any, space: ParameterSpace | None, scale: Any) -> Any:
    """Return the size of a step in each param, powers of two, like ``initial``.

    Given, or else the range; where that is infinite or more than 10⁸ times as wide as the start is
    large, the size of the start, and 1 for 0.

    Args:
        initial: starts, each leaf with a leading sample axis.
        space: with bounds; or None.
        scale: given for the params of a sample, or a number for all; or None.

    Raises:
        ValueError: for a scale that is not above 0, or does not fit the params.
    """
    if scale is not None:
        return _given_scale(initial, scale)
    if space is None:
        return jax.tree.map(lambda s: power_of_two(np.abs(s)).astype(s.dtype), initial)

    def choose(start: np.ndarray, low: Any, high: Any) -> np.ndarray:
        size = np.abs(np.asarray(start, float))
        with np.errstate(all="ignore"):
            width = np.asarray(high, float) - np.asarray(low, float)
        near = np.isfinite(width) & (width > 0)
        near = near & np.where(size > 0, width < FAR * size, width < NO_BOUND)
        return power_of_two(np.where(near, width, size)).astype(start.dtype)

    return jax.tree.map(choose, initial, *space.bounds)


def _given_scale(initial: Any, scale: Any) -> Any:
    """Return the powers of two nearest to a scale, like ``initial``."""
    scale = read_tree(scale, "scale")
    if not all(np.all((leaf > 0) & np.isfinite(leaf)) for leaf in jax.tree.leaves(scale)):
        raise ValueError(f"scale: expected finite numbers above 0, got {scale}")

    def spread(start: np.ndarray, one: Any) -> np.ndarray:
        try:
            return power_of_two(np.broadcast_to(one, start.shape)).astype(start.dtype)
        except ValueError:
            raise ValueError(
                f"scale: shape {np.shape(one)} does not fit params of shape {start.shape[1:]}"
            ) from None

    try:
        return jax.tree.map(spread, initial, broadcast_like(scale, initial))
    except TypeError:
        raise ValueError(f"scale: not a pytree like the params: {scale}") from None


def scale_by_slope(problem: InverseProblem, axes: Any, initial: Any, scales: Any) -> Any:
    """Return scales with 2·loss/|∂loss| for params that start at 0 and had the scale 1.

    That far the loss would fall to 0 along the param, were it a parabola. 1 stays where the slope
    is 0 or not finite.

    Args:
        problem: of all samples, differentiable.
        axes: which leaves of it belong to a sample.
        initial: starts, each leaf with a leading sample axis.
        scales: of all params, like ``initial``.
    """
    structure = jax.tree.structure(axes)
    count = len(jax.tree.leaves(initial)[0])
    parts = []
    for first in range(0, count, _ROWS):
        rows = slice(first, min(first + _ROWS, count))
        some = samples_of(problem, axes, rows)
        starts = jax.tree.map(lambda x, at=rows: x[at], initial)
        parts.append(jax.tree.map(np.asarray, _distances(some, starts, structure)))
    distances = jax.tree.map(lambda *found: np.concatenate(found), *parts)

    def choose(start: np.ndarray, scale: np.ndarray, distance: np.ndarray) -> np.ndarray:
        found = power_of_two(distance).astype(scale.dtype)
        return np.where((start == 0) & (scale == 1), found, scale)

    return jax.tree.map(choose, initial, scales, distances)


def samples_of(problem: InverseProblem, axes: Any, rows: Any) -> InverseProblem:
    """Return the problem of some samples.

    Args:
        problem: of all samples.
        axes: which leaves of it belong to a sample.
        rows: numbers of samples, or a slice.
    """

    def take(axis: int | None, part: Any) -> Any:
        return part if axis is None else jax.tree.map(lambda leaf: np.asarray(leaf[rows]), part)

    return jax.tree.map(take, axes, problem, is_leaf=lambda axis: axis is None)


@functools.partial(jax.jit, static_argnames="structure")
def _distances(problem: InverseProblem, starts: Any, structure: Any) -> Any:
    axes = jax.tree.unflatten(structure, [0] * structure.num_leaves)

    def one(problem: InverseProblem, start: Any) -> Any:
        loss, slope = jax.value_and_grad(lambda params: problem(params))(start)
        return jax.tree.map(lambda g: 2 * jnp.abs(loss / g), slope)

    return jax.vmap(one, in_axes=(axes, 0))(problem, starts)


def _begins_at_0(initial: Any) -> bool:
    return any(bool(np.any(np.asarray(leaf) == 0)) for leaf in jax.tree.leaves(initial))


def power_of_two(values: Any) -> np.ndarray:
    """Return the power of two nearest to each value, by ratio; 1 for 0, ∞ and NaN.

    Args:
        values: 0 or above, any shape.
    """
    values = np.asarray(values, float)
    usable = np.isfinite(values) & (values > 0)
    exponent = np.round(np.log2(np.where(usable, values, 1)))
    return np.ldexp(1.0, np.clip(exponent, -120, 120).astype(int))


def _open(space: ParameterSpace, initial: Any) -> ParameterSpace:
    """Return the space without the bounds that are so far away that they mean none."""

    def largest(start: np.ndarray) -> float:
        return NO_BOUND * max(float(np.max(np.abs(start), initial=0)), 1.0)

    far = jax.tree.map(largest, initial)
    lower = jax.tree.map(lambda b, f: np.where(np.asarray(b) <= -f, -np.inf, b), space.lower, far)
    upper = jax.tree.map(lambda b, f: np.where(np.asarray(b) >= f, np.inf, b), space.upper, far)
    same = jax.tree.map(lambda a, b: np.array_equal(a, b), (lower, upper), space.bounds)
    return space if all(jax.tree.leaves(same)) else space.replace(lower=lower, upper=upper)


def in_units(result: BatchResult, unit: np.ndarray | None) -> BatchResult:
    """Return a result with its losses in the caller's unit.

    Args:
        result: of a problem in units of its own.
        unit: of the residual, shape (B,); None for 1.
    """
    if unit is None:
        return result
    square = np.asarray(unit, float) ** 2
    trace = result.trace
    if trace is not None:
        trace = _times(trace, square[: len(trace), None])
    return replace(
        result,
        loss=_times(result.loss, square),
        initial_loss=_times(result.initial_loss, square),
        trace=trace,
    )


def _times(losses: np.ndarray, square: np.ndarray) -> np.ndarray:
    """Return losses times powers of two, in float64 where their own dtype cannot hold them."""
    exact = losses.astype(np.promote_types(losses.dtype, np.float64)) * square
    with np.errstate(all="ignore"):
        found = exact.astype(losses.dtype)
    tiny = np.finfo(losses.dtype).tiny
    outside = np.isfinite(exact) & (exact != 0) & (~np.isfinite(found) | (np.abs(found) < tiny))
    return exact if np.any(outside) else found
