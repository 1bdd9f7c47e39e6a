"""`train`: the loop by which everything is trained."""

import os
from collections.abc import Mapping
from typing import Any

from refinejax._checks import check_seconds
from refinejax._core import Status
from refinejax._deadline import Deadline
from refinejax._progress import ProgressBar
from refinejax.training.config import TrainingConfig
from refinejax.training.result import Trained
from refinejax.training.run import TrainingRun
from refinejax.training.task import TrainingTask, check_task


def train(
    task: TrainingTask,
    config: TrainingConfig,
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    description: Mapping[str, Any] | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> Trained:
    """Train the weights of a task, and return the best by validation.

    **Resume.** The rule is the one of ``checkpoint=`` in `run_batch`, and holds for all trainings
    (`meta_train`, `train_model`, `refinejax train`): called again with the same arguments and
    folder, an interrupted training goes on from its newest checkpoint and ends as if it had not
    been interrupted, bit for bit on the same device with the same versions; a finished one is
    returned. A folder that holds another training is refused. A kill loses the steps since the
    newest checkpoint; Ctrl-C and ``time_limit`` save, and lose nothing.

    Args:
        task: to be trained.
        config: how.
        checkpoint: folder for ``checkpoints`` and the log, ``metrics.jsonl``; None for neither.
        description: of the task, as JSON can hold it; part of what makes two trainings the same.
        progress: draw a progress bar on stderr.
        time_limit: seconds after which the training is saved and ends, with status
            ``TIME_LIMIT``; None for no limit.

    Returns:
        The outcome: the best weights, the log, and how the training ended (``STOPPED`` after
        Ctrl-C).

    Raises:
        ValueError: for a task that is no pytree, or returns what it may not (names it); if
            ``checkpoint`` holds another training: of another config, description or numbers of the
            task (names what differs), or checkpoints that are all damaged.
        OSError: if ``checkpoint`` cannot be written, or the disk is full. What was saved is still
            there.
    """
    check_task(task)
    check_seconds("time_limit", time_limit)
    run = TrainingRun(task, config, checkpoint, description)
    run.begin()
    ended: Status | None = None
    bar = ProgressBar("training", config.steps, shown=progress, done=run.step)
    with Deadline(time_limit) as deadline, bar:
        while run.status is Status.RUNNING and (ended := deadline.status()) is None:
            run.go_on()
            bar.draw(run.step, run.note())
        run.save()
    return run.trained(ended)
