"""A lens from slopes and curvatures of its phase, in closed form.

In units of turns and of the window's side, with x = xc/S, y = yc/S, κ = S/λ and R the distance from
the middle of the window to the focus, R² = x² + y² + (f/S)²,

    φ/2π = κ·√((x + u)² + (y + v)² + (f/S)²) − const

has at u = v = 0 the slopes g and curvatures h

    gᵤ = κx/R,   gᵥ = κy/R,
    hᵤᵤ = (κ² − gᵤ²)/κR,   hᵤᵥ = −gᵤgᵥ/κR,   hᵥᵥ = (κ² − gᵥ²)/κR.

In the directions across and along the slope they are h⊥ = κ/R and h∥ = (κ² − |g|²)/κR, so that

    κ² = |g|²·h⊥/(h⊥ − h∥),   R = κ/h⊥,

and the mixed curvature is 0, which tells whether the slopes were right. With the wavelength λ

    S = κλ,   (xc, yc) = S·R·g/κ,   f = S·R·√(1 − |g|²/κ²).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

_STEEPEST = 0.9998  # |g|/κ, the sine of the angle under which the window sees the focus
_FARTHEST = 800.0  # µm: no lens within the ranges is farther from its window


class Guess(NamedTuple):
    """A lens and how badly it fits.

    Attributes:
        lens: (xc, yc, S, focal_length) [µm].
        misfit: size of the mixed curvature [turns a window²]; infinite where slopes are too steep.
    """

    lens: Float[Array, "4"]
    misfit: Float[Array, ""]


def lens_from_slopes(
    slope: Float[Array, "2"],
    curvature: Float[Array, "3"],
    wavelength: Float[Array, ""],
    widest: float,
) -> Guess:
    """Return the lens with these slopes and curvatures in the middle of the window.

    Args:
        slope: (gᵤ, gᵥ) [turns a window].
        curvature: (hᵤᵤ, hᵤᵥ, hᵥᵥ) [turns a window²].
        wavelength: λ [µm].
        widest: greatest S [µm].
    """
    gu, gv = slope
    uu, uv, vv = curvature
    power = _nonzero(gu**2 + gv**2)
    along = (gu**2 * uu + 2 * gu * gv * uv + gv**2 * vv) / power
    beside = uu + vv - along
    cross = (gu * gv * (vv - uu) + (gu**2 - gv**2) * uv) / power
    most = widest / wavelength
    flat = (beside <= 0) | (beside <= along)  # noise: no lens is like this, steep ones are nearest
    ratio = jnp.abs(beside / _nonzero(beside - along))
    kappa = jnp.where(flat, most, jnp.sqrt(power * ratio))
    kappa = jnp.clip(kappa, jnp.sqrt(power) / _STEEPEST, most)
    sine = slope / kappa
    # From the trace, which is never 0 for a lens, so that R is right also where κ was clipped.
    distance = kappa * (2 - jnp.sum(sine**2)) / jnp.maximum(uu + vv, 1e-6)
    reach = jnp.minimum(distance * kappa * wavelength, _FARTHEST)
    height = jnp.sqrt(jnp.maximum(1 - jnp.sum(sine**2), 1e-6))
    lens = jnp.stack([reach * sine[0], reach * sine[1], kappa * wavelength, reach * height])
    return Guess(lens, jnp.where(power <= most**2, jnp.abs(cross), jnp.inf))


def _nonzero(x: Array) -> Array:
    return jnp.where(x == 0, 1, x)
