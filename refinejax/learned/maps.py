"""What a network sees of a residual: its numbers, or of a map of phases a coarse map of phasors."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from refinejax.physics.slopes import circle
from refinejax.problems.phase import RADIAN


@dataclass(frozen=True)
class Relative:
    """The residual over its root mean square: what there is to explain, whatever its size.

    Where the residual is 0 throughout, it is 0. For a residual of few numbers.
    """

    def __call__(self, residual: PyTree) -> Float[Array, " m"]:
        """Return the numbers in one array."""
        flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(residual)])
        mean = jnp.mean(flat**2)
        return flat * jnp.where(mean > 0, jax.lax.rsqrt(jnp.where(mean > 0, mean, 1)), 0)


@dataclass(frozen=True)
class Phasors:
    """Means of cos and sin over blocks of pixels: of the residual, and of its slopes.

    Of a phase residual [rad], wrapped or not. Its differences between neighboring pixels, wrapped,
    are observed less predicted slopes: they tell where to go as long as those are off by less than
    half a turn a pixel, where the residual itself has fringes. Missing pixels count as 0 radians.

    Attributes:
        across: blocks along each side.

    Raises:
        ValueError: if ``across`` is below 1; when called, of a map with fewer pixels.
    """

    across: int = 8

    def __post_init__(self) -> None:
        """Insist on a block."""
        if self.across < 1:
            raise ValueError(f"across: expected 1 block or more, got {self.across}")

    def __call__(self, residual: Float[Array, "h w"]) -> Float[Array, "across across 6"]:
        """Return the means, two each: of the residual, its slopes along columns and along rows."""
        turns = residual * RADIAN
        maps = (turns, turns[:, 1:] - turns[:, :-1], turns[1:] - turns[:-1])
        return jnp.concatenate([self._means(turns) for turns in maps], axis=-1)

    def _means(self, turns: Array) -> Array:
        width = min(turns.shape) // self.across
        if width < 1:
            raise ValueError(
                f"residual: {self.across} blocks across need {self.across + 1} pixels or more, got "
                f"a map of shape {turns.shape}"
            )
        size = self.across * width
        rows, columns = ((n - size) // 2 for n in turns.shape)
        part = turns[rows : rows + size, columns : columns + size]
        blocks = (self.across, width, self.across, width)
        sine, cosine = (jnp.mean(x.reshape(blocks), axis=(1, 3)) for x in circle(part))
        return jnp.stack([cosine, sine], axis=-1)
