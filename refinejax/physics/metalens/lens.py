"""The phase of a metalens seen through a square window.

A lens of focal length f, centered at the origin, delays light so that all of it arrives at the
focus in phase. A square window of side S centered at (xc, yc) sees, for u and v from −½ to ½,

    X = xc + S·u,   Y = yc + S·v,   φ(u, v) = 2π/λ · (√(X² + Y² + f²) − f)

(Aieta et al. 2012, Nano Letters 12, 4932: the hyperbolic phase profile). Observed is φ wrapped to
[−π, π). Params are (xc, yc, S, wavelength, focal_length), all in µm. Everything here is for one
sample; `jax.vmap` makes it a batch.

What to know before fitting it:

- **Scale degeneracy.** φ is homogeneous of degree 0: all five params times any c > 0 give the same
  φ. With the wavelength unknown, only the ratios of the params are determined.
- **Fringe ladder.** φ runs through thousands of radians, and the wrap leaves only the remainder. A
  loss has a local minimum for every fringe by which a param is off; and off axis, params that keep
  the slopes and move φ as a whole by 2πm (the rungs) fit almost as well as the truth.
- **float32** gives φ to about 5e-4 rad, the spacing of its numbers there (over the ranges: 3e-4
  root mean square, 2e-3 at worst). A residual below that holds no information.
"""

import math
import operator

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from refinejax.physics.phase import wrap

NAMES = ("xc", "yc", "S", "wavelength", "focal_length")
LOWER = (-500.0, -500.0, 1.0, 0.4, 10.0)
UPPER = (500.0, 500.0, 40.0, 0.7, 100.0)
UNITS = ("µm",) * 5
LASER_LINES = (0.405, 0.445, 0.532, 0.725)  # µm: laser diodes, and the doubled Nd:YAG laser


def pixel_grid(
    size: int, dtype: DTypeLike = float
) -> tuple[Float[Array, "n n"], Float[Array, "n n"]]:
    """Return the window coordinates (u, v) of the pixels of an n × n image.

        u[i, j] = −½ + j/(n − 1),   v[i, j] = −½ + i/(n − 1)

    Dimensionless, both ends included: u runs along columns, v along rows.

    Args:
        size: n, at least 2.
        dtype: of the coordinates.

    Raises:
        ValueError: size is not an integer, or below 2.
    """
    intervals = _checked_size(size) - 1
    # linspace(−½, ½, n), each number rounded once: symmetric to the last bit, which linspace is not
    axis = jnp.arange(-intervals, intervals + 1, 2).astype(dtype) / (2 * intervals)
    u, v = jnp.meshgrid(axis, axis, indexing="xy")
    return u, v


def phase_at(
    params: Float[Array, "5"], u: Float[Array, "..."], v: Float[Array, "..."]
) -> Float[Array, "..."]:
    """The unwrapped phase φ at window coordinates (u, v) [rad].

        φ = 2π/λ · r²/(√(r² + f²) + f),   r² = (xc + S·u)² + (yc + S·v)²

    This is √(r² + f²) − f without its cancellation: exact to rounding also where r ≪ f. It is
    smooth for f > 0; at f = 0 it is 2πr/λ, and NaN in r = 0.

    Args:
        params: (xc, yc, S, wavelength, focal_length) [µm].
        u: window coordinate along columns, dimensionless: of `pixel_grid`, every k-th of it,
            its blocks, any points.
        v: window coordinate along rows, dimensionless; it broadcasts with u.

    Returns:
        The phase, of the shape of the coordinates [rad].

    Raises:
        ValueError: params is not of shape (5,).
    """
    if jnp.shape(params) != (5,):
        raise ValueError(f"params must have shape (5,): {NAMES}; got {jnp.shape(params)}")
    xc, yc, side, wavelength, focal_length = params
    r2 = (xc + side * u) ** 2 + (yc + side * v) ** 2
    path = r2 / (jnp.sqrt(r2 + focal_length**2) + focal_length)
    return (2 * math.pi / wavelength) * path


def turns_at(
    params: Float[Array, "4"],
    wavelength: Float[Array, ""],
    u: Float[Array, "..."],
    v: Float[Array, "..."],
) -> Float[Array, "..."]:
    """Return φ/2π, the phase of `phase_at` in turns, for a wavelength that is known.

    In turns a phase is wrapped by taking off the nearest whole number, which is exact.

    Args:
        params: (xc, yc, S, focal_length) [µm].
        wavelength: λ [µm].
        u: window coordinate along columns, dimensionless.
        v: window coordinate along rows; it broadcasts with u.
    """
    xc, yc, side, focal_length = params
    r2 = (xc + side * u) ** 2 + (yc + side * v) ** 2
    return r2 / (jnp.sqrt(r2 + focal_length**2) + focal_length) / wavelength


def phase(params: Float[Array, "5"], size: int) -> Float[Array, "n n"]:
    """The unwrapped phase φ [rad] at the n × n pixels of the window, in the dtype of params.

    Args:
        params: (xc, yc, S, wavelength, focal_length) [µm].
        size: n, at least 2.

    Returns:
        The unwrapped phase [rad].

    Raises:
        ValueError: params is not of shape (5,); size is not an integer, or below 2.
    """
    dtype = jnp.result_type(jnp.asarray(params), float)  # integers too make a floating phase
    return phase_at(params, *pixel_grid(size, dtype))


def wrapped_phase(params: Float[Array, "5"], size: int) -> Float[Array, "n n"]:
    """The phase as observed: φ wrapped to [−π, π) [rad].

    Args:
        params: (xc, yc, S, wavelength, focal_length) [µm].
        size: n, at least 2.

    Returns:
        The wrapped phase [rad].

    Raises:
        ValueError: as `phase`.
    """
    return wrap(phase(params, size))


def channels(params: Float[Array, "5"], size: int) -> Float[Array, "2 n n"]:
    """The phase as networks and losses see it: cos φ, sin φ.

    Args:
        params: (xc, yc, S, wavelength, focal_length) [µm].
        size: n, at least 2.

    Returns:
        Two channels, dimensionless.

    Raises:
        ValueError: as `phase`.
    """
    # wrapped first: sines of thousands of radians are slow on some devices and poor on others
    observed = wrapped_phase(params, size)
    return jnp.stack([jnp.cos(observed), jnp.sin(observed)])


def _checked_size(size: int) -> int:
    try:
        size = operator.index(size)
    except TypeError:
        raise ValueError(f"size must be an integer, got {size!r}") from None
    if size < 2:
        raise ValueError(f"size must be at least 2, got {size}")
    return size
