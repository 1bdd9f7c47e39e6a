"""Finished samples on disk, so that an interrupted run goes on where it was."""

import json
import os
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from refinejax._files import hash_parts, write_json, write_npz
from refinejax._trees import as_numpy

_FORMAT = 1
_ROWS = 1024  # of the data, spread evenly, enter the fingerprint


class Ledger:
    """A folder with one file for the job and one for every few seconds of finished samples.

    Where a job has several stages, the names of a stage's files begin with its name.

    A file that is damaged is passed over with a warning; its samples are refined again.

    Args:
        folder: where; made if it is not there.
        fingerprint: of the job (see `fingerprint`).
        interval: seconds between files.

    Raises:
        ValueError: if the folder belongs to another job.
        OSError: if it cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], fingerprint: str, interval: float = 5.0):
        self.folder = Path(folder).absolute()
        self.interval, self.stage = interval, ""
        self.pending: list[list[np.ndarray]] = []
        self.written = time.monotonic()
        job = self.folder / "job.json"
        mine = {"format": _FORMAT, "fingerprint": fingerprint}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not job.exists():
                write_json(job, mine)
        except OSError as error:
            raise OSError(
                f"checkpoint: cannot write to the folder {self.folder} ({error}); name another"
            ) from error
        _compare(job, mine)

    def begin(self, stage: str) -> Iterator[list[np.ndarray]]:
        """Begin a stage of the job; yield what earlier runs have finished of it, as `load`."""
        self.flush()
        self.pending = []  # if it could not be written: these rows are not of this stage
        self.stage = stage
        return self.load()

    def load(self) -> Iterator[list[np.ndarray]]:
        """Yield what earlier runs have finished: for each file the columns given to `add`."""
        for path in sorted(self.folder.glob(f"{self._prefix}part-*.npz")):
            try:
                columns = _read(path)
            except Exception as why:  # a flipped bit may end in any error of zipfile or NumPy
                warnings.warn(
                    f"checkpoint: {path} is damaged ({why}); its samples are refined again",
                    stacklevel=3,
                )
                continue
            yield columns

    @property
    def _prefix(self) -> str:
        return f"{self.stage}." if self.stage else ""

    def add(self, columns: list[np.ndarray]) -> None:
        """Note finished samples: columns with a common leading axis.

        Args:
            columns: arrays with a common leading axis.
        """
        self.pending.append(columns)
        if time.monotonic() - self.written >= self.interval:
            self.flush()

    def flush(self) -> None:
        """Write the noted samples. If that fails (disk full), warn and keep them for later."""
        self.written = time.monotonic()
        if not self.pending:
            return
        joined = [np.concatenate(parts) for parts in zip(*self.pending, strict=True)]
        path = self.folder / f"{self._prefix}part-{uuid.uuid4().hex}.npz"
        try:
            write_npz(path, **dict(zip(_names(len(joined)), joined, strict=True)))
        except OSError as error:
            warnings.warn(
                f"checkpoint: cannot write to {self.folder} ({error}); the run goes on, but what "
                "it finishes from here is lost if it is interrupted",
                stacklevel=3,
            )
            self.pending = [joined]
            return
        self.pending = []


def _names(count: int) -> list[str]:
    """Name columns, each name with their number: a damaged directory of a file may hide some."""
    return [f"c{i:04d}of{count:04d}" for i in range(count)]


def _read(path: Path) -> list[np.ndarray]:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        names = sorted(file.files)
        if not names or names != _names(len(names)):
            raise ValueError("columns are missing")
        return [file[name] for name in names]


def fingerprint(statics: str, leaves: list[Any], data: list[Any]) -> str:
    """Return a hash that tells one job from another.

    Args:
        statics: hash of functions, structures and texts, see `Session.job`.
        leaves: arrays that enter in full.
        data: large arrays, perhaps mapped files, with a leading sample axis. Shapes, dtypes and
            1,024 rows enter, spread evenly.
    """
    return hash_parts(_parts(statics, leaves, data))


def _parts(statics: str, leaves: list[Any], data: list[Any]) -> Iterator[str | np.ndarray]:
    yield statics
    for leaf in leaves:
        yield as_numpy(leaf)
    for leaf in data:
        count = np.shape(leaf)[0]
        picks = np.unique(np.linspace(0, count - 1, min(count, _ROWS)).astype(int))
        yield str(np.shape(leaf))
        for pick in picks:
            yield np.asarray(leaf[pick])


def _compare(path: Path, mine: dict[str, Any]) -> None:
    try:
        theirs = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"checkpoint: {path} cannot be read ({error}); use another folder"
        ) from error
    if theirs != mine:
        raise ValueError(
            f"checkpoint: {path.parent} belongs to another job (other data, start, method, key or "
            "limits); use another folder, or delete it"
        )
