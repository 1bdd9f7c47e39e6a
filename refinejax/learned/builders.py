"""Learned refiners by name and config."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx
from jaxtyping import PRNGKeyArray

from refinejax._applications import registered, resolve
from refinejax._checks import check_positive
from refinejax._config import read_config
from refinejax._core import Refiner
from refinejax.learned.cells import InferenceMachine, LSTMUpdate, ResidualUpdate
from refinejax.learned.damping import LearnedDamping
from refinejax.learned.damping_net import DampingNet
from refinejax.learned.maps import Relative
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
        residual: numbers in the residual that the network reads, divided by their root mean square,
            to which the steps are then proportional: where the model is linear, they can be exact.
            0: the network does not read the residual.

    Raises:
        ValueError: for an unknown cell.
    """

    params: int
    width: int = 64
    depth: int = 2
    cell: str = "residual"
    slope: bool = True
    residual: int = 0

    def __post_init__(self) -> None:
        """Check the cell."""
        if self.cell not in CELLS:
            raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {self.cell!r}")

    def __call__(self, key: PRNGKeyArray) -> LearnedUpdate:
        """Return the refiner, untrained."""
        reads = Relative() if self.residual else None
        return build_update(self, key, reads=reads, seen=self.residual)


def build_update(
    config: UpdateConfig,
    key: PRNGKeyArray,
    *,
    reads: Callable[[Any], Any] | None,
    seen: int,
) -> LearnedUpdate:
    """Return an untrained `LearnedUpdate` with a reader of the residual of your own.

    Args:
        config: sizes and cell.
        key: for the initial weights.
        reads: what the network reads of the residual, hashable; None for nothing.
        seen: how many numbers that is.

    Returns:
        The refiner.
    """
    sizes: dict[str, Any] = {"width": config.width, "slope": config.slope, "seen": seen}
    if config.cell == "residual":
        sizes["depth"] = config.depth
    net = CELLS[config.cell](config.params, rngs=nnx.Rngs(key), **sizes)
    return LearnedUpdate(Network.of(net), reads, config.slope, bool(config.residual))


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


@dataclass(frozen=True)
class RegisteredBuilder:
    """Makes a refiner whose architecture an application has registered.

    Attributes:
        name: of the architecture.
        config: its configuration as JSON, so that equal ones compile once.

    Raises:
        ValueError: when called, if the architecture makes something else than a refiner.
    """

    name: str
    config: str

    def __call__(self, key: PRNGKeyArray) -> Refiner:
        """Return the refiner, untrained."""
        build = resolve(registered("architectures")[self.name])
        made = build(json.loads(self.config), key)
        if not isinstance(made, Refiner):
            raise ValueError(
                f"refiner: architecture {self.name!r} makes a {type(made).__name__}; expected one "
                "that makes a Refiner"
            )
        return made


def builder(name: str, config: Mapping[str, Any]) -> Builder:
    """Return a function that makes an untrained learned refiner from a key; it is hashable.

    Args:
        name: "damping", "update" or "rule", or an architecture that an application registers.
        config: fields of `DampingConfig`, `UpdateConfig` or `RuleConfig`, or what the registered
            architecture reads; lists may stand for tuples.

    Returns:
        The builder: key → refiner.

    Raises:
        ValueError: for a name or a field that is not known, or a value that does not fit.
    """
    if name in CONFIGS:
        return read_config(CONFIGS[name], config, name)
    others = registered("architectures")
    if name not in others:
        raise ValueError(
            f"refiner: expected one of {', '.join(CONFIGS)}, got {name!r}; applications register "
            f"{', '.join(others) or 'none'}"
        )
    made = RegisteredBuilder(name, json.dumps(dict(config), sort_keys=True))
    jax.eval_shape(made, jax.random.key(0))
    return made


def _architecture(name: str) -> Callable[[Mapping[str, Any], PRNGKeyArray], Refiner]:
    return lambda config, key: builder(name, config)(key)


ARCHITECTURES = {name: _architecture(name) for name in CONFIGS}
