"""A learned refiner that reads the residual of a phase map: the architecture "phasor_update"."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from refinejax._config import read_config
from refinejax.learned import LearnedUpdate, UpdateConfig
from refinejax.learned.builders import build_update
from refinejax.physics.slopes import circle
from refinejax.problems.phase import RADIAN


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
        """Check the number of blocks."""
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


def build_phasor_update(config: Mapping[str, Any], key: PRNGKeyArray) -> LearnedUpdate:
    """Return an untrained `LearnedUpdate` that reads its residual by `Phasors`.

    Args:
        config: "blocks", 8 if it is left out: blocks along each side of the map; and the keys of
            `learned.UpdateConfig` but for "residual".
        key: for the initial weights.

    Returns:
        The refiner.

    Raises:
        ValueError: names the key that is unknown or does not fit.
    """
    table = dict(config)
    reads = Phasors(table.pop("blocks", 8))
    update = read_config(UpdateConfig, table, "phasor_update")
    if update.residual:
        raise ValueError(
            f"residual: the residual is read in one way, by {reads.across} blocks; leave out "
            f"residual = {update.residual}"
        )
    return build_update(update, key, reads=reads, seen=6 * reads.across**2)
