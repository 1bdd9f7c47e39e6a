"""Learned refiners by name and config."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flax import nnx
from jaxtyping import PRNGKeyArray

from refinejax._core import Refiner
from refinejax.learned.cells import InferenceMachine, LSTMUpdate, ResidualUpdate
from refinejax.learned.damping import LearnedDamping
from refinejax.learned.damping_net import DampingNet
from refinejax.learned.maps import Phasors, Relative
from refinejax.learned.update import LearnedUpdate
from refinejax.networks.config import read_config
from refinejax.networks.network import Network

Builder = Callable[[PRNGKeyArray], Refiner]  # hashable: equal ones compile once


@dataclass(frozen=True)
class DampingConfig:
    """`LearnedDamping`.

    Attributes:
        params: n, for a network that knows one param from another; None for any number.
        hidden: widths of the hidden layers.
    """

    params: int | None = None
    hidden: tuple[int, ...] = (64, 64)

    def __call__(self, key: PRNGKeyArray) -> LearnedDamping:
        """Return the refiner, untrained."""
        net = DampingNet(self.hidden, params=self.params, rngs=nnx.Rngs(key))
        return LearnedDamping(Network.of(net))


@dataclass(frozen=True)
class UpdateConfig:
    """`LearnedUpdate`.

    Attributes:
        params: n.
        width: of the layers.
        depth: blocks of ``cell="residual"``.
        cell: "residual", "lstm" or "inference_machine".
        slope: whether the gradient of the loss is read.
        blocks: along each side of the map of the residual that is read; 0 for none.
        residual: numbers in a residual that is read as it is, but for its size, in proportion to
            which the steps then are: where the model is linear, they can be exact; 0 for none.
    """

    params: int
    width: int = 64
    depth: int = 2
    cell: str = "residual"
    slope: bool = True
    blocks: int = 0
    residual: int = 0

    def __post_init__(self) -> None:
        """Insist on a known cell, and on one residual to read at most.

        Raises:
            ValueError: names what does not fit.
        """
        if self.cell not in CELLS:
            raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {self.cell!r}")
        if self.blocks and self.residual:
            raise ValueError(
                f"blocks, residual: the residual is read in one way, got {self.blocks} blocks and "
                f"{self.residual} numbers; leave one of them out"
            )

    def __call__(self, key: PRNGKeyArray) -> LearnedUpdate:
        """Return the refiner, untrained."""
        options: dict[str, Any] = {"width": self.width, "slope": self.slope, "rngs": nnx.Rngs(key)}
        reads = Phasors(self.blocks) if self.blocks else Relative() if self.residual else None
        options["seen"] = 6 * self.blocks**2 + self.residual
        if self.cell == "residual":
            options["depth"] = self.depth
        net = CELLS[self.cell](self.params, **options)
        return LearnedUpdate(Network.of(net), reads, self.slope, bool(self.residual))


CELLS = {
    "residual": ResidualUpdate,
    "lstm": LSTMUpdate,
    "inference_machine": InferenceMachine,
}
CONFIGS: dict[str, Any] = {"damping": DampingConfig, "update": UpdateConfig}


def builder(name: str, config: Mapping[str, Any]) -> Builder:
    """Return what makes a learned refiner of this kind from a key; hashable.

    Args:
        name: "damping" or "update".
        config: fields of `DampingConfig` or `UpdateConfig`; lists may stand for tuples.

    Raises:
        ValueError: for a name or a field that is not known, or a value that does not fit.
    """
    if name not in CONFIGS:
        raise ValueError(f"refiner: expected one of {', '.join(CONFIGS)}, got {name!r}")
    return read_config(CONFIGS[name], config, name)


def _architecture(name: str) -> Callable[[Mapping[str, Any], PRNGKeyArray], Refiner]:
    return lambda config, key: builder(name, config)(key)


ARCHITECTURES = {name: _architecture(name) for name in CONFIGS}
