"""What `refine` is given: arrays of one sample or of many, differences, bounds, noise."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from refinejax._trees import as_pytree, broadcast_like
from refinejax.physics.phase import wrapped_difference
from refinejax.problems import ParameterSpace
from refinejax.problems.black_box import copied

_DIFFERENCES = {"subtract": jnp.subtract, "wrapped": wrapped_difference}


class ForwardModel(NamedTuple):
    """A forward model, and how it may be called.

    Attributes:
        forward: params → prediction, or (params, context) → prediction.
        differentiable: whether it is written in JAX; else it is a black box.
        vectorized: whether a black box takes many candidates along a leading axis.
    """

    forward: Callable[..., Any]
    differentiable: bool
    vectorized: bool

    def shapes(self, params: Any, context: Any) -> Any:
        """Return the shapes of the prediction. A black box is called for that."""
        args = (params,) if context is None else (params, context)
        if self.differentiable:
            return shapes(jax.eval_shape(self.forward, *args))
        if not self.vectorized:
            return shapes(numbers(self.forward(*copied(args))))
        one = jax.tree.map(lambda leaf: np.array(leaf)[None], args)
        return jax.tree.map(lambda leaf: np.shape(leaf)[1:], numbers(self.forward(*one)))

    def has_forward_mode(self, params: Any, context: Any) -> bool:
        """Whether JAX can push derivatives through the model (not through a ``custom_vjp``).

        Args:
            params: of one sample.
            context: of all samples, or None.
        """
        first = () if context is None else (jax.tree.map(lambda leaf: leaf[0], context),)
        try:  # abstract evaluation alone does not notice
            _push.lower(as_pytree(self.forward), jax.tree.map(jnp.asarray, params), first)
        except TypeError:
            return False
        return True


@jax.jit
def _push(forward: Any, params: Any, context: tuple[Any, ...]) -> Any:
    """Push a tangent through a forward model; a program only to see whether it can be made."""
    return jax.jvp(lambda q: forward(q, *context), (params,), (params,))


class Arrays(NamedTuple):
    """Observations, starts and context, as they came or with a leading sample axis."""

    observations: Any
    initial: Any
    context: Any

    @classmethod
    def read(cls, observations: Any, initial: Any, context: Any) -> "Arrays":
        """Make lists and integers floating arrays; in the context, lists of numbers arrays."""
        context = jax.tree.map(_array_if_list, context, is_leaf=_is_list_of_numbers)
        return cls(numbers(observations), numbers(initial), context)

    def with_axis(self) -> "Arrays":
        """Return arrays of one sample with a leading sample axis."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[None], self)

    def first(self) -> "Arrays":
        """Return those of the first sample."""
        return jax.tree.map(lambda leaf: leaf[0], self)


def is_single(model: ForwardModel, arrays: Arrays, batched: bool | None) -> bool:
    """Say whether the arrays are those of one sample, by what the forward model makes of them.

    Args:
        model: is asked for the shapes of its prediction, once for each reading in question.
        arrays: as they came.
        batched: which reading to take; None where only one of them fits.

    Raises:
        ValueError: if no reading fits, or both do and ``batched`` does not say which.
    """
    if not model.differentiable:
        return _is_single(model, arrays, batched)
    known = _signature(model, arrays, batched)
    if known not in _readings:
        _readings[known] = _is_single(model, arrays, batched)
        while len(_readings) > _MOST_READINGS:
            _readings.pop(next(iter(_readings)))
    return _readings[known]


_readings: dict[Any, bool] = {}  # by what decides: the model's content and shapes
_MOST_READINGS = 256


def _signature(model: ForwardModel, arrays: Arrays, batched: bool | None) -> Any:
    leaves, structure = jax.tree.flatten((as_pytree(model.forward), arrays))
    described = tuple((np.shape(leaf), str(np.asarray(leaf).dtype)) for leaf in leaves)
    return structure, described, batched


def _is_single(model: ForwardModel, arrays: Arrays, batched: bool | None) -> bool:
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(arrays)}
    divisible = len(lengths) == 1 and () not in lengths
    if divisible and batched is not False and 0 in next(iter(lengths)):
        raise ValueError("initial: empty batch; there is nothing to refine")
    many = one = "not tried"
    if batched is not False:
        many = _misfit_many(model, arrays) if divisible else _NOT_DIVISIBLE
    if batched is not True:
        one = _misfit(model, arrays)
    if not many and not one:
        raise ValueError(_both_fit(arrays))
    if many and one:
        raise _no_fit(arrays, many, one, batched)
    return not one


