"""Damped sines: five params, and a frequency whose error turns the fit away from the data."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from refinejax._checks import check_positive
from refinejax.problems.inverse import InverseProblem
from refinejax.tasks.distribution import Number

NAMES = ("amplitude", "decay", "frequency", "phase", "offset")
MEAN = np.array([1.0, 0.2, 2.0, 0.0, 0.0], np.float32)
STD = np.array([0.3, 0.05, 0.5, 1.0, 0.5], np.float32)
SPAN = 10.0


def damped_sine(params: Float[Array, "5"], times: Float[Array, " m"]) -> Float[Array, " m"]:
    """Return a·exp(−γt)·sin(ωt + φ) + c, dimensionless.

    Args:
        params: (a, γ, ω, φ, c), shape (5,).
        times: t, shape (m,).
    """
    amplitude, decay, frequency, phase, offset = params
    return amplitude * jnp.exp(-decay * times) * jnp.sin(frequency * times + phase) + offset


class Sine(struct.PyTreeNode):
    """Data of one damped sine.

    Attributes:
        truth: its params, shape (5,).
        observation: at times from 0 to 10, shape (m,).
        noise: its standard deviation.
    """

    truth: Float[Array, "5"]
    observation: Float[Array, " m"]
    noise: Any


class DampedSines(struct.PyTreeNode):
    """Damped sines under noise, with starts off by a share of the standard deviations.

    Params are normal, with means (1, 0.2, 2, 0, 0) and standard deviations σ = (0.3, 0.05, 0.5, 1,
    0.5); a start is the truth plus ``error``·σ times normal numbers. The window holds three periods
    or so: an error of the frequency by a few tenths turns the end of the curve around.

    Attributes:
        noise: standard deviation of the observation.
        error: of the starts, as a share of σ.
        width: factor on σ.
        count: m, observations in [0, 10]; static.

    Raises:
        ValueError: for a count below 1.
    """

    noise: Number = 0.05
    error: Number = 0.6
    width: Number = 1.0
    count: int = struct.field(pytree_node=False, default=64)

    def __post_init__(self) -> None:
        """Check the size."""
        check_positive("count", self.count)

    def sample(self, key: PRNGKeyArray) -> Sine:
        """Draw a damped sine and its noise."""
        one, other = jax.random.split(key)
        truth = jnp.asarray(MEAN) + self.width * STD * jax.random.normal(one, (5,))
        scatter = self.noise * jax.random.normal(other, (self.count,))
        return Sine(truth, damped_sine(truth, self._times()) + scatter, jnp.float32(self.noise))

    def objective(self, task: Sine) -> InverseProblem:
        """Return the problem of fitting it; the loss is about 1 at the truth."""
        return InverseProblem(
            damped_sine, task.observation, noise=task.noise, context=self._times()
        )

    def initial(self, task: Sine, key: PRNGKeyArray) -> Float[Array, "5"]:
        """Return a start."""
        return task.truth + self.error * self.width * STD * jax.random.normal(key, (5,))

    def _times(self) -> Float[Array, " m"]:
        return jnp.linspace(0, SPAN, self.count, dtype=jnp.float32)
