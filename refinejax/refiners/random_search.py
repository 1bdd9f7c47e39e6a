"""Random search: the honest baseline, and what works without derivatives."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from refinejax._checks import check_some
from refinejax._core import Evaluations, Params, Refiner, Scalar, State, bounds_of
from refinejax._trees import project
from refinejax.refiners.convergence import relative_length

_SHRUNK = 0.1  # share of the initial spread below which its length counts


class RandomSearchMemory(struct.PyTreeNode):
    """What `RandomSearch` remembers: its spread, and the smoothed share of successes.

    Attributes:
        std: σ, in the coordinates of refinement.
        success: smoothed share of candidates that were better.
    """

    std: Float[Array, ""]
    success: Float[Array, ""]


class RandomSearch(Refiner):
    """Draw candidates around the best point and move to the best of them if it is better.

    Candidates are x + σ·N(0, I), projected on the bounds. With ``adapt`` σ follows the success
    rule: it grows while more than about one candidate in five succeeds and shrinks otherwise
    (Rechenberg 1973; in the form of Igel, Hansen and Roth 2007, "Covariance matrix adaptation for
    multi-objective optimization", procedure updateStepSize). Without, σ stays.

    A NaN is a failure. Needs no derivatives.

    Attributes:
        std: the initial σ, in the coordinates of refinement.
        population_size: λ, candidates per step; static.
        adapt: whether σ adapts; static.

    Raises:
        ValueError: if ``population_size`` is below 1.
    """

    std: float | Array = 0.1
    population_size: int = struct.field(pytree_node=False, default=16)
    adapt: bool = struct.field(pytree_node=False, default=True)
    positive: ClassVar[tuple[str, ...]] = ("std",)

    def __post_init__(self) -> None:
        """Check the size."""
        check_some("population_size", self.population_size, "candidates")

    @property
    def _aim(self) -> float:
        return 1 / (5 + self.population_size**0.5 / 2)

    @property
    def unit_free(self) -> bool:
        """Yes: only the order of losses counts."""
        return True

    @property
    def uses_derivatives(self) -> bool:
        """No: only losses are compared."""
        return False

    def init(self, objective: Any, params: Params, key: PRNGKeyArray) -> State[Params]:
        """Evaluate the start."""
        del key
        params = project(params, bounds_of(objective))
        loss = objective(params)
        std = jnp.asarray(self.std, loss.dtype)
        return State(params, loss, RandomSearchMemory(std, jnp.full_like(std, self._aim)))

    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Draw ``population_size`` candidates; keep the best point."""
        flat, unravel = ravel_pytree(state.params)
        bounds = bounds_of(objective)
        noise = jax.random.normal(key, (self.population_size, flat.size), flat.dtype)
        offsets = state.memory.std.astype(flat.dtype) * noise
        candidates = jax.vmap(lambda n: project(unravel(flat + n), bounds))(offsets)
        losses = jax.vmap(objective)(candidates)
        losses = jnp.where(jnp.isnan(losses), jnp.inf, losses)
        current = jnp.where(jnp.isnan(state.loss), jnp.inf, state.loss)
        index = jnp.argmin(losses)
        better = losses[index] < current
        params = jax.tree.map(
            lambda new, old: jnp.where(better, new[index], old), candidates, state.params
        )
        loss = jnp.where(better, losses[index], state.loss)
        memory = self._learn(state.memory, jnp.mean(losses < current), flat.size)
        return State(params, loss.astype(state.loss.dtype), memory)

    def evaluations(self, before: State | None, after: State) -> Evaluations:
        """Return one evaluation for ``init``, ``population_size`` for a step."""
        del after
        return Evaluations(1 if before is None else self.population_size, 0)

    def _learn(self, memory: RandomSearchMemory, share: Array, n: int) -> RandomSearchMemory:
        """Update σ from the share of successes, with damping d = 1 + n/2λ."""
        if not self.adapt:
            return memory
        rate = self._aim * self.population_size / (2 + self._aim * self.population_size)
        success = (1 - rate) * memory.success + rate * share.astype(memory.success.dtype)
        damping = 1 + n / (2 * self.population_size)
        growth = (success - self._aim) / (1 - self._aim) / damping
        return RandomSearchMemory(memory.std * jnp.exp(growth), success)

    def progress(self, before: State, after: State) -> tuple[Scalar, Scalar]:
        """The spread relative to the params is the length of steps to come."""
        flat, _ = ravel_pytree(after.params)
        unknown, _ = super().progress(before, after)
        if not self.adapt:
            return unknown, unknown
        first = jnp.asarray(self.std, flat.dtype)
        whole = relative_length(jnp.full_like(flat, first), flat) / flat.size**0.5
        length = whole * after.memory.std.astype(flat.dtype) / first
        # As long as it has not shrunk, the spread says how it was chosen, not how the search went.
        shrunk = after.memory.std < _SHRUNK * first.astype(after.memory.std.dtype)
        # Nor does it where it was below the spacing of numbers: no candidate has moved.
        shrunk &= whole > jnp.finfo(flat.dtype).eps
        return unknown, jnp.where(shrunk, length, jnp.inf).astype(after.loss.dtype)
