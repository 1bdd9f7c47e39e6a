"""Arrays that results are put into as they come."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from refinejax._core import Status, Stop
from refinejax._status import have_converged
from refinejax._trees import broadcast_like
from refinejax.batch.engine import Finished
from refinejax.batch.result import BatchResult
from refinejax.batch.traces import LossTraces


def after_early_stage(rows: Finished, rules: Stop, max_steps: int) -> tuple[Finished, np.ndarray]:
    """Return the rows of an early stage of a `Sequential`, and which no later stage refines.

    Those are the samples that the driver would end: at the target, without a finite start, or with
    no steps left.

    Args:
        rows: the samples.
        rules: method, limits, key and shared data.
        max_steps: the most steps for one sample.
    """
    reached = rows.loss <= np.asarray(rules.target)
    lost = rows.status == int(Status.NONFINITE_START)
    used_up = ~reached & ~lost & (rows.steps >= max_steps)
    status = np.where(reached, np.int8(Status.TARGET_REACHED), rows.status)
    status = np.where(used_up, np.int8(Status.MAX_STEPS), status)
    early = (rows.status == int(Status.TIME_LIMIT)) | (rows.status == int(Status.STOPPED))
    return replace(rows, status=status), (reached | lost | used_up) & ~early


class Output:
    """Arrays for the results of samples ``first`` to ``first + count``.

    Args:
        starts: leaves of the params at the start.
        count: how many samples.
        first: number of the first one.
        margins: names of the margins of discrete choices, see `BatchResult`.
        traces: losses that are recorded step by step.
        steps_traced: whether they count the steps of the samples; else an application's stages.
    """

    def __init__(
        self,
        starts: list[np.ndarray],
        count: int,
        first: int = 0,
        *,
        margins: Iterable[str] = (),
        traces: LossTraces | None = None,
        steps_traced: bool = True,
    ) -> None:
        self.first = first
        self.margins = {name: np.full(count, np.nan) for name in margins}
        self.traces = LossTraces(0) if traces is None else traces
        self.steps_traced = steps_traced
        self.params = [np.array(leaf) for leaf in starts]
        dtype = np.result_type(*starts)
        self.loss = np.full(count, np.nan, dtype)
        self.initial_loss = np.full(count, np.nan, dtype)
        self.steps = np.zeros(count, np.int32)
        self.evaluations = np.zeros((count, 2), np.int32)
        self.status = np.full(count, int(Status.RUNNING), np.int8)
        self.begun = np.zeros(count, bool)
        self.ended = np.zeros(count, bool)

    def put(self, rows: Finished, over: np.ndarray | None = None) -> np.ndarray:
        """Store rows; return the numbers of the samples that are done with.

        Args:
            rows: samples that have ended, or that the run has ended.
            over: which of them no later stage refines; all by default.

        Returns:
            Numbers of the samples that are done with, shape (n,).
        """
        ids = rows.ids - self.first
        fresh = ~self.begun[ids]
        self._store(rows, self.evaluations[ids] + rows.evaluations)
        self.initial_loss[ids[fresh]] = rows.initial_loss[fresh]
        self.begun[ids] = True
        done = (rows.status != int(Status.TIME_LIMIT)) & (rows.status != int(Status.STOPPED))
        done = done if over is None else done & over
        self.ended[ids[done]] = True
        return rows.ids[done]

    def restore(self, rows: Finished) -> None:
        """Store rows that an earlier run finished.

        Args:
            rows: the samples.
        """
        self._store(rows, rows.evaluations)
        ids = rows.ids - self.first
        self.traces.begin(rows.ids, rows.initial_loss)
        if self.steps_traced:
            self.traces.note(rows.ids, rows.steps, rows.loss)
        self.initial_loss[ids] = rows.initial_loss
        self.begun[ids] = self.ended[ids] = True

    def _store(self, rows: Finished, evaluations: np.ndarray) -> None:
        ids = rows.ids - self.first
        self.evaluations[ids] = evaluations
        for mine, new in zip(self.params, rows.params, strict=True):
            mine[ids] = new
        self.loss[ids], self.steps[ids], self.status[ids] = rows.loss, rows.steps, rows.status
        for name, margin in rows.margins.items():
            self.margins[name][ids] = margin

    def arrays(self) -> list[np.ndarray]:
        """Return all arrays of results, to be exchanged in place."""
        numbers = (self.loss, self.initial_loss, self.steps, self.evaluations, self.status)
        return [*self.params, *numbers, *self.margins.values()]

    def columns(self, ids: np.ndarray) -> list[np.ndarray]:
        """Return what the ledger keeps of these samples.

        Args:
            ids: numbers of the samples, shape (n,).
        """
        at = ids - self.first
        params = [leaf[at] for leaf in self.params]
        rows = Finished(
            ids=ids,
            params=params,
            loss=self.loss[at],
            initial_loss=self.initial_loss[at],
            steps=self.steps[at],
            evaluations=self.evaluations[at],
            status=self.status[at],
            margins={name: margin[at] for name, margin in self.margins.items()},
        )
        return rows.columns()

    def converged(self, ids: np.ndarray) -> int:
        """Return how many of these samples met a stopping rule.

        Args:
            ids: numbers of the samples, shape (n,).
        """
        return int(np.sum(have_converged(self.status[ids - self.first])))

    def abandon(self, status: Status) -> None:
        """Set the status of samples that have not ended.

        Args:
            status: for samples that have not ended.
        """
        self.status[~self.ended] = int(status)

    def result(self, structure: Any, bounds: Any, seconds: float) -> BatchResult:
        """Put the result together.

        Args:
            structure: pytree structure of the params.
            bounds: (lower, upper) of the params, or None.
            seconds: wall time.

        Returns:
            The results.
        """
        params = jax.tree.unflatten(structure, self.params)
        return BatchResult(
            params=params,
            loss=self.loss,
            initial_loss=self.initial_loss,
            steps=self.steps,
            evaluations=self.evaluations[:, 0],
            derivative_evaluations=self.evaluations[:, 1],
            status=self.status,
            at_bound=None if bounds is None else at_bound(params, bounds),
            margins=self.margins,
            trace=self.traces.array() if len(self.traces) else None,
            seconds=seconds,
        )


def at_bound(params: Any, bounds: Any) -> Any:
    """Return True where a param lies on one of its bounds; not where these leave it no choice.

    Args:
        params: each leaf with a leading sample axis.
        bounds: lower and upper bounds, each a number or a pytree like ``params``.

    Returns:
        A pytree like ``params`` of bools (NumPy).
    """
    lower, upper = (broadcast_like(bound, params) for bound in bounds)

    def touch(p: Any, low: Any, high: Any) -> np.ndarray:
        p = np.asarray(p)
        low, high = np.asarray(low, p.dtype), np.asarray(high, p.dtype)
        return ((p <= low) | (p >= high)) & (low < high)

    return jax.tree.map(touch, params, lower, upper)
