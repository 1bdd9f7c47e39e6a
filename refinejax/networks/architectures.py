"""Networks by name, each built from a plain configuration."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from refinejax.networks.resnet import build_resnet
from refinejax.networks.unet import build_unet

ARCHITECTURES: dict[str, Callable[[Mapping[str, Any], PRNGKeyArray], Any]] = {
    "resnet": build_resnet,
    "unet": build_unet,
}
