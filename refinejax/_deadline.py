"""When a run ends early: a time limit, and Ctrl-C that waits for the end of a chunk."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Protocol

from refinejax._core import Status


class EndCondition(Protocol):
    """Says between chunks whether the run has to end."""

    def status(self) -> Status | None:
        """Return the status of samples that have not ended if the run has to end, else None."""
        ...


class Deadline:
    """Says between chunks whether to end: at the first Ctrl-C, or when the time is up.

    The second Ctrl-C interrupts at once, as usual. Outside the main thread, where Python delivers
    no signals, only the time counts.
    """

    def __init__(self, seconds: float | None) -> None:
        self.end = float("inf") if seconds is None else time.monotonic() + seconds
        self.interrupted = False
        self.previous: Any = None

    def __enter__(self) -> "Deadline":
        """Take over Ctrl-C."""
        if threading.current_thread() is threading.main_thread():
            self.previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give Ctrl-C back."""
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True

    def left(self) -> float | None:
        """Return the seconds left, 0 after Ctrl-C; None without a limit."""
        if self.interrupted:
            return 0.0
        return None if self.end == float("inf") else max(self.end - time.monotonic(), 0.0)

    def status(self) -> Status | None:
        """Return STOPPED or TIME_LIMIT if the run has to end, else None."""
        if self.interrupted:
            return Status.STOPPED
        return Status.TIME_LIMIT if time.monotonic() >= self.end else None
