import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import cumulative_trapezoid
from scipy.optimize import least_squares
from scipy.stats import kstest

from refinejax import (
    Gradient,
    InverseProblem,
    ParameterSpace,
    Robust,
    Status,
    run,
    run_until,
    wrapped_difference,
)
from refinejax.problems import cauchy, huber, tukey

TIMES = np.linspace(0, 2, 9)
PARAMS = np.array([1.1, 0.6])
ADAM = Gradient(optax.adam, {"learning_rate": 0.05})


def decay(params):
    return params[0] * jnp.exp(-params[1] * jnp.asarray(TIMES, params.dtype))


def observed(missing=(), seed=0):
    values = 1.5 * np.exp(-TIMES) + 0.1 * np.random.default_rng(seed).normal(size=9)
    values[list(missing)] = np.nan
    return values


def by_hand(observation, noise=1.0):
    residual = (PARAMS[0] * np.exp(-PARAMS[1] * TIMES) - observation) / noise
    return np.nanmean(residual**2)


NOISES = {"scalar": 0.2, "array": np.linspace(0.1, 0.9, 9)}


@pytest.mark.parametrize("missing", [(), (0, 4, 5)], ids=["complete", "gaps"])
@pytest.mark.parametrize("noise", NOISES)
def test_the_loss_is_the_mean_squared_residual_over_observed_pixels(noise, missing):
    with jax.enable_x64(True):
        observation = observed(missing)
        problem = InverseProblem(decay, observation, noise=NOISES[noise])
        loss = float(problem(jnp.asarray(PARAMS)))
    np.testing.assert_allclose(loss, by_hand(observation, NOISES[noise]), rtol=1e-12)


def test_missing_pixels_have_no_weight_in_loss_gradient_and_hessian():
    with jax.enable_x64(True):
        missing = [1, 7]
        full, kept = observed(), np.setdiff1d(np.arange(9), missing)
        gaps = InverseProblem(decay, jnp.asarray(observed(missing)))
        short = InverseProblem(lambda p: decay(p)[kept], jnp.asarray(full[kept]))
        for transform in (lambda f: f, jax.grad, jax.hessian):
            a, b = (np.asarray(transform(f)(jnp.asarray(PARAMS))) for f in (gaps, short))
            np.testing.assert_allclose(a, b, rtol=1e-12)
        assert int(gaps.weight()) == 7


def test_residuals_of_missing_pixels_are_zero():
    residual = InverseProblem(decay, jnp.asarray(observed([2]))).residual(jnp.asarray(PARAMS))
    assert residual[2] == 0
    assert np.all(residual[np.arange(9) != 2] != 0)


@pytest.mark.parametrize("dead", [np.nan, 0.0, np.inf])
def test_the_noise_of_missing_pixels_does_not_matter(dead):
    noise = np.full(9, 0.5)
    noise[[0, 3]] = dead
    a = InverseProblem(decay, jnp.asarray(observed([0, 3])), noise=jnp.asarray(noise))
    b = InverseProblem(decay, jnp.asarray(observed([0, 3])), noise=0.5)
    for transform in (lambda f: f, jax.grad):
        params = jnp.asarray(PARAMS)
        np.testing.assert_allclose(transform(a)(params), transform(b)(params), rtol=1e-5)


def test_without_any_pixel_the_start_is_nonfinite():
    problem = InverseProblem(decay, jnp.full(9, jnp.nan))
    assert np.isnan(problem(jnp.asarray(PARAMS)))
    result = run_until(ADAM, problem, PARAMS, max_steps=50)
    assert (int(result.status), int(result.steps)) == (Status.NONFINITE_START, 0)
    np.testing.assert_array_equal(result.params, PARAMS.astype(np.float32))


def pull(params):
    return jnp.sum((params - 3.0) ** 2)


def test_the_prior_is_added():
    problem = InverseProblem(decay, jnp.asarray(observed(), jnp.float32))
    with_prior = problem.replace(prior=pull)
    params = jnp.asarray(PARAMS)
    np.testing.assert_allclose(with_prior(params), problem(params) + pull(params), rtol=1e-6)


def test_without_any_pixel_the_prior_remains():
    problem = InverseProblem(decay, jnp.full(9, jnp.nan), prior=pull)
    result = run_until(Gradient(optax.lbfgs), problem, PARAMS, max_steps=50)
    np.testing.assert_allclose(result.params, 3, rtol=1e-4)


