"""Profile-likelihood intervals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq, least_squares
from scipy.stats import t

from refinejax import InverseProblem, ParameterSpace, Robust
from refinejax.diagnostics import covariance, profile_intervals

X = np.linspace(0.0, 4.0, 12)
RNG = np.random.default_rng(0)
OBSERVED = 2.0 * np.exp(-0.7 * X) + 0.2 * RNG.normal(size=X.size)


def decay(params):
    return params[0] * jnp.exp(-params[1] * X.astype(params.dtype))


def optimum():
    return least_squares(lambda p: p[0] * np.exp(-p[1] * X) - OBSERVED, [2.0, 0.7], xtol=1e-14).x


@pytest.mark.parametrize("noise", ["white", "known"])
def test_of_a_linear_model_they_are_those_of_the_linearization(noise):
    columns = RNG.normal(size=(20, 3))
    observed = RNG.normal(size=20)
    observed[3] = np.nan
    seen = np.isfinite(observed)
    with jax.enable_x64(True):
        problem = InverseProblem(lambda p: jnp.asarray(columns) @ p, observed, noise=0.5)
        fit = np.linalg.lstsq(columns[seen], observed[seen], rcond=None)[0]
        low, high = profile_intervals(problem, fit, noise=noise, level=0.9)
        batch = problem.replace(observation=observed[None])
        expected = covariance(batch, fit[None], noise=noise).intervals(0.9)
    np.testing.assert_allclose(low, expected[0][0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(high, expected[1][0], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_they_are_where_the_least_sum_of_squares_has_risen_enough():
    fit = optimum()
    least = np.sum((fit[0] * np.exp(-fit[1] * X) - OBSERVED) ** 2)
    most = least * (1 + t.ppf(0.975, 10) ** 2 / 10)

    def excess(rate):
        column = np.exp(-rate * X)
        height = column @ OBSERVED / (column @ column)
        return np.sum((height * column - OBSERVED) ** 2) - most

    expected = brentq(excess, 0.01, fit[1]), brentq(excess, fit[1], 5.0)
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype is np.float64):
            problem = InverseProblem(decay, OBSERVED.astype(dtype))
            low, high = profile_intervals(problem, fit.astype(dtype))
        np.testing.assert_allclose([low[1], high[1]], expected, rtol=1e-3)


@pytest.mark.slow
def test_they_do_not_depend_on_how_the_params_are_written():
    fit = optimum().astype(np.float32)
    problem = InverseProblem(decay, OBSERVED.astype(np.float32))
    plain = profile_intervals(problem, fit)
    logs = problem.replace(forward=lambda p: decay(jnp.exp(p)))
    written = profile_intervals(logs, np.log(fit))
    np.testing.assert_allclose(np.exp(written), plain, rtol=1e-3)


@pytest.mark.slow
def test_they_end_at_bounds_or_never():
    fit = optimum().astype(np.float32)
    space = ParameterSpace.create(("height", "rate"), [0, fit[1] - 0.01], [9, 9])
    problem = InverseProblem(decay, OBSERVED.astype(np.float32), space=space)
    low, high = profile_intervals(problem, fit)
    np.testing.assert_allclose(low[1], fit[1] - 0.01, rtol=1e-5)
    assert high[1] > fit[1] + 0.05
    fades = InverseProblem(lambda p: jnp.tanh(p) * jnp.ones(5), jnp.ones(5) * 0.99, noise=0.1)
    low, high = profile_intervals(fades, jnp.arctanh(jnp.array([0.99])), noise="known")
    assert np.isinf(high[0])
    np.testing.assert_allclose(np.tanh(low[0]), 0.99 - 0.1 * 1.96 / np.sqrt(5), rtol=1e-3)


def test_what_is_not_determined_has_none():
    fit = np.append(optimum(), 1.0).astype(np.float32)
    problem = InverseProblem(lambda p: decay(p[:2]) + 0 * p[2], OBSERVED.astype(np.float32))
    low, high = profile_intervals(problem, fit)
    np.testing.assert_array_equal(np.isnan(low), [False, False, True])
    np.testing.assert_array_equal(np.isnan(high), [False, False, True])


def test_bad_arguments_say_what_was_expected():
    fit = optimum().astype(np.float32)
    problem = InverseProblem(decay, OBSERVED.astype(np.float32))
    with pytest.raises(ValueError, match="level"):
        profile_intervals(problem, fit, level=0)
    with pytest.raises(ValueError, match="noise"):
        profile_intervals(problem, fit, noise="correlated")
    with pytest.raises(ValueError, match="robust"):
        profile_intervals(Robust(problem), fit)
