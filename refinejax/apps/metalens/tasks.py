"""Lenses to learn to refine: slopes of phase maps, and starts off by a share of the ranges."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from refinejax.apps.metalens.cascade.scale import OTHERS, REFERENCE, WAVELENGTH, reference_space
from refinejax.apps.metalens.problem import lens_model
from refinejax.physics.metalens.lens import LOWER, NAMES, UPPER, phase
from refinejax.physics.noise import COMPONENTS, PhaseNoise, apply_noise
from refinejax.physics.slopes import Blocks, block_phasors, slopes
from refinejax.problems import InverseProblem
from refinejax.problems.phase import RADIAN, slope_problem

ACROSS = 8  # blocks along each side, for maps of any size
SMALLEST = 4 * ACROSS + 1  # pixels along a side


class LensTask(struct.PyTreeNode):
    """The slopes of a map, and its lens.

    Attributes:
        truth: (xc, yc, S, focal_length) [µm], scaled to the reference wavelength.
        scale: reference wavelength over the lens's own.
        across, down: slopes over blocks [turns a pixel]; NaN is missing.
    """

    truth: Float[Array, "4"]
    scale: Float[Array, ""]
    across: Float[Array, "m m"]
    down: Float[Array, "m m"]


class LensTasks(struct.PyTreeNode):
    """Lenses drawn uniformly from the ranges, each to be fitted to the slopes of its map.

    A task distribution (see `tasks.distribution`). Slopes have no fringes: a start a few per cent
    off is in their basin, but in none of the phase itself. As a lens times c at a wavelength times
    c has the same map, all are scaled to one wavelength, which a network then need not be told. A
    start is the truth plus normal numbers times a share of each range, which is drawn log-
    uniformly, as one does not know how good a prediction is.

    Attributes:
        noise: of measurement and fabrication; each map has it at a level drawn from 0 to 1.
        error: the least and the largest share.
        within: part of each range in which lenses lie, from 0 to 1.
        size: N, pixels along each side, 33 or more; static.
    """

    noise: PhaseNoise
    error: tuple[Any, Any] = (0.01, 0.2)
    within: tuple[Any, Any] = (0.0, 1.0)
    size: int = struct.field(pytree_node=False, default=64)

    def sample(self, key: PRNGKeyArray) -> LensTask:
        """Draw a lens, and measure the slopes of its map."""
        where, level, noise = jax.random.split(key, 3)
        lower, upper = jnp.asarray(LOWER), jnp.asarray(UPPER)
        first, last = self.within
        place = first + (last - first) * jax.random.uniform(where, (len(NAMES),))
        lens = lower + (upper - lower) * place
        share = jax.random.uniform(level)
        seen = apply_noise(self.noise.scaled(share), noise, phase(lens, self.size))
        scale = REFERENCE / lens[WAVELENGTH]
        across, down = measured_slopes(seen * jnp.asarray(RADIAN, seen.dtype))
        return LensTask(lens[jnp.array(OTHERS)] * scale, scale, across, down)

    def objective(self, task: LensTask) -> InverseProblem:
        """Return the problem of fitting the slopes."""
        return reference_problem(task.across, task.down, self.size)

    def initial(self, task: LensTask, key: PRNGKeyArray) -> Float[Array, "4"]:
        """Return a start within the ranges."""
        first, second = jax.random.split(key)
        least, largest = (jnp.log(jnp.asarray(error)) for error in self.error)
        share = jnp.exp(least + (largest - least) * jax.random.uniform(first))
        normal = jax.random.normal(second, task.truth.shape)
        low, high = (jnp.array([end[i] for i in OTHERS]) * task.scale for end in (LOWER, UPPER))
        return jnp.clip(task.truth + share * (high - low) * normal, low, high)


def lenses(
    components: tuple[str, ...] = COMPONENTS,
    error: tuple[float, float] = (0.01, 0.2),
    size: int = 64,
) -> LensTasks:
    """Return the task distribution "lenses" of a configuration.

    Args:
        components: of the noise, see `physics.noise`.
        error: least and largest error of the starts, as a share of each range; above 0.
        size: pixels along each side of a map, 33 or more.

    Returns:
        The distribution.

    Raises:
        ValueError: for an unknown component, errors that are not 0 < least ≤ largest, or a map that
            is too small.
    """
    if not 0 < error[0] <= error[1]:
        raise ValueError(
            f"error: expected two positive numbers, least and largest, got {list(error)}"
        )
    slope_blocks(size)
    return LensTasks(PhaseNoise.only(*components), error, size=size)


def slope_blocks(size: int) -> Blocks:
    """Return the blocks of an N × N map.

    Args:
        size: N, pixels along each side.

    Raises:
        ValueError: if it is too small for them.
    """
    if size < SMALLEST:
        raise ValueError(f"size: expected {SMALLEST} pixels or more along a side, got {size}")
    return Blocks(ACROSS, (size - 1) // ACROSS, size)


def measured_slopes(turns: Float[Array, "n n"]) -> tuple[Array, Array]:
    """Return the slopes of a map [turns] over its blocks, along u and v [turns a pixel].

    Args:
        turns: a map [turns], shape (N, N); NaN is missing.
    """
    across, down = block_phasors(turns, slope_blocks(turns.shape[-1]))
    return slopes(across), slopes(down)


def reference_problem(across: Array, down: Array, size: int) -> InverseProblem:
    """Return the problem of a lens at the reference wavelength with these slopes.

    Its residual is in turns along 1/63 of the window, a pixel of a map of 64 × 64, whatever the
    number of pixels: to a network all maps are alike.

    Args:
        across: slopes along u [turns a pixel].
        down: slopes along v [turns a pixel].
        size: N, pixels along each side of the map.
    """
    problem = slope_problem(
        lens_model(size, across.dtype),
        (across, down),
        slope_blocks(size),
        space=reference_space(),
        context=jnp.asarray(REFERENCE, across.dtype),
    )
    return problem.replace(noise=np.asarray(63 / (size - 1), across.dtype))