def test_the_context_goes_to_the_forward_model():
    def scaled(params, context):
        return context["gain"] * decay(params)

    problem = InverseProblem(scaled, jnp.asarray(observed()), context={"gain": 2.0})
    np.testing.assert_allclose(
        problem.predict(jnp.asarray(PARAMS)), 2 * decay(jnp.asarray(PARAMS)), rtol=1e-6
    )


def test_observations_may_be_a_pytree_with_noise_like_it():
    def both(params):
        return {"decay": decay(params), "sum": params[0] + params[1]}

    observation = {"decay": jnp.asarray(observed([3])), "sum": jnp.asarray(2.0)}
    noise = {"decay": 0.5, "sum": 0.1}
    loss = InverseProblem(both, observation, noise=noise)(jnp.asarray(PARAMS))
    squares = 8 * by_hand(observed([3]), 0.5) + ((PARAMS.sum() - 2) / 0.1) ** 2
    np.testing.assert_allclose(loss, squares / 9, rtol=1e-5)


def test_predictions_may_be_complex():
    def wave(params):
        return params[0] * jnp.exp(1j * params[1] * TIMES)

    observation = np.exp(0.3j * TIMES)
    observation[2] = np.nan
    problem = InverseProblem(wave, jnp.asarray(observation, jnp.complex64))
    prediction = PARAMS[0] * np.exp(1j * PARAMS[1] * TIMES)
    expected = np.nanmean(np.abs(prediction - observation) ** 2)
    loss = problem(jnp.asarray(PARAMS))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    truth = jnp.array([1.0, 0.3])
    assert np.all(np.isfinite(jax.grad(problem)(truth)))
    result = run_until(Gradient(optax.lbfgs), problem, np.array([0.9, 0.2]), max_steps=50)
    np.testing.assert_allclose(result.params, truth, atol=1e-3)


def test_the_hessian_at_a_perfect_fit_is_that_of_least_squares():
    with jax.enable_x64(True):
        params = jnp.asarray(PARAMS)
        problem = InverseProblem(decay, decay(params), noise=0.5)
        J = jax.jacobian(problem.residual)(params)
        for objective in (problem, Robust(problem, huber), Robust(problem, cauchy)):
            np.testing.assert_allclose(jax.hessian(objective)(params), 2 / 9 * J.T @ J, rtol=1e-9)


def test_phases_are_compared_modulo_a_turn():
    problem = InverseProblem(
        lambda params: params, jnp.array([3.1, 0.0]), difference=wrapped_difference
    )
    turn = jnp.array([2 * jnp.pi, -4 * jnp.pi])
    params = jnp.array([-3.1, 0.2])
    expected = ((2 * np.pi - 6.2) ** 2 + 0.2**2) / 2
    np.testing.assert_allclose(problem(params), expected, rtol=1e-4)
    np.testing.assert_allclose(problem(params + turn), expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32, jnp.float64])
def test_the_dtype_is_kept(dtype):
    with jax.enable_x64(True):
        space = ParameterSpace.create(("a", "b"), [0.0, 0.0], [2.0, 2.0])
        problem = InverseProblem(decay, jnp.asarray(observed([1]), dtype), noise=0.5, space=space)
        assert problem(jnp.asarray(PARAMS, dtype)).dtype == dtype
        result = run(ADAM, problem, jnp.asarray(PARAMS, dtype), num_steps=2)
        assert (result.params.dtype, result.loss.dtype) == (dtype, dtype)


def test_a_prediction_of_another_shape_is_named():
    problem = InverseProblem(decay, jnp.zeros((9, 1)))
    with pytest.raises(ValueError, match=r"\(9,\).*\(9, 1\)"):
        problem(jnp.asarray(PARAMS))


# ParameterSpace


def random_space(n=200, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=n) * 10.0 ** rng.integers(-3, 4, n)
    width = 10.0 ** rng.uniform(-6, 6, n)
    lower, upper = (middle - width).astype(dtype), (middle + width).astype(dtype)
    upper = np.where(upper > lower, upper, np.nextafter(lower, dtype(np.inf)))
    return ParameterSpace.create([f"p{i}" for i in range(n)], lower, upper)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scaled_coordinates_lose_nothing(dtype):
    with jax.enable_x64(dtype == np.float64):
        space = random_space(dtype=dtype)
        x = space.sample(jax.random.key(0), 50)
        assert x.dtype == dtype
        back = jax.jit(lambda x: space.from_scaled(space.to_scaled(x)))(x)
        np.testing.assert_array_equal(back, x)


