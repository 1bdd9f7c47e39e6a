"""Arrays that results are put into as they come."""

from typing import Any

import jax
import numpy as np

from refinejax._core import Status, Stop
from refinejax._trees import broadcast_like
from refinejax.batch.engine import Finished
from refinejax.batch.result import BatchResult


class Output:
    """Arrays for the results of samples ``first`` to ``first + count``."""

    def __init__(self, starts: list[np.ndarray], count: int, first: int = 0) -> None:
        self.first = first
        self.params = [np.array(leaf) for leaf in starts]
        dtype = np.result_type(*starts)
        self.loss = np.full(count, np.nan, dtype)
        self.initial_loss = np.full(count, np.nan, dtype)
        self.steps = np.zeros(count, np.int32)
        self.status = np.full(count, int(Status.RUNNING), np.int8)
        self.begun = np.zeros(count, bool)
        self.ended = np.zeros(count, bool)

    def put(self, rows: Finished, rules: Stop, max_steps: int, *, early: bool) -> np.ndarray:
        """Store rows; return the numbers of the samples that are done with.

        After an early stage of a `Sequential` only those are done with that the driver ends.
        """
        ids = rows.ids - self.first
        fresh = ~self.begun[ids]
        self._store(rows)
        self.initial_loss[ids[fresh]] = rows.initial_loss[fresh]
        self.begun[ids] = True
        status = rows.status
        over = (status != int(Status.TIME_LIMIT)) & (status != int(Status.STOPPED))
        if early:
            reached = rows.loss <= np.asarray(rules.target)
            self.status[ids[reached]] = int(Status.TARGET_REACHED)
            lost = rows.status == int(Status.NONFINITE_START)
            used_up = ~reached & ~lost & (rows.steps >= max_steps)
            self.status[ids[used_up]] = int(Status.MAX_STEPS)
            over &= reached | lost | used_up
        self.ended[ids[over]] = True
        return rows.ids[over]

    def restore(self, rows: Finished) -> None:
        """Store rows that an earlier run finished."""
        self._store(rows)
        ids = rows.ids - self.first
        self.initial_loss[ids] = rows.initial_loss
        self.begun[ids] = self.ended[ids] = True

    def _store(self, rows: Finished) -> None:
        ids = rows.ids - self.first
        for mine, new in zip(self.params, rows.params, strict=True):
            mine[ids] = new
        self.loss[ids], self.steps[ids], self.status[ids] = rows.loss, rows.steps, rows.status

    def arrays(self) -> list[np.ndarray]:
        """Return all arrays of results, to be exchanged in place."""
        return [*self.params, self.loss, self.initial_loss, self.steps, self.status]

    def columns(self, ids: np.ndarray) -> list[np.ndarray]:
        """Return what the ledger keeps of these samples."""
        at = ids - self.first
        params = [leaf[at] for leaf in self.params]
        rows = Finished(
            ids, params, self.loss[at], self.initial_loss[at], self.steps[at], self.status[at]
        )
        return rows.columns()

    def converged(self, ids: np.ndarray) -> int:
        """Return how many of these samples met a stopping rule."""
        return sum(Status(int(value)).converged for value in self.status[ids - self.first])

    def abandon(self, status: Status) -> None:
        """Set the status of samples that have not ended."""
        self.status[~self.ended] = int(status)

    def result(self, structure: Any, bounds: Any, seconds: float) -> BatchResult:
        """Put the result together."""
        params = jax.tree.unflatten(structure, self.params)
        return BatchResult(
            params=params,
            loss=self.loss,
            initial_loss=self.initial_loss,
            steps=self.steps,
            status=self.status,
            at_bound=None if bounds is None else at_bound(params, bounds),
            seconds=seconds,
        )


def at_bound(params: Any, bounds: Any) -> Any:
    """Return True where a param lies on one of its bounds.

    Args:
        params: each leaf with a leading sample axis.
        bounds: lower and upper bounds, each a number or a pytree like ``params``.

    Returns:
        A pytree like ``params`` of bools (NumPy).
    """
    lower, upper = (broadcast_like(bound, params) for bound in bounds)

    def touch(p: Any, low: Any, high: Any) -> np.ndarray:
        p = np.asarray(p)
        return (p <= np.asarray(low, p.dtype)) | (p >= np.asarray(high, p.dtype))

    return jax.tree.map(touch, params, lower, upper)
