import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from refinejax.physics import metalens, noise
from refinejax.physics.noise import COMPONENTS, PhaseNoise, apply_noise
from refinejax.physics.phase import wrap

KEY = jax.random.key(0)
LENS = jnp.array([60.0, -40.0, 12.0, 0.55, 40.0])
PHASE = jax.jit(metalens.phase, static_argnums=1)(LENS, 24)
CLEAN = jax.jit(metalens.wrapped_phase, static_argnums=1)(LENS, 24)
ADDED = ("field", "sinusoid", "grain")

# Shared, and their numbers traced: what takes time here is to compile.
FLAT = jnp.zeros((256, 256))

apply = jax.jit(apply_noise)
grain = jax.jit(noise.add_grain, static_argnums=3)
dead_pixels = jax.jit(noise.add_dead_pixels)

# What tells how an image was warped: ramps, since bilinear interpolation of them is exact.
WARPED_SIZE = 40
ROWS, COLUMNS = np.indices((WARPED_SIZE, WARPED_SIZE), dtype=np.float32)


@jax.jit
def lens_at(rows, columns):
    last = WARPED_SIZE - 1
    return metalens.phase_at(LENS, columns / last - 0.5, rows / last - 0.5)


@jax.jit
def warps(std, correlation):
    """Row ramp, column ramp, lens and wrapped lens, (200, 4, n, n), for 200 keys."""
    lens = lens_at(ROWS, COLUMNS)
    images = jnp.stack([ROWS, COLUMNS, lens, wrap(lens)])
    one = jax.vmap(noise.warp_phase, in_axes=(None, 0, None, None))
    return jax.vmap(one, in_axes=(0, None, None, None))(
        jax.random.split(KEY, 200), images, std, correlation
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def draws(component, shape, count, *numbers):
    """What a component adds to a flat phase, for many keys."""
    flat = jnp.zeros(shape)
    return jax.vmap(lambda key: component(key, flat, *numbers))(jax.random.split(KEY, count))


@functools.partial(jax.jit, static_argnums=(0, 1))
def fields(shape, count, correlation):
    keys = jax.random.split(KEY, count)
    return jax.vmap(lambda key: noise.gaussian_field(key, shape, correlation))(keys)


def noise_added(noisy, clean):
    """The wrapped difference, computed another way than the library does."""
    return np.angle(np.exp(1j * (np.asarray(noisy, np.float64) - np.asarray(clean, np.float64))))


def expected_covariance(size, correlation):
    """Of white noise through SciPy's reflecting Gaussian filter, divided by its own deviation."""
    kernel = gaussian_filter1d(np.eye(size), correlation, axis=0, mode="reflect", truncate=8)
    covariance = kernel @ kernel.T
    std = np.sqrt(np.diag(covariance))
    return covariance / np.outer(std, std)


# the second is longer than the image: its kernel is reflected many times
@pytest.mark.parametrize(("shape", "correlation"), [((10, 16), 2.0), ((10, 16), 15.0)])
def test_field_has_the_covariance_of_a_reflecting_convolution(shape, correlation):
    sample = np.asarray(fields(shape, 8000, correlation), np.float64)
    assert np.abs(sample.mean(axis=0)).max() < 5 / np.sqrt(8000)
    # every pixel by itself, borders and corners too: the variance of 8000 draws is within 1.6 %
    np.testing.assert_allclose(np.var(sample, axis=0), 1, atol=5 * 0.016)
    rows = np.einsum("bik,bjk->ij", sample, sample) / (len(sample) * shape[1])
    columns = np.einsum("bki,bkj->ij", sample, sample) / (len(sample) * shape[0])
    np.testing.assert_allclose(rows, expected_covariance(shape[0], correlation), atol=0.05)
    np.testing.assert_allclose(columns, expected_covariance(shape[1], correlation), atol=0.05)


def test_correlation_length_means_what_is_documented():
    sample = np.asarray(fields((40, 40), 400, 4.0), np.float64)[:, 12:28, 12:28]
    for lag in (4, 8):
        along_rows = np.mean(sample[:, lag:] * sample[:, :-lag])
        along_columns = np.mean(sample[..., lag:] * sample[..., :-lag])
        expected = np.exp(-(lag**2) / (4 * 4.0**2))
        np.testing.assert_allclose([along_rows, along_columns], expected, atol=0.06)


def test_field_without_correlation_is_white_and_with_infinite_one_constant():
    white = np.asarray(fields((40, 40), 400, 0.0))
    np.testing.assert_allclose(white.std(), 1, atol=0.05)
    assert abs(np.mean(white[..., 1:] * white[..., :-1])) < 0.05
    assert abs(np.mean(white[:, 1:] * white[:, :-1])) < 0.05
    constant = np.asarray(fields((10, 16), 8000, 1e4))
    np.testing.assert_allclose(np.ptp(constant, axis=(1, 2)), 0, atol=1e-5)


def test_warp_samples_the_lens_at_the_shifted_coordinates():
    row, column, lens, wrapped = np.moveaxis(np.asarray(warps(1.0, 5.0))[:4], 1, 0)
    exact = np.asarray(lens_at(row, column))
    inside = (slice(None), slice(6, -6), slice(6, -6))  # beyond, the lens goes on, the image not
    assert np.abs(exact - lens_at(ROWS, COLUMNS))[inside].max() > 1
    np.testing.assert_allclose(lens[inside], exact[inside], atol=5e-3)
    # interpolating the wrapped phase instead gives values that are in no lens
    assert np.abs(noise_added(wrapped, exact)[inside]).max() > 1


def test_shifts_have_the_stated_statistics():
    shifts = np.asarray(warps(1.5, 5.0))[:, :2] - np.stack([ROWS, COLUMNS])
    shifts = shifts[:, :, 10:-10, 10:-10]  # those that no border reflects
    np.testing.assert_allclose(shifts.std(axis=(0, 2, 3)), 1.5, rtol=0.08)
    a, b = shifts[:, 0], shifts[:, 1]
    assert abs(np.mean(a * b)) < 0.2  # independent
    lagged = [np.mean(s[:, 5:] * s[:, :-5]) / np.mean(s**2) for s in (a, b)]
    np.testing.assert_allclose(lagged, np.exp(-1 / 4), atol=0.05)


def test_warp_reflects_at_the_borders():
    warped = np.asarray(warps(5.0, 1e4))  # so smooth that one image has one shift
    for image, original in enumerate((ROWS, COLUMNS, np.asarray(lens_at(ROWS, COLUMNS)))):
        assert warped[:, image].min() >= original.min() - 1e-3
        assert warped[:, image].max() <= original.max() + 1e-3
    # beyond the border the ramp comes back down: it is neither held nor continued
    slopes = np.diff(warped[:, 1], axis=2)
    both = (slopes.max(axis=(1, 2)) > 0.99) & (slopes.min(axis=(1, 2)) < -0.99)
    assert both.mean() > 0.5


def test_phase_error_has_its_deviation_at_every_pixel():
    sample = np.asarray(draws(noise.add_field, (12, 16), 6000, 0.15, 15.0, 3.0))
    np.testing.assert_allclose(sample.std(axis=0), 0.15 * 0.9975, rtol=0.05)
    limit = 3 * 0.15
    np.testing.assert_allclose([sample.min(), sample.max()], [-limit, limit], rtol=1e-6)


def test_phase_error_is_clipped_in_deviations():
    sample = np.asarray(draws(noise.add_field, (12, 16), 6000, 0.5, 2.0, 1.0))
    assert np.abs(sample).max() <= 0.5
    share = np.mean(np.abs(sample) >= 0.5 * (1 - 1e-6))
    np.testing.assert_allclose(share, 0.3173, atol=0.03)  # of a normal beyond one deviation


@pytest.mark.parametrize(("row_waves", "column_waves"), [(3, 4), (-3, 4), (0, 5), (5, 0)])
def test_sinusoid_has_its_period_angle_and_amplitude(row_waves, column_waves):
    n = 60
    period = n / np.hypot(row_waves, column_waves)
    angle = np.degrees(np.arctan2(row_waves, column_waves))
    wave = draws(noise.add_sinusoid, (n, n), 1, 0.1, period, angle)[0]
    spectrum = np.abs(np.fft.fft2(wave)) / (n * n / 2)
    peaks = {(row_waves % n, column_waves % n), (-row_waves % n, -column_waves % n)}
    assert set(zip(*np.nonzero(spectrum > 0.01), strict=True)) == peaks
    np.testing.assert_allclose(spectrum.max(), 0.1, rtol=1e-3)


def test_default_sinusoid_has_a_period_of_50_px_along_the_diagonal():
    wave = np.asarray(draws(noise.add_sinusoid, (60, 60), 1)[0])
    np.testing.assert_allclose(wave[30:, :30], wave[:30, 30:], atol=1e-5)  # along the crests
    fine = draws(noise.add_sinusoid, (72, 72), 1, 0.1, 50.0 / np.sqrt(2))[0]
    np.testing.assert_allclose(fine[50:, 0], fine[:22, 0], atol=1e-5)  # 50/√2 at 45°: 50 down


def test_offset_of_the_sinusoid_is_uniform():
    sample = np.asarray(draws(noise.add_sinusoid, (60, 60), 500, 0.1, 12.0, 0.0))
    phasor = np.exp(1j * np.angle(np.fft.fft(sample[:, 0])[:, 5]))
    for harmonic in (1, 2):
        assert abs(np.mean(phasor**harmonic)) < 4 / np.sqrt(500)


def test_gaussian_grain():
    sample = np.asarray(grain(KEY, FLAT, 0.2, "gaussian"))
    np.testing.assert_allclose(sample.mean(), 0, atol=0.004)
    np.testing.assert_allclose(sample.std(), 0.2, rtol=0.02)
    for a, b in ((sample[1:], sample[:-1]), (sample[:, 1:], sample[:, :-1])):
        assert abs(np.mean(a * b)) < 0.02 * 0.2**2  # no correlation from pixel to pixel


@pytest.mark.parametrize("std", [0.2, 0.5])
def test_poisson_grain_is_a_centered_photon_count(std):
    sample = np.asarray(grain(KEY, FLAT, std, "poisson"), np.float64)
    np.testing.assert_allclose(sample.mean(), 0, atol=0.02 * std)
    np.testing.assert_allclose(sample.std(), std, rtol=0.02)
    np.testing.assert_allclose(np.mean((sample / std) ** 3), std, atol=0.06)
    counts = (sample + 1) / std**2
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-4)
    assert counts.min() >= -1e-4


