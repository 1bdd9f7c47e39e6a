"""Learning to refine by what comes of it: the loss after unrolled steps."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from refinejax._core import Refiner, Scalar, coordinates
from refinejax.learned.builders import Builder
from refinejax.learned.masked import masked_mean_gradient
from refinejax.learned.update import unguarded

_TINY = 1e-30


class Unrolled(struct.PyTreeNode):
    """Train a refiner on the log of the loss after each of its steps.

    The mean over tasks and steps k = 1 … K of log L(x_k), differentiated through all steps
    (Andrychowicz et al. 2016, arXiv:1606.04474, eq. 3, with logarithms, so that a task far from its
    optimum does not outweigh the others). The guard of `LearnedUpdate` is off: a refused step
    teaches nothing. Parts of the batch whose gradient is not finite are left out, and counted.

    Attributes:
        tasks: distribution of tasks (see `problems.tasks`).
        build: makes the refiner from a key; static.
        horizon: K, unrolled steps; static.
        batch: tasks a step; static.
        parts: of the batch, each of which is left out as a whole; static.
        held_out: tasks for validation; static.
    """

    tasks: Any
    build: Builder = struct.field(pytree_node=False)
    horizon: int = struct.field(pytree_node=False, default=5)
    batch: int = struct.field(pytree_node=False, default=128)
    parts: int = struct.field(pytree_node=False, default=16)
    held_out: int = struct.field(pytree_node=False, default=512)

    def init(self, key: PRNGKeyArray) -> Refiner:
        """Return the untrained refiner: its numbers are the weights."""
        return self.build(key)

    def begin(self, weights: Refiner, key: PRNGKeyArray) -> tuple[()]:
        """Return nothing: every step begins with new tasks."""
        del weights, key
        return ()

    def loss_and_grad(
        self, weights: Refiner, memory: tuple[()], step: Any, key: PRNGKeyArray
    ) -> tuple[Scalar, Refiner, tuple[()], dict[str, Scalar]]:
        """Draw tasks, and return the loss and its gradient."""
        del step
        keys = jax.random.split(key, self.batch)
        loss, gradient, share = masked_mean_gradient(self._loss, weights, keys, self.parts)
        return loss, gradient, memory, {"finite": share}

    def _loss(self, refiner: Refiner, key: PRNGKeyArray) -> Scalar:
        losses = jnp.maximum(trajectory(unguarded(refiner), self.tasks, key, self.horizon), _TINY)
        return jnp.mean(jnp.log(losses))

    def validate(self, weights: Refiner, key: PRNGKeyArray) -> dict[str, Scalar]:
        """Return mean and median of the log of the loss at the horizon, on other tasks."""
        keys = jax.random.split(key, self.held_out)
        losses = jax.lax.map(
            lambda k: trajectory(weights, self.tasks, k, self.horizon)[-1],
            keys,
            batch_size=self.batch,
        )
        logs = jnp.log(jnp.maximum(losses, _TINY))
        return {"loss": jnp.mean(logs), "median": jnp.median(logs)}


def trajectory(refiner: Refiner, tasks: Any, key: PRNGKeyArray, steps: int) -> Float[Array, " k"]:
    """Return the losses after each of so many steps on a task drawn by ``key``."""
    draw, first, begin, run = jax.random.split(key, 4)
    task = tasks.sample(draw)
    space = coordinates(tasks.objective(task))
    params = space.encode(tasks.initial(task, first))
    state = refiner.init(space.objective, params, begin)

    def advance(state: Any, key: PRNGKeyArray) -> tuple[Any, Array]:
        state = refiner.step(space.objective, state, key)
        return state, state.loss

    return jax.lax.scan(advance, state, jax.random.split(run, steps))[1]
