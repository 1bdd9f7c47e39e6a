"""A progress bar for a training, drawn from the host between calls."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bar:
    """Steps done, rate, losses and time left, on stderr; nothing unless ``shown``."""

    def __init__(self, total: int, done: int, *, shown: bool) -> None:
        self.progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown,
        )
        self.task = self.progress.add_task("training", total=total, completed=done, note="")

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

    def update(self, done: int, rate: float, loss: float, best: float, skipped: int) -> None:
        """Draw where it stands."""
        note = f"{rate:.3g}/s  loss {loss:.4g}  best {best:.4g}"
        note += f"  {skipped} skipped" if skipped else ""
        self.progress.update(self.task, completed=done, note=note)
