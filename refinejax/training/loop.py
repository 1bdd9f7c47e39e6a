"""`train`: the loop by which everything is trained."""

import os
from collections.abc import Mapping
from typing import Any

from refinejax._core import Status
from refinejax._deadline import Deadline
from refinejax.training.bar import Bar
from refinejax.training.config import TrainingConfig
from refinejax.training.result import Trained
from refinejax.training.run import Run
from refinejax.training.task import TrainingTask, check_task


def train(
    task: TrainingTask,
    config: TrainingConfig,
    folder: str | os.PathLike[str] | None = None,
    *,
    description: Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: bool = False,
) -> Trained:
    """Train the weights of a task, and return the best by validation.

    A training that was interrupted, also by a kill, goes on where its last checkpoint was and ends
    as if it had not been: bit for bit on the same device with the same versions. Ctrl-C ends it
    after the steps under way, saved, with status ``STOPPED``.

    Args:
        task: what is trained.
        config: how.
        folder: for ``checkpoints`` and the log, ``metrics.jsonl``; None for neither.
        description: of the task, as JSON can hold it. A training is not resumed with another one.
        resume: go on with the training in ``folder``; begin it if it has no checkpoint yet.
        progress: draw a progress bar on stderr.

    Returns:
        The best weights, the last ones, and how the training ended.

    Raises:
        ValueError: for a task that is no pytree, or returns what it may not (names it); if
            ``folder`` holds a training and ``resume`` is not set, or one of another config or
            description (names what differs), or checkpoints that are all damaged.
        OSError: if ``folder`` cannot be written, or the disk is full. What was saved is still
            there.
    """
    check_task(task)
    if resume and folder is None:
        raise ValueError("resume: expected the folder of the training to go on with, got None")
    run = Run(task, config, folder, description)
    run.begin(resume=resume)
    with Deadline(None) as deadline, Bar(config.steps, run.step, shown=progress) as bar:
        while run.status is Status.RUNNING and deadline.status() is None:
            run.go_on()
            bar.update(run.step, run.rate, run.loss, run.best.loss, run.skipped)
        run.save()
    return run.trained()
