"""Models that say how sure they are: several answers along a leading axis.

The search then counts mean ∓ κ·standard deviation, whichever is worse for the target: what looks
good to one model alone, where the others disagree, no longer does.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from refinejax._trees import as_pytree


class Ensemble(struct.PyTreeNode):
    """Models of the same structure, trained apart; their weights have a leading axis.

    Around all that gives the outputs: functions of one latent, or `MultiTaskModel`s, which differ
    in their latents, so that the search is over the input. To save one, save its members.

    Attributes:
        model: the models as one pytree, that is called with what each of them is called with.
    """

    model: Any

    @classmethod
    def stack(cls, models: Sequence[Any]) -> "Ensemble":
        """Put models together, each a pytree such as a `Network` or a `MultiTaskModel`.

        Args:
            models: pytrees of the same structure.

        Returns:
            The models as one.

        Raises:
            ValueError: if there are fewer than two, or their structures differ.
        """
        structures = {jax.tree.structure(model) for model in models}
        if len(models) < 2 or len(structures) != 1:
            raise ValueError(
                f"models: expected two or more of the same structure, got {len(models)} of "
                f"{len(structures)} structures"
            )
        return cls(jax.tree.map(lambda *leaves: jnp.stack(leaves), *models))

    def __call__(self, *args: Any) -> Any:
        """Return the answers of all, with a leading axis."""
        return jax.vmap(lambda model: model(*args))(self.model)


class MonteCarlo(struct.PyTreeNode):
    """A model that draws, as by dropout (Gal and Ghahramani 2016), asked with the same keys always.

    With fixed draws the loss is the same function at every step.

    Attributes:
        model: (z, key) → outputs; a function (static) or a pytree.
        data: of the keys, shape (members, ...).
    """

    model: Any
    data: Array

    @classmethod
    def create(cls, model: Any, members: int, seed: int = 0) -> "MonteCarlo":
        """Draw keys for a number of answers.

        Args:
            model: (z, key) → outputs.
            members: how many answers.
            seed: of the draws.

        Returns:
            The model with its keys.

        Raises:
            ValueError: for fewer than two.
        """
        if members < 2:
            raise ValueError(f"members: expected two or more, got {members}")
        keys = jax.random.split(jax.random.key(seed), members)
        return cls(as_pytree(model), jax.random.key_data(keys))

    def __call__(self, *args: Any) -> Any:
        """Return the answers to all keys, with a leading axis."""
        keys = jax.random.wrap_key_data(self.data)
        return jax.vmap(lambda key: self.model(*args, key))(keys)


def moments(values: Float[Array, "m k"]) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """Return mean and standard deviation over the leading axis, with derivatives at 0 as well.

    Args:
        values: shape (m, k).
    """
    mean = jnp.mean(values, 0)
    variance = jnp.mean((values - mean) ** 2, 0)
    positive = variance > 0
    return mean, jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0)
