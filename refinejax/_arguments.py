"""What `refine` is given: a forward model, arrays, differences, noise."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from refinejax._gate import is_of_other_precision, read_tree
from refinejax._narrowing import check_integers, narrowing_notes, roundings
from refinejax._trees import as_pytree, broadcast_like
from refinejax.physics.phase import wrapped_difference
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
            return shapes(_predicted(self.forward(*copied(args))))
        one = jax.tree.map(lambda leaf: np.array(leaf)[None], args)
        return jax.tree.map(lambda leaf: np.shape(leaf)[1:], _predicted(self.forward(*one)))

    def has_forward_mode(self, params: Any, context: Any) -> bool:
        """Whether JAX can push derivatives through the model (not through a ``custom_vjp``).

        Args:
            params: of one sample.
            context: of all samples, or None.
        """
        first = () if context is None else (jax.tree.map(lambda leaf: leaf[0], context),)
        try:
            return self._can_push(params, first)
        except ValueError as error:
            if not is_of_other_precision(error):
                raise
        jax.clear_caches()
        return self._can_push(params, first)

    def _can_push(self, params: Any, context: tuple[Any, ...]) -> bool:
        try:  # abstract evaluation alone does not notice
            _push.lower(as_pytree(self.forward), jax.tree.map(jnp.asarray, params), context)
        except TypeError:
            return False
        return True


def _predicted(prediction: Any) -> Any:
    return read_tree(prediction, "prediction", missing=True)


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
        """Read arrays of any kind."""
        context = read_tree(context, "context", lists=False)
        check_integers(context, "context")
        observed, begun = _numbers(observations, "observations"), _numbers(initial, "initial")
        return cls(observed, begun, context)

    def floating(self) -> "Arrays":
        """Return observations and starts as floating arrays."""
        begun = _floating(self.initial)
        return self._replace(observations=_floating(self.observations), initial=begun)

    def with_axis(self) -> "Arrays":
        """Return arrays of one sample with a leading sample axis."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[None], self)

    def first(self) -> "Arrays":
        """Return those of the first sample."""
        return jax.tree.map(lambda leaf: leaf[0], self)


def shapes(tree: Any) -> Any:
    """Return the shape of every leaf."""
    return jax.tree.map(np.shape, tree)


def count_params(params: Any) -> int:
    """Return how many numbers the params of a sample are."""
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params))


def _numbers(tree: Any, name: str) -> Any:
    """Read arrays; a masked number is a missing one. An argument without a number is refused."""
    arrays = read_tree(tree, name, missing=name != "initial")
    if not any(np.size(leaf) for leaf in jax.tree.leaves(arrays)):
        raise ValueError(f"{name}: empty, without a number; there is nothing to refine")
    if name == "initial" and any(np.iscomplexobj(leaf) for leaf in jax.tree.leaves(arrays)):
        raise ValueError("initial: expected real numbers; refine real and imaginary parts")
    return arrays


def _floating(tree: Any) -> Any:
    """Make integers floating; leave floating arrays (also mapped ones) alone."""

    def convert(array: Any) -> Any:
        whole = np.issubdtype(array.dtype, np.integer) or array.dtype == bool
        return np.asarray(array, jax.dtypes.canonicalize_dtype(float)) if whole else array

    return jax.tree.map(convert, tree)


def check_range(given: Arrays) -> None:
    """Raise `ValueError` for numbers beyond the greatest of the dtype that JAX cuts them to.

    Args:
        given: arrays as they came, with a sample axis.
    """
    count = len(jax.tree.leaves(given.observations)[0])
    for name in ("observations", "initial", "context"):
        for _ in roundings(getattr(given, name), name, count):
            pass


def lost_notes(given: Arrays, noise: Any, initial_loss: np.ndarray) -> tuple[str, ...]:
    """Say where cutting float64 to float32 loses what matters.

    Args:
        given: arrays as they came, with a sample axis.
        noise: as it was given; None where it was not.
        initial_loss: the mean squared residual at the start, shape (B,).
    """
    count, notes = len(initial_loss), []
    size = None if noise is None else _typical(noise)
    for rounding in roundings(given.observations, "observations", count):
        note = rounding.note(size)
        if note is None and size is None:
            with np.errstate(invalid="ignore"):
                note = rounding.note_start(np.sqrt(initial_loss))
        notes += [note] if note else []
    data, params = {"context": given.context}, {"initial": given.initial}
    return (*notes, *narrowing_notes(count, data=data, params=params))


def _typical(noise: Any) -> float:
    """Return a median of the noise, over no more numbers than needed."""
    leaves = [np.ravel(np.asarray(leaf)) for leaf in jax.tree.leaves(noise)]
    some = np.concatenate([leaf[:: len(leaf) // 10_000 + 1] for leaf in leaves]).astype(float)
    return float(np.median(some[np.isfinite(some)])) if np.isfinite(some).any() else 0.0


def check_prior(prior: Any, params: Any) -> None:
    """Raise `ValueError` unless a prior gives a real number.

    Args:
        prior: params → a penalty; or None.
        params: of one sample.
    """
    if prior is None:
        return
    if not callable(prior):
        raise ValueError(f"prior: expected a function of the params, got {prior!r}")
    penalty = jax.eval_shape(prior, params)
    shape = getattr(penalty, "shape", None)
    if shape != () or jnp.issubdtype(penalty.dtype, jnp.complexfloating):
        raise ValueError(
            f"prior: expected a function that returns a number, got {penalty}; add up its terms, "
            "as by jnp.sum"
        )


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


def as_noise(noise: Any, observations: Any) -> tuple[Any, Any]:
    """Return the noise and the axis of samples in it (a pytree of 0 and None)."""
    if noise is None:
        return np.asarray(1.0), None
    noise = _floating(_numbers(noise, "noise"))
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
