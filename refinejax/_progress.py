"""The progress bar, drawn on stderr from the host between calls of the device."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressBar:
    """A title, a bar, a count, a note and the time left; nothing unless ``shown``.

    Args:
        title: of the work, such as "training".
        total: the count at the end; None if it is not known.
        shown: whether it is drawn.
        done: the count at the start.
    """

    def __init__(self, title: str, total: int | None, *, shown: bool, done: int = 0) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown,
        )
        self.task = self.progress.add_task(title, total=total, completed=done, note="")

    def __enter__(self) -> "ProgressBar":
        """Begin to draw."""
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last state on the screen."""
        self.progress.stop()

    def draw(self, done: int, note: str) -> None:
        """Draw a count and a note.

        Args:
            done: the count so far.
            note: text behind the bar.
        """
        self.progress.update(self.task, completed=done, note=note)

    @property
    def seconds(self) -> float:
        """Seconds since the bar was first drawn; 0 before."""
        return self.progress.tasks[0].elapsed or 0.0


class Bar(ProgressBar):
    """Samples done, their rate, and the share that converged.

    Args:
        total: samples; None if their number is not known.
        shown: whether it is drawn.
    """

    def __init__(self, total: int | None, *, shown: bool) -> None:
        super().__init__("refining", total, shown=shown)
        self.done = self.converged = 0

    def __enter__(self) -> "Bar":
        """Begin to draw."""
        super().__enter__()
        return self

    def begin(self, name: str, total: int | None) -> None:
        """Begin another stage: the same bar, from 0 on.

        Args:
            name: of the stage.
            total: its samples; None if their number is not known.
        """
        self.done = self.converged = 0
        self.progress.reset(self.task, description=name, total=total, note="")

    def add(self, done: int, converged: int) -> None:
        """Count samples that have ended.

        Args:
            done: how many have ended since the last call.
            converged: how many of these converged.
        """
        self.done += done
        self.converged += converged
        rate = self.done / self.seconds if self.seconds else 0.0
        share = 100 * self.converged / self.done if self.done else 0.0
        self.draw(self.done, f"{rate:.0f}/s  {share:.0f} % converged")
