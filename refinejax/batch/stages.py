"""The stages of a refiner: one, or those of a chain, which the engine runs one by one."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from refinejax._core import Refiner, Stage, Stop
from refinejax._lane import UNLIMITED
from refinejax._trees import structure_hash
from refinejax.batch.lanes import Rules
from refinejax.batch.layout import Packed


class BatchStage(NamedTuple):
    """A refiner, its resolved stopping rules and most steps, and its place in a chain.

    Attributes:
        refiner: the method.
        stop: resolved rules.
        steps: the most steps in the stage.
        place: "early" or "last" in a chain; "" for a refiner by itself.
    """

    refiner: Refiner
    stop: Stop
    steps: Any
    place: str


def stages_of(refiner: Refiner, rules: Stop) -> list[BatchStage]:
    """Take a chain apart, so that no sample pays for a stage it is not in.

    Args:
        refiner: the method.
        rules: the driver's stopping rules, resolved.

    Returns:
        The stages, in order.
    """
    governed = refiner.with_stop(rules)
    *first, last = governed.stages()
    place = "" if last.refiner is governed else "last"
    stages = [_early(stage, rules) for stage in first]
    return [*stages, BatchStage(last.refiner, rules, UNLIMITED, place)]


def _early(stage: Stage, rules: Stop) -> BatchStage:
    own = (stage.stop or rules).resolve(rules.loss.dtype)
    stop = own.replace(target=jnp.maximum(own.target, rules.target))
    return BatchStage(stage.refiner, stop, stage.steps, "early")


def rules_of(stage: BatchStage, key: Any, max_steps: int, shared: list[Any]) -> Rules:
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
