"""SciPy's Levenberg–Marquardt on the lens of `benchmarks.lens`, and the lens in NumPy."""

from typing import Any

import numpy as np

from benchmarks.lens import SIDE, SIZE, WAVELENGTH, WIDTH, Maps
from benchmarks.peers.jax_fits import STEPS


class NumpyLens:
    """Residual of the wrapped phase [rad] and its Jacobian, with as few passes as there are."""

    def __init__(self, dtype: str) -> None:
        axis = np.linspace(-SIDE / 2, SIDE / 2, SIZE).astype(dtype)
        self.x, self.y = axis[None, :], axis[:, None]
        self.dtype = np.dtype(dtype)

    def _parts(self, lens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
        xc, yc, focal = lens.astype(self.dtype)
        x, y = self.x + xc, self.y + yc
        return x, y, np.sqrt(x * x + (y * y + focal * focal)), focal

    def residual(self, lens: np.ndarray, turns: np.ndarray) -> np.ndarray:
        """Return the residual of a map, shape (n²,) [rad]."""
        x, y, root, focal = self._parts(lens)
        difference = (x * x + y * y) / ((root + focal) * self.dtype.type(WAVELENGTH)) - turns
        difference -= np.rint(difference)
        difference *= 2 * np.pi
        return difference.ravel()

    def jacobian(self, lens: np.ndarray, turns: np.ndarray) -> np.ndarray:
        """Return its derivatives, shape (n², 3) [rad/µm]."""
        x, y, root, focal = self._parts(lens)
        slopes = np.empty((SIZE, SIZE, 3))
        inverse = self.dtype.type(2 * np.pi / WAVELENGTH) / root
        np.multiply(x, inverse, out=slopes[..., 0])
        np.multiply(y, inverse, out=slopes[..., 1])
        np.multiply(focal - root, inverse, out=slopes[..., 2])
        return slopes.reshape(-1, 3)


def scipy_lm(
    residual: Any, jacobian: Any, maps: Maps, tolerance: float, *, data: str
) -> np.ndarray:
    """Fit one map after the other."""
    from scipy.optimize import least_squares

    lenses = []
    for one, start in zip(getattr(maps, data), maps.starts, strict=True):
        fit = least_squares(
            lambda x, one=one: np.asarray(residual(x, one), float),
            start.astype(float),
            jac=lambda x, one=one: np.asarray(jacobian(x, one), float),  # pyright: ignore[reportArgumentType]
            method="lm",
            x_scale=WIDTH,
            ftol=tolerance,
            xtol=tolerance,
            gtol=tolerance,
            max_nfev=STEPS,
        )
        lenses.append(fit.x)
    return np.array(lenses)
