"""Learning rates that change with the step, as functions of numbers that may be traced.

The schedules of optax check their numbers in Python, and would compile anew for each.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

Share = Float[Array, ""]


def _constant(done: Share) -> Share:
    return jnp.ones_like(done)


def _linear(done: Share) -> Share:
    return 1 - done


def _cosine(done: Share) -> Share:
    return (1 + jnp.cos(jnp.pi * done)) / 2


SCHEDULES: dict[str, Callable[[Share], Share]] = {
    "constant": _constant,
    "cosine": _cosine,
    "linear": _linear,
}


def learning_rate(schedule: str, peak: Any, step: Any, warmup: Any, steps: Any) -> Share:
    """Return the learning rate at ``step`` (from 0) of ``steps``.

    ``peak·(step + 1)/warmup`` in the first ``warmup`` steps, so that none is without effect; then
    ``peak·f((step − warmup)/(steps − warmup))``, where f falls from 1 to 0, linearly or as
    (1 + cos πx)/2 (Loshchilov & Hutter, arXiv:1608.03983, equation 5), or stays at 1. Where the
    warmup takes all steps or more, f falls in one step after it.

    Args:
        schedule: "constant", "cosine" or "linear".
        peak: the highest rate.
        step: of the training, from 0.
        warmup: steps until the peak.
        steps: of the whole training.
    """
    dtype = jnp.result_type(float)
    step, warmup, steps = (jnp.asarray(x, dtype) for x in (step, warmup, steps))
    rising = (step + 1) / jnp.maximum(warmup, 1)
    done = jnp.clip((step - warmup) / jnp.maximum(steps - warmup, 1), 0, 1)
    return peak * jnp.where(step < warmup, rising, SCHEDULES[schedule](done))


def schedule(name: str, peak: Any, steps: Any, warmup: Any = 0) -> optax.Schedule:
    """Return `learning_rate` as an optax schedule whose numbers may be traced.

    In a factory it is made inside the trace, ``optax.adam(schedule("cosine", peak, steps))``, so
    that `Gradient` takes other numbers without compiling anew, and can be differentiated by them.

    Args:
        name: "constant", "cosine" or "linear".
        peak: the highest rate.
        steps: after which it is 0, unless constant.
        warmup: steps until the peak.

    Raises:
        ValueError: for another name.
    """
    if name not in SCHEDULES:
        raise ValueError(f"name: expected one of {', '.join(SCHEDULES)}, got {name!r}")
    return lambda count: learning_rate(name, peak, count, warmup, steps)


def learned_schedule(log_rates: Float[Array, " k"], steps: Any) -> optax.Schedule:
    """Return a schedule that is made to be learned: exp of a line through k points.

    The points are evenly spaced from step 0 to ``steps``, after which the last rate stays. As
    meta-params: ``Gradient(factory, {"log_rates": …})`` with
    ``factory = lambda log_rates: optax.adam(learned_schedule(log_rates, 100))``, trained as a
    `Trajectory`.

    Args:
        log_rates: natural logarithms of the rates, shape (k,), k ≥ 2.
        steps: from the first point to the last, 1 or more.

    Raises:
        ValueError: for fewer than 2 points.
    """
    if jnp.ndim(log_rates) != 1 or jnp.shape(log_rates)[0] < 2:
        raise ValueError(
            f"log_rates: expected 2 numbers or more, shape (k,), got shape {jnp.shape(log_rates)}"
        )
    points = jnp.linspace(0, 1, jnp.shape(log_rates)[0])
    length = jnp.maximum(jnp.asarray(steps, jnp.result_type(float)), 1)
    return lambda count: jnp.exp(jnp.interp(count / length, points, log_rates))
