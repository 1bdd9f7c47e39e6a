"""Losses between phase maps, for training a predictor through the forward model. For one map."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from refinejax._core import Scalar
from refinejax.physics.phase import wrapped_difference


def physics_consistency(
    prediction: Float[Array, "..."], observation: Float[Array, "..."]
) -> Scalar:
    """Return the mean squared error of the channels cos φ and sin φ, over the pixels observed.

        mean(½·((cos φ̂ − cos φ)² + (sin φ̂ − sin φ)²)) = mean(1 − cos(φ̂ − φ))

    Blind to whole turns: 0 for the same phase, 1 for phases that have nothing to do with each
    other, 2 for opposite ones. 0 where nothing was observed.

    Args:
        prediction: φ̂, wrapped or not [rad].
        observation: φ, wrapped or not [rad]; NaN is missing.
    """
    seen = ~jnp.isnan(observation)
    difference = wrapped_difference(prediction, jnp.where(seen, observation, 0))
    terms = jnp.where(seen, 1 - jnp.cos(difference), 0)
    return jnp.sum(terms) / jnp.maximum(jnp.sum(seen), 1)


def slope_consistency(
    prediction: Float[Array, "rows columns"], observation: Float[Array, "rows columns"]
) -> Scalar:
    """Return the `physics_consistency` of the differences of neighboring pixels, along both axes.

    Where a phase runs through many turns, the consistency of the phase itself has a minimum for
    every fringe, and a gradient a thousand times as long as an error in the params deserves, which
    points anywhere. Slopes are free of the fringes.

    Args:
        prediction: a phase map, wrapped or not [rad].
        observation: a phase map, wrapped or not [rad]; NaN is missing.
    """
    across, down = (
        physics_consistency(jnp.diff(prediction, axis=axis), jnp.diff(observation, axis=axis))
        for axis in (1, 0)
    )
    return (across + down) / 2
