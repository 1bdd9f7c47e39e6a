"""The sizes that networks which regress numbers from an image have in common."""

import dataclasses
import math

from refinejax.networks.layers import POOLS


@dataclasses.dataclass(frozen=True)
class ImageNetworkConfig:
    """Sizes of a network of one image, such as `ResNet` and `UNetEncoder`.

    Attributes:
        shape: (H, W, C) of the input.
        outputs: numbers to regress.
        context: other inputs of the head.
        widths: channels of each stage; each after the first halves rows and columns.
        kernel: pixels along each side of the convolutions.
        stem_stride: of the first convolution.
        modes: of a `FourierLayer`; 0 for none.
        groups: of channels, for `GroupNorm`.
        pool: what the head sees of the last channels: "flatten", all, or "mean", over the pixels.
        hidden: width of the head.

    Raises:
        ValueError: names the size that does not fit.
    """

    shape: tuple[int, int, int]
    outputs: int
    context: int = 0
    widths: tuple[int, ...] = (16, 32, 64)
    kernel: int = 3
    stem_stride: int = 1
    modes: int = 0
    groups: int = 8
    pool: str = "flatten"
    hidden: int = 128

    def __post_init__(self) -> None:
        """Check."""
        if min(self.shape) < 1:
            raise ValueError(f"shape: expected (H, W, C) of 1 or more each, got {self.shape}")
        self._check_sizes("outputs", "kernel", "stem_stride", "groups", "hidden")
        widths, groups = self.widths, self.groups
        if not widths or any(w < 1 or w % groups for w in widths):
            raise ValueError(
                f"widths: expected one or more multiples of groups = {groups}, got {widths}; the "
                f"greatest groups that would do is {math.gcd(*widths) if widths else 1}"
            )
        if self.pool not in POOLS:
            raise ValueError(f"pool: expected one of {', '.join(POOLS)}, got {self.pool!r}")

    def _check_sizes(self, *names: str) -> None:
        for name in names:
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {value}")
