"""The checked arguments of `invert`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refinejax._core import Stop
from refinejax.batch import Execution
from refinejax.batch.pipeline import Pipeline


@dataclass(frozen=True)
class Inversion:
    """Maps to invert, where to start, and how.

    Attributes:
        maps: shape (B, N, N) [rad].
        known: wavelengths, shape (B,) [µm]; None if they are not known.
        starts: shape (B, 5) [µm].
        given: whether the starts are the user's.
        key, max_steps, stop, execution, progress, checkpoint, time_limit, trace: as for `invert`.
    """

    maps: np.ndarray
    known: np.ndarray | None
    starts: np.ndarray
    given: bool
    key: Any
    max_steps: int | None
    stop: Stop | None
    execution: Execution | None
    progress: bool
    checkpoint: str | Path | Any
    time_limit: float | None
    trace: int

    def pipeline(self, identity: Sequence[Any] = ()) -> Pipeline:
        """Return a pipeline for the stages of this inversion.

        Args:
            identity: what the answers depend on beside the first stage.
        """
        return Pipeline(
            self.execution,
            progress=self.progress,
            checkpoint=self.checkpoint,
            time_limit=self.time_limit,
            identity=identity,
        )
