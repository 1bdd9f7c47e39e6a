"""The input of a network for a wrapped phase map: channels on a grid of blocks of pixels."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from refinejax.physics.slopes import circle

NAMES = ("phase", "slopes", "curvatures")
_STRETCH = 20.0  # a change of 0.05 rad is the typical one


class PhaseFeatures(struct.PyTreeNode):
    """Channels of a wrapped phase map, block by block; a function of the map.

    With z = exp(iφ) at a pixel, 0 where it is missing, and d = conj(z)·z' for neighbors z, z' along
    a row (u) or a column (v), each block of b × b pixels has

    - "phase": cos φ and sin φ of its pixels, 2b² channels;
    - "slopes": real and imaginary part of the means p of d along u and v, 4 channels;
    - "curvatures": asinh(20·κ), κ = arg(conj(p)·p') the change of slope from a block to the next
      [rad a pixel], for p along u and v, each to the next block along u and along v, 4 channels; 0
      at the end, which has no next;

    and always the coordinates of its middle in the window, u and v from −1 to 1. A slope of half a
    turn a pixel or more is aliased, but its changes are not. A mean is over all b² pixels, so that
    |p| tells how much to trust it: it is small where pixels are missing, noisy or curved. Where a
    block is a pixel, the channels are those of an image.

    Attributes:
        names: of `NAMES`, in any order; static.
        block: b, pixels along each side of a block; static. Rows and columns beyond the last whole
            block are left out.

    Raises:
        ValueError: an unknown name, none, or a block below 1.
    """

    names: tuple[str, ...] = struct.field(pytree_node=False, default=("slopes", "curvatures"))
    block: int = struct.field(pytree_node=False, default=8)

    def __post_init__(self) -> None:
        """Check, and put the names in one order."""
        unknown = [name for name in self.names if name not in NAMES]
        if unknown or not self.names:
            raise ValueError(f"features: expected some of {', '.join(NAMES)}, got {self.names}")
        if not isinstance(self.block, int) or self.block < 1:
            raise ValueError(f"block: expected a number of pixels of 1 or more, got {self.block!r}")
        object.__setattr__(self, "names", tuple(n for n in NAMES if n in self.names))

    def shape(self, size: int) -> tuple[int, int, int]:
        """Return the shape (H, W, C) of the channels of an n × n map.

        Args:
            size: n, pixels along each side of the map.

        Raises:
            ValueError: if the map has not 2 blocks along each side.
        """
        across = size // self.block
        if across < 2:
            raise ValueError(
                f"block: expected 2 blocks or more along a side, got {self.block} pixels a block "
                f"of a map of {size}"
            )
        channels = {"phase": 2 * self.block**2, "slopes": 4, "curvatures": 4}
        return across, across, 2 + sum(channels[name] for name in self.names)

    def __call__(self, phase: Float[Array, "n n"]) -> Float[Array, "m m c"]:
        """Return the channels of a map [rad]; NaN is missing."""
        across, _, _ = self.shape(phase.shape[-1])
        seen = ~jnp.isnan(phase)
        sine, cosine = circle(jnp.where(seen, phase, 0) * (0.5 / math.pi))
        z = jnp.where(seen, jnp.stack([cosine, sine]), 0)
        planes = [_coordinates(across, phase.dtype)]
        if "phase" in self.names:
            planes.append(_blocks(z, self.block))
        if "slopes" in self.names or "curvatures" in self.names:
            slopes = [jnp.mean(_blocks(_turn(z, axis), self.block), 1) for axis in (2, 1)]
            if "slopes" in self.names:
                planes += slopes
            if "curvatures" in self.names:
                planes += [_bend(slope, axis) for slope in slopes for axis in (2, 1)]
        return jnp.moveaxis(jnp.concatenate([p.reshape(-1, across, across) for p in planes]), 0, -1)


def _coordinates(across: int, dtype: Any) -> Float[Array, "2 m m"]:
    axis = jnp.linspace(-1, 1, across, dtype=dtype)
    return jnp.stack(jnp.meshgrid(axis, axis))


def _blocks(planes: Float[Array, "k n n"], block: int) -> Float[Array, "k b2 m m"]:
    """Return the pixels of each block."""
    across = planes.shape[-1] // block
    whole = planes[:, : across * block, : across * block]
    split = whole.reshape(-1, across, block, across, block)
    return split.transpose(0, 2, 4, 1, 3).reshape(-1, block * block, across, across)


def _turn(z: Float[Array, "2 n n"], axis: int) -> Float[Array, "2 n n"]:
    """Return conj(z)·z' for the next z' along an axis; 0 at the end, which has no next."""
    size = z.shape[axis]
    ahead = jax.lax.slice_in_dim(z, 1, size, axis=axis)
    x, y = jax.lax.slice_in_dim(z, 0, size - 1, axis=axis)
    turn = jnp.stack([x * ahead[0] + y * ahead[1], x * ahead[1] - y * ahead[0]])
    return jnp.pad(turn, [(0, int(i == axis)) for i in range(3)])


def _bend(slope: Float[Array, "2 m m"], axis: int) -> Float[Array, "m m"]:
    """Return the change of slope to the next block along an axis, compressed."""
    cosine, sine = _turn(slope, axis)
    known = (cosine != 0) | (sine != 0)
    bend = jnp.where(known, jnp.arctan2(sine, jnp.where(known, cosine, 1)), 0)
    return jnp.arcsinh(_STRETCH * bend)
