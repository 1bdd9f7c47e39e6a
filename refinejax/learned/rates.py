"""Learning rates for each param, and for each step, that can be learned."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree


class RatesState(NamedTuple):
    """State of `learned_rates`.

    Attributes:
        taken: steps so far, an integer.
    """

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

    Raises:
        ValueError: in ``update``, for rates that do not broadcast to the params, or have no axis of
            steps.
    """

    def init(params: PyTree) -> RatesState:
        del params
        return RatesState(jnp.int32(0))

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, RatesState]:
        del params, extra

        def step(gradient: Any, rate: Any) -> Any:
            if _masked(gradient):  # as optax.masked and optax.partition hide params
                return gradient
            rate = jnp.asarray(rate)
            if per_step and not rate.ndim:
                raise ValueError("per_step: expected rates with an axis of steps, got a number")
            rate = rate[jnp.minimum(state.taken, len(rate) - 1)] if per_step else rate
            try:
                rate = jnp.broadcast_to(rate, gradient.shape)
            except ValueError:
                raise ValueError(
                    f"rates: expected what broadcasts to shape {gradient.shape}, got {rate.shape}"
                ) from None
            return (-rate * gradient).astype(gradient.dtype)

        if jax.tree.structure(rates) == jax.tree.structure(0):
            steps = jax.tree.map(lambda g: step(g, rates), updates, is_leaf=_masked)
        else:
            steps = jax.tree.map(step, updates, rates, is_leaf=_masked)
        return steps, RatesState(optax.safe_increment(state.taken))

    return optax.GradientTransformationExtraArgs(init, update)


def _masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)
