"""Measurement and fabrication noise of phase maps, each component switchable, from one key.

In the order in which light meets them: a smooth warp of the coordinates (the pixels of the lens are
not where they should be), a smooth phase error, a weak sinusoid (interference in the instrument),
grain of the sensor, dead pixels; then the phase is wrapped.

Each component is a function (key, image, numbers) → image of the same shape and dtype, for one
image; `jax.vmap` makes it a batch. Lengths are in px. Missing pixels (NaN) stay missing unless they
are dead; the warp moves them, and loses the pixels that it interpolates from them.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct
from jax import random
from jax.scipy.ndimage import map_coordinates
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from refinejax.physics.fields import Number, check_names, check_numbers
from refinejax.physics.fields import gaussian_field as gaussian_field
from refinejax.physics.phase import wrap

COMPONENTS = ("warp", "field", "sinusoid", "grain", "dead")
GRAINS = ("gaussian", "poisson")
_AMPLITUDES = ("warp_std", "field_std", "sinusoid_amplitude", "grain_std", "dead_density")


class PhaseNoise(struct.PyTreeNode):
    """The noise of a phase map: kinds and sizes. Numbers are leaves; switches are static.

    `apply_noise` applies it.

    Attributes:
        warp_std: standard deviation of the shift of a pixel along each axis [px].
        warp_correlation: its correlation length, as in `gaussian_field` [px].
        field_std: standard deviation of the smooth phase error, before clipping [rad].
        field_correlation: its correlation length, as in `gaussian_field` [px].
        field_clip: where it is clipped, in standard deviations.
        sinusoid_amplitude: [rad].
        sinusoid_period: [px].
        sinusoid_angle: of the direction in which it runs, from columns (u) to rows (v) [degree].
        grain_std: standard deviation of the phase of a pixel [rad].
        dead_density: probability that a pixel is dead.
        dead_value: what a dead pixel reads [rad]; NaN makes it a missing one.
        grain_kind: "gaussian", or "poisson" for shot noise. Static.
        components: the ones switched on, of COMPONENTS. Static.

    Raises:
        ValueError: a number is outside its range (Python and NumPy numbers are checked, arrays are
            data), a component or kind of grain is unknown.
    """

    warp_std: Number = 1.0
    warp_correlation: Number = 5.0
    field_std: Number = 0.15
    field_correlation: Number = 15.0
    field_clip: Number = 3.0
    sinusoid_amplitude: Number = 0.1
    sinusoid_period: Number = 50.0
    sinusoid_angle: Number = 45.0
    grain_std: Number = 0.2
    dead_density: Number = 4e-4
    dead_value: Number = 0.0
    grain_kind: Literal["gaussian", "poisson"] = struct.field(pytree_node=False, default="gaussian")
    components: tuple[str, ...] = struct.field(pytree_node=False, default=COMPONENTS)

    def __post_init__(self):
        check_numbers(
            "finite and ≥ 0",
            warp_std=self.warp_std,
            warp_correlation=self.warp_correlation,
            field_std=self.field_std,
            field_correlation=self.field_correlation,
            sinusoid_amplitude=self.sinusoid_amplitude,
            grain_std=self.grain_std,
        )
        check_numbers("> 0", field_clip=self.field_clip, sinusoid_period=self.sinusoid_period)
        check_numbers("between 0 and 1", dead_density=self.dead_density)
        check_names("grain_kind", (self.grain_kind,), GRAINS)
        check_names("components", self.components, COMPONENTS)
        # one order: the same components are the same static value, and compile once
        ordered = tuple(name for name in COMPONENTS if name in self.components)
        object.__setattr__(self, "components", ordered)

    @classmethod
    def all(cls) -> "PhaseNoise":
        """Every component."""
        return cls()

    @classmethod
    def none(cls) -> "PhaseNoise":
        """No component: the phase is wrapped, and nothing else."""
        return cls(components=())

    @classmethod
    def only(cls, *names: str) -> "PhaseNoise":
        """These components, with the default numbers; `.replace` changes them.

        Args:
            names: of COMPONENTS.

        Returns:
            The noise.

        Raises:
            ValueError: a name is not in COMPONENTS.
        """
        return cls(components=names)

    def scaled(self, level: Number) -> "PhaseNoise":
        """The same noise, every amplitude times a level, and the density of dead pixels too.

        Args:
            level: factor.

        Returns:
            The noise.

        Raises:
            ValueError: a density above 1, a negative number.
        """
        return self.replace(**{name: level * getattr(self, name) for name in _AMPLITUDES})


def apply_noise(
    noise: PhaseNoise, key: Key[Array, ""], phase: Float[Array, "rows columns"]
) -> Float[Array, "rows columns"]:
    """Apply the components of noise that are switched on, in the order of COMPONENTS, and wrap.

    The key of a component is fold_in(key, its place in COMPONENTS): switching one off, or changing
    its numbers, leaves the random draws of the others as they were.

    Args:
        noise: which components, and how much of each.
        key: for all of them.
        phase: *unwrapped* [rad]; see `warp_phase`.

    Returns:
        The noisy phase, wrapped to [−π, π) [rad].

    Raises:
        ValueError: phase is not a two-dimensional array of floats.
    """
    if jnp.ndim(phase) != 2 or not jnp.issubdtype(jnp.result_type(phase), jnp.floating):
        raise ValueError(
            f"phase must be a two-dimensional array of floats, got shape {jnp.shape(phase)} of "
            f"{jnp.result_type(phase)}; jax.vmap applies noise to a batch"
        )
    phase = jnp.asarray(phase)
    for place, name in enumerate(COMPONENTS):
        if name in noise.components:
            phase = _apply_one(noise, name, random.fold_in(key, place), phase)
    return wrap(phase)


def _apply_one(noise: PhaseNoise, name: str, key: Array, phase: Array) -> Array:
    match name:
        case "warp":
            return warp_phase(key, phase, noise.warp_std, noise.warp_correlation)
        case "field":
            return add_field(key, phase, noise.field_std, noise.field_correlation, noise.field_clip)
        case "sinusoid":
            return add_sinusoid(
                key,
                phase,
                noise.sinusoid_amplitude,
                noise.sinusoid_period,
                noise.sinusoid_angle,
            )
        case "grain":
            return add_grain(key, phase, noise.grain_std, noise.grain_kind)
        case _:
            return add_dead_pixels(key, phase, noise.dead_density, noise.dead_value)


def warp_phase(
    key: Key[Array, ""],
    phase: Float[Array, "rows columns"],
    std: Number = 1.0,
    correlation: Number = 5.0,
) -> Float[Array, "rows columns"]:
    """Sample the phase at smoothly shifted coordinates.

        φ'(i, j) = φ(i + a(i, j), j + b(i, j)),  a, b = std · independent `gaussian_field`s

    Beyond the borders φ is reflected (d c b a | a b c d). Interpolation is bilinear, and right only
    for the *unwrapped* phase, which is smooth: across a jump of 2π in a wrapped one it would invent
    values in between. It is off by at most ⅛ of the second difference of φ along each axis.

    Args:
        key: the shifts.
        phase: unwrapped [rad].
        std: of the shift along each axis [px].
        correlation: its correlation length, as in `gaussian_field` [px].

    Returns:
        The phase at the shifted coordinates, unwrapped [rad].

    Raises:
        ValueError: std or correlation is negative or not finite.
    """
    check_numbers("finite and ≥ 0", std=std, correlation=correlation)
    phase = jnp.asarray(phase)
    pixels = jnp.indices(phase.shape, dtype=phase.dtype)
    coordinates = [
        pixel + std * gaussian_field(axis_key, phase.shape, correlation, phase.dtype)
        for pixel, axis_key in zip(pixels, random.split(key), strict=True)
    ]
    return map_coordinates(phase, coordinates, order=1, mode="reflect")


def add_field(
    key: Key[Array, ""],
    phase: Float[Array, "rows columns"],
    std: Number = 0.15,
    correlation: Number = 15.0,
    clip: Number = 3.0,
) -> Float[Array, "rows columns"]:
    """Add a smooth phase error, std · clip(`gaussian_field`, ±clip).

    Args:
        key: the field.
        phase: [rad].
        std: of the error at every pixel, before clipping [rad]; clipping at 3 takes 0.25 % off it.
        correlation: its correlation length, as in `gaussian_field` [px].
        clip: in standard deviations.

    Returns:
        The phase with the error [rad].

    Raises:
        ValueError: std or correlation is negative or not finite; clip is not above 0.
    """
    check_numbers("finite and ≥ 0", std=std)
    check_numbers("> 0", clip=clip)
    phase = jnp.asarray(phase)
    field = gaussian_field(key, phase.shape, correlation, phase.dtype)
    return (phase + std * jnp.clip(field, -clip, clip)).astype(phase.dtype)


def add_sinusoid(
    key: Key[Array, ""],
    phase: Float[Array, "rows columns"],
    amplitude: Number = 0.1,
    period: Number = 50.0,
    angle: Number = 45.0,
) -> Float[Array, "rows columns"]:
    """Add a plane wave.

        amplitude · sin(2π·(j·cos α + i·sin α)/period + offset)  at row i, column j

    Args:
        key: the offset, uniform in [0, 2π).
        phase: [rad].
        amplitude: [rad].
        period: along the direction in which it runs [px].
        angle: α, of that direction, from columns (u) to rows (v) [degree].

    Returns:
        The phase with the wave [rad].

    Raises:
        ValueError: amplitude is negative or not finite; period is not above 0.
    """
    check_numbers("finite and ≥ 0", amplitude=amplitude)
    check_numbers("> 0", period=period)
    phase = jnp.asarray(phase)
    offset = random.uniform(key, dtype=phase.dtype, maxval=2 * math.pi)
    row, column = jnp.indices(phase.shape, dtype=phase.dtype)
    alpha = jnp.deg2rad(angle)
    along = column * jnp.cos(alpha) + row * jnp.sin(alpha)
    wave = amplitude * jnp.sin(2 * math.pi * along / period + offset)
    return (phase + wave).astype(phase.dtype)


def add_grain(
    key: Key[Array, ""],
    phase: Float[Array, "rows columns"],
    std: Number = 0.2,
    kind: Literal["gaussian", "poisson"] = "gaussian",
) -> Float[Array, "rows columns"]:
    """Add noise that is independent from pixel to pixel.

    Gaussian: std · a standard normal. Poisson: shot noise, the relative fluctuation (n − N)/N of a
    photon count n ~ Poisson(N). A phase measured with N photons is uncertain by 1/√N rad, so that
    N = 1/std², 25 photons for 0.2 rad: mean 0, standard deviation std, skewness std, steps of std².
    Below 0.01 rad it is the noise of 10⁴ photons, scaled.

    Args:
        key: the draws; "poisson" needs one of the default kind, threefry.
        phase: [rad].
        std: of a pixel [rad].
        kind: "gaussian" or "poisson".

    Returns:
        The phase with the noise [rad].

    Raises:
        ValueError: std is negative or not finite; kind is unknown.
    """
    check_numbers("finite and ≥ 0", std=std)
    check_names("kind", (kind,), GRAINS)
    phase = jnp.asarray(phase)
    draw = _shot_noise if kind == "poisson" else _normal
    return (phase + draw(key, phase.shape, std, phase.dtype)).astype(phase.dtype)


def _normal(key: Array, shape: tuple[int, ...], std: Number, dtype: DTypeLike) -> Array:
    return std * random.normal(key, shape, dtype)


def _shot_noise(key: Array, shape: tuple[int, ...], std: Number, dtype: DTypeLike) -> Array:
    # more than 1e4 photons differ little from a normal distribution, and the sampler, which works
    # in float32 with log n!, draws them badly
    photons = jnp.minimum(1 / jnp.square(jnp.asarray(std, dtype)), 1e4)
    # only the scale is differentiated with respect to std: the derivative has mean 0, as the noise
    photons = jax.lax.stop_gradient(photons)
    return std * (random.poisson(key, photons, shape) - photons) / jnp.sqrt(photons)


def add_dead_pixels(
    key: Key[Array, ""],
    phase: Float[Array, "rows columns"],
    density: Number = 4e-4,
    value: Number = 0.0,
) -> Float[Array, "rows columns"]:
    """Set each pixel, with a probability of density, to a constant value.

    Args:
        key: which pixels.
        phase: [rad].
        density: probability that a pixel is dead.
        value: what it then reads [rad]; NaN makes it a missing pixel.

    Returns:
        The phase with dead pixels [rad].

    Raises:
        ValueError: density is not between 0 and 1.
    """
    check_numbers("between 0 and 1", density=density)
    phase = jnp.asarray(phase)
    dead = random.bernoulli(key, density, phase.shape)
    return jnp.where(dead, value, phase).astype(phase.dtype)
