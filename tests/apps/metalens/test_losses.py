"""Losses between phase maps against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refinejax.apps.metalens.losses import physics_consistency, slope_consistency
from refinejax.physics.phase import wrap

RNG = np.random.default_rng(0)


def numbers(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def test_physics_consistency_is_the_squared_error_of_the_channels():
    prediction, observation = 40 * numbers(6, 6), wrap(40 * numbers(6, 6))
    channels = [np.stack([np.cos(x), np.sin(x)]) for x in (prediction, observation)]
    known = np.mean((channels[0] - channels[1]) ** 2)
    np.testing.assert_allclose(physics_consistency(prediction, observation), known, rtol=1e-5)
    np.testing.assert_allclose(physics_consistency(observation, observation), 0, atol=1e-6)
    np.testing.assert_allclose(physics_consistency(observation + np.pi, observation), 2, rtol=1e-5)


def test_missing_pixels_have_no_part_in_it_nor_in_its_gradient():
    prediction, observation = numbers(4, 4), np.array(numbers(4, 4))
    observation[0] = np.nan
    loss, slope = jax.value_and_grad(physics_consistency)(prediction, observation)
    assert loss == pytest.approx(float(physics_consistency(prediction[1:], observation[1:])))
    assert not np.any(slope[0])
    assert np.all(slope[1:])
    assert physics_consistency(prediction, jnp.full((4, 4), jnp.nan)) == 0


def test_slope_consistency_is_that_of_differences_and_blind_to_a_piston():
    prediction, observation = 2 * numbers(5, 6), wrap(2 * numbers(5, 6)).at[2, 2].set(jnp.nan)
    terms = []
    for axis in (0, 1):
        difference = np.diff(np.asarray(prediction) - np.asarray(observation), axis=axis)
        terms.append(np.nanmean(1 - np.cos(difference)))
    np.testing.assert_allclose(slope_consistency(prediction, observation), np.mean(terms), 1e-5)
    slope = jax.grad(lambda shift: slope_consistency(prediction + shift, observation))(1.0)
    np.testing.assert_allclose(slope, 0, atol=1e-5)
    assert slope_consistency(observation, observation) == 0
