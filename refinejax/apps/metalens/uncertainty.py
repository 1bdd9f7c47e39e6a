"""How far the params of lenses are determined by their maps."""

import numpy as np

from refinejax.apps.metalens.cascade.scale import WAVELENGTH
from refinejax.apps.metalens.lenses import lens_map, residual_rmse, space
from refinejax.batch import BatchResult
from refinejax.diagnostics import Fit
from refinejax.physics import metalens
from refinejax.physics.phase import wrapped_difference
from refinejax.problems import InverseProblem

_KNOWN = 1.0  # rad; above it a fit explains little (π/√3 = 1.81 is a random phase)


def lens_fit(maps: np.ndarray, *, known: bool) -> Fit:
    """Return the problem in all five params, for diagnostics; a known wavelength is fixed.

    Args:
        maps: shape (B, N, N) [rad].
        known: whether the wavelengths are known, and fixed.
    """
    problem = InverseProblem(
        lens_map(maps.shape[-1], False), maps, difference=wrapped_difference, space=space()
    )
    return Fit(problem, fixed=("wavelength",) if known else (), noise_given=False)


def standard_errors(maps: np.ndarray, result: BatchResult, fit: Fit) -> np.ndarray:
    """Return standard errors (B, 5), NaN where the fit explains little.

    Args:
        maps: shape (B, N, N) [rad].
        result: the fits.
        fit: the problem of the maps.
    """
    std = fit.covariance(result.params).std.astype(result.params.dtype)
    lost = ~(residual_rmse(maps, result.params) < _KNOWN)
    unknown = lost[:, None] & (np.arange(len(metalens.NAMES)) != WAVELENGTH)
    return np.where(unknown, std.dtype.type(np.nan), std)