def test_scales_are_powers_of_two_near_the_width():
    space = random_space()
    mantissa, _ = np.frexp(np.asarray(space.scale))
    np.testing.assert_array_equal(mantissa, 0.5)
    ratio = np.asarray((space.upper - space.lower) / space.scale)
    assert np.all((ratio > 0.7) & (ratio < 1.42))


def test_bounds_are_bounds_in_scaled_coordinates():
    space = random_space()
    for end in space.bounds:
        np.testing.assert_array_equal(space.from_scaled(space.to_scaled(end)), end)
    outside = jnp.stack([space.lower - 1e7, space.upper + 1e7])
    np.testing.assert_array_equal(space.from_scaled(space.to_scaled(outside)), space.bounds)


def test_unit_coordinates():
    space = ParameterSpace.create(("a", "b"), [-1.0, 10.0], [3.0, 20.0])
    np.testing.assert_allclose(space.to_unit(jnp.array([0.0, 15.0])), [0.25, 0.5])
    np.testing.assert_allclose(space.from_unit(jnp.array([0.25, 0.5])), [0, 15])
    np.testing.assert_array_equal(space.from_unit(jnp.array([-2.0, 3.0])), [-1, 20])
    np.testing.assert_array_equal(space.to_unit(space.lower), [0, 0])
    np.testing.assert_array_equal(space.to_unit(space.upper), [1, 1])


def test_unit_coordinates_round_trip():
    space = random_space(seed=3)
    unit = jax.random.uniform(jax.random.key(1), (20, 200))
    x = space.from_unit(unit)
    ulp = np.spacing(np.maximum(np.abs(space.lower), np.abs(space.upper)))
    again = np.asarray(space.from_unit(space.to_unit(x)), np.float64)
    assert np.all(np.abs(again - np.asarray(x, np.float64)) <= 4 * ulp)


def test_samples_are_uniform_and_inside():
    space = ParameterSpace.create(("a", "b"), [-1.0, 100.0], [3.0, 101.0])
    x = np.asarray(space.sample(jax.random.key(0), 4000), np.float64)
    assert x.shape == (4000, 2)
    assert np.all((x >= space.lower) & (x <= space.upper))
    for column, low, width in ((0, -1, 4), (1, 100, 1)):
        assert kstest((x[:, column] - low) / width, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(x.T)[0, 1]) < 0.05


def test_infinite_bounds():
    space = ParameterSpace.create(("a", "b", "c"), [-np.inf, 0, -1], [np.inf, np.inf, 1])
    np.testing.assert_array_equal(space.scale, [1, 1, 2])
    x = jnp.array([-1e30, -5.0, 0.3])
    np.testing.assert_array_equal(space.clip(x), np.array([-1e30, 0, 0.3], np.float32))
    np.testing.assert_array_equal(space.from_scaled(space.to_scaled(x)), space.clip(x))
    problem = InverseProblem(lambda p: p, jnp.array([5.0, -2.0, 3.0]), space=space)
    result = run_until(Gradient(optax.lbfgs), problem, np.ones(3), max_steps=50)
    np.testing.assert_allclose(result.params, [5, 0, 1], atol=1e-4)


def test_nan_stays_nan():
    space = ParameterSpace.create(("a",), [0.0], [1.0])
    assert np.isnan(space.clip(jnp.array([jnp.nan]))[0])
    assert not space.contains(jnp.array([jnp.nan]))


def test_contains():
    space = ParameterSpace.create(("a", "b"), [0.0, 0.0], [1.0, 2.0])
    assert space.contains(jnp.array([0.0, 2.0]))
    assert not space.contains(jnp.array([0.5, 2.1]))