@pytest.mark.parametrize("kind", noise.GRAINS)
@pytest.mark.parametrize("std", [0.0, 1e-5, 0.011])
def test_grain_of_little_or_no_strength(kind, std):
    sample = np.asarray(grain(KEY, FLAT, std, kind), np.float64)
    np.testing.assert_allclose(sample.std(), std, rtol=0.02)
    np.testing.assert_allclose(sample.mean(), 0, atol=0.02 * std)


def test_dead_pixels():
    dead = np.asarray(dead_pixels(KEY, FLAT, 0.01, 0.75))
    assert set(np.unique(dead)) == {0.0, 0.75}
    deviation = np.sqrt(0.01 * 0.99 / dead.size)
    np.testing.assert_allclose(np.mean(dead == 0.75), 0.01, atol=5 * deviation)


def test_pixels_that_are_not_dead_are_as_they_were():
    image = np.random.default_rng(0).normal(size=FLAT.shape).astype(np.float32)
    noisy = np.asarray(dead_pixels(KEY, image, 0.3, 0.75))
    np.testing.assert_array_equal(noisy, np.where(noisy == 0.75, 0.75, image))
    np.testing.assert_array_equal(dead_pixels(KEY, image, 0.0, 0.75), image)
    np.testing.assert_array_equal(dead_pixels(KEY, image, 1.0, 0.75), np.full(image.shape, 0.75))


