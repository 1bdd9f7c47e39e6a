"""Phase maps of a lens near its axis with three unknowns: where it stands and its focal length.

64 × 64 pixels over 30 µm, wavelength 0.55 µm; starts off by 1 % of the ranges (σ). A clean
map is solved where the residual RMSE is at most 2e-3 rad. In turns (φ/2π) the model is
r²/(√(r² + f²) + f)/λ, r² = (xc + S·u)² + (yc + S·v)².
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

SIZE = 64
SIDE, WAVELENGTH = 30.0, 0.55  # µm
LOWER, UPPER = np.array([-20.0, -20.0, 60.0]), np.array([20.0, 20.0, 100.0])  # xc, yc, f [µm]
WIDTH = UPPER - LOWER
ERROR = 0.01
SOLVED = 2e-3  # rad


class Maps(NamedTuple):
    """Phase maps in turns, shape (B, 64, 64); where to start, and the truth, shape (B, 3) [µm]."""

    turns: np.ndarray
    starts: np.ndarray
    truth: np.ndarray

    @property
    def radians(self) -> np.ndarray:
        """The maps in radians."""
        return np.float32(2 * np.pi) * self.turns

    def first(self, count: int) -> "Maps":
        """Return the first of them."""
        return Maps(*(part[:count] for part in self))


def turns_at(lens: Array, u: Array, v: Array) -> Array:
    """Return the phase at window coordinates (u, v), elementwise [turns]."""
    xc, yc, focal = lens
    r2 = (xc + SIDE * u) ** 2 + (yc + SIDE * v) ** 2
    return r2 / (jnp.sqrt(r2 + focal**2) + focal) / WAVELENGTH


def image(lens: Array) -> Array:
    """Return the phase map [rad], written without tuning."""
    axis = jnp.linspace(-SIDE / 2, SIDE / 2, SIZE)
    x, y = jnp.meshgrid(lens[0] + axis, lens[1] + axis)
    path = jnp.sqrt(x**2 + y**2 + lens[2] ** 2) - lens[2]
    return 2 * jnp.pi / WAVELENGTH * path


def simulate(count: int, seed: int, error: float = ERROR) -> Maps:
    """Draw lenses from the ranges and starts near them; float32, from maps in float64."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(LOWER, UPPER, (count, 3))
    starts = np.clip(truth + error * WIDTH * rng.normal(size=(count, 3)), LOWER, UPPER)
    turns = exact(truth)
    turns = turns - np.round(turns)
    return Maps(turns.astype(np.float32), starts.astype(np.float32), truth)


def exact(lenses: np.ndarray) -> np.ndarray:
    """Return the phase maps of lenses, shape (B, 3), in float64 [turns]."""
    axis = np.linspace(-SIDE / 2, SIDE / 2, SIZE)
    xc, yc, focal = np.asarray(lenses, float).T[..., None, None]
    r2 = (xc + axis) ** 2 + (yc + axis[:, None]) ** 2
    return r2 / (np.sqrt(r2 + focal**2) + focal) / WAVELENGTH


def solved(maps: Maps, lenses: np.ndarray) -> np.ndarray:
    """Return whether each map is explained; for as many maps as there are lenses."""
    difference = exact(lenses) - exact(maps.truth[: len(lenses)])
    difference = 2 * np.pi * (difference - np.round(difference))
    return np.sqrt(np.mean(difference**2, axis=(1, 2))) <= SOLVED
