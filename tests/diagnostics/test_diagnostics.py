import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import curve_fit

from refinejax import Gradient, InverseProblem, ParameterSpace, run_batch, wrapped_difference
from refinejax.apps import metalens
from refinejax.apps.metalens.cascade.scale import OTHERS, WAVELENGTH
from refinejax.apps.metalens.lenses import lens_map
from refinejax.diagnostics import standard_errors
from refinejax.physics.noise import PhaseNoise

X = np.linspace(0.0, 4.0, 40)


def decay(params):
    return params[0] * jnp.exp(-params[1] * X.astype(params.dtype))


def peak(params):
    height, center, width = params
    return height * jnp.exp(-0.5 * ((X.astype(params.dtype) - center) / width) ** 2)


def cubic(params):
    return jnp.polyval(params, X.astype(params.dtype) - 2)


MODELS = {
    "decay": (decay, [2.0, 0.7]),
    "peak": (peak, [3.0, 1.8, 0.5]),
    "cubic": (cubic, [0.1, -0.3, 1.0, 2.0]),
    "scales": (lambda p: decay(p * jnp.array([1e-6, 1e4], p.dtype)), [2e6, 0.7e-4]),
}


def observe(model, truth, *, count=4, std=0.05, seed=0):
    """Observations with noise, float64."""
    with jax.enable_x64(True):
        clean = np.asarray(model(jnp.array(truth, jnp.float64)))
    return clean + std * np.random.default_rng(seed).normal(size=(count, len(X)))


def fit(model, truth, observations, sigma=None):
    """Optima and standard errors by SciPy, in float64, without the pixels that are missing."""
    with jax.enable_x64(True):
        jitted = jax.jit(model)
        found = []
        for row in observations:
            seen = np.isfinite(row)
            found.append(
                curve_fit(
                    lambda x, *p, seen=seen: np.asarray(jitted(jnp.array(p)))[seen],
                    X[seen],
                    row[seen],
                    truth,
                    sigma=None if sigma is None else sigma[seen],
                    absolute_sigma=False,
                    xtol=1e-12,
                    ftol=1e-12,
                )
            )
    optima, covariances = zip(*found, strict=True)
    return np.array(optima), np.sqrt([np.diag(c) for c in covariances])


@pytest.mark.parametrize("name", MODELS)
def test_standard_errors_are_those_of_scipy(name):
    model, truth = MODELS[name]
    observations = observe(model, truth)
    optima, expected = fit(model, truth, observations)
    with jax.enable_x64(True):
        std = standard_errors(InverseProblem(model, observations), optima)
    assert std.shape == optima.shape
    np.testing.assert_allclose(std, expected, rtol=1e-5)
    single = InverseProblem(model, observations.astype(np.float32))
    std = standard_errors(single, optima.astype(np.float32))
    np.testing.assert_allclose(std, expected, rtol=1e-3)


def test_known_noise_only_weighs():
    model, truth = MODELS["decay"]
    observations = observe(model, truth)
    sigma = np.linspace(0.5, 2.0, len(X))
    optima, expected = fit(model, truth, observations, sigma)
    for scale in (1.0, 10.0):  # the size of the noise is estimated from the residual
        noise = np.broadcast_to(scale * sigma, observations.shape).astype(np.float32)
        problem = InverseProblem(model, observations.astype(np.float32), noise=noise)
        std = standard_errors(problem, optima.astype(np.float32))
        np.testing.assert_allclose(std, expected, rtol=1e-3)


def test_missing_pixels_are_not_there():
    model, truth = MODELS["decay"]
    observations = observe(model, truth)
    observations[0, ::2] = np.nan
    observations[1, 5:20] = np.nan
    optima, expected = fit(model, truth, observations)
    problem = InverseProblem(model, observations.astype(np.float32))
    std = standard_errors(problem, optima.astype(np.float32))
    np.testing.assert_allclose(std, expected, rtol=1e-3)


def test_units_are_those_of_the_params_whatever_the_space():
    model, truth = MODELS["decay"]
    observations = observe(model, truth).astype(np.float32)
    params = np.tile(np.float32(truth), (4, 1))
    plain = standard_errors(InverseProblem(model, observations), params)
    for upper in ([4.0, 1.0], [1e3, 1e4]):
        space = ParameterSpace.create(("a", "b"), [0.0, 0.0], upper)
        boxed = standard_errors(InverseProblem(model, observations, space=space), params)
        np.testing.assert_allclose(boxed, plain, rtol=1e-6)


def test_params_of_several_leaves_come_in_the_order_of_the_tree():
    def model(params):
        return decay(jnp.stack([params["amplitude"], params["rate"][0]]))

    observations = observe(decay, [2.0, 0.7]).astype(np.float32)
    params = np.tile(np.float32([2.0, 0.7]), (4, 1))
    tree = {"amplitude": params[:, 0], "rate": params[:, 1:]}
    std = standard_errors(InverseProblem(model, observations), tree)
    expected = standard_errors(InverseProblem(decay, observations), params)
    np.testing.assert_allclose(std, expected, rtol=1e-6)


