"""A batch shared among processes."""

import os
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh


class Share(NamedTuple):
    """The samples that this process refines, and on what devices.

    Attributes:
        mine: True for its samples, shape (B,): one contiguous block.
        mesh: its own devices of the mesh, or None for the default one.
        process: its number among those of the mesh.
        processes: how many processes there are.
    """

    mine: np.ndarray
    mesh: Mesh | None
    process: int = 0
    processes: int = 1

    @classmethod
    def of(cls, mesh: Mesh | None, samples: int) -> "Share":
        """Divide the samples among the processes that the mesh spans.

        Args:
            mesh: devices, perhaps of several processes.
            samples: how many samples there are.

        Returns:
            The samples and the devices of this process.

        Raises:
            ValueError: if this process has no device in the mesh.
        """
        everything = np.ones(samples, bool)
        if mesh is None or not mesh.is_multi_process:
            return cls(everything, mesh)
        processes = sorted({device.process_index for device in mesh.devices.flat})
        if jax.process_index() not in processes:
            raise ValueError(
                f"mesh: process {jax.process_index()} has no device in it; build it from "
                "jax.devices(), those of all processes"
            )
        place = processes.index(jax.process_index())
        each = -(-samples // len(processes))
        numbers = np.arange(samples)
        mine = (numbers >= place * each) & (numbers < (place + 1) * each)
        return cls(mine, Mesh(np.array(mesh.local_devices), ("lanes",)), place, len(processes))

    @property
    def size(self) -> int:
        """How many samples this process refines."""
        return int(self.mine.sum())

    def folder(self, checkpoint: str | os.PathLike[str]) -> Path:
        """Return the folder for what this process finishes.

        Args:
            checkpoint: the folder of the whole run.
        """
        path = Path(checkpoint)
        return path if self.processes == 1 else path / f"process-{self.process}"

    def exchange(self, arrays: list[np.ndarray]) -> None:
        """Give every process the rows of all, in place; leading axes are the samples.

        Args:
            arrays: with a leading axis of all samples.
        """
        if self.processes == 1:
            return
        samples = len(self.mine)
        each = -(-samples // self.processes)
        for array in arrays:
            block = np.zeros((each, *array.shape[1:]), array.dtype)  # the last may be shorter
            block[: self.size] = array[self.mine]
            blocks = np.asarray(multihost_utils.process_allgather(block))
            array[:] = blocks.reshape(-1, *array.shape[1:])[:samples]