def test_bounds_may_be_a_pytree():
    lower = {"w": np.zeros((2, 2)), "s": -1.0}
    upper = {"w": np.full((2, 2), 4.0), "s": 1.0}
    space = ParameterSpace.create((), lower, upper)
    x = space.sample(jax.random.key(0), 5)
    assert jax.tree.map(jnp.shape, x) == {"w": (5, 2, 2), "s": (5,)}
    clipped = space.clip({"w": np.full((2, 2), 9.0), "s": -7.0})
    np.testing.assert_array_equal(clipped["w"], 4)
    np.testing.assert_array_equal(clipped["s"], -1)
    back = space.from_scaled(space.to_scaled(clipped))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), back, clipped))
    with pytest.raises(ValueError, match="params"):
        space.as_dict(jnp.zeros(3))


def test_bounds_may_be_a_tuple_of_arrays():
    space = ParameterSpace.create((), (np.zeros(2), np.zeros(3)), (np.ones(2), np.full(3, 2.0)))
    assert [leaf.shape for leaf in jax.tree.leaves(space.lower)] == [(2,), (3,)]


def test_params_by_name():
    space = ParameterSpace.create(("a", "b"), [0, 0], [1, 1], ("µm", "rad"))
    named = space.as_dict(np.arange(6.0).reshape(3, 2))
    assert list(named) == ["a", "b"]
    np.testing.assert_array_equal(named["b"], [1, 3, 5])
    with pytest.raises(ValueError, match=r"params.*\(3,\)"):
        space.as_dict(np.zeros(3))


