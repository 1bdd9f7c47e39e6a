"""The cascade over batches of any size: portions, resume, progress, time limit."""

import hashlib
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from refinejax._core import Status, Stop
from refinejax.apps._lens_cascade import Cascade, exact_problem
from refinejax.batch.interrupt import Deadline
from refinejax.batch.progress import Bar
from refinejax.batch.result import BatchResult, write_npz
from refinejax.batch.run import lanes_within
from refinejax.problems import ParameterSpace
from refinejax.refiners import LevenbergMarquardt

_PORTION = 4096  # maps that go through the stages together


def solve(
    maps: np.ndarray,
    wavelength: np.ndarray,
    start: np.ndarray,
    space: ParameterSpace,
    *,
    given: bool,
    max_steps: int | None = None,
    stop: Stop | None = None,
    lanes: int | None = None,
    memory_limit: str | float | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    time_limit: float | None = None,
) -> BatchResult:
    """Fit (xc, yc, S, focal_length) [µm] to maps (B, N, N) [rad] of known wavelengths (B,) [µm].

    Args:
        maps: NaN is missing.
        wavelength: of each map.
        start: shape (B, 4); what is returned is not worse.
        space: the bounds.
        given: whether the start is somebody's, and worth trying.
        max_steps: the most steps of each fit.
        stop: ends the last fit.
        lanes: as for `run_batch`.
        memory_limit: as for `run_batch`.
        progress: as for `run_batch`.
        checkpoint: as for `run_batch`; portions of 4096 maps are kept.
        time_limit: as for `run_batch`.
    """
    begun, count = time.monotonic(), len(maps)
    parts = []
    if memory_limit is not None:
        few = slice(0, min(count, _PORTION))
        task = exact_problem(maps[few], wavelength[few], space)
        lanes = lanes_within(memory_limit, LevenbergMarquardt(), task, start[few])
    with Bar(count, shown=progress) as bar, Deadline(time_limit) as deadline:
        for first in range(0, count, _PORTION):
            rows = slice(first, first + _PORTION)
            job = maps[rows], wavelength[rows], start[rows]
            part = _Portion(checkpoint, first, job)
            done = part.load()
            if done is None and deadline.verdict() is None:
                problem = exact_problem(*job[:2], space)
                cascade = Cascade(
                    problem,
                    job[2],
                    given=given,
                    max_steps=max_steps,
                    stop=stop,
                    lanes=lanes,
                    deadline=deadline,
                )
                cascade.solve()
                done = _columns(cascade)
                if deadline.verdict() is None:
                    part.save(done)
            parts.append(_unbegun(job[2], deadline) if done is None else done)
            ended = parts[-1]["status"]
            good = (ended >= int(Status.CONVERGED_GRAD)) & (ended <= int(Status.TARGET_REACHED))
            bar.update(len(ended), int(np.sum(good)))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    lower, upper = (np.asarray(bound, start.dtype) for bound in space.bounds)
    at_bound = (columns["params"] <= lower) | (columns["params"] >= upper)
    return BatchResult(**columns, at_bound=at_bound, seconds=time.monotonic() - begun)


def _columns(cascade: Cascade) -> dict[str, np.ndarray]:
    return {
        "params": cascade.lenses,
        "loss": cascade.loss,
        "initial_loss": cascade.initial_loss,
        "steps": cascade.steps,
        "status": cascade.status,
    }


def _unbegun(start: np.ndarray, deadline: Deadline) -> dict[str, np.ndarray]:
    """Return samples as they came, with the reason why nothing was done."""
    unknown = np.full(len(start), np.nan, start.dtype)
    return {
        "params": start,
        "loss": unknown,
        "initial_loss": unknown,
        "steps": np.zeros(len(start), np.int32),
        "status": np.full(len(start), int(deadline.verdict() or Status.STOPPED), np.int8),
    }


class _Portion:
    """What is kept of one portion: a file, named after its first map, with a digest of the job."""

    def __init__(self, folder: Any, first: int, job: tuple[np.ndarray, ...]) -> None:
        self.path = None if folder is None else Path(folder) / f"portion-{first:09d}.npz"
        self.job = job

    def _digest(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for array in self.job:
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def load(self) -> dict[str, np.ndarray] | None:
        """Return what was kept, or None. A damaged file counts as none.

        Raises:
            ValueError: if it is of another job.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None
        if str(arrays.pop("job")) != self._digest():
            raise ValueError(
                f"checkpoint: {self.path.parent} belongs to another job (other maps or starts); "
                "name another folder, or remove it"
            )
        return arrays

    def save(self, columns: dict[str, np.ndarray]) -> None:
        """Keep a portion that is finished."""
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_npz(self.path, job=np.array(self._digest()), **columns)
