"""How many lanes, and where."""

import math
import numbers
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from refinejax._checks import check_positive

_LANES = {"cpu": 64}  # measured by benchmarks.core.continuous_batching
_LANES_SMALL = 1024  # on a CPU, of samples so small that the host's work between chunks counts
_CACHE = 2**21  # bytes that such lanes may work on
_ROUNDS = 8  # samples for a lane, so that long fits do not run in lanes mostly empty
_LANES_ACCELERATOR = 1024
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


class LanePlan(NamedTuple):
    """The shape of a run.

    Attributes:
        lanes: samples refined at the same time, over all devices.
        group: samples admitted and collected at once, over all devices.
        mesh: the devices, or None for the default one.
    """

    lanes: int
    group: int
    mesh: Mesh | None = None

    @property
    def devices(self) -> int:
        """Number of devices."""
        return 1 if self.mesh is None else self.mesh.size

    def place(self, tree: Any, *, split: bool) -> Any:
        """Put arrays on the devices: leading axis split over them, or everything on each.

        Args:
            tree: a pytree of arrays.
            split: whether the leading axis is divided over the devices.

        Returns:
            The arrays on the devices.
        """
        if self.mesh is None:
            return tree
        names = self.mesh.axis_names
        return jax.device_put(tree, NamedSharding(self.mesh, P(names) if split else P()))


def check_lanes(lanes: Any) -> None:
    """Raise `ValueError` unless ``lanes`` is a whole number of 1 or more.

    Args:
        lanes: how many.
    """
    check_positive("lanes", lanes)


def working_set(data: Sequence[Any], starts: Sequence[Any]) -> float:
    """Return the bytes that one step of one sample works on, about.

    Args:
        data: leaves of the problem that belong to samples, with a leading sample axis.
        starts: leaves of the params, with a leading sample axis.

    Returns:
        The bytes of the sample times a few arrays of its size, one for each param up to 8.
    """
    one = sum(leaf.nbytes / max(len(leaf), 1) for leaf in (*data, *starts))
    params = sum(leaf.size / max(len(leaf), 1) for leaf in starts)
    return one * (min(params, 8) + 4)


def make_plan(
    lanes: int | None, count: int | None, mesh: Mesh | None, sample: float = math.inf
) -> LanePlan:
    """Choose the number of lanes: the one given, or one for the hardware, but no more than needed.

    On a CPU small samples get more lanes, as many as fit the cache, eight samples each.

    Args:
        lanes: over all devices; None to choose.
        count: of samples; None if it is not known.
        mesh: the devices, or None for the default one.
        sample: bytes that a step of one sample works on, see `working_set`.

    Returns:
        The number of lanes, and the devices.

    Raises:
        ValueError: if ``lanes`` is no integer, or below 1.
    """
    devices = 1 if mesh is None else mesh.size
    if lanes is None:
        platform = (jax.devices() if mesh is None else mesh.devices.flat)[0].platform
        each = _LANES.get(platform, _LANES_ACCELERATOR)
        if platform in _LANES and count is not None:
            room = min(_CACHE / max(sample, 1.0), count / devices / _ROUNDS, _LANES_SMALL)
            each = max(each, 2 ** int(math.log2(max(room, 1.0))))
        lanes = each * devices
        if count is not None:  # a power of two, so that other counts can use the same program
            lanes = min(lanes, 2 ** (count - 1).bit_length())
    check_lanes(lanes)
    each = -(-lanes // devices)
    if mesh is not None:  # axes of type Explicit (those of jax.make_mesh) would shard every type
        mesh = Mesh(mesh.devices, mesh.axis_names)
    return LanePlan(each * devices, max(1, each // 4) * devices, mesh)


def parse_bytes(limit: str | float) -> float:
    """Read "30GB" or "512 MiB" or a number of bytes.

    Args:
        limit: bytes, or text such as "30GB".

    Returns:
        The bytes.

    Raises:
        ValueError: if it is none of these.
    """
    size = _read_bytes(limit) if isinstance(limit, str) else limit
    if isinstance(size, bool) or not isinstance(size, numbers.Real) or not 0 < size < math.inf:
        raise ValueError(f'memory_limit: expected bytes or text such as "30GB", got {limit!r}')
    return float(size)


def _read_bytes(text: str) -> float | None:
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([kmgt]?)(i?)b?\s*", text.lower())
    if match is None:
        return None
    number, unit, binary = match.groups()
    size = _UNITS[unit]
    return float(number) * (1024 ** (len(str(size)) // 3) if binary and unit else size)


def fit_memory(
    measure: Callable[[LanePlan], int], limit: float, plan: LanePlan, count: int | None
) -> LanePlan:
    """Return the plan with the most lanes whose compiled program stays within ``limit`` bytes.

    Args:
        measure: compiles the program for a plan and returns the bytes it needs on one device.
        limit: bytes on one device.
        plan: where to begin; its number of lanes is not the limit.
        count: number of samples, if known; more lanes than that are of no use.

    Raises:
        ValueError: if not even one lane a device fits.
    """
    small = make_plan(4 * plan.devices, None, plan.mesh)
    large = make_plan(8 * plan.devices, None, plan.mesh)
    one, two = measure(small), measure(large)
    each = max((two - one) / (large.lanes - small.lanes), 1.0)
    lanes = int((limit - one) / each) + small.lanes
    if count is not None:
        lanes = min(lanes, max(plan.lanes, count))
    lanes = max(min(lanes, 2**20) // plan.devices, 1) * plan.devices
    while lanes >= plan.devices:
        chosen = make_plan(lanes, None, plan.mesh)
        if measure(chosen) <= limit:
            return chosen
        lanes = lanes * 9 // 10 // plan.devices * plan.devices
    raise ValueError(
        f"memory_limit: one lane a device needs {measure(make_plan(plan.devices, None, plan.mesh))}"
        f" bytes, more than {limit:.0f}; allow more, or use a method with a smaller memory"
    )
