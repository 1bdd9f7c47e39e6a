"""The one call: any forward model, NumPy in and out, nothing worse than it came in."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

import refinejax as rj
from refinejax import ParameterSpace, Status, refine
from refinejax.batch.lanes import cycle
from refinejax.problems import BlackBox

TIMES = np.linspace(0, 2, 9, dtype=np.float32)
SGD = rj.Gradient(optax.sgd, {"learning_rate": 0.3})
RANDOM = rj.RandomSearch(population_size=4)


def decay(params):
    return params[0] * jnp.exp(-params[1] * TIMES)


def constant(params):
    """Three pixels of the one param; the best fit is the weighted mean of the observation."""
    return params[0] * jnp.ones(3)


def decays(count=6, noise=0.01, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.uniform([1, 0.5], [2, 2], (count, 2))
    observed = truth[:, :1] * np.exp(-truth[:, 1:] * TIMES)
    observed += noise * rng.normal(size=observed.shape)
    initial = truth * rng.uniform(0.7, 1.3, truth.shape)
    return tuple(array.astype(np.float32) for array in (observed, initial, truth))


# Against SciPy


def scipy_fit(observed, initial, **options):
    def residual(params):
        return params[0] * np.exp(-params[1] * TIMES.astype(float)) - observed

    return scipy.optimize.least_squares(residual, initial, **options)


def test_curve_fits_are_those_of_least_squares():
    observed, initial, _ = decays()
    result = refine(decay, observed, initial)
    for i in range(len(observed)):
        expected = scipy_fit(observed[i], initial[i], xtol=1e-12)
        np.testing.assert_allclose(result.params[i], expected.x, rtol=2e-3)
        np.testing.assert_allclose(result.loss[i], 2 * expected.cost / len(TIMES), rtol=1e-3)


def test_bounded_curve_fits_are_those_of_least_squares():
    observed, initial, _ = decays()
    lower, upper = np.float32([1.3, 0.4]), np.float32([1.6, 1.5])
    result = refine(decay, observed, initial, bounds=(lower, upper))
    assert np.all((result.params >= lower) & (result.params <= upper))
    for i in range(len(observed)):
        inside = np.clip(initial[i], lower + 1e-3, upper - 1e-3)
        expected = scipy_fit(observed[i], inside, bounds=(lower, upper), xtol=1e-12).x
        np.testing.assert_allclose(result.params[i], expected, rtol=3e-3)
        active = np.isclose(expected, lower, rtol=1e-4) | np.isclose(expected, upper, rtol=1e-4)
        np.testing.assert_array_equal(result.at_bound[i], active)
    assert result.at_bound.any()
    assert not result.at_bound.all()


def rosenbrock(params):
    return jnp.stack([10 * (params[1] - params[0] ** 2), 1 - params[0]])


@pytest.mark.slow
def test_a_curved_valley_ends_where_minimize_ends():
    initial = np.float32([[-1.2, 1], [2, 2], [0, -1]])
    result = refine(rosenbrock, np.zeros((3, 2)), initial)
    for i in range(3):
        expected = scipy.optimize.minimize(
            scipy.optimize.rosen, initial[i].astype(float), method="BFGS"
        ).x
        np.testing.assert_allclose(result.params[i], expected, atol=5e-3)


# One sample or many; kinds of params


def test_a_single_sample_needs_no_sample_axis_and_gets_none():
    observed, initial, _ = decays()
    batch = refine(decay, observed, initial, execution=rj.Execution(lanes=8))
    single = refine(decay, observed[2], initial[2], execution=rj.Execution(lanes=8))
    assert single.params.shape == (2,)
    assert np.shape(single.loss) == np.shape(single.status) == ()
    assert batch.params.shape == (6, 2)
    assert batch.loss.shape == (6,)
    np.testing.assert_allclose(single.params, batch.params[2], rtol=1e-3)


def test_a_single_sample_has_bounds_noise_and_context_without_sample_axis():
    result = refine(
        lambda params, gain: gain * params[0] * jnp.ones(3),
        [2.0, 4.0, 6.0],
        [0.5],
        bounds=(0, [1.5]),
        noise=[1.0, 2.0, 1.0],
        context=2.0,
        method=SGD,
    )
    assert result.params.shape == result.at_bound.shape == (1,)
    np.testing.assert_allclose(result.params, 1.5)
    assert result.at_bound.all()


SQUARE = np.arange(9.0, dtype=np.float32).reshape(3, 3)


def doubled(params):
    return 2 * params


def amplified(params, gain):
    return gain * params


@pytest.mark.parametrize(
    "context", [pytest.param(None, marks=pytest.mark.slow), np.float32([1.0, 2.0, 4.0])]
)
def test_arrays_that_are_one_sample_or_many_need_a_word(context):
    model = doubled if context is None else amplified
    begin = np.zeros((3, 3), np.float32)
    with pytest.raises(
        ValueError,
        match=r"batched: observations of shape \(3, 3\) and initial of shape \(3, 3\) can be read "
        r"in two ways: as 3 samples .*params of shape \(3,\) each.* or as one sample .*\(3, 3\)",
    ):
        refine(model, SQUARE, begin, context=context)
    gain = np.float32(2 if context is None else context)
    for batched, shape, factor in [(True, (3,), gain[..., None]), (False, (), gain)]:
        result = refine(model, SQUARE, begin, context=context, batched=batched)
        assert result.loss.shape == shape
        np.testing.assert_allclose(result.params, SQUARE / factor, rtol=1e-4, atol=1e-5)


def test_a_black_box_that_fits_both_readings_needs_a_word_too():
    options = {"differentiable": False, "max_steps": 2, "method": "random"}
    for vectorized in (False, True):
        with pytest.raises(ValueError, match=r"batched: .*two ways"):
            refine(doubled, SQUARE, SQUARE, vectorized=vectorized, **options)
    assert refine(doubled, SQUARE, SQUARE, batched=True, **options).loss.shape == (3,)


def test_a_reading_that_was_asked_for_has_to_fit():
    observed, initial, _ = decays()
    with pytest.raises(ValueError, match="taken as one sample, as batched=False says"):
        refine(decay, observed, initial, batched=False)
    with pytest.raises(ValueError, match=r"taken as samples .*as batched=True says"):
        refine(decay, observed[0], initial[0], batched=True)


def test_losses_are_recorded_step_by_step():
    observed, initial, _ = decays()
    plain = refine(decay, observed, initial, method="lbfgs", scale=1, max_steps=12)
    traced = refine(decay, observed, initial, method="lbfgs", scale=1, max_steps=12, trace=4)
    assert plain.trace is None
    np.testing.assert_array_equal(traced.params, plain.params)
    assert traced.trace.shape == (4, 1 + traced.steps[:4].max())
    assert np.all(np.diff(traced.trace, axis=1) <= 0)
    np.testing.assert_array_equal(traced.trace[:, 0], traced.initial_loss[:4].astype(float))
    np.testing.assert_array_equal(traced.trace[:, -1], traced.loss[:4].astype(float))
    most = int(traced.steps[:4].max())  # of all: another number compiles another program
    for i in range(4):
        problem = rj.InverseProblem(decay, observed[i])
        key = jax.random.fold_in(jax.random.key(0), i)
        known = rj.run(rj.Gradient(optax.lbfgs), problem, initial[i], key, num_steps=most)
        expected = np.fmin.accumulate(known.trace[: 1 + int(traced.steps[i])])
        np.testing.assert_allclose(traced.trace[i, : len(expected)], expected, rtol=1e-2, atol=1e-6)


def test_params_and_bounds_may_be_dicts():
    def forward(params):
        return params["height"] * jnp.exp(-params["rate"] * TIMES)

    observed, initial, truth = decays(noise=0.0)
    result = refine(
        forward,
        observed,
        {"height": initial[:, 0], "rate": initial[:, 1]},
        bounds=({"height": 0, "rate": 0}, {"height": 3.0, "rate": 1.25}),
        method="adam",
        max_steps=2,
    )
    assert result.params["height"].shape == (6,)
    assert np.all(result.params["rate"] <= 1.25)
    np.testing.assert_array_equal(result.at_bound["rate"], result.params["rate"] == 1.25)
    assert not result.at_bound["height"].any()
    assert truth[:, 1].max() > 1.25


fit_constant = functools.partial(refine, constant, method=SGD, execution=rj.Execution(lanes=2))


@pytest.mark.parametrize(
    ("observations", "initial"),
    [
        ([[1, 2, 3], [4, 5, 6]], [[0], [1]]),
        (np.array([[1, 2, 3], [4, 5, 6]]), np.array([[0], [1]])),
        (np.float64([[1, 2, 3], [4, 5, 6]]), np.float64([[0], [1]])),
        (jnp.array([[1, 2, 3], [4, 5, 6]]), jnp.array([[0.0], [1.0]])),
        (np.uint8([[1, 2, 3], [4, 5, 6]]), [[False], [True]]),
    ],
    ids=["lists", "integers", "float64", "jax", "bytes and booleans"],
)
def test_lists_integers_and_any_array_are_taken(observations, initial):
    result = fit_constant(observations, initial)
    assert isinstance(result.params, np.ndarray)
    assert result.params.dtype == np.float32
    np.testing.assert_allclose(result.params, [[2], [5]], rtol=1e-3)
    np.testing.assert_allclose(result.initial_loss, [14 / 3, (9 + 16 + 25) / 3], rtol=1e-5)


# Missing pixels, noise


def test_pixels_of_nan_are_missing():
    observations = [[1, np.nan, 3], [np.nan, 5, np.nan], [7, 8, 9]]
    result = fit_constant(observations, [[0.0]] * 3)
    np.testing.assert_allclose(result.params[:, 0], [2, 5, 8], rtol=1e-3)
    np.testing.assert_allclose(result.initial_loss, [5, 25, (49 + 64 + 81) / 3], rtol=1e-5)


def test_a_sample_without_a_pixel_is_reported_and_left_where_it_was():
    result = fit_constant([[np.nan] * 3, [1, 2, 3]], [[0.5], [0.5]])
    assert result.status[0] == Status.NONFINITE_START
    np.testing.assert_allclose(result.params[:, 0], [0.5, 2], rtol=1e-3)


PIXELS = np.float32([[1, 2, 6], [2, 4, 9]])


@pytest.mark.parametrize(
    ("noise", "expected"),
    [
        (None, 1.0),
        (2.0, 2.0),
        (2, 2.0),
        (np.float32(2), 2.0),
        ([1, 2], [[1.0], [2.0]]),
        (np.array([1.0, 2.0]), [[1.0], [2.0]]),
        ([1, 2, 4], [[1.0, 2.0, 4.0]]),
        (1.0 + PIXELS, 1.0 + PIXELS),
    ],
    ids=["none", "number", "integer", "scalar", "list", "samples", "pixels", "all"],
)
def test_noise_may_be_of_any_shape_that_has_one_meaning(noise, expected):
    result = fit_constant(PIXELS, [[1.0], [1.0]], noise=noise)
    weights = 1 / np.broadcast_to(np.asarray(expected), PIXELS.shape) ** 2
    best = np.sum(weights * PIXELS, 1) / np.sum(weights, 1)
    losses = np.mean(weights * (1 - PIXELS) ** 2, 1)
    np.testing.assert_allclose(result.initial_loss, losses, rtol=1e-5)
    np.testing.assert_allclose(result.params[:, 0], best, rtol=1e-3)


def test_noise_that_may_mean_samples_or_pixels_is_refused_unless_it_is_spelled_out():
    square = np.tile(PIXELS[:1], (3, 1))
    with pytest.raises(ValueError, match=r"noise: .*samples or pixels"):
        fit_constant(square, [[1.0]] * 3, noise=[1.0, 2.0, 4.0])
    result = fit_constant(square, [[1.0]] * 3, noise=np.tile([1.0, 2.0, 4.0], (3, 1)), max_steps=0)
    np.testing.assert_allclose(result.loss, (0 + 1 / 4 + 25 / 16) / 3, rtol=1e-5)


def test_observations_of_several_arrays_have_noise_for_each():
    def forward(params):
        return {"a": params, "b": params[0] * jnp.ones(2)}

    observations = {"a": np.float32([[3], [3]]), "b": np.float32([[5, 5], [5, 5]])}
    noise = {"a": np.float32([1, 2]), "b": 2.0}
    result = refine(forward, observations, [[1.0], [1.0]], noise=noise, method=SGD, max_steps=0)
    np.testing.assert_allclose(result.loss, [(4 + 8) / 3, (1 + 8) / 3], rtol=1e-5)


# Differences, priors, context


def phases(params):
    return params[0] + jnp.linspace(0, 1, 3)


def wrapped_phases(params):
    return phases(params)


wrapped_phases.difference = rj.wrapped_difference


def square_root_difference(prediction, observation):
    return jnp.sqrt(jnp.abs(prediction - observation))


@pytest.mark.parametrize(
    ("forward", "difference", "loss"),
    [
        (phases, "auto", (2 * np.pi - 0.5) ** 2),
        (phases, "subtract", (2 * np.pi - 0.5) ** 2),
        (phases, "wrapped", 0.25),
        (wrapped_phases, "auto", 0.25),
        (wrapped_phases, "subtract", (2 * np.pi - 0.5) ** 2),
        (phases, square_root_difference, 2 * np.pi - 0.5),
    ],
)
def test_the_difference_is_by_name_by_function_or_the_models_own(forward, difference, loss):
    observed = np.asarray(phases(jnp.float32([2 * np.pi - 0.5])))[None]
    result = refine(forward, observed, [[0.0]], difference=difference, method=RANDOM, max_steps=0)
    np.testing.assert_allclose(result.loss, loss, rtol=1e-4)


def test_a_prior_is_added_to_the_loss_of_each_sample():
    result = fit_constant(PIXELS, [[0.0], [0.0]], prior=lambda params: (params[0] - 1) ** 2)
    np.testing.assert_allclose(result.params[:, 0], (PIXELS.mean(1) + 1) / 2, rtol=1e-3)


def scaled(params, gain):
    return gain * params[0] * jnp.ones(3)


@pytest.mark.parametrize("context", [np.float32([1, 2]), [1, 2], [1.0, 2.0]])
def test_context_belongs_to_a_sample(context):
    result = refine(scaled, PIXELS, [[1.0], [1.0]], context=context, max_steps=0, method=SGD)
    predicted = np.float32([[1], [2]])
    np.testing.assert_allclose(result.loss, np.mean((predicted - PIXELS) ** 2, 1), rtol=1e-5)


# Bounds


@pytest.mark.parametrize(
    "bounds",
    [
        (0, 2.5),
        [0.0, 2.5],
        ([0.0], [2.5]),
        (np.array([0.0]), np.array(2.5)),
        (-np.inf, 2.5),
        ParameterSpace.create(("level",), [0], [2.5]),
    ],
    ids=["numbers", "list", "lists", "arrays", "half", "space"],
)
def test_bounds_are_kept_in_whatever_form_they_come(bounds):
    result = fit_constant(PIXELS + 0.25, [[0.0], [7.0]], bounds=bounds)
    np.testing.assert_allclose(result.params[:, 0], 2.5)
    assert result.at_bound.all()
    assert np.all(result.loss <= result.initial_loss)


def test_a_start_outside_is_moved_onto_the_bounds_and_not_worse_than_there():
    result = fit_constant(PIXELS, [[-9.0], [7.0]], bounds=(0.0, 2.5), max_steps=0)
    np.testing.assert_array_equal(result.params[:, 0], [0, 2.5])
    assert result.at_bound.all()


@pytest.mark.slow
def test_no_result_lies_outside_bounds_for_any_method():
    observed, initial, _ = decays(count=20)
    lower, upper = np.float32([1.2, 0.8]), np.float32([1.5, 1.2])
    for method in ("lbfgs", "adam", "random"):
        result = refine(
            decay,
            observed,
            initial,
            bounds=(lower, upper),
            method=method,
            max_steps=15,
            execution=rj.Execution(lanes=8),
        )
        assert np.all((result.params >= lower) & (result.params <= upper)), method
        assert result.at_bound.any(), method


# Black boxes


def black_box(params):
    assert isinstance(params, np.ndarray)
    return float(params[0]) * np.ones(3)


def test_a_black_box_is_refined_without_derivatives():
    result = refine(black_box, PIXELS, [[1.0], [1.0]], differentiable=False, max_steps=120)
    np.testing.assert_allclose(result.params[:, 0], PIXELS.mean(1), atol=0.02)
    assert "cma_es" in result.method
    assert "derivatives" in result.method


@pytest.mark.parametrize(
    "method",
    [
        *("lm", "lbfgs", "adam", SGD, rj.Restarts(SGD, n=2), rj.Sequential(RANDOM, SGD)),
        rj.Sequential(RANDOM, rj.LevenbergMarquardt()),
    ],
)
def test_a_method_that_needs_derivatives_is_refused_for_a_black_box(method):
    with pytest.raises(ValueError, match=r"method: .*needs derivatives.*differentiable=False"):
        refine(black_box, PIXELS, [[1.0], [1.0]], differentiable=False, method=method)


@pytest.mark.slow
def test_a_black_box_may_return_lists_and_integers_and_take_context():
    def model(params, context):
        return {"sum": [round(float(params[0])) + int(context["shift"])]}

    result = refine(
        model,
        {"sum": [[3], [9]]},
        [[0.0], [1.0]],
        context={"shift": np.array([1, 2])},
        differentiable=False,
        max_steps=0,
    )
    np.testing.assert_allclose(result.loss, [4, 36])


CALLS = []


def counted(params):
    CALLS.append(params.shape)
    return params[:, :1] * np.ones(3)


def test_a_vectorized_black_box_is_called_once_for_all_candidates_of_all_samples():
    CALLS.clear()
    options = {
        "differentiable": False,
        "vectorized": True,
        "execution": rj.Execution(lanes=2),
        "max_steps": 10,
    }
    refiner = rj.Evolution("cma_es", population_size=6, std=0.5)
    result = refine(counted, PIXELS, [[1.0], [1.0]], method=refiner, **options)
    assert (12, 1) in CALLS
    assert len(CALLS) <= 16
    assert np.all(result.loss < result.initial_loss)


def flaky(params):
    """Fails for one candidate in three, by its digits."""
    if int(abs(params[0]) * 1e4) % 3 == 0:
        raise OSError("the simulator has crashed")
    return np.full(3, params[0])


@pytest.mark.parametrize("key", [0, 2, 9])  # in some generations a single candidate is left
def test_a_simulator_that_fails_kills_a_candidate_and_not_the_run(key):
    with pytest.warns(RuntimeWarning, match="OSError: the simulator has crashed"):
        result = refine(
            flaky,
            PIXELS,
            [[1.0001], [1.0001]],
            differentiable=False,
            max_steps=150,
            method="cma_es",
            key=key,
        )
    np.testing.assert_allclose(result.params[:, 0], PIXELS.mean(1), atol=0.02)
    assert np.all(np.isfinite(result.loss))


def many_flaky(params):
    if np.any(params < 0):
        raise ValueError("negative")
    return params[:, :1] * np.ones(3)


def test_a_vectorized_call_that_fails_is_repeated_one_by_one():
    box = BlackBox.wrap(many_flaky, np.zeros((2, 3), np.float32), vectorized=True)
    with pytest.warns(RuntimeWarning, match="negative"):
        found = jax.vmap(box)(jnp.array([[1.0], [-1.0], [2.0]]))
    np.testing.assert_array_equal(found[:, 0], [1, np.nan, 2])


def test_a_prediction_of_another_shape_kills_the_candidate():
    box = BlackBox.wrap(lambda p: p[:1], np.zeros((2, 3), np.float32))
    with pytest.warns(RuntimeWarning, match=r"expected a prediction of shape \(3,\), got \(1,\)"):
        assert np.all(np.isnan(box(jnp.ones(2))))


def test_vectorized_is_for_black_boxes():
    with pytest.raises(ValueError, match="vectorized: expected with differentiable=False"):
        refine(constant, PIXELS, [[1.0], [1.0]], vectorized=True)


# Methods


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("auto", ["lm", "chosen because", "squares", "2 params"]),
        ("lm", ["lm", "as asked"]),
        ("lbfgs", ["lbfgs", "as asked"]),
        *(
            pytest.param(name, [name, "as asked"], marks=pytest.mark.slow)
            for name in ("adam", "random", "cma_es", "ga")
        ),
        (SGD, ["Gradient", "as asked"]),
        (rj.Sequential(RANDOM, SGD), ["Sequential", "as asked"]),
    ],
)
def test_the_result_says_which_method_was_used_and_why(method, words):
    observed, initial, _ = decays()
    result = refine(decay, observed, initial, method=method, max_steps=1)
    for word in words:
        assert word in result.method
        assert word in repr(result)


def wave(params):
    return params[0] * jnp.cos(params[1] * jnp.linspace(0, 1, 50))


@pytest.mark.slow
def test_auto_goes_on_with_a_population_where_starts_disagree():
    truth = np.random.default_rng(0).uniform([1, 20], [2, 60], size=(16, 2)).astype(np.float32)
    observed = np.stack([wave(p) for p in truth])
    bounds = ([0, 10], [3, 80])
    result = refine(wave, observed, truth + np.float32([0.1, 5]), bounds=bounds)
    assert "then cma_es and lm, because" in result.method
    assert np.mean(np.abs(result.params - truth).max(axis=1) < 1e-2) > 0.9
    local = refine(wave, observed, truth + np.float32([0.1, 5]), bounds=bounds, method="lm")
    assert np.all(result.loss <= local.loss)
    assert "population" not in local.method


@jax.custom_vjp
def reverse_only(params):
    return decay(params)


reverse_only.defvjp(lambda p: (decay(p), p), lambda p, g: jax.vjp(decay, p)[1](g))


def many(params):
    return params


def test_auto_takes_another_method_where_least_squares_does_not_serve():
    observed, initial, _ = decays()
    result = refine(reverse_only, observed, initial, max_steps=2)
    assert "lbfgs" in result.method
    assert "reverse" in result.method


@pytest.mark.slow
def test_auto_takes_another_method_where_params_are_many():
    result = refine(many, np.ones((1, 101)), np.zeros((1, 101)), batched=True, max_steps=2)
    assert "lbfgs" in result.method
    assert "101 params" in result.method


def test_the_key_is_a_seed_that_repeats_the_run():
    draws = [
        refine(constant, PIXELS, [[1.0], [1.0]], method=RANDOM, max_steps=5, key=key).params
        for key in (1, 1, 2, jax.random.key(2))
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    np.testing.assert_array_equal(draws[2], draws[3])
    assert np.any(draws[0] != draws[2])


def test_steps_and_stop_are_obeyed():
    options = {"max_steps": 3, "method": SGD}
    assert np.all(refine(constant, PIXELS, [[1.0], [1.0]], **options).steps <= 3)
    result = refine(constant, PIXELS, [[1.0], [1.0]], method=SGD, stop=rj.Stop(target=100.0))
    assert result.status.tolist() == [Status.TARGET_REACHED] * 2


# Never worse


def nasty(params):
    """Poles, edges into NaN, overflow, plateaus."""
    x, y = params
    return jnp.stack(
        [jnp.log(x), jnp.sqrt(y - 1), jnp.exp(5 * x * y), 1 / (x - y), jnp.floor(x), jnp.tan(y)]
    )


@pytest.mark.parametrize(
    "method",
    ["lbfgs", *(pytest.param(name, marks=pytest.mark.slow) for name in ("adam", "random"))],
)
def test_no_sample_is_worse_than_it_came_in_whatever_the_problem(method):
    rng = np.random.default_rng(0)
    initial = (3 * rng.standard_cauchy((60, 2))).astype(np.float32)
    observed = rng.normal(size=(60, 6)).astype(np.float32)
    observed[rng.random(observed.shape) < 0.2] = np.nan
    result = refine(
        nasty, observed, initial, method=method, max_steps=40, execution=rj.Execution(lanes=8)
    )
    losses = jax.vmap(lambda y, p: rj.InverseProblem(nasty, y)(p))
    before, after = losses(observed, initial), losses(observed, result.params)
    finite = np.isfinite(before)
    assert 5 < finite.sum() < 55
    assert np.all(result.loss[finite] <= result.initial_loss[finite])
    np.testing.assert_allclose(after[finite], result.loss[finite], rtol=1e-3)
    assert np.all(result.status[~finite] == Status.NONFINITE_START)
    np.testing.assert_array_equal(result.params[~finite], initial[~finite])


# Compilation


def test_the_same_forward_model_is_compiled_once():
    def fit(shift, **options):
        bounds = (0.0, 3.0 + shift)
        noise = 1.0 + shift
        arrays = PIXELS + shift, [[1.0 + shift], [0.0]]
        return fit_constant(*arrays, bounds=bounds, noise=noise, **options)

    fit(0)
    compiled = cycle._cache_size()
    fit(1.0)
    fit(2, key=4, max_steps=7)
    fit(np.float32(0.5), stop=rj.Stop(target=0.1))
    assert cycle._cache_size() == compiled


def test_a_default_noise_and_a_given_one_share_a_program():
    fit_constant(PIXELS, [[1.0], [0.0]])
    compiled = cycle._cache_size()
    fit_constant(PIXELS, [[1.0], [0.0]], noise=0.3)
    assert cycle._cache_size() == compiled


# Bad arguments


GOOD = {"forward": constant, "observations": PIXELS, "initial": [[1.0], [1.0]], "method": SGD}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"forward": 3}, r"forward: "),
        ({"forward": lambda params: params[0] * jnp.ones(4)}, r"forward: .*\(4,\).*\(3,\)"),
        ({"forward": lambda params: params["a"]}, r"forward: "),
        ({"initial": [[1.0]] * 4}, r"forward: .*\(4, 1\).*\(2, 3\)"),
        ({"observations": np.zeros((0, 3)), "initial": np.zeros((0, 1))}, "empty"),
        ({"bounds": 3.0}, r"bounds: .*3\.0"),
        ({"bounds": (0.0, 1.0, 2.0)}, r"bounds: "),
        ({"bounds": (2.0, 1.0)}, r"bounds of .*lower 2\.0 .*upper 1\.0"),
        ({"bounds": ([0.0, 0.0], [1.0, 1.0])}, r"bounds: lower .*\(2,\).*\(1,\)"),
        ({"bounds": ({"a": 0.0}, {"a": 1.0})}, r"bounds: "),
        ({"bounds": ParameterSpace.create(("a", "b"), [0, 0], [1, 1])}, r"bounds: .*\(2,\)"),
        ({"noise": 0.0}, r"noise: .*above 0"),
        ({"noise": -1.0}, r"noise: .*above 0"),
        ({"noise": np.nan}, r"noise: .*above 0"),
        ({"noise": np.ones(7)}, r"noise: .*\(7,\)"),
        ({"noise": {"a": np.ones(2)}}, r"noise: "),
        ({"difference": "cosine"}, r"difference: .*'wrapped'.*'cosine'"),
        ({"difference": 3}, r"difference: .*3"),
        ({"method": "levenberg"}, r"method: .*auto.*lbfgs.*'levenberg'"),
        ({"method": rj.RandomSearch}, r"method: .*Refiner"),
        ({"method": None}, r"method: .*None"),
        ({"max_steps": -1}, r"max_steps: .*-1"),
        ({"max_steps": 1.5}, r"max_steps: .*1\.5"),
        ({"execution": 8}, r"execution: expected options.*8"),
    ],
)
def test_a_bad_argument_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        refine(**GOOD | change)


def test_a_folder_and_a_limit_of_time_are_passed_on(tmp_path):
    fit_constant(PIXELS, [[1.0], [1.0]], checkpoint=tmp_path, max_steps=4)
    assert (tmp_path / "job.json").exists()
    result = fit_constant(
        PIXELS, [[1.0], [1.0]], max_steps=10**8, stop=rj.Stop.never(), time_limit=0.0
    )
    assert set(result.status.tolist()) == {int(Status.TIME_LIMIT)}
