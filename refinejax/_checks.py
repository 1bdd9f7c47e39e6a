"""Argument checks: each names the argument, what came and what was expected.

They raise `ValueError` before anything is traced.
"""

import numbers
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, PRNGKeyArray

from refinejax._core import Refiner, Stop


def check_refiner(refiner: Any) -> None:
    """Insist on a refiner.

    Raises:
        ValueError: if it is none.
    """
    if not isinstance(refiner, Refiner):
        raise ValueError(
            f"refiner: expected a Refiner, got {refiner!r}; an optax optimizer goes in as "
            'Gradient(optax.adam, {"learning_rate": 1e-2})'
        )


def check_scalar(objective: Any, params: Any) -> None:
    """Insist on a loss that is a real number; for use inside a trace, where it costs nothing.

    Raises:
        ValueError: if it is not.
    """
    loss = jax.eval_shape(objective, params)
    shape, dtype = getattr(loss, "shape", None), getattr(loss, "dtype", jnp.int32)
    if shape != () or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"objective: expected a scalar loss of a floating dtype, got {loss}; reduce it with "
            "jnp.mean, or state the residual as an InverseProblem"
        )


def check_params(params: Any, name: str = "params") -> Any:
    """Convert every leaf to a JAX array and insist on floating dtypes.

    Raises:
        ValueError: if there is no leaf, or one is not of a real floating dtype; names the leaf.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    if not leaves:
        raise ValueError(f"{name}: expected at least one array, got an empty pytree")
    return jax.tree.unflatten(structure, [_floating(leaf, path, name) for path, leaf in leaves])


def _floating(leaf: Any, path: Any, name: str) -> Array:
    array = jnp.asarray(leaf)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        where = name + jax.tree_util.keystr(path)
        raise ValueError(
            f"{where}: expected floating-point numbers, got dtype {array.dtype}; "
            "convert with .astype(float) (complex params: refine real and imaginary parts)"
        )
    return array


def as_key(key: Any) -> PRNGKeyArray:
    """Accept a typed key, an old-style key, an integer seed, or None (seed 0).

    Raises:
        ValueError: for anything else.
    """
    if key is None or isinstance(key, int):
        return jax.random.key(0 if key is None else key)
    if not hasattr(key, "dtype"):
        raise ValueError(_NO_KEY.format(repr(key)))
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    if not jnp.issubdtype(key.dtype, jnp.integer):
        raise ValueError(_NO_KEY.format(f"an array of dtype {key.dtype}"))
    key = jnp.asarray(key)
    return jax.random.wrap_key_data(key) if key.ndim else jax.random.key(key)


_NO_KEY = "key: expected a seed (an integer) or a PRNG key, such as jax.random.key(0), got {}"


def as_stop(stop: Any) -> Stop:
    """Accept rules, or None (the defaults).

    Raises:
        ValueError: for anything else.
    """
    if stop is None:
        return Stop()
    if not isinstance(stop, Stop):
        raise ValueError(f"stop: expected rules, such as Stop(loss=1e-3), or None, got {stop!r}")
    return stop


def check_positive(name: str, value: Any, what: str = "a whole number of 1") -> None:
    """Complain of a number of things that is not 1 or more.

    Args:
        name: of the argument.
        value: what came.
        what: is the least, for the message, such as "1 row".

    Raises:
        ValueError: if it is no whole number of 1 or more.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < 1:
        raise ValueError(f"{name}: expected {what} or more, got {value!r}")


def check_above_zero(name: str, value: Any, what: str = "a number") -> None:
    """Complain of a number that is not above 0; one that is traced is let pass.

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(value, Tracer) and not float(value) > 0:
        raise ValueError(f"{name}: expected {what} above 0, got {value!r}")


def check_seconds(name: str, value: Any) -> None:
    """Complain of a time that is not one; None is no limit.

    Raises:
        ValueError: if it is no number of 0 or more.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not float(value) >= 0:
        raise ValueError(
            f"{name}: expected seconds, a number of 0 or more, or None for no limit, got {value!r}"
        )
