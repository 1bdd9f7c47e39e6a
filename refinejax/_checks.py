"""Argument checks: each names the argument, what came and what was expected.

They raise `ValueError` before anything is traced.
"""

import dataclasses
import numbers
import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PRNGKeyArray

from refinejax._core import Refiner, Stop
from refinejax._gate import read_array
from refinejax._trees import is_key


def check_refiner(refiner: Any) -> None:
    """Raise `ValueError` unless ``refiner`` is a `Refiner`, and all within, with right numbers.

    Args:
        refiner: the argument of that name.

    Raises:
        ValueError: for anything else, or a number that must be above 0 and is not.
    """
    _check_refiner(refiner, "refiner")


def _check_refiner(refiner: Any, name: str) -> None:
    if not isinstance(refiner, Refiner):
        given = f"the class {refiner.__name__}" if isinstance(refiner, type) else repr(refiner)
        raise ValueError(
            f"{name}: expected a Refiner such as LevenbergMarquardt(), got {given}; an optax "
            'optimizer goes in as Gradient(optax.adam, {"learning_rate": 1e-2}), and a name in '
            "refine(method=...)"
        )
    kind = type(refiner).__name__
    for setting in refiner.positive:
        for value in jax.tree.leaves(getattr(refiner, setting)):
            if isinstance(value, str) or (_is_plain(value) and not np.all(np.asarray(value) > 0)):
                raise ValueError(f"{setting}: {kind} expected a number above 0, got {value!r}")
    for field in dataclasses.fields(refiner):
        kinds = field.type if isinstance(field.type, type) else typing.get_args(field.type)
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        if any(isinstance(k, type) and issubclass(k, Refiner) for k in kinds):
            inside = getattr(refiner, field.name)
            for one in inside if isinstance(inside, tuple) else (inside,):
                _check_refiner(one, f"{name}.{field.name}")


def _is_plain(value: Any) -> bool:
    """Whether it is a number of Python or NumPy, which can be looked at without a device."""
    return isinstance(value, int | float | np.ndarray | np.number)


def check_scalar(objective: Any, params: Any) -> None:
    """Raise `ValueError` unless the loss is a real scalar; inside a trace this costs nothing.

    Args:
        objective: the problem.
        params: where it would be evaluated.

    Raises:
        ValueError: for another shape or dtype.
    """
    loss = jax.eval_shape(objective, params)
    shape, dtype = getattr(loss, "shape", None), getattr(loss, "dtype", jnp.int32)
    if shape != () or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"objective: expected a scalar loss of a floating dtype, got {loss}; reduce it with "
            "jnp.mean, or state the residual as an InverseProblem"
        )


