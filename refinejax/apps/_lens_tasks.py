"""Lenses to learn to refine: phase maps, and starts off by a share of the ranges."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from refinejax.apps._lens_exact import exact_problem
from refinejax.apps._lens_scale import OTHERS, WAVELENGTH
from refinejax.physics.metalens import LOWER, NAMES, UNITS, UPPER, phase
from refinejax.physics.noise import PhaseNoise, apply_noise
from refinejax.problems import InverseProblem, ParameterSpace


class LensTask(struct.PyTreeNode):
    """A map and its lens.

    Attributes:
        truth: (xc, yc, S, focal_length) [µm].
        phase: wrapped map [rad].
        wavelength: [µm].
    """

    truth: Float[Array, "4"]
    phase: Float[Array, "n n"]
    wavelength: Float[Array, ""]


class LensTasks(struct.PyTreeNode):
    """Lenses drawn uniformly from the ranges, the wavelength of each being known.

    A task distribution (see `problems.tasks`). Params are (xc, yc, S, focal_length) [µm]; a start
    is the truth plus normal numbers times a share of each range, which is drawn log-uniformly, as
    one does not know how good a prediction is.

    Attributes:
        noise: of measurement and fabrication.
        error: the least and the largest share.
        size: N, pixels along each side; static.
    """

    noise: PhaseNoise
    error: tuple[Any, Any] = (0.01, 0.2)
    size: int = struct.field(pytree_node=False, default=64)

    def sample(self, key: PRNGKeyArray) -> LensTask:
        """Draw a lens and its map."""
        where, noise = jax.random.split(key)
        lower, upper = jnp.asarray(LOWER), jnp.asarray(UPPER)
        lens = lower + (upper - lower) * jax.random.uniform(where, (len(NAMES),))
        seen = apply_noise(self.noise, noise, phase(lens, self.size))
        return LensTask(lens[jnp.array(OTHERS)], seen, lens[WAVELENGTH])

    def objective(self, task: LensTask) -> InverseProblem:
        """Return the problem of fitting the map within the ranges; its loss is in rad²."""
        return exact_problem(task.phase, task.wavelength, lens_box())

    def initial(self, task: LensTask, key: PRNGKeyArray) -> Float[Array, "4"]:
        """Return a start within the ranges."""
        first, second = jax.random.split(key)
        least, largest = (jnp.log(jnp.asarray(error)) for error in self.error)
        share = jnp.exp(least + (largest - least) * jax.random.uniform(first))
        box = lens_box()
        normal = jax.random.normal(second, task.truth.shape)
        return box.clip(task.truth + share * (box.upper - box.lower) * normal)


def lens_box() -> ParameterSpace:
    """Return the ranges of (xc, yc, S, focal_length)."""
    names, units = ([words[i] for i in OTHERS] for words in (NAMES, UNITS))
    lower, upper = ([bound[i] for i in OTHERS] for bound in (LOWER, UPPER))
    return ParameterSpace.create(names, lower, upper, units)