def test_bad_spaces_are_named():
    create = ParameterSpace.create
    with pytest.raises(ValueError, match="lower"):
        create(("a", "b"), [0.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="upper"):
        create(("a", "b"), [0.0, 0.0], [1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="units"):
        create(("a", "b"), [0, 0], [1, 1], ("µm",))
    for low, high in ((np.inf, np.inf), (2, 1), (np.nan, 1), (0, np.nan)):
        with pytest.raises(ValueError, match="bounds of b"):
            create(("a", "b"), [0.0, low], [1.0, high])
    with pytest.raises(ValueError, match="'w'"):
        create((), {"w": np.zeros(3)}, {"w": np.array([1.0, -1.0, 1.0])})


def test_integer_bounds_become_floats():
    space = ParameterSpace.create(("a", "b"), [0, 1], [2, 3])
    assert space.lower.dtype == space.upper.dtype == jnp.float32


# Robust losses

Z = np.concatenate([np.geomspace(1e-8, 1, 50), np.geomspace(1.0001, 1e8, 50)])


@pytest.mark.parametrize("rho", [huber, cauchy], ids=["huber", "cauchy"])
def test_the_loss_is_that_of_scipy(rho):
    with jax.enable_x64(True):
        observation = observed()
        observation[[2, 6]] += 3  # outliers
        scale = 0.3
        problem = Robust(InverseProblem(decay, jnp.asarray(observation), noise=0.5), rho, scale)

        def residual(params):
            return (params[0] * np.exp(-params[1] * TIMES) - observation) / 0.5

        known = least_squares(
            residual, PARAMS, loss=rho.__name__, f_scale=scale, xtol=1e-14, ftol=1e-15, gtol=1e-14
        )
        loss = float(problem(jnp.asarray(known.x)))
        np.testing.assert_allclose(loss, 2 * known.cost / 9, rtol=1e-12)
        found = run_until(Gradient(optax.lbfgs), problem, jnp.asarray(PARAMS), max_steps=100)
        np.testing.assert_allclose(np.asarray(found.params), known.x, rtol=1e-5)


def test_tukey_is_the_integral_of_its_influence():
    u = np.linspace(0, 2, 200_001)
    psi = np.where(u <= 1, u * (1 - u**2) ** 2, 0)  # Beaton and Tukey (1974)
    expected = 2 * cumulative_trapezoid(psi, u, initial=0)
    with jax.enable_x64(True):
        np.testing.assert_allclose(np.asarray(tukey(jnp.asarray(u**2))), expected, atol=1e-9)


@pytest.mark.parametrize("rho", [huber, cauchy, tukey], ids=lambda rho: rho.__name__)
def test_rho_is_least_squares_near_zero_and_less_far_away(rho):
    with jax.enable_x64(True):
        values = np.asarray(rho(jnp.asarray(Z)))
        small = Z < 1e-5
        np.testing.assert_allclose(values[small], Z[small], rtol=1e-4)
        assert np.all(values <= Z)
        assert np.all(np.diff(values) >= 0)
        assert values[-1] < 1e-3 * Z[-1]
        slopes = np.asarray(jax.vmap(jax.grad(rho))(jnp.asarray([0.0, 1.0, *Z])))
        assert np.all(np.isfinite(slopes))
        assert slopes[0] == 1
        assert np.all((slopes >= -1e-15) & (slopes <= 1))


@pytest.mark.parametrize("rho", [huber, cauchy, tukey], ids=lambda rho: rho.__name__)
def test_weights_are_the_derivative_of_rho(rho):
    with jax.enable_x64(True):
        observation = observed([4])
        observation[1] += 4
        problem = InverseProblem(decay, jnp.asarray(observation), noise=0.4)
        robust, params = Robust(problem, rho, 1.5), jnp.asarray(PARAMS)
        z = np.asarray((problem.residual(params) / 1.5) ** 2)
        h = 1e-6
        slope = (rho(jnp.asarray(z + h)) - rho(jnp.asarray(np.abs(z - h)))) / (2 * h)
        seen = z > h
        weights = np.asarray(robust.weights(params))
        assert np.all(weights >= 0)
        np.testing.assert_allclose(weights[seen], np.asarray(slope)[seen], atol=1e-6)
        # The gradient is that of least squares with these weights (held).
        J = np.asarray(jax.jacobian(problem.residual)(params))
        r = np.asarray(problem.residual(params))
        expected = 2 / 8 * J.T @ (weights * r)
        np.testing.assert_allclose(np.asarray(jax.grad(robust)(params)), expected, rtol=1e-9)


def test_weights_have_the_structure_of_the_residual():
    problem = InverseProblem(lambda p: {"a": p, "b": p[0]}, {"a": jnp.ones(2), "b": jnp.ones(())})
    weights = Robust(problem, tukey, 2.0).weights(jnp.array([1.0, 1.0]))
    np.testing.assert_array_equal(weights["a"], 1)
    assert weights["b"].shape == ()


@pytest.mark.parametrize("rho", [huber, cauchy, tukey], ids=lambda rho: rho.__name__)
def test_limits_of_the_scale(rho):
    problem = InverseProblem(decay, jnp.asarray(observed([0])))
    params = jnp.asarray(PARAMS)
    wide = Robust(problem, rho, 1e3)(params)
    np.testing.assert_allclose(wide, problem(params), rtol=1e-4)
    residual = np.abs(np.asarray(problem.residual(params)))[1:]
    s = 1e-4
    far = {
        huber: np.mean(2 * s * residual - s**2),  # absolute values
        cauchy: np.mean(s**2 * np.log1p((residual / s) ** 2)),
        tukey: s**2 / 3,
    }
    np.testing.assert_allclose(Robust(problem, rho, s)(params), far[rho], rtol=1e-3)


def test_an_outlier_does_not_move_a_robust_fit():
    clean = 1.5 * np.exp(-TIMES)
    spoiled = clean.copy()
    spoiled[3] += 50
    with jax.enable_x64(True):
        problem = InverseProblem(decay, jnp.asarray(spoiled), noise=0.05)
        refiner, start = Gradient(optax.lbfgs), jnp.array([1.4, 0.9])
        plain = run_until(refiner, problem, start, max_steps=100).params
        robust = run_until(refiner, Robust(problem, tukey, 4.685), start, max_steps=100).params
        assert np.max(np.abs(np.asarray(plain) - [1.5, 1])) > 0.3
        np.testing.assert_allclose(np.asarray(robust), [1.5, 1], atol=1e-4)


def test_a_robust_problem_keeps_bounds_prior_and_missing_pixels():
    space = ParameterSpace.create(("a", "b"), [0.0, 0.0], [1.2, 2.0])
    problem = InverseProblem(decay, jnp.asarray(observed([5]), jnp.float32), space=space)
    robust = Robust(problem, huber)
    result = run_until(Gradient(optax.lbfgs), robust, PARAMS, max_steps=100)
    np.testing.assert_allclose(result.params[0], 1.2)
    assert space.contains(result.params)
    params = jnp.asarray(PARAMS)
    with_prior = robust.replace(problem=problem.replace(prior=pull))
    np.testing.assert_allclose(with_prior(params), robust(params) + pull(params), rtol=1e-6)
    np.testing.assert_array_equal(robust.predict(params), problem.predict(params))
    assert np.isnan(Robust(problem.replace(observation=jnp.full(9, jnp.nan)))(params))
