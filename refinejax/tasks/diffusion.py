"""Diffusion in one dimension: conductivities from the remains of a heat pulse."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from refinejax.problems.inverse import InverseProblem
from refinejax.tasks.distribution import Number


def diffuse(
    log_conductivity: Float[Array, " n"], heat: Float[Array, " n"], time: Any, steps: int
) -> Float[Array, " n"]:
    """Solve ∂u/∂t = ∂/∂x (k ∂u/∂x) on [0, 1] without flux through the ends.

    Finite volumes on n equal cells, k between two cells being the harmonic mean of theirs, and
    Crank–Nicolson in time. The sum of u is kept to rounding.

    Args:
        log_conductivity: log k of each cell, k in units of length² / time.
        heat: u at first, shape (n,).
        time: until when.
        steps: of time.

    Returns:
        u at the time, shape (n,).
    """
    n = heat.shape[0]
    k = jnp.exp(log_conductivity)
    between = 2 * k[:-1] * k[1:] / (k[:-1] + k[1:]) * n**2 * time / steps / 2
    off = jnp.concatenate([between, jnp.zeros_like(k[:1])])
    low = jnp.roll(off, 1)

    def flow(u: Array) -> Array:
        return off * (jnp.roll(u, -1) - u) + low * (jnp.roll(u, 1) - u)

    def advance(u: Array, _: None) -> tuple[Array, None]:
        u = u + flow(u)
        return jax.lax.linalg.tridiagonal_solve(-low, 1 + off + low, -off, u[:, None])[:, 0], None

    return jax.lax.scan(advance, heat, length=steps)[0]


MIDDLE = -3.0  # mean of log k


class HeatData(struct.PyTreeNode):
    """Truth and data of one rod.

    Attributes:
        truth: log k of its parts, shape (parts,).
        heat: u at first, shape (n,).
        observation: u in the end, and noise, shape (n,).
        noise: its standard deviation.
        time: of the observation.
    """

    truth: Float[Array, " parts"]
    heat: Float[Array, " n"]
    observation: Float[Array, " n"]
    noise: Any
    time: Any


class Diffusions(struct.PyTreeNode):
    """Rods of several parts; params are log k of each, standard normal times ``contrast`` − 3.

    At first there are two pulses at random places. Starts are log k = −3 everywhere.

    Attributes:
        contrast: standard deviation of log k.
        noise: standard deviation of the observation; pulses are 1 high.
        time: of the observation.
        parts: params; static.
        cells: n, a multiple of ``parts``; static.
        steps: of time; static.

    Raises:
        ValueError: if the cells cannot be divided into so many parts.
    """

    contrast: Number = 0.7
    noise: Number = 0.005
    time: Number = 0.3
    parts: int = struct.field(pytree_node=False, default=4)
    cells: int = struct.field(pytree_node=False, default=32)
    steps: int = struct.field(pytree_node=False, default=16)

    def __post_init__(self) -> None:
        """Check."""
        if self.parts < 1 or self.cells % self.parts:
            raise ValueError(
                f"cells: expected a multiple of the {self.parts} parts, got {self.cells}"
            )

    def sample(self, key: PRNGKeyArray) -> HeatData:
        """Draw a rod, the pulses and the noise."""
        one, two, three = jax.random.split(key, 3)
        truth = MIDDLE + self.contrast * jax.random.normal(one, (self.parts,))
        x = (jnp.arange(self.cells) + 0.5) / self.cells
        centers = jax.random.uniform(two, (2, 1), minval=0.1, maxval=0.9)
        heat = jnp.sum(jnp.exp(-(((x - centers) / 0.08) ** 2)), axis=0)
        scatter = self.noise * jax.random.normal(three, (self.cells,))
        seen = self.predict(truth, (heat, self.time)) + scatter
        return HeatData(truth, heat, seen, jnp.float32(self.noise), jnp.float32(self.time))

    def predict(
        self, params: Float[Array, " parts"], context: tuple[Float[Array, " n"], Any]
    ) -> Float[Array, " n"]:
        """Return u in the end.

        Args:
            params: log k of each part, shape (parts,).
            context: heat at first, shape (n,), and the time.
        """
        heat, time = context
        spread = jnp.repeat(params, self.cells // self.parts)
        return diffuse(spread, heat, time, self.steps)

    def objective(self, task: HeatData) -> InverseProblem:
        """Return the problem of fitting it; the loss is about 1 at the truth."""
        predict = jax.tree_util.Partial(
            _predict, self.replace(contrast=None, noise=None, time=None)
        )
        return InverseProblem(
            predict, task.observation, noise=task.noise, context=(task.heat, task.time)
        )

    def initial(self, task: HeatData, key: PRNGKeyArray) -> Float[Array, " parts"]:
        """Return the middle of the range."""
        del key
        return jnp.full_like(task.truth, MIDDLE)


def _predict(rods: Diffusions, params: Array, context: Any) -> Array:
    return rods.predict(params, context)
