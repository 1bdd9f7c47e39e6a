"""Multilayer perceptrons."""

import itertools
from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float


class MLP(nnx.Module):
    """Linear layers with a nonlinearity between them; the last layer begins at ``last`` times.

    Args:
        inputs: length of the input.
        hidden: widths of the hidden layers.
        outputs: length of the output.
        last: factor on the initial weights of the last layer; its biases begin at 0.
        rngs: for the initial weights.
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        *,
        last: float = 1.0,
        rngs: nnx.Rngs,
    ) -> None:
        sizes = [inputs, *hidden]
        pairs = itertools.pairwise(sizes)
        self.hidden = nnx.List([nnx.Linear(m, n, rngs=rngs) for m, n in pairs])
        scale = nnx.initializers.variance_scaling(last**2, "fan_in", "truncated_normal")
        zero = nnx.initializers.zeros
        kernel = scale if last > 0 else zero
        self.last = nnx.Linear(sizes[-1], outputs, kernel_init=kernel, rngs=rngs)

    def __call__(self, x: Float[Array, "... inputs"]) -> Float[Array, "... outputs"]:
        """Apply the layers."""
        for layer in self.hidden:
            x = jax.nn.silu(layer(x))
        return self.last(x)