_NOT_DIVISIBLE = "the leading axes differ, or there are none"


def _misfit(model: ForwardModel, sample: Arrays) -> str | Exception:
    """Return why the arrays are not those of a sample; nothing if they are."""
    try:
        predicted = model.shapes(sample.initial, sample.context)
    except Exception as why:  # anything that a forward model may raise
        return why
    observed = shapes(sample.observations)
    return (
        "" if predicted == observed else f"it gives {predicted} where the observation is {observed}"
    )


def _misfit_many(model: ForwardModel, arrays: Arrays) -> str | Exception:
    """Return why the arrays are not samples along the leading axis; nothing if they are.

    A black box may fail at the start of some: the first for which it does not decides.
    """
    first = why = _misfit(model, arrays.first())
    if model.differentiable:
        return why
    for index in range(1, len(jax.tree.leaves(arrays)[0])):
        if not isinstance(why, Exception):
            return why
        why = _misfit(model, jax.tree.map(lambda leaf, at=index: leaf[at], arrays))
    return first if isinstance(why, Exception) else why


def _both_fit(arrays: Arrays) -> str:
    observed, begun = shapes(arrays.observations), shapes(arrays.initial)
    count = len(jax.tree.leaves(arrays.initial)[0])
    return (
        f"batched: observations of shape {observed} and initial of shape {begun} can be read in "
        f"two ways: as {count} samples along the leading axis (batched=True; params of shape "
        f"{shapes(arrays.first().initial)} each), or as one sample with params of shape {begun} "
        "(batched=False); say which"
    )


def _no_fit(arrays: Arrays, many: Any, one: Any, batched: bool | None) -> ValueError:
    why = many if batched or (batched is None and many is not _NOT_DIVISIBLE) else one
    reading = {
        None: "taken as samples along the leading axis (which must be the same) or as one sample",
        True: "taken as samples along the leading axis, as batched=True says",
        False: "taken as one sample, as batched=False says",
    }[batched]
    said = f"{type(why).__name__}: {why}" if isinstance(why, Exception) else why
    error = ValueError(
        f"forward: does not fit the arrays. Params of shape {shapes(arrays.initial)} and "
        f"observations of shape {shapes(arrays.observations)}, {reading}: {said}"
    )
    error.__cause__ = why if isinstance(why, Exception) else None
    return error


def shapes(tree: Any) -> Any:
    """Return the shape of every leaf."""
    return jax.tree.map(np.shape, tree)


def count_params(params: Any) -> int:
    """Return how many numbers the params of a sample are."""
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params))


def numbers(tree: Any) -> Any:
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


def as_difference(difference: Any, forward: Any) -> Callable[[Any, Any], Any]:
    if isinstance(difference, str) and difference == "auto":
        return getattr(forward, "difference", jnp.subtract)
    if callable(difference):
        return difference
    if not isinstance(difference, str) or difference not in _DIFFERENCES:
        raise ValueError(
            f"difference: expected 'auto', 'subtract', 'wrapped' or a function, got {difference!r}"
        )
    return _DIFFERENCES[difference]


def as_space(bounds: Any, first: Any) -> ParameterSpace | None:
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


def as_noise(noise: Any, observations: Any) -> tuple[Any, Any]:
    """Return the noise and the axis of samples in it (a pytree of 0 and None)."""
    if noise is None:
        return np.asarray(1.0), None
    noise = numbers(noise)
    leaves = jax.tree.leaves(noise)
    if all(np.ndim(leaf) == 0 for leaf in leaves):
        if not all(leaf > 0 for leaf in leaves):
            raise ValueError(_NO_NOISE)
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


_NO_NOISE = "noise: expected standard deviations above 0 where something was observed"


class _Pair:
    """A noise and its sample axis; a pytree leaf."""

    def __init__(self, noise: Any, axis: int | None) -> None:
        self.noise, self.axis = noise, axis


def _noise_leaf(noise: Any, observation: Any) -> _Pair:
    pair = _placed(noise, observation)
    bad = ~(pair.noise > 0)
    if np.any(bad) and np.any(bad & ~np.isnan(observation)):
        raise ValueError(_NO_NOISE)
    return pair


def _placed(noise: Any, observation: Any) -> _Pair:
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