def test_dead_pixels_may_be_missing_ones():
    dead = PhaseNoise.only("dead").replace(dead_density=0.2, dead_value=float("nan"))
    assert 0.1 < np.isnan(apply(dead, KEY, PHASE)).mean() < 0.3


def test_without_components_the_phase_is_wrapped_and_nothing_else():
    np.testing.assert_allclose(apply(PhaseNoise.none(), KEY, PHASE), CLEAN, atol=1e-6)


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_component_alone_changes_the_phase_and_wraps_it(name):
    noisy = np.asarray(apply(PhaseNoise.only(name).replace(dead_density=0.1), KEY, PHASE))
    assert np.abs(noise_added(noisy, CLEAN)).max() > 0.05
    assert noisy.min() >= -np.float32(np.pi)
    assert noisy.max() < np.float32(np.pi)


def test_components_act_in_their_order():
    numbers = {"dead_density": 0.1, "dead_value": 9.0}
    noisy, added, warped, dead = (
        np.asarray(apply(PhaseNoise.only(*names).replace(**numbers), KEY, PHASE))
        for names in (COMPONENTS, ADDED, ("warp",), ("dead",))
    )
    # dead pixels come after the warp and the grain, and the wrap after them
    reads = np.isclose(dead, 9 - 2 * np.pi)
    assert 0.05 < reads.mean() < 0.15
    np.testing.assert_allclose(noisy[reads], 9 - 2 * np.pi, rtol=1e-6)
    # what is added comes after the warp: it is not warped
    differences = noise_added(noisy, warped), noise_added(added, CLEAN)
    np.testing.assert_allclose(*(d[~reads] for d in differences), atol=1e-3)


