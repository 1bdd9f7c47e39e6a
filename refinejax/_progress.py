"""A progress bar for the batch engine, drawn from the host between chunks."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bar:
    """Samples done, rate, share converged and time left, on stderr; nothing unless ``shown``."""

    def __init__(self, total: int | None, *, shown: bool) -> None:
        self.done = self.converged = 0
        self.progress = Progress(
            TextColumn("refining"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.0f}/s  {task.fields[share]:.0f} % converged"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown,
        )
        self.task = self.progress.add_task("refining", total=total, rate=0.0, share=0.0)

    def __enter__(self) -> "Bar":
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

    def update(self, done: int, converged: int) -> None:
        """Count samples that have ended."""
        self.done += done
        self.converged += converged
        task = self.progress.tasks[0]
        rate = self.done / task.elapsed if task.elapsed else 0.0
        share = 100 * self.converged / self.done if self.done else 0.0
        self.progress.update(self.task, completed=self.done, rate=rate, share=share)
