import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refinejax.physics import phase

wrap = jax.jit(phase.wrap)
wrapped_difference = jax.jit(phase.wrapped_difference)
phase_rmse = jax.jit(phase.phase_rmse, static_argnums=2)

DTYPES = [np.float32, np.float64]
TAU = 2 * np.pi


@pytest.fixture(params=DTYPES, ids=lambda dtype: dtype.__name__)
def dtype(request):
    with jax.enable_x64(True):
        yield request.param


def circular_distance(a, b):
    """How far a is from b modulo 2π, in integers: for so many turns float64 is too short."""
    one = 2**160
    tau = 2 * 314159265358979323846264338327950288419716939937510 * one // 10**50

    def fixed_point(x):
        numerator, denominator = float(x).as_integer_ratio()
        return numerator * one // denominator

    turned = ((fixed_point(x) - fixed_point(y)) % tau for x, y in zip(a, b, strict=True))
    return np.array([min(d, tau - d) / one for d in turned])


def adversarial(dtype):
    """Numbers at and next to the jumps, and large, small and signed-zero ones."""
    jumps = np.array([m * np.pi for m in range(-41, 42)] + [1001 * np.pi, 9999 * np.pi], dtype)
    up, down = np.nextafter(jumps, dtype(np.inf)), np.nextafter(jumps, dtype(-np.inf))
    others = np.array([0.0, -0.0, 1e-30, -1e-30, 3, -3, 1e4, -1e4, 1e6, -1e6], dtype)
    random = np.random.default_rng(0).uniform(-2e4, 2e4, 2000).astype(dtype)
    return np.concatenate([jumps, up, down, others, random])


def test_wrap_is_half_open_everywhere(dtype):
    huge = 10.0 ** np.arange(4, 38)
    x = np.concatenate([adversarial(dtype), huge, -huge]).astype(dtype)
    for function in (wrap, phase.wrap):  # compiled, products and sums may be fused
        y = np.asarray(function(x))
        assert y.dtype == dtype
        assert np.all(y >= -dtype(np.pi))
        assert np.all(y < dtype(np.pi))


def test_wrap_of_the_ends(dtype):
    pi = dtype(np.pi)
    below = np.nextafter(pi, dtype(0))
    np.testing.assert_array_equal(
        wrap(np.array([pi, -pi, below, -below])), [-pi, -pi, below, -below]
    )


def test_wrap_keeps_the_interval_bit_for_bit_and_is_idempotent(dtype):
    x = np.asarray(wrap(adversarial(dtype)))
    np.testing.assert_array_equal(wrap(x), x)


def test_wrap_subtracts_whole_turns_of_the_true_two_pi(dtype):
    x = adversarial(dtype)
    x = x[np.abs(x) < 4e5]  # as far as float32 holds the products of turns
    # the rounding of the result alone, however many the turns
    np.testing.assert_array_less(circular_distance(np.asarray(wrap(x)), x), 3 * np.finfo(dtype).eps)


def test_wrap_is_the_numpy_formula():
    x = np.random.default_rng(1).uniform(-1e4, 1e4, 5000)
    with jax.enable_x64(True):
        np.testing.assert_allclose(wrap(x), np.mod(x + np.pi, TAU) - np.pi, atol=1e-11)


def test_wrap_of_what_is_no_phase_is_nan(dtype):
    y = wrap(np.array([np.nan, np.inf, -np.inf, 4.0], dtype))
    np.testing.assert_array_equal(np.isnan(y), [True, True, True, False])


def test_wrap_takes_scalars_and_integers():
    assert wrap(jnp.array(7)).dtype == jnp.float32
    np.testing.assert_allclose(wrap(7.0), 7 - TAU, rtol=1e-6)


def test_derivatives_are_one(dtype):
    x = adversarial(dtype)
    ones = np.ones_like(x)
    _, tangent = jax.jit(lambda x: jax.jvp(phase.wrap, (x,), (ones,)))(x)
    np.testing.assert_array_equal(tangent, ones)
    gradient = jax.jit(jax.grad(lambda p, o: phase.wrapped_difference(p, o).sum(), (0, 1)))
    by_prediction, by_observation = gradient(x, x[::-1].copy())
    np.testing.assert_array_equal(by_prediction, ones)
    np.testing.assert_array_equal(by_observation, -ones)


def test_wrapped_difference_is_the_least(dtype):
    x = adversarial(dtype)
    rng = np.random.default_rng(2)
    error = rng.uniform(-3, 3, x.shape).astype(dtype)
    difference = np.asarray(wrapped_difference(x + error, wrap(x)))
    assert difference.dtype == dtype
    assert np.abs(difference).max() <= np.pi * (1 + 2 * np.finfo(dtype).eps)
    # x + error is itself rounded: half a step of the dtype there
    tolerance = 2 * np.spacing(np.abs(x) + 4).astype(np.float64)
    np.testing.assert_array_less(np.abs(difference - error.astype(np.float64)), tolerance)


def test_wrapped_difference_across_the_jump():
    np.testing.assert_allclose(wrapped_difference(3.1, -3.1), 6.2 - TAU, rtol=1e-5)
    np.testing.assert_allclose(wrapped_difference(-3.1, 3.1), TAU - 6.2, rtol=1e-5)


def test_wrapped_difference_keeps_missing_pixels_missing():
    difference = wrapped_difference(jnp.zeros(3), jnp.array([0.5, jnp.nan, 7.0]))
    np.testing.assert_allclose(difference, [-0.5, np.nan, TAU - 7], rtol=1e-5)


def test_rmse_is_that_of_the_error_put_in():
    rng = np.random.default_rng(3)
    observation = rng.uniform(-np.pi, np.pi, (4, 6, 5)).astype(np.float32)
    error = rng.normal(0, 0.3, observation.shape).astype(np.float32)
    prediction = observation + error + np.float32(TAU) * rng.integers(-3, 4, (4, 1, 1))
    expected = np.sqrt(np.mean(error**2, axis=(1, 2)))
    np.testing.assert_allclose(phase_rmse(prediction, observation, (-2, -1)), expected, rtol=1e-4)
    total = phase_rmse(prediction, observation)
    assert total.shape == ()
    np.testing.assert_allclose(total, np.sqrt(np.mean(error**2)), rtol=1e-4)


def test_rmse_leaves_missing_pixels_out():
    observation = jnp.array([[0.0, jnp.nan], [jnp.nan, jnp.nan], [0.0, 0.0]])
    prediction = jnp.array([[0.3, 99.0], [1.0, 1.0], [0.3, -0.4]])
    expected = [0.3, np.nan, np.sqrt(0.125)]
    np.testing.assert_allclose(phase_rmse(prediction, observation, -1), expected, rtol=1e-5)


def test_rmse_counts_missing_pixels_after_broadcasting():
    observation = jnp.array([0.0, jnp.nan, 0.0])
    prediction = jnp.full((2, 3), 0.2)
    np.testing.assert_allclose(phase_rmse(prediction, observation), 0.2, rtol=1e-5)
    np.testing.assert_allclose(phase_rmse(prediction, observation, 0), [0.2, np.nan, 0.2])


def test_rmse_does_not_hide_a_broken_prediction():
    assert jnp.isnan(phase_rmse(jnp.array([0.0, jnp.nan]), jnp.zeros(2)))


def test_rmse_has_a_finite_derivative_beside_missing_pixels():
    observation = jnp.array([0.0, jnp.nan])
    gradient = jax.grad(phase_rmse)(jnp.array([0.5, jnp.nan]), observation)
    np.testing.assert_allclose(gradient, [1.0, 0.0], rtol=1e-6)
