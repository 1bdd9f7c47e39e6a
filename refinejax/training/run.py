"""A training under way, as the host sees it: steps, validations, the log and checkpoints."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refinejax._checks import as_key
from refinejax._core import Status
from refinejax.checkpoint import Checkpoints
from refinejax.learned.schedules import learning_rate
from refinejax.training.config import TrainingConfig
from refinejax.training.log import TrainingLog
from refinejax.training.memory import peak_memory
from refinejax.training.result import Trained
from refinejax.training.state import Best, Live, Numbers, Recipe
from refinejax.training.steps import ROWS, advance, start, validate
from refinejax.training.task import fingerprint

_CALL_SECONDS = 0.5  # how long the host waits for the device before it draws and listens


class TrainingRun:
    """A training under way: see `refinejax.training.train` for the arguments.

    Between calls it is at a step whose validation and checkpoint, where they are due, are done.

    Attributes:
        live: the state on the device.
        best: the best weights so far.
        log: the log.
    """

    live: Live
    best: Best
    log: TrainingLog

    def __init__(
        self,
        task: Any,
        config: TrainingConfig,
        folder: str | os.PathLike[str] | None,
        description: Mapping[str, Any] | None,
    ) -> None:
        self.task, self.config = task, config
        self.recipe, self.numbers = Recipe.of(config, task), Numbers.of(config)
        self.keys = jax.random.split(as_key(config.seed), 3)
        self.status = Status.RUNNING
        self.step, self.skipped, self.saved, self.cap = 0, 0, -1, 1
        self.rate, self.loss = 0.0, float("nan")
        self.begun = time.monotonic()
        self.folder = None if folder is None else Path(folder).absolute()
        self.checkpoints: Checkpoints | None = None
        if self.folder is not None:
            told = config.to_dict() | {"task": dict(description or {})}
            del told["keep"], told["checkpoint_every"]  # of no effect on the weights
            self.mark = fingerprint(task)
            self.checkpoints = Checkpoints(
                self.folder / "checkpoints", keep=config.keep, config=told
            )

    def begin(self) -> None:
        """Start, or go on from the newest checkpoint; compile.

        Raises:
            ValueError: if the folder holds another training.
        """
        self.live = start(self.task, self.numbers, self.keys[0], recipe=self.recipe)
        first = jax.tree.map(jnp.copy, self.live.current())  # as `live` is donated
        self.best = Best(first, float("inf"), 0, 0)
        if not self._restore():
            self.log = TrainingLog(self._log_path())
            self._validate()
            self.save()
        if self.status is Status.RUNNING:
            self._advance(0)

    def _restore(self) -> bool:
        """Take up the newest checkpoint; return whether there is one."""
        if self.checkpoints is None:
            return False
        try:
            self.saved, state = self.checkpoints.restore(self._state())
        except FileNotFoundError:  # interrupted before there was one
            return False
        if state["task"] != self.mark:
            raise ValueError(
                f"checkpoint: {self.folder} holds the training of a task with other numbers or "
                f"settings, up to step {self.saved}; use another folder, or delete this one"
            )
        self.live, self.best, self.step = state["live"], state["best"], self.saved
        self.skipped, self.status = int(self.live.skipped), Status(state["status"])
        self.log = TrainingLog(self._log_path(), upto=self.saved)
        self.begun -= max((line.get("seconds", 0.0) for line in self.log.lines), default=0.0)
        return True

    def _log_path(self) -> Path | None:
        return None if self.folder is None else self.folder / "metrics.jsonl"

    def _state(self) -> dict[str, Any]:
        return {
            "live": self.live,
            "best": self.best,
            "key": self.keys[1],
            "status": int(self.status),
            "task": self.mark,
        }

    def go_on(self) -> None:
        """Take some steps, then validate, log and save where that is due."""
        config = self.config
        self._advance(self._room())
        lost = int(self.live.lost) >= config.give_up
        over = lost or self.step == config.steps
        if over or _due(config.validate_every, self.step):
            self._validate()
        if over or 0 < config.patience <= self.best.waited:
            blind = self.best.loss == float("inf")
            well = Status.MAX_STEPS if over else Status.STALLED
            self.status = Status.NONFINITE if lost or blind else well
            self._close_window()
        self.log.flush()
        if _due(config.checkpoint_every, self.step):
            self.save()

    def _room(self) -> int:
        """Return how many steps there are before something else is due."""
        every = (self.config.validate_every, self.config.checkpoint_every)
        waits = [n - self.step % n for n in every if n]
        return min(self.cap, self.config.steps - self.step, *waits)

    def _advance(self, count: int) -> None:
        """Take steps on the device; with 0, only compile."""
        begun = time.monotonic()
        self.live, rows, filled = advance(
            self.task, self.numbers, self.live, self.keys[1], np.int32(count), recipe=self.recipe
        )
        before, self.step = self.step, int(self.live.step)  # waits for the device
        self.skipped = int(self.live.skipped)
        if not count:
            return
        seconds = time.monotonic() - begun
        self.rate = (self.step - before) / seconds
        rows = {name: np.asarray(column) for name, column in rows.items()}
        for i in range(int(filled)):
            self._note({name: column[i] for name, column in rows.items()})
        if seconds > 2 * _CALL_SECONDS:
            self.cap = max(1, self.cap // 2)
        elif seconds < _CALL_SECONDS / 2 and count == self.cap:
            self.cap = min(2 * self.cap, ROWS)

    def _note(self, row: dict[str, Any]) -> None:
        first = ("step", "loss", "grad_norm", "learning_rate", "skipped")
        names = [*first, *(name for name in row if name not in first)]
        self.log.add({name: row[name] for name in names} | {"rate": np.float32(self.rate)})
        self.loss = float(row["loss"])

    def _close_window(self) -> None:
        """Note the steps since the last line, as there will be no more."""
        if not _due(self.config.log_every, self.step):
            numbers, last = self.numbers, self.step - 1
            rate = learning_rate(
                self.recipe.schedule, numbers.learning_rate, last, numbers.warmup, numbers.steps
            )
            row = {"step": self.step, "learning_rate": rate, "skipped": self.skipped}
            self._note(row | self.live.window.means())

    def _validate(self) -> None:
        numbers, weights = validate(self.task, self.live, self.keys[2], recipe=self.recipe)
        loss = float(numbers["loss"])  # waits for the device
        used = {"seconds": time.monotonic() - self.begun, "memory": peak_memory()}
        named = {f"validation_{name}": x for name, x in numbers.items()}
        self.log.add({"step": self.step} | named | used)
        if loss < self.best.loss:
            self.best = Best(weights, loss, self.step, 0)
        else:
            self.best = self.best._replace(waited=self.best.waited + 1)

    def save(self) -> None:
        """Write a checkpoint, unless there is one of this step."""
        self.log.flush()
        if self.checkpoints is not None and self.saved != self.step:
            self.checkpoints.save(self.step, self._state())
            self.saved = self.step

    def note(self) -> str:
        """Return rate, losses and skipped steps, for the progress bar."""
        skipped = f"  {self.skipped} skipped" if self.skipped else ""
        return f"{self.rate:.3g}/s  loss {self.loss:.4g}  best {self.best.loss:.4g}{skipped}"

    def trained(self, ended: Status | None) -> Trained:
        """Return the outcome.

        Args:
            ended: why the host ended a training that could go on; None if it did not.

        Returns:
            The best weights by validation, and how the training ended.
        """
        status = ended if self.status is Status.RUNNING and ended is not None else self.status
        best = self.best
        return Trained(
            best.weights, best.loss, best.step, self.step, status, self.skipped, self.log.lines
        )


def _due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0
