"""Predictors and their networks by name, each built from a plain configuration."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from refinejax._config import read_config
from refinejax.networks.features import PhaseFeatures
from refinejax.networks.multitask import build_multitask
from refinejax.networks.predictor import Box, Predictor
from refinejax.networks.resnet import build_resnet
from refinejax.networks.unet import build_unet
from refinejax.problems.space import ParameterSpace

NETWORKS = {"resnet": build_resnet, "unet": build_unet}
_FILLED_IN = ("shape", "outputs", "context")


@dataclasses.dataclass(frozen=True)
class PredictorConfig:
    """What a `Predictor` of phase maps sees and says; its network is configured beside it.

    Attributes:
        size: n, of the n × n maps.
        names: of the params.
        lower: bounds of the params.
        upper: bounds of the params.
        units: of the params.
        features: see `PhaseFeatures`.
        block: likewise [px].
        context: how many numbers are known beside the map.
        members: networks in the ensemble.
        heteroscedastic: whether the network gives log variances, one for each param of each map;
            if not, they are one for each param.

    Raises:
        ValueError: for less than one member, or a context below 0.
    """

    size: int
    names: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    units: tuple[str, ...]
    features: tuple[str, ...] = ("slopes", "curvatures")
    block: int = 8
    context: int = 0
    members: int = 1
    heteroscedastic: bool = True

    def __post_init__(self) -> None:
        """Check."""
        if self.members < 1:
            raise ValueError(f"members: expected 1 or more, got {self.members}")
        if self.context < 0:
            raise ValueError(f"context: expected 0 or more, got {self.context}")


def build_predictor(config: Mapping[str, Any], key: PRNGKeyArray) -> Predictor:
    """Return a predictor of phase maps, with random weights.

    Args:
        config: the keys of `PredictorConfig`, and "network", a mapping: "architecture", a name of
            `NETWORKS` ("resnet" if it is not there), and the sizes that this has; shape, outputs
            and context are filled in.
        key: for the weights; each member has its own.

    Raises:
        ValueError: names what is unknown or does not fit.
    """
    rest = dict(config)
    table = dict(rest.pop("network", {}))
    read = read_config(PredictorConfig, rest, "predictor")
    name = table.pop("architecture", "resnet")
    if name not in NETWORKS:
        raise ValueError(f"architecture: expected one of {', '.join(NETWORKS)}, got {name!r}")
    given = [size for size in _FILLED_IN if size in table]
    if given:
        raise ValueError(
            f"network: {', '.join(given)} follow from the predictor's other keys; leave them out"
        )
    box = Box(read.names, read.lower, read.upper, read.units)
    ParameterSpace.create(*box)  # complains of bounds
    features = PhaseFeatures(read.features, read.block)
    count = len(read.names)
    sizes = {
        "shape": features.shape(read.size),
        "outputs": 2 * count if read.heteroscedastic else count,
        "context": read.context,
    }
    keys = jax.random.split(key, read.members)
    network = jax.vmap(lambda key: NETWORKS[name]({**table, **sizes}, key))(keys)
    constant = None if read.heteroscedastic else jnp.zeros((read.members, count))
    return Predictor(network, constant, features, box)


ARCHITECTURES: dict[str, Callable[[Mapping[str, Any], PRNGKeyArray], Any]] = {
    **NETWORKS,
    "multitask": build_multitask,
    "predictor": build_predictor,
}
