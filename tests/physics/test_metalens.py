import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refinejax.physics import metalens

SIZE = 16
images = jax.jit(jax.vmap(lambda params: metalens.phase(params, SIZE)))
image = jax.jit(metalens.phase, static_argnums=1)
wrapped_image = jax.jit(metalens.wrapped_phase, static_argnums=1)
channels_image = jax.jit(metalens.channels, static_argnums=1)
grid = jax.jit(metalens.pixel_grid, static_argnums=(0, 1))
point = jax.jit(metalens.phase_at)


def draw_params(count, seed=0):
    return np.random.default_rng(seed).uniform(metalens.LOWER, metalens.UPPER, (count, 5))


def reference(params, size=SIZE):
    """The issue's formula as it is written, in NumPy and float64, one sample."""
    xc, yc, side, wavelength, f = np.asarray(params, np.float64)
    pixels = np.linspace(-0.5, 0.5, size)
    x, y = np.meshgrid(xc + side * pixels, yc + side * pixels)
    return 2 * np.pi / wavelength * (np.sqrt(x**2 + y**2 + f**2) - f)


def test_phase_is_the_formula_in_float64():
    params = draw_params(20)
    with jax.enable_x64(True):
        phase = np.asarray(images(params))
    assert phase.dtype == np.float64
    np.testing.assert_allclose(phase, [reference(p) for p in params], atol=1e-9, rtol=1e-12)


def test_phase_in_float32_is_as_accurate_as_documented():
    params = draw_params(400, seed=1).astype(np.float32)
    phase = np.asarray(images(params))
    assert phase.dtype == np.float32
    error = phase.astype(np.float64) - [reference(p) for p in params]
    assert np.sqrt(np.mean(error**2)) < 5e-4
    assert np.abs(error).max() < 4e-3


def test_small_radii_lose_no_digits_in_float32():
    params = jnp.array([0.0, 0.0, 1e-2, 0.5, 100.0])
    # the cancelling form gives 0 here
    expected = np.pi * (0.5e-2**2) / (0.5 * 100.0)
    np.testing.assert_allclose(point(params, 0.5, 0.0), expected, rtol=1e-6)


def test_center_of_the_lens_is_zero_and_flat():
    params = jnp.array([0.0, 0.0, 10.0, 0.5, 20.0])
    assert point(params, 0.0, 0.0) == 0
    gradient = jax.jit(jax.grad(metalens.phase_at))(params, 0.0, 0.0)
    np.testing.assert_array_equal(gradient, np.zeros(5))


def test_limit_of_long_focal_length_is_the_parabola():
    x, y, f, wavelength = 30.0, -40.0, 1e7, 0.5
    phase = point(jnp.array([x, y, 1.0, wavelength, f]), 0.0, 0.0)
    np.testing.assert_allclose(phase, np.pi * (x**2 + y**2) / (wavelength * f), rtol=1e-6)


def test_limit_of_short_focal_length_is_the_cone():
    phase = point(jnp.array([30.0, -40.0, 1.0, 0.5, 0.0]), 0.0, 0.0)
    np.testing.assert_allclose(phase, 2 * np.pi * 50.0 / 0.5, rtol=1e-6)


def test_scaling_all_params_together_changes_nothing():
    params = draw_params(5, seed=2)
    with jax.enable_x64(True):
        np.testing.assert_allclose(images(1.7 * params), images(params), rtol=1e-12)
        # but scaling all except one of them does
        others = np.where(np.arange(5) == 4, params, 1.7 * params)
        assert np.abs(images(others) - images(params)).max() > 1


def test_jvp_equals_finite_differences():
    params = draw_params(6, seed=3)
    steps = 1e-4 * np.array([10.0, 10.0, 1.0, 0.01, 1.0])
    with jax.enable_x64(True):
        jacobian = np.asarray(jax.jit(jax.vmap(jax.jacfwd(lambda p: metalens.phase(p, 4))))(params))
        for i, h in enumerate(steps):
            shift = h * np.eye(5)[i]
            differences = [
                (reference(p + shift, 4) - reference(p - shift, 4)) / (2 * h) for p in params
            ]
            scale = np.abs(jacobian[..., i]).max()
            np.testing.assert_allclose(jacobian[..., i], differences, rtol=1e-6, atol=1e-7 * scale)


