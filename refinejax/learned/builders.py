"""Learned refiners by name and config."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flax import nnx
from jaxtyping import PRNGKeyArray

from refinejax._checks import check_positive
from refinejax._config import read_config
from refinejax._core import Refiner
from refinejax.learned.cells import InferenceMachine, LSTMUpdate, ResidualUpdate
from refinejax.learned.damping import LearnedDamping
from refinejax.learned.damping_net import DampingNet
from refinejax.learned.maps import Phasors, Relative
from refinejax.learned.rule import learned_rule
from refinejax.learned.rule_cells import LSTMRule, MLPRule, RNNprop
from refinejax.learned.update import LearnedUpdate
from refinejax.networks.network import Network
from refinejax.refiners import Gradient

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


@dataclass(frozen=True)
class RuleConfig:
    """`Gradient` with a `learned_rule`.

    Attributes:
        cell: "lstm", "rnnprop" or "mlp".
        width: of the layers.
        layers: how many.
        rate: α, a factor on steps.
        learn_rate: whether it is learned.

    Raises:
        ValueError: for an unknown cell, sizes below 1, or a rate that is not above 0.
    """

    cell: str = "rnnprop"
    width: int = 20
    layers: int = 2
    rate: float = 0.1
    learn_rate: bool = False

    def __post_init__(self) -> None:
        """Check."""
        if self.cell not in RULES:
            raise ValueError(f"cell: expected one of {', '.join(RULES)}, got {self.cell!r}")
        check_positive("width", self.width)
        check_positive("layers", self.layers)
        if not 0 < self.rate < math.inf:
            raise ValueError(f"rate: expected a number above 0, got {self.rate!r}")

    def __call__(self, key: PRNGKeyArray) -> Gradient:
        """Return the refiner, untrained."""
        options: dict[str, Any] = {"rate": self.rate, "learn_rate": self.learn_rate}
        options["rngs"] = nnx.Rngs(key)
        if self.cell == "mlp":
            net: nnx.Module = MLPRule((self.width,) * self.layers, **options)
        else:
            net = RULES[self.cell](self.width, self.layers, **options)
        return Gradient(learned_rule, {"rule": Network.of(net)})


RULES: dict[str, Any] = {"lstm": LSTMRule, "rnnprop": RNNprop, "mlp": MLPRule}
CELLS = {
    "residual": ResidualUpdate,
    "lstm": LSTMUpdate,
    "inference_machine": InferenceMachine,
}
CONFIGS: dict[str, Any] = {"damping": DampingConfig, "update": UpdateConfig, "rule": RuleConfig}


def builder(name: str, config: Mapping[str, Any]) -> Builder:
    """Return what makes a learned refiner of this kind from a key; hashable.

    Args:
        name: "damping", "update" or "rule".
        config: fields of `DampingConfig`, `UpdateConfig` or `RuleConfig`; lists may stand for
            tuples.

    Raises:
        ValueError: for a name or a field that is not known, or a value that does not fit.
    """
    if name not in CONFIGS:
        raise ValueError(f"refiner: expected one of {', '.join(CONFIGS)}, got {name!r}")
    return read_config(CONFIGS[name], config, name)


def _architecture(name: str) -> Callable[[Mapping[str, Any], PRNGKeyArray], Refiner]:
    return lambda config, key: builder(name, config)(key)


ARCHITECTURES = {name: _architecture(name) for name in CONFIGS}
