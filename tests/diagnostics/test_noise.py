"""Which pixels count, which noise is known, and errors that are never 0 nor missing by accident."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import curve_fit

import refinejax as rj
from refinejax import InverseProblem, ParameterSpace
from refinejax.diagnostics import covariance, goodness_of_fit, profile_intervals

X = np.linspace(0, 1, 30, dtype=np.float32)
START = np.float32([0.5, 1.0])


def line(params):
    return params[0] + params[1] * X


def observe(std=0.1):
    return (0.3 + 2 * X + std * np.random.default_rng(0).normal(size=X.size)).astype(np.float32)


def fit(forward, observations, start=START, **options):
    return rj.refine(forward, observations, start, method="lm", max_steps=40, **options)


def test_pixels_without_weight_count_as_pixels_that_were_not_observed():
    observed, sigma = observe(), np.full(X.size, 0.1, np.float32)
    observed[:4] = np.nan
    sigma[:4] = [np.nan, 0, -1, np.inf]  # whatever stands where nothing was observed
    sigma[20:] = np.inf
    result = fit(line, observed, noise=sigma)
    part = slice(4, 20)
    expected, matrix = curve_fit(
        lambda x, a, b: a + b * x, X[part], observed[part], sigma=sigma[part]
    )
    np.testing.assert_allclose(result.params, expected, rtol=2e-4)
    np.testing.assert_allclose(result.covariance().matrix, matrix, rtol=1e-4)
    assert result.covariance().freedom == 14
    residual = (line(result.params) - observed)[part] / 0.1
    np.testing.assert_allclose(result.loss, np.mean(residual**2), rtol=1e-5)
    found = result.goodness_of_fit()
    np.testing.assert_allclose(found.reduced, np.sum(residual**2) / 14, rtol=1e-5)


def test_noise_of_0_or_nan_where_something_was_observed_is_refused():
    for bad in (0.0, -1.0, np.nan):
        sigma = np.full(X.size, 0.1, np.float32)
        sigma[7] = bad
        with pytest.raises(ValueError, match="noise: expected standard deviations above 0"):
            fit(line, observe(), noise=sigma)


def test_noise_that_was_not_given_is_not_known():
    result = fit(line, observe())
    with pytest.raises(ValueError, match=r'noise: "known" needs .* noise=….*noise="white"'):
        result.covariance(noise="known")
    with pytest.raises(ValueError, match=r"goodness_of_fit: .* noise=…"):
        result.goodness_of_fit()
    assert np.all(result.covariance().std > 0)
    given = fit(line, observe(), noise=1.0)
    assert given.goodness_of_fit().freedom == 28
    assert np.all(given.covariance(noise="known").std > result.covariance().std)


def test_errors_are_at_least_those_of_rounding():
    steep = np.float32([2.0, 3.0])
    decay = lambda p: 1e8 + p[0] * jnp.exp(-p[1] * X)  # noqa: E731
    observed = 1e8 + 2 * np.exp(-3.0 * X.astype(float))
    problem = InverseProblem(decay, observed[None].astype(np.float32))
    for noise in ("white", "known"):
        found = covariance(problem, np.ones((1, 2), np.float32), noise=noise)
        assert found.rounded.all()
        assert np.all(np.abs(steep - 1) < 5 * found.std)
        assert "refine in float64" in found.notes[-1] or "refine in float64" in found.notes[0]
    rounding = np.finfo(np.float32).eps * 1e8
    np.testing.assert_allclose(found.variance, rounding**2, rtol=1e-3)
    with jax.enable_x64(True):
        fine = covariance(InverseProblem(decay, observed[None]), steep[None].astype(float))
    assert np.all(fine.std < 1e-6)
    clean = covariance(InverseProblem(line, line(START)[None]), START[None])
    assert clean.rounded.all()
    assert np.all((clean.std > 0) & (clean.std < 1e-6))
    low, high = profile_intervals(InverseProblem(line, line(START)), START)
    assert np.all((low < START) & (high > START))
    assert not covariance(InverseProblem(line, observe()[None]), START[None]).rounded.any()


def test_errors_follow_the_units_beyond_the_range_of_squares():
    unit = covariance(InverseProblem(line, observe()[None]), START[None])
    for scale in (2.0**-100, 2.0**80):
        problem = InverseProblem(
            lambda p, s=scale: s * line(p), np.float32(scale) * observe()[None]
        )
        found = covariance(problem, START[None])
        np.testing.assert_allclose(found.matrix, unit.matrix, rtol=1e-6)
        np.testing.assert_allclose(np.sqrt(found.variance) / scale, np.sqrt(unit.variance))


def test_params_without_effect_have_no_error_and_say_so():
    steps = fit(lambda p: jnp.round(p[0]) + 0 * p[1] * X, observe())
    for noise in ("white", "correlated"):
        found = steps.covariance(noise=noise)
        assert np.isnan(found.std).all()
        assert not found.determined.any()
        assert "not determined by the data" in found.notes[0]
    assert steps.identifiability().rank == 0
    half = covariance(InverseProblem(lambda p: p[0] + 0 * p[1] * X, observe()[None]), START[None])
    assert half.std[0, 0] > 0
    assert np.isnan(half.std[0, 1])


def test_a_param_with_equal_bounds_is_fixed_and_not_at_a_bound():
    space = ParameterSpace.create(("a", "b"), [-5.0, 1.5], [5.0, 2.5])
    space = space.replace(upper=np.float32([5.0, 1.5]))
    problem = InverseProblem(line, observe()[None], noise=0.1, space=space)
    params = np.float32([[0.5, 1.5]])
    found = covariance(problem, params)
    named = covariance(problem.replace(space=None), params, fixed=[1])
    np.testing.assert_allclose(found.matrix, named.matrix, rtol=1e-6)
    assert found.std[0, 1] == 0
    assert found.determined.all()
    assert not found.at_bound.any()
    assert found.freedom == goodness_of_fit(problem, params).freedom == 29
    edge = covariance(problem, np.float32([[5.0, 1.5]]))
    assert edge.at_bound[0, 0]
    assert np.isnan(edge.std[0, 0])
    assert edge.std[0, 1] == 0


@pytest.mark.slow
def test_fits_in_half_precision_have_errors_and_populations():
    short = X.astype(np.float16)
    model = lambda p: p[0] + p[1] * short  # noqa: E731
    data, start = model(np.float16([0.25, 2.0])), START.astype(np.float16)
    result = rj.refine(model, data, start, method="cma_es", max_steps=30)
    assert result.params.dtype == np.float16
    assert result.loss < 0.1 * result.initial_loss
    found = result.covariance()
    assert found.determined.all()
    coarse = np.finfo(np.float16).eps
    assert np.all((found.std > 0.01 * coarse) & (found.std < 100 * coarse))
