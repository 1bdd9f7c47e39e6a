"""The learning rate over a training, as a function of numbers that may be traced.

The schedules of optax check their numbers in Python, and would compile anew for each.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
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
    (1 + cos πx)/2 (Loshchilov & Hutter, arXiv:1608.03983, equation 5), or stays at 1.
    """
    dtype = jnp.result_type(float)
    step, warmup, steps = (jnp.asarray(x, dtype) for x in (step, warmup, steps))
    rising = (step + 1) / jnp.maximum(warmup, 1)
    done = jnp.clip((step - warmup) / (steps - warmup), 0, 1)
    return peak * jnp.where(step < warmup, rising, SCHEDULES[schedule](done))
