"""The architecture "predictor": a `Predictor` of phase maps, built from a plain configuration."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from refinejax._config import read_config
from refinejax.apps.metalens.features import PhaseFeatures
from refinejax.networks.architectures import ARCHITECTURES
from refinejax.networks.predictor import OutputSpace, Predictor
from refinejax.problems.space import ParameterSpace

_FILLED_IN = ("shape", "outputs", "context")


@dataclasses.dataclass(frozen=True)
class PredictorConfig:
    """Input and output of a `Predictor` of phase maps; its network is configured beside it.

    Attributes:
        size: n, of the n × n maps.
        names: of the params.
        lower: bounds of the params.
        upper: bounds of the params.
        units: of the params.
        features: see `PhaseFeatures`.
        block: pixels along each side of a block, see `PhaseFeatures`.
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
            `networks.ARCHITECTURES` ("resnet" if it is left out), and its sizes but for shape,
            outputs and context, which follow from the other keys.
        key: for the weights; each member has its own.

    Raises:
        ValueError: names the key that is unknown or does not fit.
    """
    rest = dict(config)
    table = dict(rest.pop("network", {}))
    read = read_config(PredictorConfig, rest, "predictor")
    name = table.pop("architecture", "resnet")
    if name not in ARCHITECTURES:
        raise ValueError(f"architecture: expected one of {', '.join(ARCHITECTURES)}, got {name!r}")
    given = [size for size in _FILLED_IN if size in table]
    if given:
        raise ValueError(
            f"network: {', '.join(given)} follow from the predictor's other keys; leave them out"
        )
    box = OutputSpace(read.names, read.lower, read.upper, read.units)
    ParameterSpace.create(*box)  # checks the bounds
    features = PhaseFeatures(read.features, read.block)
    count = len(read.names)
    sizes = {
        "shape": features.shape(read.size),
        "outputs": 2 * count if read.heteroscedastic else count,
        "context": read.context,
    }
    keys = jax.random.split(key, read.members)
    network = jax.vmap(lambda key: ARCHITECTURES[name]({**table, **sizes}, key))(keys)
    constant = None if read.heteroscedastic else jnp.zeros((read.members, count))
    return Predictor(network, constant, features, box)
