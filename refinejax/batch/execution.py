"""How a batch is executed: how many samples at once, on which devices, within which memory."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Execution:
    """How a batch is executed, and nothing about what is computed: answers do not depend on it.

    Attributes:
        lanes: samples under way at once; by default what suits the hardware.
        threads: engines with lanes of their own, one a thread, that share the samples; by default
            chosen by what a step costs. Not with ``mesh`` or ``memory_limit``.
        mesh: devices to divide the lanes among, a `jax.sharding.Mesh`; without communication.
        memory_limit: bytes on each device, or text such as "30GB": lanes are chosen by what the
            compiled program needs.
    """

    lanes: int | None = None
    threads: int | None = None
    mesh: Any = None
    memory_limit: str | float | None = None
