"""The network of `LearnedDamping`."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from refinejax.learned.damping import OWN, SHARED
from refinejax.networks.mlp import MLP


class DampingNet(nnx.Module):
    """What each param and all of them say → log λ and share of the step for each param.

    With ``params`` one network reads all params at once, and knows one from another: for one
    problem. Without, each param goes through the same network, beside the mean over all: for any
    problem.

    Args:
        hidden: widths of the hidden layers.
        params: n; or None for any.
        rngs: for the initial weights.
    """

    def __init__(
        self, hidden: Sequence[int] = (64, 64), *, params: int | None = None, rngs: nnx.Rngs
    ) -> None:
        self.params = params
        pairs = 0 if params is None else params * (params - 1) // 2
        inputs = 2 * OWN + SHARED if params is None else params * OWN + SHARED + pairs
        outputs = 2 if params is None else 2 * params
        self.body = MLP(inputs, hidden, outputs, last=0.1, rngs=rngs)

    def __call__(
        self,
        own: Float[Array, "n own"],
        shared: Float[Array, " shared"],
        cosines: Float[Array, "n n"],
    ) -> Float[Array, "n 2"]:
        """Apply the network.

        Raises:
            ValueError: if it was made for another number of params.
        """
        count = own.shape[0]
        if self.params is None:
            both = jnp.concatenate([own.mean(axis=0), shared])
            rows = jnp.broadcast_to(both, (count, both.size))
            return self.body(jnp.concatenate([own, rows], axis=1))
        if count != self.params:
            raise ValueError(
                f"network: made for {self.params} params, got a problem of {count}; train one "
                "for it, or one with params=None, which serves any"
            )
        between = cosines[jnp.triu_indices(count, 1)]
        told = jnp.concatenate([own.ravel(), shared, between])
        return self.body(told).reshape(count, 2)
