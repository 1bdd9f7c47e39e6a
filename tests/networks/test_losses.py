"""Losses against closed forms and minima that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from refinejax.networks.losses import (
    at_scale,
    curriculum,
    gaussian_nll,
    learned_uncertainty,
    standardized_mse,
)
from refinejax.physics import metalens

RNG = np.random.default_rng(0)


def numbers(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def test_standardized_mse_weighs_params_alike():
    found = standardized_mse(jnp.array([10.0, 0.3]), jnp.array([0.0, 0.1]), jnp.array([100.0, 0.5]))
    assert found == pytest.approx((0.1**2 + 0.4**2) / 2)


def test_likelihood_is_that_of_scipy():
    mean, log_variance, target = numbers(5), numbers(5), numbers(5)
    known = -scipy.stats.norm.logpdf(target, mean, np.exp(log_variance / 2)).mean()
    np.testing.assert_allclose(gaussian_nll(mean, log_variance, target), known, rtol=1e-5)


def test_beta_weighs_each_param_by_its_variance_without_a_gradient_of_the_weight():
    mean, log_variance, target = numbers(5), numbers(5), numbers(5)
    slopes = jax.grad(gaussian_nll, (0, 1))
    plain, weighed = (slopes(mean, log_variance, target, beta) for beta in (0.0, 0.5))
    for a, b in zip(plain, weighed, strict=True):
        np.testing.assert_allclose(b, a * np.exp(0.5 * log_variance), rtol=1e-5)
    # at β = 1 the mean learns as by the squared error
    one = slopes(mean, log_variance, target, 1.0)[0]
    squared = jax.grad(standardized_mse)(mean, target) / 2
    np.testing.assert_allclose(one, squared, rtol=1e-5)


def test_learned_uncertainty_is_least_at_the_log_of_the_mean_squared_error():
    errors = numbers(200, 3) * jnp.array([0.1, 1.0, 5.0])

    def loss(log_variance):
        return jnp.mean(jax.vmap(learned_uncertainty, (0, None))(errors, log_variance))

    best = jnp.log(jnp.mean(errors**2, 0))
    np.testing.assert_allclose(jax.grad(loss)(best), 0, atol=1e-6)
    # as Kendall, Gal and Cipolla write it: Σ L/2σ² + log σ
    sigma = np.array([0.5, 1.0, 2.0])
    written = (np.mean(np.asarray(errors) ** 2, 0) / (2 * sigma**2) + np.log(sigma)).mean()
    np.testing.assert_allclose(loss(jnp.log(sigma**2)), written, rtol=1e-5)


@pytest.mark.parametrize(("step", "share"), [(0, 0), (100, 0), (150, 0.5), (200, 1), (10**6, 1)])
def test_the_curriculum_rises_from_0_to_1(step, share):
    assert curriculum(step, 100, 200) == pytest.approx(share)
    assert curriculum(jnp.int32(step), 100, 200) == pytest.approx(share)


def test_a_curriculum_without_length_is_a_switch():
    assert [float(curriculum(step, 5, 5)) for step in (4, 5, 6, 7)] == [0, 0, 1, 1]


def test_all_multiples_of_a_lens_are_one_at_the_scale_of_another():
    """What a map determines is the same for all of them, as the map is."""
    index = metalens.NAMES.index("wavelength")
    lens, truth = (metalens_params(seed) for seed in (0, 1))
    scaled = at_scale(lens, truth, index)
    assert scaled[index] == truth[index]
    for factor in (0.5, 1.3, 4.0):
        np.testing.assert_allclose(at_scale(factor * lens, truth, index), scaled, rtol=1e-6)
    with jax.enable_x64(True):
        seen = [metalens.phase(jnp.asarray(p, float), 4) for p in (lens, at_scale(lens, truth, 3))]
    np.testing.assert_allclose(seen[0], seen[1], rtol=1e-6)
    np.testing.assert_allclose(at_scale(1.7 * truth, truth, index), truth, rtol=1e-6)


def metalens_params(seed):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(metalens.LOWER, metalens.UPPER), jnp.float32)
