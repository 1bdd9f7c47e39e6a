"""Learning rates for each param, and for each step, that can be learned."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree


class RatesState(NamedTuple):
    """``taken``: steps so far, a whole number."""

    taken: Any


def learned_rates(rates: PyTree, per_step: bool = False) -> optax.GradientTransformationExtraArgs:
    """Return x ← x − α∘g: an optax transformation whose rates are made to be learned.

    With rates for each param Meta-SGD (Li et al. 2017, arXiv:1707.09835, eq. 1), for each leaf and
    step those of MAML++ (Antoniou et al. 2019, arXiv:1810.09502, §4), of any sign. As a refiner:
    ``Gradient(learned_rates, {"rates": α})``.

    Args:
        rates: a pytree like the params whose leaves broadcast to theirs, or one number for all.
        per_step: whether the leaves have a leading axis of steps; after the last step its rates
            stay.
    """

    def init(params: PyTree) -> RatesState:
        del params
        return RatesState(jnp.int32(0))

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, RatesState]:
        del params, extra

        def now(rate: Any) -> Any:
            rate = jnp.asarray(rate)
            if not per_step:
                return rate
            return rate[jnp.minimum(state.taken, rate.shape[0] - 1)]

        single = jax.tree.structure(rates) == jax.tree.structure(0)
        alike = jax.tree.map(lambda _: rates, updates) if single else rates
        steps = jax.tree.map(lambda g, a: (-now(a) * g).astype(g.dtype), updates, alike)
        return steps, RatesState(optax.safe_increment(state.taken))

    return optax.GradientTransformationExtraArgs(init, update)
