"""The encoder of a U-Net that regresses numbers from an image."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from refinejax._config import read_config
from refinejax.networks.fourier import FourierLayer
from refinejax.networks.layers import (
    Conv,
    GroupNorm,
    Head,
    drawn,
    pooled,
)
from refinejax.networks.network import Network
from refinejax.networks.sizes import ImageNetworkConfig


@dataclasses.dataclass(frozen=True)
class UNetConfig(ImageNetworkConfig):
    """Sizes of a `UNetEncoder`, whose stages are levels; the `FourierLayer` is at the coarsest."""


class UNetEncoder(nnx.Module):
    """The contracting path of a U-Net (Ronneberger et al. 2015, fig. 1) and a regression head.

    Each level is two convolutions, and 2 × 2 max pooling leads to the next. What a U-Net hands
    across to its decoder the head gets as means over the pixels of each level but the last.

    Args:
        config: sizes.
    """

    def __init__(self, config: UNetConfig):
        rows, columns, width = config.shape
        levels = []
        for place, wider in enumerate(config.widths):
            stride = 1 if place else config.stem_stride
            levels.append(Level(width, wider, stride, config))
            step = 2 if place else stride
            width, rows, columns = wider, -(-rows // step), -(-columns // step)
        self.levels = nnx.List(levels)
        shape = (rows, columns, width)
        self.fourier = FourierLayer(shape, config.modes) if config.modes else None
        self.pool = config.pool
        inputs = sum(config.widths[:-1]) + width * (rows * columns if self.pool == "flatten" else 1)
        self.head = Head(inputs, config.context, config.hidden, config.outputs)

    def __call__(self, x: Float[Array, "h w c"], context: Array | None = None) -> Array:
        """Return the outputs, in the dtype of the image."""
        y, seen = x, []
        for place, level in enumerate(self.levels):
            if place:
                seen.append(pooled(y, "mean"))
                y = _halved(y)
            y = level(y)
        y = y if self.fourier is None else self.fourier(y)
        numbers = jnp.concatenate([*seen, pooled(y, self.pool)])
        return self.head(numbers, context).astype(x.dtype)


class Level(nnx.Module):
    """Two convolutions, each normalized and activated."""

    def __init__(self, width: int, wider: int, stride: int, config: UNetConfig) -> None:
        kernel, groups = config.kernel, config.groups
        self.first = Conv(width, wider, kernel, stride, bias=False)
        self.first_norm = GroupNorm(wider, groups)
        self.second = Conv(wider, wider, kernel, bias=False)
        self.second_norm = GroupNorm(wider, groups)

    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "k l d"]:
        """Apply."""
        y = jax.nn.silu(self.first_norm(self.first(x)))
        return jax.nn.silu(self.second_norm(self.second(y)))


def _halved(x: Float[Array, "h w c"]) -> Float[Array, "k l c"]:
    """Return the greatest of each 2 × 2 pixels; of an odd last row or column, what there is."""
    rows, columns, channels = x.shape
    odd = [(0, rows % 2), (0, columns % 2), (0, 0)]
    even = jnp.pad(x, odd, constant_values=-jnp.inf)
    return even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2, channels).max((1, 3))


def build_unet(config: Mapping[str, Any], key: PRNGKeyArray) -> Network:
    """Return a `UNetEncoder` of the sizes of a `UNetConfig`, with random weights.

    Args:
        config: keys of `UNetConfig`.
        key: of the weights.

    Raises:
        ValueError: for unknown keys and sizes that do not fit.
    """
    network = Network.of(UNetEncoder(read_config(UNetConfig, config, "network")))
    return network.replace(weights=drawn(network.weights, key))
