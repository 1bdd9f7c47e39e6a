"""A step tried: what the model predicted of it, and what came."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from refinejax._core import Scalar, State
from refinejax._trees import all_finite
from refinejax.refiners.convergence import relative_length
from refinejax.refiners.least_squares.quadratic_model import QuadraticModel


class Trial(NamedTuple):
    """A step tried.

    Attributes:
        finite: whether loss, gradient and matrix at its end are finite.
        actual: decrease of the loss.
        predicted: decrease of the quadratic model.
        last_progress: the larger of ``actual`` and ``promised``, relative to the loss; and the
            relative length of the step.
        promised: decrease that a step without damping and of any length predicts.
    """

    finite: Bool[Array, ""]
    actual: Scalar
    predicted: Scalar
    last_progress: Float[Array, "2"]
    promised: Scalar


def compare(
    state: State,
    model: QuadraticModel,
    predicted: Scalar,
    x: Array,
    move: Array,
    promised: Scalar | None = None,
) -> Trial:
    """Return a trial: the decrease along a step, and the predicted one.

    Args:
        state: where the step begins.
        model: at its end.
        predicted: decrease of the quadratic model.
        x: the flat params where it begins, shape (n,).
        move: the step, shape (n,).
        promised: decrease that a step without damping and of any length predicts; ``predicted``
            by default. Infinite where that is not known: then the step says nothing of the end.

    The progress of a step without a predicted decrease is infinite: unknown.
    """
    promised = predicted if promised is None else promised
    finite = all_finite((model.loss, model.gradient, model.matrix))
    actual = state.loss - model.loss
    whole = jnp.abs(state.loss)
    decrease = jnp.maximum(promised, actual) / jnp.where(whole > 0, whole, 1)
    decrease = jnp.where(predicted > 0, decrease, jnp.inf)
    x, move = jax.lax.stop_gradient((x, move))  # the derivative of a norm of 0 is NaN
    length = relative_length(move, x)
    length = jnp.where(jnp.isfinite(promised), length, jnp.inf)
    last_progress = jnp.stack([decrease, length.astype(decrease.dtype)])
    last_progress = jax.lax.stop_gradient(jnp.where(finite, last_progress, jnp.inf))
    return Trial(finite, actual, predicted, last_progress, promised)
