"""The same refiner from several starts."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from refinejax._core import Params, Refiner, State, Status, Stop, bounds_of, project
from refinejax._run import UNLIMITED, Lane, advance, start


class Restarts(Refiner):
    """Refine from ``n`` starts at once and keep the best: the start itself, and n − 1 around it.

    Starts are x + spread·N(0, I), projected on the bounds. Each ends by its own stopping rules, and
    the whole when the last has ended; a loss at or below the driver's ``target`` ends all.

    Attributes:
        refiner: the method.
        n: how many starts; static.
        spread: standard deviation of the starts, in the coordinates of refinement: a number, or a
            pytree like the params.
        stop: ends each start; by default the driver's rules.

    Raises:
        ValueError: if ``n`` is below 1.
    """

    refiner: Refiner
    n: int = struct.field(pytree_node=False, default=8)
    spread: Any = 0.1
    stop: Stop | None = None

    def __post_init__(self) -> None:
        """Check the number."""
        if self.n < 1:
            raise ValueError(f"n: expected 1 or more starts, got {self.n}")

    def init(self, objective: Any, params: Params, key: PRNGKeyArray) -> State[Params]:
        """Draw the starts and evaluate them."""
        key, draw = jax.random.split(key)
        flat, unravel = ravel_pytree(params)
        width = self.spread
        if jax.tree.structure(width) == jax.tree.structure(params):
            width = ravel_pytree(
                jax.tree.map(lambda s, p: jnp.broadcast_to(s, jnp.shape(p)), width, params)
            )[0]
        noise = jax.random.normal(draw, (self.n, flat.size), flat.dtype).at[0].set(0)
        bounds = bounds_of(objective)
        offsets = jnp.asarray(width, flat.dtype) * noise
        starts = jax.vmap(lambda n: project(unravel(flat + n), bounds))(offsets)
        rules = self._rules(params)
        lanes = jax.vmap(lambda p, k: start(self.refiner, objective, rules, p, k, UNLIMITED))(
            starts, jax.random.split(key, self.n)
        )
        # The start itself, so that the driver knows its loss; or the best, where it is NaN.
        return _state(lanes, jnp.where(jnp.isfinite(lanes.best_loss[0]), 0, _best(lanes)))

    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Take one step from every start that is still running."""
        del key  # each lane carries its own
        rules = self._rules(state.params)
        lanes = jax.vmap(lambda lane: advance(self.refiner, objective, rules, lane))(state.inner)
        return _state(lanes, _best(lanes))

    def _rules(self, params: Any) -> Stop:
        return (self.stop or Stop()).resolve(jnp.result_type(*jax.tree.leaves(params)))

    def under(self, stop: Stop) -> "Restarts":
        """Let the starts end by the driver's rules, if there are none of their own."""
        own = stop if self.stop is None else self.stop
        return self.replace(refiner=self.refiner.under(own), stop=own)

    def final(self, state: State) -> Bool[Array, ""]:
        """Never: the starts are judged one by one."""
        del state
        return jnp.bool_(False)

    def verdict(self, state: State) -> Int[Array, ""]:
        """How the best start ended, once all have."""
        lanes: Lane = state.inner
        ended = jnp.all(lanes.status != Status.RUNNING)
        return jnp.where(ended, lanes.status[_best(lanes)], int(Status.RUNNING))


def _best(lanes: Lane) -> Int[Array, ""]:
    return jnp.argmin(jnp.where(jnp.isnan(lanes.best_loss), jnp.inf, lanes.best_loss))


def _state(lanes: Lane, index: Array) -> State:
    params = jax.tree.map(lambda leaf: leaf[index], lanes.best_params)
    return State(params, lanes.best_loss[index], lanes)
