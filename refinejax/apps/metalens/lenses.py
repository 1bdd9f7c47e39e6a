"""Lenses and their maps: ranges, predictions, residuals, simulated maps."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from refinejax.apps.metalens.cascade.scale import OTHERS, WAVELENGTH
from refinejax.physics import metalens
from refinejax.physics.noise import PhaseNoise, apply_noise
from refinejax.physics.phase import phase_rmse
from refinejax.problems import ParameterSpace


def space(*, wavelength: bool = True) -> ParameterSpace:
    """Return names, ranges and units of the params, with or without the wavelength [µm].

    Args:
        wavelength: whether to include it.
    """
    chosen = range(len(metalens.NAMES)) if wavelength else OTHERS
    return ParameterSpace.create(
        [metalens.NAMES[i] for i in chosen],
        [metalens.LOWER[i] for i in chosen],
        [metalens.UPPER[i] for i in chosen],
        [metalens.UNITS[i] for i in chosen],
    )


@functools.cache
def lens_map(size: int, known: bool) -> Any:
    """Return the forward model for maps of a size: the same function each time (it is static).

    Args:
        size: N, pixels along a side.
        known: whether the wavelength is known, and the context.
    """
    if not known:
        return lambda params: metalens.phase(params, size)

    def four(params: Float[Array, "4"], wavelength: Array) -> Array:
        return metalens.phase(jnp.insert(params, WAVELENGTH, wavelength), size)

    return four


def predict(params: Any, size: int) -> np.ndarray:
    """Return the wrapped phase map of one lens, shape (N, N) [rad].

    Args:
        params: of one lens, shape (5,) [µm].
        size: N, pixels along a side.
    """
    return np.asarray(metalens.wrapped_phase(jnp.asarray(params), size))


def residual_rmse(phase: Any, params: Any) -> np.ndarray:
    """Return the root mean square of the wrapped residual of each map, shape (B,) [rad].

    Args:
        phase: wrapped phase maps [rad].
        params: shape (B, 5) [µm].
    """
    maps, params = np.asarray(phase), np.asarray(params)
    return np.asarray(_rmse(params.astype(maps.dtype), maps))


@jax.jit
def _rmse(params: Array, maps: Array) -> Array:
    size = maps.shape[-1]
    return jax.lax.map(
        lambda pair: phase_rmse(metalens.phase(pair[0], size), pair[1]),
        (params, maps),
        batch_size=32,
    )


def simulate(
    count: int,
    size: int,
    *,
    noise: PhaseNoise | None = None,
    error: float | None = None,
    key: Any = 0,
) -> dict[str, np.ndarray]:
    """Make phase maps of lenses drawn uniformly from the ranges.

    Args:
        count: B, how many.
        size: N, pixels along each side.
        noise: of measurement and fabrication; none by default.
        error: if given, also ``initial``: the truth plus Gaussian errors with this share of each
            range as standard deviation, as a network would predict it, within the ranges.
        key: seed or PRNG key.

    Returns:
        ``phase`` (B, N, N) [rad], ``truth`` (B, 5) [µm], ``wavelength`` (B,) [µm], and ``initial``
        (B, 5) [µm], all float32.

    Raises:
        ValueError: for a count below 1, a size below 2, or a negative error.
    """
    if count < 1:
        raise ValueError(f"count: expected 1 or more, got {count}")
    if error is not None and not 0 <= error < np.inf:
        raise ValueError(f"error: expected a share of each range of 0 or more, got {error}")
    keys = jax.random.split(jax.random.key(key) if isinstance(key, int) else key, 3)
    box = space()
    truth = box.sample(keys[0], count).astype(jnp.float32)
    noise = PhaseNoise.none() if noise is None else noise
    maps = _simulate(truth, jax.random.split(keys[1], count), noise, size)
    made = {"phase": maps, "truth": truth, "wavelength": truth[:, WAVELENGTH]}
    if error is not None:
        spread = error * (box.upper - box.lower)
        made["initial"] = box.clip(truth + spread * jax.random.normal(keys[2], truth.shape))
    return {name: np.asarray(array, np.float32) for name, array in made.items()}


@functools.partial(jax.jit, static_argnames="size")
def _simulate(truth: Array, keys: Array, noise: PhaseNoise, size: int) -> Array:
    one = lambda pair: apply_noise(noise, pair[1], metalens.phase(pair[0], size))  # noqa: E731
    return jax.lax.map(one, (truth, keys), batch_size=32)


def widen(some: np.ndarray, all_: np.ndarray, columns: list[int]) -> np.ndarray:
    """Put columns in their places among all five.

    Args:
        some: values of some columns.
        all_: values of all columns, shape (B, 5).
        columns: which columns.

    Returns:
        Values of all columns, shape (B, 5).
    """
    wide = np.array(all_)
    wide[:, columns] = some
    return wide


def insert_wavelength(lenses: np.ndarray, wavelength: np.ndarray) -> np.ndarray:
    """Return all five params.

    Args:
        lenses: shape (B, 4) [µm].
        wavelength: shape (B,) [µm].
    """
    return np.insert(lenses, WAVELENGTH, wavelength, axis=1).astype(lenses.dtype)


def touches_bound(params: np.ndarray, *, known: bool) -> np.ndarray:
    """Return which params are on their bounds; a wavelength that was given is on none.

    Args:
        params: shape (B, 5) [µm].
        known: whether the wavelengths were given.
    """
    lower, upper = (np.asarray(bound, params.dtype) for bound in space().bounds)
    touches = (params <= lower) | (params >= upper)
    touches[:, WAVELENGTH] &= not known
    return touches
