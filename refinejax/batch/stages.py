"""The stages of a refiner: one, or those of a `Sequential`, which the engine runs one by one."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from refinejax._core import Refiner, Stop
from refinejax._run import UNLIMITED
from refinejax._trees import structure_hash
from refinejax.batch.lanes import Rules
from refinejax.batch.layout import Packed
from refinejax.refiners.compose.sequential import Sequential


class Stage(NamedTuple):
    """A refiner, how it ends, and whether another follows.

    Attributes:
        refiner: the method.
        stop: how it ends.
        steps: the most steps in the stage.
        place: "early" or "last" in a `Sequential`, else "".
    """

    refiner: Refiner
    stop: Stop
    steps: Any
    place: str


def stages_of(refiner: Refiner, rules: Stop) -> list[Stage]:
    """Take a `Sequential` apart, so that no sample pays for a stage it is not in.

    Args:
        refiner: the method.
        rules: method, limits, key and shared data.

    Returns:
        The stages, in order.
    """
    governed = refiner.with_stop(rules)
    if not isinstance(governed, Sequential):
        return [Stage(governed, rules, UNLIMITED, "")]
    own = (governed.stop or rules).resolve(rules.loss.dtype)
    early = own.replace(target=jnp.maximum(own.target, rules.target))
    *first, last = governed.stages
    stages = [Stage(r, early, n, "early") for r, n in zip(first, governed.steps, strict=True)]
    return [*stages, Stage(last, rules, UNLIMITED, "last")]


def rules_of(stage: Stage, key: Any, max_steps: int, shared: list[Any]) -> Rules:
    """Return the rules of this stage: method, limits, key and shared data.

    Args:
        stage: the stage.
        key: a PRNG key.
        max_steps: the most steps for one sample.
        shared: leaves that all samples share.
    """
    return Rules(
        refiner=stage.refiner,
        stop=stage.stop,
        key=Packed.pack(key),
        max_steps=jnp.int32(max_steps),
        stage_steps=jnp.int32(stage.steps),
        shared=shared,
        stage=stage.place,
        classes=structure_hash(stage.refiner),
    )
