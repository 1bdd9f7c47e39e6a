"""What a population remembers from one generation to the next."""

from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from refinejax._core import Scalar
from refinejax.refiners.population.halting import History
from refinejax.refiners.population.regrowth import RegrowthPlan
from refinejax.refiners.population.search_space import SearchSpace


class PartialGeneration(struct.PyTreeNode):
    """A generation under way, where it takes several steps.

    Attributes:
        z: candidates so far; 0 in rows to come.
        losses: theirs; ∞ in rows to come.
        count: how many there are.
    """

    z: Float[Array, "largest n"]
    losses: Float[Array, " largest"]
    count: Int[Array, ""]

    @classmethod
    def empty(cls, largest: int, n: int, dtype: Any) -> "PartialGeneration":
        """Return a generation without candidates.

        Args:
            largest: the most candidates of a generation.
            n: number of params.
            dtype: of the params.
        """
        losses = jnp.full((largest,), jnp.inf, dtype)
        return cls(jnp.zeros((largest, n), dtype), losses, jnp.int32(0))


class EvolutionMemory(struct.PyTreeNode):
    """What `Evolution` remembers.

    Attributes:
        strategy_state: of evosax, in coordinates z: candidates are T(center + width·z).
        center, width: of those coordinates, flat.
        best, best_loss: the best candidate so far, flat.
        history: of losses, for the rules by which it ends.
        failures: generations in a row without a finite loss.
        status: how it has ended, or ``RUNNING``.
        plan, partial: of a population that regrows, else None.
    """

    strategy_state: Any
    center: Float[Array, " n"]
    width: Float[Array, " n"]
    best: Float[Array, " n"]
    best_loss: Scalar
    history: History
    failures: Int[Array, ""]
    status: Int[Array, ""]
    plan: RegrowthPlan | None = None
    partial: PartialGeneration | None = None

    def around_best(self, fresh: Any, space: SearchSpace) -> "EvolutionMemory":
        """Return it with a distribution half as wide around the best candidate.

        Args:
            fresh: state of the strategy at its start.
            space: where candidates are drawn.
        """
        center = space.transform.leave(self.best)
        return self.replace(strategy_state=fresh, center=center, width=self.width / 2)


def rank(losses: Array, where: Any = True) -> tuple[Array, Bool[Array, ""]]:
    """Return losses that are finite and rank as these, and whether any was finite.

    A non-finite loss is replaced by worst + (worst − best), or by worst + √ε·|worst| if that is
    more: where a single loss is finite, the others must not look as good, and the generation flat.

    Args:
        losses: of the candidates, shape (p,).
        where: candidates that count; the others become ∞.
    """
    finite = jnp.isfinite(losses) & where
    worst = jnp.max(jnp.where(finite, losses, -jnp.inf))
    least = jnp.min(jnp.where(finite, losses, jnp.inf))
    usable = jnp.any(finite)
    gap = jnp.maximum(worst - least, jnp.sqrt(jnp.finfo(losses.dtype).eps) * jnp.abs(worst))
    poor = jnp.where(usable, worst + gap, 0)
    return jnp.where(where, jnp.where(finite, losses, poor), jnp.inf), usable


def least_finite(losses: Array) -> Array:
    """Return the index of the least finite loss.

    Args:
        losses: shape (p,).
    """
    return jnp.argmin(jnp.where(jnp.isfinite(losses), losses, jnp.inf))
