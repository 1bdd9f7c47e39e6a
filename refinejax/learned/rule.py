"""Update rules by networks that see one param at a time, as optax transformations."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from refinejax.networks.network import Network


class RuleState(NamedTuple):
    """What a learned rule remembers.

    Attributes:
        taken: steps so far, a whole number.
        hidden: of each leaf of the params, in their order, what the network remembers of it.
    """

    taken: Any
    hidden: list[PyTree]


class Seen(NamedTuple):
    """What a network is told of a leaf with n entries.

    Attributes:
        gradient: shape (n,).
        params: shape (n,); None where they were not given.
        taken: steps before, a whole number.
    """

    gradient: Float[Array, " n"]
    params: Any
    taken: Any


def learned_rule(rule: Network) -> optax.GradientTransformationExtraArgs:
    """Return x ← x + g(∇f, h), (g, h) ← rule: an optax transformation whose rule can be learned.

    The same network for each param (`LSTMRule`, `RNNprop`, `MLPRule`), so that it serves for any
    number of them. As a refiner: ``Gradient(learned_rule, {"rule": network})``; by itself:
    ``optax.chain(learned_rule(network), …)``, ``optax.apply_updates``.

    Args:
        rule: (`Seen`, hidden) → (step, hidden), the step of shape (n,);
            ``rule.call("begin", n)`` gives the first hidden state for n params.

    Raises:
        ValueError: in ``update``, where a rule needs the params and none are given.
    """
    dtype = jax.tree.leaves(rule.weights)[0].dtype

    def init(params: PyTree) -> RuleState:
        hidden = [rule.call("begin", leaf.size) for leaf in jax.tree.leaves(params)]
        return RuleState(jnp.int32(0), hidden)

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, RuleState]:
        del extra
        leaves, structure = jax.tree.flatten(updates)
        values = [None] * len(leaves) if params is None else jax.tree.leaves(params)
        steps, hidden = [], []
        for leaf, value, memory in zip(leaves, values, state.hidden, strict=True):
            flat = None if value is None else value.ravel().astype(dtype)
            seen = Seen(leaf.ravel().astype(dtype), flat, state.taken)
            step, memory = rule(seen, memory)
            steps.append(step.reshape(leaf.shape).astype(leaf.dtype))
            hidden.append(memory)
        state = RuleState(optax.safe_increment(state.taken), hidden)
        return jax.tree.unflatten(structure, steps), state

    return optax.GradientTransformationExtraArgs(init, update)
