"""Covariances, intervals and chi-squares against SciPy and against simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.optimize import curve_fit

import refinejax as rj
from refinejax import InverseProblem, ParameterSpace, Robust
from refinejax.diagnostics import covariance, goodness_of_fit
from refinejax.diagnostics.quantiles import chi_square_tail, t_quantile

X = np.linspace(0.0, 4.0, 40)
TRUTH = np.array([2.0, 0.7, 0.3])


def decay(params):
    return params[0] * jnp.exp(-params[1] * X.astype(params.dtype)) + params[2]


def observe(count=3, std=0.05, seed=0):
    clean = TRUTH[0] * np.exp(-TRUTH[1] * X) + TRUTH[2]
    return clean + std * np.random.default_rng(seed).normal(size=(count, len(X)))


def scipy_fit(row, **options):
    model = lambda x, a, b, c: a * np.exp(-b * x) + c  # noqa: E731
    return curve_fit(model, X, row, TRUTH, xtol=1e-13, ftol=1e-13, **options)


def refine(*args, **options):
    return rj.refine(*args, method=rj.LevenbergMarquardt(), max_steps=100, **options)


def truths(count, dtype=np.float32):
    return np.tile(TRUTH.astype(dtype), (count, 1))


# Against SciPy


@pytest.mark.parametrize("noise", ["white", "known"])
def test_covariance_is_that_of_scipy(noise):
    sigma = np.linspace(0.02, 0.1, len(X))
    observations = observe()
    options = {"sigma": sigma, "absolute_sigma": noise == "known"}
    optima, expected = map(
        np.array, zip(*[scipy_fit(row, **options) for row in observations], strict=True)
    )
    with jax.enable_x64(True):
        problem = InverseProblem(decay, observations, noise=np.tile(sigma, (3, 1)))
        found = covariance(problem, optima, noise=noise)
    np.testing.assert_allclose(found.matrix, expected, rtol=2e-4)
    np.testing.assert_array_equal(found.freedom, 37)
    problem = InverseProblem(
        decay, observations.astype(np.float32), noise=np.tile(sigma, (3, 1)).astype(np.float32)
    )
    single = covariance(problem, optima.astype(np.float32), noise=noise)
    np.testing.assert_allclose(single.matrix, expected, rtol=2e-3, atol=1e-6)


def test_intervals_are_those_of_student():
    observations = observe()
    observations[1, 5:] = np.nan
    with jax.enable_x64(True):
        found = covariance(InverseProblem(decay, observations), truths(3, float))
    low, high = found.intervals(0.9)
    reach = stats.t.ppf(0.95, [37, 2, 37])[:, None] * found.std
    np.testing.assert_allclose(low, TRUTH - reach, rtol=1e-9)
    np.testing.assert_allclose(high, TRUTH + reach, rtol=1e-9)
    known = covariance(InverseProblem(decay, observations), truths(3), noise="known")
    low, high = known.intervals()
    np.testing.assert_allclose((high - low) / known.std, 2 * stats.norm.ppf(0.975), rtol=1e-6)


def test_quantiles_and_tails_are_those_of_scipy():
    freedom = np.array([1.0, 2, 7, 36, 4000, np.inf])
    for probability in (0.6, 0.95, 0.975, 0.9995):
        expected = stats.t.ppf(probability, freedom)
        np.testing.assert_allclose(t_quantile(probability, freedom), expected, rtol=1e-8)
    assert np.isnan(t_quantile(0.975, np.array([0.0, -3, np.nan]))).all()
    value = np.array([[0.0, 3.0], [4100.0, 1e6 + 2000]])
    freedom = np.array([[1.0, 2.0], [4000.0, 1e6]])
    expected = stats.chi2.sf(value, freedom)
    np.testing.assert_allclose(chi_square_tail(value, freedom), expected, rtol=1e-8)
    assert np.isnan(chi_square_tail(np.array([1.0, np.nan]), np.array([0.0, 1.0]))).all()


# Against simulation


@pytest.mark.parametrize("noise", [pytest.param("white", marks=pytest.mark.slow), "known"])
def test_intervals_hold_the_truth_as_often_as_they_say(noise):
    observations = observe(2000, std=0.1, seed=1).astype(np.float32)
    starts = np.tile(np.float32([1.5, 1.0, 0.0]), (2000, 1))
    result = refine(decay, observations, starts, noise=0.1)
    low, high = result.covariance(noise=noise).intervals(0.95)
    share = np.mean((low <= TRUTH) & (high >= TRUTH), axis=0)
    assert np.all((share > 0.93) & (share < 0.97)), share


@pytest.mark.slow
def test_p_values_are_uniform_under_the_truth_and_small_under_another_model():
    observations = observe(2000, std=0.1, seed=2).astype(np.float32)
    starts = np.tile(np.float32([1.5, 1.0, 0.0]), (2000, 1))
    result = refine(decay, observations, starts, noise=0.1)
    found = result.goodness_of_fit()
    assert stats.kstest(found.p_value, "uniform").pvalue > 1e-3
    np.testing.assert_array_equal(found.freedom, 37)
    np.testing.assert_allclose(np.mean(found.reduced), 1, atol=0.02)

    def line(params):
        return params[0] - params[1] * X.astype(params.dtype)

    wrong = refine(line, observations[:50], starts[:50, :2], noise=0.1).goodness_of_fit()
    assert np.all(wrong.p_value < 1e-3)
    assert "does not explain" in wrong.summary()
    small = goodness_of_fit(InverseProblem(decay, observations[:50], noise=1.0), truths(50))
    assert "smaller than stated" in repr(small)


@pytest.mark.slow
def test_covariance_of_a_robust_loss_is_the_scatter_of_its_minima():
    rng = np.random.default_rng(3)
    columns = np.stack([np.ones_like(X), X - 2], axis=1)
    truth = np.array([1.0, 0.3])
    observations = (columns @ truth + rng.standard_t(3, size=(1000, len(X)))).astype(np.float32)

    def line(params):
        return params[0] + params[1] * (X - 2).astype(params.dtype)

    problem = Robust(InverseProblem(line, observations))
    starts = np.zeros((1000, 2), np.float32)
    result = rj.run_batch(rj.LevenbergMarquardt(), problem, starts, max_steps=100)
    std = covariance(problem, result.params).std
    np.testing.assert_allclose(
        np.sqrt(np.mean(std**2, axis=0)), result.params.std(axis=0), rtol=0.1
    )


def test_a_quadratic_prior_is_the_posterior_of_a_linear_model():
    columns = np.random.default_rng(4).normal(size=(5, 8))  # fewer pixels than params
    precision = np.diag(np.linspace(1, 4, 8))
    observation = np.ones((1, 5))
    with jax.enable_x64(True):
        problem = InverseProblem(
            lambda p: jnp.asarray(columns) @ p,
            observation,
            prior=lambda p: p @ jnp.asarray(precision) @ p / 5,  # the loss is χ²/m
        )
        found = covariance(problem, np.zeros((1, 8)), noise="known")
    expected = np.linalg.inv(columns.T @ columns + precision)
    np.testing.assert_allclose(found.matrix[0], expected, rtol=1e-9)
    assert found.determined.all()


# Bounds, what is fixed, what is not determined


def test_at_a_bound_the_others_have_the_errors_of_the_fit_with_it_held():
    observations = observe(1).astype(np.float32)
    bounds = [0.0, 0.0, 0.5], [3.0, 3.0, 1.0]
    result = refine(decay, observations, truths(1) + np.float32(0.3), bounds=bounds)
    assert result.params[0, 2] == 0.5
    found = result.covariance()
    np.testing.assert_array_equal(found.at_bound, [[False, False, True]])
    np.testing.assert_array_equal(found.determined, [[True, True, False]])
    assert np.isnan(found.matrix[0, 2]).all()
    assert np.isnan(found.matrix[0, :, 2]).all()
    held = covariance(
        InverseProblem(lambda p: decay(jnp.append(p, jnp.float32(0.5))), observations),
        result.params[:, :2],
    )
    np.testing.assert_allclose(found.matrix[:, :2, :2], held.matrix, rtol=1e-4)
    assert found.freedom == held.freedom == 38
    (note,) = found.notes
    assert "1 of 1 samples: params[2] at a bound" in note
    assert note in repr(found)
    (note,) = covariance(result.fit.problem.replace(space=None), result.params).notes
    assert "not at the optimum" in note  # without the bound it would be elsewhere


def test_fixed_params_have_no_error():
    observations = observe(2).astype(np.float32)
    space = ParameterSpace.create(("height", "rate", "floor"), [0, 0, -1], [9, 9, 9])
    problem = InverseProblem(decay, observations, space=space)
    found = covariance(problem, truths(2), fixed=["floor"])
    assert (found.matrix[:, 2] == 0).all()
    assert (found.matrix[:, :, 2] == 0).all()
    assert found.determined.all()
    held = InverseProblem(lambda p: decay(jnp.append(p, jnp.float32(TRUTH[2]))), observations)
    expected = covariance(held, truths(2)[:, :2]).matrix
    np.testing.assert_allclose(found.matrix[:, :2, :2], expected, rtol=1e-4)
    np.testing.assert_array_equal(covariance(problem, truths(2), fixed=[2]).matrix, found.matrix)
    for wrong in (["ceiling"], [3], [0, 1, 2]):
        with pytest.raises(ValueError, match="fixed"):
            covariance(problem, truths(2), fixed=wrong)


def test_one_param_and_fewer_pixels_than_params():
    observations = observe(2).astype(np.float32)
    one = covariance(
        InverseProblem(lambda p: decay(jnp.append(p, TRUTH[1:].astype(p.dtype))), observations),
        truths(2)[:, :1],
    )
    assert one.matrix.shape == (2, 1, 1)
    assert np.isfinite(one.matrix).all()
    short = InverseProblem(lambda p: decay(p)[:2], observations[:, :2])
    for noise in ("white", "known"):
        found = covariance(short, truths(2), noise=noise)
        assert np.isnan(found.matrix).all()
        assert not found.determined.any()
    assert "not determined" in " ".join(found.notes)
    assert "the size of the noise is unknown" in " ".join(covariance(short, truths(2)).notes)


def test_extreme_units_neither_overflow_nor_underflow():
    factor = np.array([1e25, 1e-25, 1e-30])
    observations = observe(2).astype(np.float32)
    problem = InverseProblem(lambda p: decay(p * jnp.asarray(factor, p.dtype)), observations)
    found = covariance(problem, truths(2) / factor.astype(np.float32))
    expected = covariance(InverseProblem(decay, observations), truths(2))
    np.testing.assert_allclose(found.std * factor, expected.std, rtol=1e-4)


def test_complex_observations_count_twice():
    observations = observe(2).astype(np.float32)
    twice = InverseProblem(lambda p: decay(p) * (1 + 1j), observations * np.complex64(1 + 1j))
    found = covariance(twice, truths(2))
    plain = covariance(InverseProblem(decay, observations), truths(2))
    np.testing.assert_array_equal(found.freedom, 77)
    np.testing.assert_allclose(found.matrix, plain.matrix * 37 / 77, rtol=1e-3)


@pytest.mark.slow
def test_the_way_to_the_optimum_is_told():
    observations = observe(3)
    optima = np.array([scipy_fit(row)[0] for row in observations])
    away = np.array([1e-3, -2e-3, 1e-3])
    with jax.enable_x64(True):
        problem = InverseProblem(decay, observations)
        there = covariance(problem, optima)
        near = covariance(problem, optima + away)
        far = covariance(problem, optima + 100 * away)
        prior = problem.replace(prior=lambda p: jnp.sum((p - 1) ** 2) / 40)
        result = rj.run_batch(rj.LevenbergMarquardt(), prior, optima, max_steps=50)
        ridge = covariance(prior, result.params)
    np.testing.assert_allclose(there.shift, 0, atol=1e-6)
    np.testing.assert_allclose(near.shift, np.tile(-away, (3, 1)), rtol=0.1)
    assert there.notes == near.notes == ()
    assert "3 of 3 samples: " in far.notes[0]
    assert "not at the optimum" in far.notes[0]
    np.testing.assert_allclose(ridge.shift, 0, atol=1e-6)
    assert np.max(np.abs(covariance(problem, result.params).shift)) > 1e-3


# As a person uses it


@pytest.mark.slow
def test_results_of_refine_answer_for_one_and_for_many(tmp_path):
    observations = observe(3).astype(np.float32)
    many = refine(decay, observations, truths(3), noise=np.float32([0.05, 0.1, 0.2]))
    one = refine(decay, observations[0], truths(1)[0], noise=0.05)
    assert many.covariance().matrix.shape == (3, 3, 3)
    assert many.covariance(noise="known").std[1, 0] > many.covariance(noise="known").std[0, 0]
    assert one.covariance().matrix.shape == (3, 3)
    assert one.covariance().intervals()[0].shape == (3,)
    np.testing.assert_allclose(one.covariance().std, many.covariance().std[0], rtol=1e-3)
    correlation = one.covariance().correlation
    np.testing.assert_allclose(np.diag(correlation), 1, rtol=1e-9)
    assert one.identifiability().rank == 3
    assert one.goodness_of_fit().p_value.shape == ()
    for name in ("params[0]", "white noise", "±"):
        assert name in repr(one.covariance())
    many.save(tmp_path / "result.npz")
    loaded = rj.BatchResult.load(tmp_path / "result.npz")
    for question in ("covariance", "identifiability", "goodness_of_fit"):
        with pytest.raises(ValueError, match=f"diagnostics.{question}"):
            getattr(loaded, question)()
    assert "InverseProblem" not in repr(many)


def test_a_black_box_has_no_covariance():
    options = {"differentiable": False, "method": "random", "max_steps": 3}
    result = rj.refine(lambda p: p[0] * np.exp(-X), observe(1)[0], [1.0], **options)
    with pytest.raises(ValueError, match="black box"):
        result.covariance()


def test_bad_arguments_say_what_was_expected():
    observations = observe(2).astype(np.float32)
    problem = InverseProblem(decay, observations)
    with pytest.raises(ValueError, match="noise: expected one of white, known, correlated"):
        covariance(problem, truths(2), noise="pink")
    with pytest.raises(ValueError, match="robust loss"):
        covariance(Robust(problem), truths(2), noise="known")
    with pytest.raises(ValueError, match="robust loss"):
        goodness_of_fit(Robust(problem), truths(2))
    with pytest.raises(ValueError, match="residual"):
        covariance(lambda p: jnp.sum(p**2), truths(2))
    with pytest.raises(ValueError, match="leading axis of 3"):
        covariance(problem, truths(3))
    with pytest.raises(ValueError, match="level"):
        covariance(problem, truths(2)).intervals(1.0)
