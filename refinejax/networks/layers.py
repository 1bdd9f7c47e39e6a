"""What the architectures are made of: convolution, normalization, regression head.

Everything is for one sample without a batch axis; `jax.vmap` makes it a batch, and also an ensemble
(of weights with a leading axis).

A layer states only the standard deviation of its kernel; `drawn` draws those of a whole network
at once. Each draw would take XLA a second to compile on CPU, and a network has dozens.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

POOLS = ("flatten", "mean")
_RANDOM = "kernel"  # the name of weights that are drawn; the others begin as they are


def scaled_kernel(gain: float = 1.0) -> Any:
    """Return an initializer of kernels that holds their standard deviation, gain/√(fan-in).

    The fan-in is the number of entries that go into an output, all axes of a kernel but the last
    (LeCun et al. 1998, Efficient BackProp, eq. 16).

    Args:
        gain: standard deviation times √(fan-in).
    """

    def initializer(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        del key
        return jnp.full(shape, gain / math.sqrt(math.prod(shape[:-1])), dtype)

    return initializer


def drawn(weights: Any, key: PRNGKeyArray) -> Any:
    """Multiply kernels, which hold standard deviations, by standard normal numbers.

    Args:
        weights: of a network, whose kernels hold standard deviations.
        key: of the random numbers.

    Returns:
        The weights, with random kernels.
    """
    found, structure = jax.tree_util.tree_flatten_with_path(weights)
    chosen = [jax.tree_util.keystr(path).endswith(f"['{_RANDOM}']") for path, _ in found]
    sizes = [leaf.size if random else 0 for (_, leaf), random in zip(found, chosen, strict=True)]
    noise = jnp.split(jax.random.normal(key, (sum(sizes),)), np.cumsum(sizes)[:-1])
    leaves = [
        leaf * part.reshape(leaf.shape).astype(leaf.dtype) if random else leaf
        for (_, leaf), part, random in zip(found, noise, chosen, strict=True)
    ]
    return jax.tree.unflatten(structure, leaves)


class Conv(nnx.Module):
    """A convolution, written as the product of patches and kernel.

        y[i, j, d] = Σ x[s·i + p − lo, s·j + q − lo, c] · kernel[p, q, c, d],  0 beyond the border

    with the padding "SAME" of `jax.lax.conv`. As a product it is fast also where XLA's convolution
    is not: on CPU within a loop (a `lax.scan` of training steps), where that takes 20 times as
    long, and with a batch of weights (an ensemble).

    Args:
        inputs: channels.
        outputs: channels.
        kernel: pixels along each side.
        stride: s.
        bias: whether to add one.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, bias: bool = True
    ):
        shape = (kernel, kernel, inputs, outputs)
        self.kernel = nnx.Param(scaled_kernel()(None, shape))
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32)) if bias else None
        self.stride = stride

    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "k l d"]:
        """Convolve."""
        kernel = self.kernel[...]
        size, s = kernel.shape[0], self.stride
        rows, columns = (-(-n // s) for n in x.shape[:2])
        low, high = zip(*(_margin(n, size, s) for n in x.shape[:2]), strict=True)
        x = jnp.pad(x, [(low[0], high[0]), (low[1], high[1]), (0, 0)])
        patches = [
            x[i : i + s * (rows - 1) + 1 : s, j : j + s * (columns - 1) + 1 : s]
            for i in range(size)
            for j in range(size)
        ]
        y = jnp.concatenate(patches, -1) @ kernel.reshape(-1, kernel.shape[-1])
        return y if self.bias is None else y + self.bias[...]


def _margin(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return how much padding there is before and after, as "SAME" has it."""
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


class GroupNorm(nnx.Module):
    """Group normalization (Wu and He 2018) of one sample, over all pixels.

    Args:
        channels: of the input; a multiple of ``groups``.
        groups: of channels, each normalized together.
    """

    def __init__(self, channels: int, groups: int):
        self.norm = nnx.GroupNorm(channels, groups, rngs=nnx.Rngs(0))  # it draws nothing

    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        """Normalize."""
        return self.norm(x[None])[0]  # nnx takes the first axis for the batch


class Head(nnx.Module):
    """From channels, and other inputs beside them, to outputs: y = W₃·(h + σ(W₂·h)), h = σ(W₁·x).

    The outputs begin near 0.

    Args:
        inputs: numbers, once flattened.
        context: other inputs.
        hidden: width of h.
        outputs: numbers.
    """

    def __init__(self, inputs: int, context: int, hidden: int, outputs: int):
        rngs = nnx.Rngs(0)  # nothing is drawn, see `scaled_kernel`
        self.first = nnx.Linear(inputs + context, hidden, kernel_init=scaled_kernel(), rngs=rngs)
        self.second = nnx.Linear(hidden, hidden, kernel_init=scaled_kernel(), rngs=rngs)
        self.last = nnx.Linear(hidden, outputs, kernel_init=scaled_kernel(0.1), rngs=rngs)
        self.context = context

    def __call__(self, x: Float[Array, " n"], context: Array | None) -> Float[Array, " k"]:
        """Apply.

        Raises:
            ValueError: if the context is not of the shape that it was built for.
        """
        there = () if context is None else jnp.shape(context)
        if there != ((self.context,) if self.context else ()):
            wanted = f"shape ({self.context},)" if self.context else "none"
            raise ValueError(f"context: expected {wanted}, got {there or context}")
        if context is not None:
            x = jnp.concatenate([x, context.astype(x.dtype)])
        h = jax.nn.silu(self.first(x))
        return self.last(h + jax.nn.silu(self.second(h)))


def pooled(x: Float[Array, "h w c"], pool: str) -> Float[Array, " n"]:
    """Return the numbers of all pixels, or their means over the pixels.

    Args:
        x: (H, W, C).
        pool: "flatten" or "mean".
    """
    return x.ravel() if pool == "flatten" else jnp.mean(x, (0, 1))