def test_switching_others_off_leaves_the_draws_of_one():
    alone = [noise_added(apply(PhaseNoise.only(name), KEY, PHASE), CLEAN) for name in ADDED]
    together = noise_added(apply(PhaseNoise.only(*ADDED), KEY, PHASE), CLEAN)
    np.testing.assert_allclose(together, sum(alone), atol=1e-3)


def test_components_have_independent_keys():
    grain = noise_added(apply(PhaseNoise.only("grain"), KEY, PHASE), CLEAN) / 0.2
    dead = apply(PhaseNoise.only("dead").replace(dead_density=0.3), KEY, PHASE) == 0
    # with one key the pixels of low uniform draws, the dead ones, would have the low normal ones
    assert np.count_nonzero(dead) > 100
    assert abs(grain[dead].mean()) < 0.4


def test_the_key_decides():
    first, again = (apply(PhaseNoise.all(), KEY, PHASE) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = apply(PhaseNoise.all(), jax.random.key(1), PHASE)
    assert np.mean(other == first) < 0.1


def test_vmap_equals_one_by_one():
    keys = jax.random.split(KEY, 3)
    phases = np.asarray(PHASE) + np.arange(3, dtype=np.float32)[:, None, None]
    added = PhaseNoise.only(*ADDED)
    batch = jax.jit(jax.vmap(apply_noise, in_axes=(None, 0, 0)))(added, keys, phases)
    loop = [apply(added, key, one) for key, one in zip(keys, phases, strict=True)]
    np.testing.assert_allclose(noise_added(batch, np.stack(loop)), 0, atol=1e-4)


def test_jit_equals_no_jit():
    grain = PhaseNoise.only(
        "grain"
    )  # every operation by itself is slow to compile: one that is short
    compiled, eager = apply(grain, KEY, PHASE), apply_noise(grain, KEY, PHASE)
    np.testing.assert_allclose(noise_added(eager, compiled), 0, atol=1e-4)


def test_numbers_are_data_and_switches_static():
    traces = []

    @jax.jit
    def counted(noise, key, phase):
        traces.append(noise.components)
        return apply_noise(noise, key, phase)

    for std in (0.1, 0.2, 0.3):
        counted(PhaseNoise(components=("grain", "dead"), grain_std=std), KEY, PHASE)
    counted(PhaseNoise(components=("dead", "grain")), KEY, PHASE)  # the order is not the user's
    assert traces == [("grain", "dead")]


def test_numbers_may_be_a_batch():
    stds = jnp.array([0.0, 0.1, 0.4])
    sweep = jax.vmap(
        lambda std: apply_noise(PhaseNoise.only("grain").replace(grain_std=std), KEY, PHASE)
    )
    added = noise_added(jax.jit(sweep)(stds), CLEAN)
    np.testing.assert_allclose(added.std(axis=(1, 2)), stds, rtol=0.1, atol=1e-6)


def summed(config, phase):
    return apply_noise(config, KEY, phase).sum()


def test_derivatives_with_respect_to_the_numbers_and_the_phase():
    config = PhaseNoise(components=("sinusoid", "dead"), dead_density=0.1)
    by_number, by_phase = jax.jit(jax.grad(summed, argnums=(0, 1)))(config, PHASE)
    dead = np.asarray(apply(config, KEY, PHASE)) == 0
    assert 0.05 < dead.mean() < 0.15
    np.testing.assert_array_equal(by_phase, np.where(dead, 0.0, 1.0))
    np.testing.assert_allclose(by_number.dead_value, dead.sum())
    assert by_number.sinusoid_amplitude != 0


def test_derivative_of_poisson_grain_is_that_of_its_scale():
    def total(std):
        return noise.add_grain(KEY, jnp.zeros((8, 8)), std, "poisson").sum()

    value, slope = jax.jit(jax.value_and_grad(total))(0.2)
    np.testing.assert_allclose(slope, value / 0.2, rtol=1e-5)


@pytest.mark.parametrize("kind", noise.GRAINS)
def test_dtype_is_kept(kind):
    config = PhaseNoise(grain_kind=kind)
    with jax.enable_x64(True):
        for dtype in (jnp.float32, jnp.float64):
            shape = jax.eval_shape(apply_noise, config, KEY, PHASE.astype(dtype))
            assert shape.dtype == dtype
        numbers = jax.tree.map(np.float64, config)
        assert jax.eval_shape(apply_noise, numbers, KEY, PHASE).dtype == jnp.float32


def test_numpy_images_are_taken():
    image = np.asarray(PHASE, np.float64)
    noisy = apply_noise(PhaseNoise.none(), KEY, image)
    np.testing.assert_allclose(noisy, CLEAN, atol=1e-6)
    assert noise.add_grain(KEY, image).dtype == noisy.dtype == jnp.float32


def test_missing_pixels_stay_missing_and_do_not_spread():
    missing = PHASE.at[3, 4].set(jnp.nan)
    added = apply(PhaseNoise.only(*ADDED), KEY, missing)
    assert np.argwhere(np.isnan(added)).tolist() == [[3, 4]]
    warped = apply(PhaseNoise.only("warp").replace(warp_std=0.1), KEY, missing)
    assert {1} <= set(np.isnan(warped[2:5, 3:6]).ravel().tolist())
    assert np.isnan(warped).sum() <= 9


def test_defaults_are_those_of_the_issue():
    assert vars(PhaseNoise.all()) == {
        "warp_std": 1.0,
        "warp_correlation": 5.0,
        "field_std": 0.15,
        "field_correlation": 15.0,
        "field_clip": 3.0,
        "sinusoid_amplitude": 0.1,
        "sinusoid_period": 50.0,
        "sinusoid_angle": 45.0,
        "grain_std": 0.2,
        "dead_density": 4e-4,
        "dead_value": 0.0,
        "grain_kind": "gaussian",
        "components": ("warp", "field", "sinusoid", "grain", "dead"),
    }


@pytest.mark.parametrize("names", [("grian",), ("grain", "Dead"), ("",)])
def test_unknown_component_lists_the_valid_ones(names):
    with pytest.raises(ValueError, match="warp, field, sinusoid, grain, dead"):
        PhaseNoise.only(*names)


def test_unknown_grain_lists_the_valid_ones():
    with pytest.raises(ValueError, match=r"grain_kind.*gaussian, poisson"):
        PhaseNoise(grain_kind="salt")
    with pytest.raises(ValueError, match=r"kind.*gaussian, poisson"):
        noise.add_grain(KEY, PHASE, 0.2, "salt")


BAD_NUMBERS = {
    "warp_std": -1.0,
    "warp_correlation": -1,
    "field_std": float("inf"),
    "field_correlation": np.float32(-2),
    "field_clip": 0.0,
    "sinusoid_amplitude": -0.1,
    "sinusoid_period": 0.0,
    "grain_std": float("nan"),
    "dead_density": 1.5,
}


@pytest.mark.parametrize("name", BAD_NUMBERS)
def test_bad_number_is_named(name):
    with pytest.raises(ValueError, match=name):
        PhaseNoise(**{name: BAD_NUMBERS[name]})
    with pytest.raises(ValueError, match=name):
        PhaseNoise.all().replace(**{name: BAD_NUMBERS[name]})


@pytest.mark.parametrize(
    ("component", "name", "value"),
    [
        (noise.warp_phase, "std", -1.0),
        (noise.warp_phase, "correlation", -1.0),
        (noise.add_field, "clip", -1.0),
        (noise.add_sinusoid, "period", 0.0),
        (noise.add_grain, "std", -0.1),
        (noise.add_dead_pixels, "density", -0.1),
    ],
)
def test_bad_number_of_a_component_is_named(component, name, value):
    with pytest.raises(ValueError, match=name):
        component(KEY, PHASE, **{name: value})


@pytest.mark.parametrize("phase", [np.zeros(3), np.zeros((2, 3, 3)), np.zeros((3, 3), int)])
def test_bad_phase_is_named(phase):
    with pytest.raises(ValueError, match="phase"):
        apply_noise(PhaseNoise.none(), KEY, phase)


def test_a_level_scales_every_amplitude_and_0_is_no_noise():
    key, phase = jax.random.key(0), 3 * jnp.ones((8, 8))
    noise = PhaseNoise.all().replace(dead_density=0.5)
    half = noise.scaled(0.5)
    assert half.components == noise.components
    assert (half.warp_std, half.field_std) == (0.5 * noise.warp_std, 0.5 * noise.field_std)
    assert (half.grain_std, half.dead_density) == (0.5 * noise.grain_std, 0.25)
    assert half.sinusoid_amplitude == 0.5 * noise.sinusoid_amplitude
    assert half.field_correlation == noise.field_correlation
    np.testing.assert_allclose(apply_noise(noise.scaled(0.0), key, phase), phase, rtol=1e-6)
    with pytest.raises(ValueError, match="dead_density must be between 0 and 1"):
        noise.scaled(3.0)
