"""Checks of phase maps, wavelengths and starts, before anything is compiled."""

from typing import Any

import jax
import numpy as np

from refinejax.apps.metalens.cascade.scale import WAVELENGTH
from refinejax.apps.metalens.cascade.stages import SMALLEST
from refinejax.apps.metalens.notes import NOTE_START
from refinejax.physics import metalens


def check_maps(phase: Any) -> tuple[np.ndarray, bool]:
    """Return maps of shape (B, N, N), and whether there was just one without a sample axis.

    Args:
        phase: wrapped phase maps [rad].

    Raises:
        ValueError: for another shape, no maps, no floats.
    """
    maps = np.asarray(phase)
    if not np.issubdtype(maps.dtype, np.floating):
        raise ValueError(
            f"phase: expected floating-point radians, got dtype {maps.dtype}; convert gray levels "
            "with phase = 2 * np.pi * levels / number_of_levels - np.pi"
        )
    single = maps.ndim == 2
    maps = maps[None] if single else maps
    if maps.ndim != 3 or maps.shape[1] != maps.shape[2] or maps.shape[1] < 2:
        raise ValueError(f"phase: expected shape (B, N, N) with N ≥ 2, got {np.shape(phase)}")
    if not len(maps):
        raise ValueError("phase: empty batch; there is nothing to refine")
    return _reals("phase", maps, np.float64 if maps.itemsize > 4 else np.float32), single


def _reals(name: str, values: Any, dtype: Any) -> np.ndarray:
    """Return an array in the native float32 or float64 that JAX computes with.

    Raises:
        ValueError: for texts, complex numbers, objects.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{name}: expected real numbers, got dtype {values.dtype}")
    with np.errstate(over="ignore"):  # to ∞, which ends as the status of its sample
        return values.astype(jax.dtypes.canonicalize_dtype(dtype), copy=False)


def check_wavelengths(wavelength: Any, count: int) -> np.ndarray:
    """Return known wavelengths, shape (B,) [µm]; NaN where one is not known.

    Args:
        wavelength: one number, or shape (B,) [µm].
        count: B, how many maps.

    Raises:
        ValueError: for another shape, or numbers that are not µm.
    """
    values = _reals("wavelength", wavelength, float).astype(float)
    if values.shape not in ((), (1,), (count,)):
        raise ValueError(
            f"wavelength: expected one number or shape ({count},), got shape {values.shape}"
        )
    there = values[~np.isnan(values)]  # one that is NaN ends as the status of its sample
    _checked_lengths("wavelength", there)
    return np.broadcast_to(values, (count,))


def _checked_lengths(name: str, values: np.ndarray) -> np.ndarray:
    """Return wavelengths that are some, and in µm.

    Raises:
        ValueError: if they are not.
    """
    low, high = metalens.LOWER[WAVELENGTH], metalens.UPPER[WAVELENGTH]
    if not values.size or not np.all((values > 0) & np.isfinite(values)):
        raise ValueError(f"{name}: expected numbers above 0 [µm]")
    if not np.all((values >= low / 10) & (values <= high * 10)):
        raise ValueError(
            f"{name}: expected µm (visible light is {low} to {high}), got "
            f"{values.min():g} to {values.max():g}; nm / 1000 = µm"
        )
    return values


def check_lines(lines: Any, wavelength: Any, cascade: bool) -> np.ndarray:
    """Return the wavelengths of which it is one.

    Args:
        lines: wavelengths, shape (L,) [µm].
        wavelength: as given beside them.
        cascade: whether the cascade is the method.

    Raises:
        ValueError: names what does not fit.
    """
    if wavelength is not None:
        raise ValueError("lines: expected no wavelength beside them, got both; give one of the two")
    if not cascade:
        raise ValueError(
            f"lines: only the cascade chooses among them (method 'auto', maps of {SMALLEST} × "
            f"{SMALLEST} pixels or more); with another method, invert at each wavelength and "
            "compare the losses"
        )
    values = np.unique(_reals("lines", lines, float).astype(float))
    if values.ndim != 1 or not values.size:
        raise ValueError(f"lines: expected wavelengths [µm], got {lines!r}")
    return _checked_lengths("lines", values)


def read_starts(
    initial: Any, known: np.ndarray | None, count: int, dtype: Any
) -> tuple[np.ndarray, list[str]]:
    """Return starts of shape (B, 5), with the wavelength that is known, and notes on them.

    Args:
        initial: shape (B, 5) or (5,) [µm]; None for the middle of the ranges.
        known: wavelengths, shape (B,) [µm]; None if they are not known.
        count: B, how many maps.
        dtype: of the maps.

    Raises:
        ValueError: for another shape, or what are no numbers.
    """
    notes = []
    if initial is None:
        middle = (np.asarray(metalens.LOWER) + np.asarray(metalens.UPPER)) / 2
        initial, notes = np.broadcast_to(middle, (count, 5)), [NOTE_START]
    starts = np.array(_reals("initial", initial, dtype), ndmin=2)
    if starts.shape != (count, 5):
        raise ValueError(
            f"initial: expected shape ({count}, 5), {', '.join(metalens.NAMES)} [µm] for each map, "
            f"got {np.shape(initial)}"
        )
    if known is not None:
        starts[:, WAVELENGTH] = known
    return starts, notes
