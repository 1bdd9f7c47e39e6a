"""A residual network that regresses numbers from an image."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
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
class ResNetConfig(ImageNetworkConfig):
    """Sizes of a `ResNet`; the others are explained at `ImageNetworkConfig`.

    Attributes:
        widths: channels of each stage; each after the first halves rows and columns.
        depth: residual blocks of a stage.
        stem_kernel: pixels along each side of the first convolution, which the `FourierLayer`
            follows.

    Raises:
        ValueError: names the size that does not fit.
    """

    widths: tuple[int, ...] = (32, 64)
    depth: int = 1
    stem_kernel: int = 3

    def __post_init__(self) -> None:
        """Check."""
        super().__post_init__()
        self._check_sizes("depth", "stem_kernel")


class ResNet(nnx.Module):
    """Pre-activation residual network (He et al. 2016, Identity Mappings, fig. 1b) of one image.

    Args:
        config: sizes.
    """

    def __init__(self, config: ResNetConfig):
        rows, columns, channels = config.shape
        width, stride = config.widths[0], config.stem_stride
        self.stem = Conv(channels, width, config.stem_kernel, stride)
        rows, columns = -(-rows // stride), -(-columns // stride)
        shape = (rows, columns, width)
        self.fourier = FourierLayer(shape, config.modes) if config.modes else None
        blocks = []
        for stage, wider in enumerate(config.widths):
            for place in range(config.depth):
                stride = 2 if stage and not place else 1
                blocks.append(Block(width, wider, stride, config))
                width, rows, columns = wider, -(-rows // stride), -(-columns // stride)
        self.blocks = nnx.List(blocks)
        self.norm = GroupNorm(width, config.groups)
        self.pool = config.pool
        inputs = width * (rows * columns if config.pool == "flatten" else 1)
        self.head = Head(inputs, config.context, config.hidden, config.outputs)

    def __call__(self, x: Float[Array, "h w c"], context: Array | None = None) -> Array:
        """Return the outputs, in the dtype of the image."""
        y = self.stem(x)
        y = y if self.fourier is None else self.fourier(y)
        for block in self.blocks:
            y = block(y)
        y = pooled(jax.nn.silu(self.norm(y)), self.pool)
        return self.head(y, context).astype(x.dtype)


class Block(nnx.Module):
    """x → x + conv(σ(norm(conv(y)))), y = σ(norm(x)); a projection of y for x if shapes differ."""

    def __init__(self, width: int, wider: int, stride: int, config: ResNetConfig) -> None:
        same = width == wider and stride == 1
        kernel, groups = config.kernel, config.groups
        self.skip = None if same else Conv(width, wider, 1, stride, bias=False)
        self.first_norm = GroupNorm(width, groups)
        self.first = Conv(width, wider, kernel, stride, bias=False)
        self.second_norm = GroupNorm(wider, groups)
        self.second = Conv(wider, wider, kernel)

    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "k l d"]:
        """Apply."""
        y = jax.nn.silu(self.first_norm(x))
        skipped = x if self.skip is None else self.skip(y)
        return skipped + self.second(jax.nn.silu(self.second_norm(self.first(y))))


def build_resnet(config: Mapping[str, Any], key: PRNGKeyArray) -> Network:
    """Return a `ResNet` of the sizes of a `ResNetConfig`, with random weights.

    Args:
        config: keys of `ResNetConfig`.
        key: of the weights.

    Raises:
        ValueError: for unknown keys and sizes that do not fit.
    """
    network = Network.of(ResNet(read_config(ResNetConfig, config, "network")))
    return network.replace(weights=drawn(network.weights, key))
