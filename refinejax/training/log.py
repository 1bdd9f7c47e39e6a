"""The log of a training: lines in memory, and in a file of JSON lines."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refinejax._files import write_text
from refinejax.experiments.jsonl import read_lines


class TrainingLog:
    """Tables of numbers, each with a step, in ascending order.

    A number that is not finite is ``null`` in the file, and NaN here.

    Args:
        path: of the file; None for none.
        upto: keep what the file holds up to this step; None for nothing. A line that was not
            written to its end is dropped.

    Raises:
        OSError: if it cannot be written.
    """

    def __init__(self, path: Path | None, upto: int | None = None) -> None:
        self.path = path
        self.lines: list[dict[str, float]] = []
        self.waiting: list[str] = []
        if path is None:
            return
        if upto is not None and path.is_file():
            self.lines = [line for line in _read(path) if line["step"] <= upto]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, "".join(_text(line) for line in self.lines))
        except OSError as error:
            raise OSError(f"folder: cannot write {path} ({error}); name another") from error

    def add(self, line: Mapping[str, Any]) -> None:
        """Add a line; `flush` writes it.

        Args:
            line: numbers by name, with a "step".
        """
        self.lines.append({name: _number(value) for name, value in line.items()})
        if self.path is not None:
            self.waiting.append(_text(self.lines[-1]))

    def flush(self) -> None:
        """Write what was noted.

        Raises:
            OSError: if it cannot be written.
        """
        if self.path is None or not self.waiting:
            return
        try:
            with self.path.open("a") as file:
                file.write("".join(self.waiting))
        except OSError as error:
            raise OSError(
                f"folder: cannot write {self.path} ({error}); make room and resume"
            ) from error
        self.waiting = []


def _number(value: Any) -> float:
    value = np.asarray(value)
    if value.dtype.kind in "iub":
        return int(value)
    # By way of the shortest text for its dtype: 0.1 in float32 is 0.1, not 0.10000000149.
    number = float(str(value[()])) if value.dtype.kind == "f" else float(value)
    return number if math.isfinite(number) else math.nan


def _text(line: Mapping[str, float]) -> str:
    shown = {name: None if math.isnan(value) else value for name, value in line.items()}
    return json.dumps(shown) + "\n"


def _read(path: Path) -> list[dict[str, float]]:
    return [
        {name: math.nan if x is None else x for name, x in line.items()}
        for line in read_lines(path)
    ]
