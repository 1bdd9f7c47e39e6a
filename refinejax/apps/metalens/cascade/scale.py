"""The scale of a lens whose wavelength is not known.

All five params times c > 0 give the same phase. A fit at any wavelength is therefore as good as one
at another; the multiple nearest to the start, within the ranges, is returned.
"""

import math

import numpy as np

from refinejax.physics.metalens.lens import LOWER, NAMES, UPPER
from refinejax.problems import ParameterSpace

WAVELENGTH = NAMES.index("wavelength")
OTHERS = [i for i, name in enumerate(NAMES) if name != "wavelength"]
REFERENCE = math.sqrt(LOWER[WAVELENGTH] * UPPER[WAVELENGTH])  # µm


def reference_space(
    shortest: float = LOWER[WAVELENGTH], longest: float = UPPER[WAVELENGTH]
) -> ParameterSpace:
    """Return bounds at the reference wavelength for all lenses within the ranges.

    Args:
        shortest: wavelength of any lens [µm].
        longest: wavelength of any lens [µm].
    """
    small, large = REFERENCE / longest, REFERENCE / shortest
    lower = [LOWER[i] * (small if LOWER[i] > 0 else large) for i in OTHERS]
    return ParameterSpace.create(
        [NAMES[i] for i in OTHERS], lower, [UPPER[i] * large for i in OTHERS], ["µm"] * len(OTHERS)
    )


def nearest_multiple(params: np.ndarray, near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the multiple of each lens nearest to a point, within the ranges.

    Distances are in units of the ranges. Where no multiple is within them, the one that is least
    outside is put on the bounds.

    Args:
        params: shape (B, 5) [µm].
        near: shape (B, 5) [µm]. Where it is NaN, the lens stays as it is, if that is within.

    Returns:
        Params of shape (B, 5), and whether a multiple was within the ranges, shape (B,).
    """
    lower, upper = np.array(LOWER), np.array(UPPER)
    width = upper - lower
    scaled, wanted = params.astype(float) / width, near / width
    best = np.sum(scaled * wanted, axis=1) / np.sum(scaled**2, axis=1)
    best = np.where(np.isfinite(best), best, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.stack([lower / params, upper / params])
        least = np.max(np.where(lower > 0, ends.min(0), 0), axis=1)
        most = np.min(np.where(params == 0, np.inf, ends.max(0)), axis=1)
    factor = np.where(least <= most, np.clip(best, least, most), (least + most) / 2)
    found = (params * factor[:, None]).astype(params.dtype)
    dtype = params.dtype
    return np.clip(found, lower.astype(dtype), upper.astype(dtype)), least <= most
