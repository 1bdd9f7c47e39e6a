"""How a batch is executed: how many samples at once, on which devices, within which memory."""

from dataclasses import dataclass
from typing import Any

from refinejax._checks import check_positive
from refinejax.batch.plan import check_lanes, parse_bytes


@dataclass(frozen=True)
class Execution:
    """How a batch is executed. Answers do not depend on it.

    Attributes:
        lanes: samples refined at the same time by one engine; by default what suits the hardware.
        threads: engines, one a thread, each with its own lanes, that share the samples. By default
            one, and one for each core of a CPU once the first chunks show that XLA keeps a single
            core busy, as with many small operations. Not with ``mesh`` or ``memory_limit``, which
            are about one engine.
        mesh: devices to divide the lanes among, a `jax.sharding.Mesh`; they do not communicate. If
            they belong to several processes (``jax.distributed``), each refines its share on its
            own devices, and all get the whole result.
        memory_limit: bytes on each device, or text such as "30GB": lanes are chosen by what the
            compiled program needs.

    Raises:
        ValueError: names the attribute that does not fit.
    """

    lanes: int | None = None
    threads: int | None = None
    mesh: Any = None
    memory_limit: str | float | None = None

    def __post_init__(self) -> None:
        """Check the attributes."""
        if self.lanes is not None:
            check_lanes(self.lanes)
        if self.memory_limit is not None:
            parse_bytes(self.memory_limit)
        if self.threads is None:
            return
        check_positive("threads", self.threads)
        if self.threads > 1 and self.one_engine:
            raise ValueError(
                f"threads: expected 1 or None with mesh or memory_limit, got {self.threads}"
            )

    @property
    def one_engine(self) -> bool:
        """Whether a mesh or a limit of memory rules out several engines."""
        return self.mesh is not None or self.memory_limit is not None


def as_execution(execution: Execution | None) -> Execution:
    """Return the options, or the defaults for None.

    Args:
        execution: options, or None.

    Raises:
        ValueError: for anything else.
    """
    if execution is None:
        return Execution()
    if not isinstance(execution, Execution):
        raise ValueError(
            f"execution: expected options, such as Execution(lanes=64), or None, got {execution!r}"
        )
    return execution