def check_params(params: Any, name: str = "params") -> Any:
    """Return the params with every leaf a JAX array of a floating dtype.

    Args:
        params: a pytree of numbers or arrays.
        name: of the argument, for the message.

    Raises:
        ValueError: for an empty pytree, or a leaf without a real floating dtype, which is named.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    if not leaves:
        raise ValueError(f"{name}: expected at least one array, got an empty pytree")
    return jax.tree.unflatten(structure, [_floating(leaf, path, name) for path, leaf in leaves])


def _floating(leaf: Any, path: Any, name: str) -> Array:
    where = name + jax.tree_util.keystr(path)
    array = jnp.asarray(read_array(leaf, where))
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(
            f"{where}: expected floating-point numbers, got dtype {array.dtype}; "
            "convert with .astype(float) (complex params: refine real and imaginary parts)"
        )
    return array


def as_key(key: Any) -> PRNGKeyArray:
    """Return a typed PRNG key.

    Args:
        key: a typed key, an old-style key, an integer seed, or None (seed 0).

    Raises:
        ValueError: for anything else.
    """
    if key is None or isinstance(key, int | np.integer):
        return jax.random.key(0 if key is None else int(key))
    if not hasattr(key, "dtype"):
        raise ValueError(_NO_KEY.format(repr(key)))
    if is_key(key):
        return _one(key)
    if not jnp.issubdtype(key.dtype, jnp.integer):
        raise ValueError(_NO_KEY.format(f"an array of dtype {key.dtype}"))
    key = jnp.asarray(key)
    return _one(jax.random.wrap_key_data(key) if key.ndim else jax.random.key(key))


def _one(key: PRNGKeyArray) -> PRNGKeyArray:
    if key.ndim:
        raise ValueError(
            f"key: expected a single PRNG key, got {key.shape} of them; every sample gets one of "
            "its own from it, by its number"
        )
    return key


_NO_KEY = "key: expected a seed (an integer) or a PRNG key, such as jax.random.key(0), got {}"


def as_stop(stop: Any) -> Stop:
    """Return stopping rules.

    Args:
        stop: rules, or None for the defaults.

    Raises:
        ValueError: for anything else.
    """
    if stop is None:
        return Stop()
    if not isinstance(stop, Stop):
        raise ValueError(f"stop: expected rules, such as Stop(loss=1e-3), or None, got {stop!r}")
    for field in dataclasses.fields(stop):
        value = getattr(stop, field.name)
        whole = field.name != "patience" or not _is_plain(value) or value == int(value)
        if isinstance(value, str) or (_is_plain(value) and np.any(np.isnan(value))) or not whole:
            kind = "a whole number" if field.name == "patience" else "a number"
            raise ValueError(f"stop: expected {kind} as {field.name}, got {value!r}")
    return stop


def check_flag(name: str, value: Any, *, none: bool = False) -> None:
    """Raise `ValueError` unless ``value`` is True or False.

    Args:
        name: of the argument.
        value: what came.
        none: whether None will do too.

    Raises:
        ValueError: for anything else.
    """
    if not (isinstance(value, bool | np.bool_) or (none and value is None)):
        raise ValueError(
            f"{name}: expected True or False{' or None' if none else ''}, got {value!r}"
        )


def check_count(name: str, value: Any) -> None:
    """Raise `ValueError` unless ``value`` is an integer ≥ 0.

    Args:
        name: of the argument.
        value: what came.

    Raises:
        ValueError: for anything else.
    """
    if not _is_count(value, 0):
        raise ValueError(f"{name}: expected an integer of 0 or more, got {value!r}")


def check_some(name: str, value: Any, what: str) -> None:
    """Raise `ValueError` unless ``value`` is a whole number ≥ 1 of something.

    Args:
        name: of the argument.
        value: what came.
        what: the things, for the message, such as "candidates".

    Raises:
        ValueError: for anything else.
    """
    if not _is_count(value, 1):
        raise ValueError(f"{name}: expected 1 or more {what}, a whole number, got {value!r}")


def check_positive(name: str, value: Any, what: str = "a whole number of 1") -> None:
    """Raise `ValueError` unless ``value`` is an integer ≥ 1.

    Args:
        name: of the argument.
        value: what came.
        what: the least count, for the message, such as "1 row".

    Raises:
        ValueError: for anything else.
    """
    if not _is_count(value, 1):
        raise ValueError(f"{name}: expected {what} or more, got {value!r}")


def _is_count(value: Any, least: int) -> bool:
    """Whether it is a whole number, not a bool, of ``least`` or more."""
    return not isinstance(value, bool) and hasattr(value, "__index__") and int(value) >= least


def check_above_zero(name: str, value: Any, what: str = "a number") -> None:
    """Raise `ValueError` unless ``value`` is a number above 0, or traced.

    Args:
        name: of the argument.
        value: what came.
        what: the thing, for the message.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(value, Tracer) and not float(value) > 0:
        raise ValueError(f"{name}: expected {what} above 0, got {value!r}")


def check_seconds(name: str, value: Any) -> None:
    """Raise `ValueError` unless ``value`` is a number of seconds ≥ 0, or None for no limit.

    Args:
        name: of the argument.
        value: what came.

    Raises:
        ValueError: for anything else.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not float(value) >= 0:
        raise ValueError(
            f"{name}: expected seconds, a number of 0 or more, or None for no limit, got {value!r}"
        )