def test_too_few_pixels_give_nan_for_that_sample_alone():
    observations = observe(decay, [2.0, 0.7]).astype(np.float32)
    whole = standard_errors(
        InverseProblem(decay, observations), np.tile(np.float32([2.0, 0.7]), (4, 1))
    )
    observations[0] = np.nan  # none
    observations[1, 2:] = np.nan  # as many as params: no residual is left to tell the noise from
    observations[2, 3:] = np.nan  # one more
    params = np.tile(np.float32([2.0, 0.7]), (4, 1))
    std = standard_errors(InverseProblem(decay, observations), params)
    assert np.isnan(std[:2]).all()
    assert np.isfinite(std[2]).all()
    np.testing.assert_array_equal(std[3], whole[3])


def test_a_nan_stays_with_its_sample():
    observations = observe(decay, [2.0, 0.7]).astype(np.float32)
    params = np.tile(np.float32([2.0, 0.7]), (4, 1))
    whole = standard_errors(InverseProblem(decay, observations), params)
    params[1, 0] = np.nan
    params[2, 1] = -np.inf
    std = standard_errors(InverseProblem(decay, observations), params)
    assert np.isnan(std[[1, 2]]).all()
    np.testing.assert_array_equal(std[[0, 3]], whole[[0, 3]])


@pytest.mark.parametrize("free", ["unused", "doubled"])
def test_params_that_the_data_do_not_determine_give_nan_and_the_others_do_not(free):
    def model(params):
        rate = params[1] if free == "unused" else params[1] + 0.3 * params[2]
        return decay(jnp.stack([params[0], rate]))

    observations = observe(decay, [2.0, 0.7]).astype(np.float32)
    params = np.tile(np.float32([2.0, 0.4, 1.0]), (4, 1))
    rate = 0.4 if free == "unused" else 0.7
    expected = standard_errors(
        InverseProblem(decay, observations), np.tile(np.float32([2.0, rate]), (4, 1))
    )
    std = standard_errors(InverseProblem(model, observations), params)
    known = [0, 1] if free == "unused" else [0]
    np.testing.assert_allclose(std[:, known], expected[:, known], rtol=1e-4)
    assert np.isnan(np.delete(std, known, axis=1)).all()


def test_a_perfect_fit_has_no_error():
    params = np.tile(np.float32([2.0, 0.7]), (4, 1))
    observations = np.asarray(jax.vmap(decay)(params))
    std = standard_errors(InverseProblem(decay, observations), params)
    assert np.all(std < 1e-6)


def lenses(made, dtype, *, known):
    """Standard errors at the truth."""
    truth = made["truth"].astype(dtype)
    problem = InverseProblem(
        lens_map(16, known),
        made["phase"].astype(dtype),
        difference=wrapped_difference,
        space=metalens.space(wavelength=not known),
        context=truth[:, WAVELENGTH] if known else None,
    )
    return standard_errors(problem, truth[:, OTHERS] if known else truth)


@pytest.mark.slow
def test_lenses_in_both_precisions():
    made = metalens.simulate(64, 16, noise=PhaseNoise.only("grain"), key=3)
    single = lenses(made, np.float32, known=True)
    scale_unknown = lenses(made, np.float32, known=False)
    with jax.enable_x64(True):
        double = lenses(made, np.float64, known=True)
    # All five params scaled together give the same phase: not one of them is determined.
    assert np.isnan(scale_unknown).all()
    # Far off axis the four beside a known wavelength come close to that, but are determined.
    assert np.isfinite(double).all()
    there = np.isfinite(single)
    assert np.mean(there.all(axis=1)) >= 0.9
    np.testing.assert_allclose(single[there], double[there], rtol=0.05)


def coverage(estimates, std, truth):
    """Share of the intervals ±1.96 standard errors that hold the truth, for each param."""
    return np.mean(np.abs(estimates - truth) <= 1.96 * std, axis=0)


def test_coverage_of_a_linear_fit():
    truth = np.array([0.1, -0.3, 1.0, 2.0])
    observations = observe(cubic, truth, count=4000, std=0.5, seed=1)
    columns = np.vander(X - 2, 4)
    estimates = np.linalg.lstsq(columns, observations.T, rcond=None)[0].T
    problem = InverseProblem(cubic, observations.astype(np.float32))
    std = standard_errors(problem, estimates.astype(np.float32))
    share = coverage(estimates, std, truth)  # with 36 degrees of freedom: 94.2 %
    assert np.all((share > 0.93) & (share < 0.97)), share


@pytest.mark.slow
def test_coverage_of_a_nonlinear_fit_by_the_engine():
    truth = np.array([2.0, 0.7])
    observations = observe(decay, truth, count=4000, std=0.1, seed=2).astype(np.float32)
    space = ParameterSpace.create(("a", "b"), [0.0, 0.0], [4.0, 4.0])
    problem = InverseProblem(decay, observations, space=space)
    starts = np.tile(np.float32([1.0, 1.0]), (4000, 1))
    result = run_batch(Gradient(optax.lbfgs), problem, starts, max_steps=100)
    std = standard_errors(problem, result.params)
    share = coverage(result.params, std, truth)  # with 38 degrees of freedom: 94.3 %
    assert np.all((share > 0.93) & (share < 0.97)), share
