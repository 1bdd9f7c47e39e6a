"""Standard errors where the noise of neighboring pixels is alike, against simulated scatter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refinejax import InverseProblem, Robust
from refinejax.apps.metalens.cascade.scale import OTHERS
from refinejax.diagnostics import covariance
from refinejax.physics import metalens
from refinejax.physics.noise import gaussian_field

SIZE = 64


def white(count, shape, std=0.2, seed=0):
    return std * np.random.default_rng(seed).normal(size=(count, *shape))


def field(count, shape, correlation, std=0.15):
    """Smooth fields with borders that reflect, as `physics.noise` makes them."""
    keys = jax.random.split(jax.random.key(1), count)
    draw = jax.jit(lambda k: gaussian_field(k, shape, correlation))
    return std * np.asarray(jax.lax.map(draw, keys), float)


def cut(count, size, power, std=0.15):
    """Stationary fields: windows of periodic ones that are four times as wide."""
    w = 2 * np.pi * np.fft.fftfreq(4 * size)
    amplitude = np.sqrt(power(w[:, None] ** 2 + w[None] ** 2))
    amplitude /= np.sqrt(np.mean(amplitude**2))
    waves = np.fft.fft2(white(count, amplitude.shape, 1.0, seed=2))
    return std * np.fft.ifft2(waves * amplitude).real[:, :size, :size]


def lens(size=SIZE):
    """The Jacobian of a lens of known wavelength, columns of length 1, (n, N, N)."""
    params = jnp.array([202.0, -165.0, 20.0, 0.5, 30.0])
    columns = jax.jacfwd(lambda p: metalens.phase(p, size))(params)
    columns = np.moveaxis(np.asarray(columns, float), -1, 0)[OTHERS]
    return columns / np.linalg.norm(columns, axis=(1, 2), keepdims=True)


def compare(columns, noise, **options):
    """Standard errors of linear fits, correlated and white, over the scatter of the fits."""
    design = columns.reshape(len(columns), -1).T
    count = len(noise)
    seen = np.isfinite(noise[0]).ravel()
    fits = np.linalg.lstsq(design[seen], noise.reshape(count, -1)[:, seen].T, rcond=None)[0].T
    single = jnp.asarray(columns, jnp.float32)
    problem = InverseProblem(lambda p: jnp.tensordot(p, single, 1), noise.astype(np.float32))
    params = fits.astype(np.float32)
    found = covariance(problem, params, noise="correlated", **options).std
    plain = covariance(problem, params, **options).std
    scatter = np.sqrt(np.mean(fits**2, axis=0))
    return tuple(np.sqrt(np.mean(std**2, axis=0)) / scatter for std in (found, plain))


NOISES = {
    "smooth": lambda count: field(count, (SIZE, SIZE), 15.0),
    "smooth and grain": lambda count: field(count, (SIZE, SIZE), 15.0) + white(count, (SIZE, SIZE)),
    "short": lambda count: field(count, (SIZE, SIZE), 4.0) + white(count, (SIZE, SIZE)),
    "stationary": lambda count: (
        cut(count, SIZE, lambda k: np.exp(-(10.0**2) * k)) + white(count, (SIZE, SIZE))
    ),
    "exponential": lambda count: cut(count, SIZE, lambda k: (0.01 + k) ** -1.5),
}


SLOW = [pytest.param(n, marks=() if n == "stationary" else pytest.mark.slow) for n in NOISES]


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_errors_under_correlated_noise_are_within_30_percent_of_the_scatter(name):
    found, plain = compare(lens(), NOISES[name](200))
    assert np.all((found > 0.7) & (found < 1.3)), found
    assert np.all(plain < 0.3), plain  # what one would have believed


@pytest.mark.slow
def test_errors_under_white_noise_are_those_for_white_noise():
    found, plain = compare(lens(), white(300, (SIZE, SIZE)))
    np.testing.assert_allclose(plain, 1, atol=0.1)
    np.testing.assert_allclose(found, 1, atol=0.15)
    rng = np.random.default_rng(5)
    rough = rng.normal(size=(3, SIZE, SIZE))  # changes from pixel to pixel: no low modes
    found, plain = compare(rough, white(20, (SIZE, SIZE)))
    np.testing.assert_allclose(found, plain, rtol=0.02)


@pytest.mark.slow
def test_missing_pixels_do_no_harm():
    noise = field(150, (SIZE, SIZE), 8.0) + white(150, (SIZE, SIZE))
    noise[:, np.random.default_rng(3).random((SIZE, SIZE)) < 0.1] = np.nan
    noise[:, 10:20, 30:40] = np.nan
    found, _ = compare(lens(), noise)
    assert np.all((found > 0.7) & (found < 1.3)), found


@pytest.mark.slow
def test_signals_and_channels():
    x = np.linspace(-1, 1, 256)
    columns = np.stack([np.ones_like(x), x])
    noise = field(300, (1, 256), 8.0)[:, 0] + white(300, (256,), 0.05)
    found, plain = compare(columns, noise)
    assert np.all((found > 0.7) & (found < 1.3)), found
    assert np.all(plain < 0.5), plain
    both = np.repeat(lens(48)[:, None], 2, axis=1)
    smooth = field(240, (48, 48), 8.0).reshape(120, 2, 48, 48)
    found, _ = compare(both, smooth + white(120, (2, 48, 48)))
    assert np.all((found > 0.7) & (found < 1.3)), found


def test_units_bounds_ranks_and_fits_without_residual():
    ramp = np.linspace(-1, 1, 32)
    u, v = np.meshgrid(ramp, ramp)
    columns = np.stack([u, v, u * v, u**2, u])  # the last is the first: not determined
    noise = field(2, (32, 32), 4.0).astype(np.float32)
    factor = jnp.array([1e6, 1.0, 1.0, 1e-6, 1.0])
    single = jnp.asarray(columns, jnp.float32)
    problem = InverseProblem(lambda p: jnp.tensordot(p * factor, single, 1), noise)
    found = covariance(problem, np.zeros((2, 5), np.float32), noise="correlated")
    np.testing.assert_array_equal(
        found.determined, np.tile([False, True, True, True, False], (2, 1))
    )
    np.testing.assert_array_equal(np.isnan(found.std), ~found.determined)
    four = InverseProblem(lambda p: jnp.tensordot(p, single[:4], 1), noise)
    zero = np.zeros((2, 4), np.float32)
    expected = covariance(four, zero, noise="correlated").std
    np.testing.assert_allclose((found.std * factor)[:, 1:4], expected[:, 1:], rtol=1e-2)
    times = four.replace(observation=1e-12 * noise)
    scaled = covariance(times, zero, noise="correlated").std
    np.testing.assert_allclose(scaled * 1e12, expected, rtol=1e-3)
    perfect = four.replace(observation=np.zeros_like(noise))
    found = covariance(perfect, zero, noise="correlated")
    assert found.rounded.all()
    assert np.all((found.std > 0) & (found.std < 1e-30))
    robust = covariance(Robust(four, scale=1e3), zero, noise="correlated").std
    np.testing.assert_allclose(robust, expected, rtol=1e-4)


def test_what_has_no_neighbors_is_refused():
    params = np.ones((2, 1), np.float32)
    pair = InverseProblem(lambda p: (p, p), (params, params))
    with pytest.raises(ValueError, match="one array"):
        covariance(pair, params, noise="correlated")
    number = InverseProblem(lambda p: p[0], params[:, 0])
    with pytest.raises(ValueError, match="one number"):
        covariance(number, params, noise="correlated")
    waves = InverseProblem(lambda p: p * (1 + 1j), params * np.complex64(1j))
    with pytest.raises(ValueError, match="reals"):
        covariance(waves, params, noise="correlated")
