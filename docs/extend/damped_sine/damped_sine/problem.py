"""The forward model of a damped sine, its parameters, and the fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from refinejax import BatchResult, ParameterSpace, refine
from refinejax.batch import Execution

SPACE = ParameterSpace.create(
    names=["height", "decay", "frequency"],
    lower=[0.0, 0.0, 0.05],
    upper=[10.0, 5.0, 5.0],
    units=["V", "1/s", "Hz"],
)


def damped_sine(params: Float[Array, "3"], times: Float[Array, " n"]) -> Float[Array, " n"]:
    """Return height · exp(−decay · t) · sin(2π · frequency · t).

    Args:
        params: height [V], decay [1/s], frequency [Hz].
        times: when the signal is observed [s].
    """
    height, decay, frequency = params
    return height * jnp.exp(-decay * times) * jnp.sin(2 * jnp.pi * frequency * times)


def guess(times: np.ndarray, signals: np.ndarray) -> np.ndarray:
    """Return where to start: the frequency by a Fourier transform, one decay a window.

    Args:
        times: equally spaced, shape (n,) [s].
        signals: shape (B, n) [V].

    Returns:
        Params of shape (B, 3) [V, 1/s, Hz], within `SPACE`.
    """
    step, count = times[1] - times[0], 4 * len(times)  # zeros between the lines of the spectrum
    spectrum = np.abs(np.fft.rfft(np.nan_to_num(signals), count, axis=1))
    frequency = np.fft.rfftfreq(count, step)[np.argmax(spectrum, axis=1)]
    height = np.nanmax(np.abs(signals), axis=1)
    decay = np.full_like(height, 1 / (times[-1] - times[0]))
    return np.asarray(SPACE.clip(np.stack([height, decay, frequency], axis=1)))


def fit(
    times: np.ndarray,
    signals: np.ndarray,
    noise: float,
    *,
    execution: Execution | None = None,
    progress: bool = False,
) -> BatchResult:
    """Fit damped sines by least squares, all at once.

    Args:
        times: when the signals are observed, shape (n,) [s].
        signals: shape (B, n) [V]; NaN where missing.
        noise: standard deviation of a signal [V].
        execution: as for `refinejax.refine`.
        progress: as for `refinejax.refine`.

    Returns:
        Its ``params`` have shape (B, 3) [V, 1/s, Hz], ``std`` their standard errors.
    """
    result = refine(
        damped_sine,
        signals,
        guess(times, signals),
        context=np.broadcast_to(times, np.shape(signals)),
        bounds=SPACE,
        noise=noise,
        method="lm",
        execution=execution,
        progress=progress,
    )
    return dataclasses.replace(result, std=result.covariance().std)


def predict(times: np.ndarray, params: np.ndarray) -> np.ndarray:
    """Return the signals of many params, shape (B, n) [V].

    Args:
        times: shape (n,) [s].
        params: shape (B, 3) [V, 1/s, Hz].
    """
    return np.asarray(jax.vmap(damped_sine, in_axes=(0, None))(jnp.asarray(params), times))


def rmse(times: np.ndarray, signals: np.ndarray, params: np.ndarray) -> np.ndarray:
    """Return the root mean square of each residual, shape (B,) [V].

    Args:
        times: shape (n,) [s].
        signals: shape (B, n) [V].
        params: shape (B, 3) [V, 1/s, Hz].
    """
    return np.sqrt(np.nanmean((predict(times, params) - signals) ** 2, axis=1))


def simulate(count: int, noise: float, seed: int) -> dict[str, np.ndarray]:
    """Draw damped sines under Gaussian noise.

    Args:
        count: B, how many.
        noise: standard deviation [V].
        seed: of the random numbers.

    Returns:
        ``times`` (n,) [s], ``signals`` (B, n) [V] and ``truth`` (B, 3).
    """
    random = np.random.default_rng(seed)
    times = np.linspace(0, 5, 200)
    truth = random.uniform([1.0, 0.2, 0.5], [2.0, 1.0, 3.0], (count, 3))
    clean = predict(times, truth)
    signals = clean + noise * random.normal(size=clean.shape)
    return {"times": times, "signals": signals, "truth": truth}
