"""What comes of a training."""

from dataclasses import dataclass
from typing import Any

from refinejax._core import Status

_MEANING = {
    Status.MAX_STEPS: "All steps were taken.",
    Status.STALLED: "No validation was better than the best for `patience` of them.",
    Status.STOPPED: "Interrupted; train again with the same arguments and folder to go on.",
    Status.TIME_LIMIT: "The time was up; train again with the same arguments and folder to go on.",
    Status.NONFINITE: "Given up: the loss or its gradient was not finite in `give_up` steps in a "
    "row, or no validation was finite. Lower the learning rate or `clip`, or look for what makes "
    "the loss NaN or infinite.",
}


@dataclass(frozen=True)
class Trained:
    """The outcome of a training.

    Attributes:
        weights: the best by validation, of all that were validated; the average where there is one.
        loss: of that validation; ∞ if none was finite, and then the weights are the first.
        best_step: after which it was.
        step: after which the training ended.
        status: ``MAX_STEPS``, ``STALLED``, ``STOPPED``, ``TIME_LIMIT`` or ``NONFINITE``.
        skipped: steps that were skipped, as the loss or its gradient was not finite.
        history: the lines of the log, each a table of numbers by name: of steps (means since the
            last one; ``rate`` is steps a second) and of validations (``seconds`` since the training
            began, with compilation, and ``memory``, the peak so far in MB: of the device, or of the
            process where that is the CPU).
    """

    weights: Any
    loss: float
    best_step: int
    step: int
    status: Status
    skipped: int
    history: list[dict[str, float]]

    def explain(self) -> str:
        """Say how it ended, and what to do."""
        return _MEANING[self.status]

    def __repr__(self) -> str:
        """Return one line, without weights and history."""
        return (
            f"Trained({self.status.name} after step {self.step}, validation loss {self.loss:.6g} "
            f"at step {self.best_step}, {self.skipped} steps skipped)"
        )