def test_u_runs_along_columns_and_v_along_rows():
    u, v = grid(5, jnp.float32)
    np.testing.assert_array_equal(u[2], np.linspace(-0.5, 0.5, 5))
    np.testing.assert_array_equal(v[:, 2], np.linspace(-0.5, 0.5, 5))
    np.testing.assert_array_equal(v, u.T)
    phase = image(jnp.array([300.0, 0.0, 10.0, 0.5, 20.0]), 5)
    assert np.all(np.diff(phase, axis=1) > 1)  # away from the lens along x: along columns
    np.testing.assert_allclose(phase, phase[::-1], rtol=1e-6)  # symmetric in y: in rows


@pytest.mark.parametrize("size", [2, 3, 64])
def test_grid_has_both_ends_and_is_symmetric(size):
    u, v = grid(size, jnp.float32)
    assert u.shape == v.shape == (size, size)
    assert u.dtype == v.dtype == jnp.float32
    assert u[0, 0] == v[0, 0] == -0.5
    assert u[-1, -1] == v[-1, -1] == 0.5
    np.testing.assert_array_equal(u, -u[:, ::-1])
    np.testing.assert_allclose(u[0], np.linspace(-0.5, 0.5, size), atol=4e-8)


def test_any_coordinates_broadcast():
    params = draw_params(1, seed=4)[0].astype(np.float32)
    u, v = grid(SIZE, jnp.float32)
    whole = image(params, SIZE)
    np.testing.assert_allclose(point(params, u[::4], v[::4]), whole[::4], rtol=1e-6)
    np.testing.assert_allclose(point(params, u[:1], v[:, :1]), whole, rtol=1e-6)
    assert point(params, 0.1, 0.2).shape == ()


def test_vmap_equals_a_loop():
    params = draw_params(4, seed=5).astype(np.float32)
    loop = np.stack([image(p, SIZE) for p in params])
    np.testing.assert_allclose(images(params), loop, rtol=3e-7)


def test_wrapped_phase_and_channels_are_the_phase_modulo_a_turn():
    params = jnp.asarray(draw_params(1, seed=6)[0], jnp.float32)
    phase = np.asarray(image(params, SIZE), np.float64)
    wrapped = np.asarray(wrapped_image(params, SIZE), np.float64)
    assert phase.max() > 100  # else it tests nothing
    assert -np.float32(np.pi) <= wrapped.min()
    assert wrapped.max() < np.float32(np.pi)
    turns = (phase - wrapped) / (2 * np.pi)
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-6)
    channels = channels_image(params, SIZE)
    assert channels.shape == (2, SIZE, SIZE)
    np.testing.assert_allclose(channels, [np.cos(phase), np.sin(phase)], atol=2e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16])
@pytest.mark.parametrize("function", [metalens.phase, metalens.wrapped_phase, metalens.channels])
def test_dtype_of_params_is_kept(function, dtype):
    with jax.enable_x64(True):
        params = jax.ShapeDtypeStruct((5,), dtype)
        assert jax.eval_shape(lambda p: function(p, 4), params).dtype == dtype


def test_integer_params_make_a_floating_phase():
    phase = image(jnp.array([30, 40, 2, 1, 20]), 3)
    np.testing.assert_allclose(phase, reference([30, 40, 2, 1, 20], 3), rtol=1e-6)


@pytest.mark.parametrize("size", [1, 0, -3, 4.0, "4", None])
def test_bad_size_is_named(size):
    with pytest.raises(ValueError, match="size"):
        metalens.phase(jnp.ones(5), size)


@pytest.mark.parametrize("shape", [(4,), (2, 5), ()])
def test_bad_params_are_named(shape):
    with pytest.raises(ValueError, match="params"):
        metalens.phase(jnp.ones(shape), 4)


def test_constants_describe_five_params():
    lengths = {len(c) for c in (metalens.NAMES, metalens.LOWER, metalens.UPPER, metalens.UNITS)}
    assert lengths == {5}
    assert np.all(np.less(metalens.LOWER, metalens.UPPER))
