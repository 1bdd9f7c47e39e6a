"""The host's part of the batch engine: keep the lanes filled until every sample has ended."""

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refinejax._core import Status
from refinejax._deadline import EndCondition
from refinejax.batch.lanes import (
    Lanes,
    Outcome,
    Rows,
    Rules,
    cycle,
    cycle_reordered,
    empty,
    snapshot,
)
from refinejax.batch.layout import Layout
from refinejax.batch.plan import LanePlan
from refinejax.batch.sources import Samples, Source
from refinejax.batch.traces import LossTraces

_CHUNK_SECONDS = 0.2  # how long the host waits for the device between looks at the clock
_FIRST_CAP = 16
_MEASURED = 0.02  # seconds of chunks after which it is known how many cores they keep busy


@dataclass(frozen=True)
class Finished:
    """Samples that have ended, on the host.

    Attributes:
        ids: numbers of the samples, shape (n,).
        params: leaves, each with a leading axis n.
        loss: best losses, shape (n,).
        initial_loss: losses at the start, shape (n,).
        steps: taken, shape (n,).
        evaluations: values and derivatives, shape (n, 2), see `Evaluations`: from the engine those
            of one stage, in the ledger and the output of all so far.
        status: as int8, shape (n,).
        margins: by name of the choice, shape (n,).
    """

    ids: np.ndarray
    params: list[np.ndarray]
    loss: np.ndarray
    initial_loss: np.ndarray
    steps: np.ndarray
    evaluations: np.ndarray
    status: np.ndarray
    margins: dict[str, np.ndarray] = field(default_factory=dict)

    def columns(self) -> list[np.ndarray]:
        """Return everything as a list, for the ledger."""
        return [
            self.ids, self.loss, self.initial_loss, self.steps, self.evaluations, self.status,
            *self.margins.values(), *self.params,
        ]  # fmt: skip

    def rows(self, mask: np.ndarray) -> "Finished":
        """Return the samples where ``mask`` is True.

        Args:
            mask: True for the rows wanted.
        """
        return Finished.from_columns([column[mask] for column in self.columns()], self.margins)

    @classmethod
    def from_columns(cls, columns: list[np.ndarray], margins: Iterable[str] = ()) -> "Finished":
        """Inverse of `columns`, for the margins of these names.

        Args:
            columns: as `columns` gives them.
            margins: names of the margins.

        Returns:
            The samples.
        """
        names = list(margins)
        ids, loss, initial_loss, steps, evaluations, status, *rest = columns
        found = dict(zip(names, rest, strict=False))
        params = rest[len(names) :]
        return cls(ids, params, loss, initial_loss, steps, evaluations, status, found)


class Engine:
    """A fixed number of lanes on the devices, and the loop that fills and empties them.

    Args:
        rules, layout: common to all samples.
        structure: pytree structure of the params.
        plan: how many lanes, and on what devices.
        traces: where the losses are recorded after every step, which makes the chunks one step
            long; None to record nothing.
    """

    def __init__(
        self,
        rules: Rules,
        layout: Layout,
        structure: Any,
        plan: LanePlan,
        traces: LossTraces | None = None,
    ) -> None:
        self.layout, self.structure, self.plan = layout, structure, plan
        self.rules = plan.place(jax.device_put(rules), split=False)  # once, not at every call
        self.filler: Rows | None = None
        self.traces = traces
        self.cap = _FIRST_CAP if traces is None else 1
        self.compiled = threading.Event()  # set when the first chunk is done
        self.measured = threading.Event()  # set when `cores_used` is known
        self.wall = self.cpu = 0.0

    def drive(self, source: Source, end: EndCondition) -> Iterator[Finished]:
        """Refine all samples of ``source``; yield them as they end.

        When the run has to end early, the samples in the lanes are yielded as they stand and the
        rest is left.

        Args:
            source: of the samples.
            end: says between chunks whether to end.

        Yields:
            Samples that have ended.
        """
        plan, queue = self.plan, Queue(source)
        free = np.full(plan.devices, plan.lanes // plan.devices)
        group = plan.group // plan.devices
        lanes: Lanes | None = None
        while True:
            counts = queue.serve(np.where(free >= group, group, 0))
            free -= counts
            if lanes is None and not counts.any():
                return
            rows = self._rows(queue.pull(int(counts.sum())), counts)
            lanes = self._empty(rows) if lanes is None else lanes
            filling = np.any(free >= group) and not queue.empty
            quota = plan.lanes if queue.empty else group
            begun, used = time.monotonic(), time.process_time()
            lanes, outcome = self._cycle(lanes, rows, quota, 0 if filling else self.cap)
            queue.prefetch(plan.group)  # while the devices work
            ids = np.asarray(outcome.ids)
            seconds = time.monotonic() - begun
            if self.compiled.is_set() and not filling and not self.measured.is_set():
                self._measure(seconds, time.process_time() - used)
            self.compiled.set()
            self._adapt(seconds, full=bool(np.sum(ids >= 0) >= quota))
            free += np.sum(ids.reshape(plan.devices, -1) >= 0, axis=1)
            self._record(lanes, outcome)
            if np.any(ids >= 0):
                yield _finished(outcome, ids >= 0)
            if queue.empty and np.all(free == plan.lanes // plan.devices):
                return
            if (status := end.status()) is not None:
                yield self._unfinished(lanes, status)
                return

    def cores_used(self) -> float:
        """Return the cores that this process kept busy during the chunks measured; 0 if none."""
        return self.cpu / self.wall if self.wall else 0.0

    def _measure(self, seconds: float, cpu: float) -> None:
        """Add a chunk that took ``seconds``, ``cpu`` seconds of all threads of the process."""
        self.wall += seconds
        self.cpu += cpu
        if self.wall >= _MEASURED:
            self.measured.set()

    def _record(self, lanes: Lanes, outcome: Outcome) -> None:
        """Note the losses of the samples in the lanes, and of the samples that have ended."""
        if self.traces is not None:
            for rows in (outcome, snapshot(self.rules, lanes, layout=self.layout)):
                ids = np.asarray(rows.ids)
                self.traces.begin(ids, np.asarray(rows.initial_loss))
                self.traces.note(ids, np.asarray(rows.steps), np.asarray(rows.loss))

    def _cycle(self, lanes: Lanes, rows: Rows, quota: int, cap: int) -> tuple[Lanes, Outcome]:
        program = cycle_reordered if self.layout.reorder else cycle
        return program(
            self.rules,
            lanes,
            rows,
            np.int32(quota),
            np.int32(cap),
            layout=self.layout,
            mesh=self.plan.mesh,
        )

    def _adapt(self, seconds: float, *, full: bool) -> None:
        """Choose the longest chunk that leaves the host in charge a few times a second."""
        if self.traces is not None:
            return
        if seconds > 2 * _CHUNK_SECONDS:
            self.cap = max(1, self.cap // 2)
        elif seconds < _CHUNK_SECONDS / 2 and not full:
            self.cap = min(2 * self.cap, 2**20)

    def _rows(self, samples: Samples | None, counts: np.ndarray) -> Rows:
        """Lay samples out in rows, ``counts[d]`` of them for device d, and put them there."""
        if samples is None:
            if self.filler is None:
                raise RuntimeError("no rows were ever admitted")
            return self.filler
        group = self.plan.group // self.plan.devices
        slots = np.concatenate([d * group + np.arange(n) for d, n in enumerate(counts)])

        def lay(leaf: np.ndarray) -> np.ndarray:
            rows = np.empty((self.plan.group, *leaf.shape[1:]), leaf.dtype)
            if len(slots) < self.plan.group:
                rows[:] = leaf[:1]  # filler is a copy of a real sample, so that it is harmless
            rows[slots] = leaf
            return rows

        ids = np.full(self.plan.group, -1, np.int32)
        ids[slots] = samples.ids
        params = jax.tree.unflatten(self.structure, [lay(leaf) for leaf in samples.params])
        data = [lay(leaf) for leaf in samples.data]
        rows = Rows(params, data, ids, lay(samples.steps), lay(samples.initial_loss))
        placed = self.plan.place(rows, split=True)
        vacant = self.plan.place(np.full(self.plan.group, -1, np.int32), split=True)
        self.filler = placed.replace(ids=vacant)
        return placed

    def _empty(self, rows: Rows) -> Lanes:
        lanes = empty(self.rules, rows, layout=self.layout, count=self.plan.lanes)
        return self.plan.place(jax.device_put(lanes), split=True)

    def _unfinished(self, lanes: Lanes, status: Status) -> Finished:
        outcome = snapshot(self.rules, lanes, layout=self.layout)
        ended = jnp.where(outcome.status == Status.RUNNING, int(status), outcome.status)
        return _finished(outcome.replace(status=ended), np.asarray(outcome.ids) >= 0)


class Queue:
    """Samples read ahead of time from a source."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.parts: list[Samples] = []
        self.ready = 0
        self.exhausted = False

    @property
    def empty(self) -> bool:
        """Whether all samples of the source have been pulled."""
        return self.exhausted and not self.ready

    def prefetch(self, count: int) -> None:
        """Read until ``count`` samples are ready, or there are no more.

        Args:
            count: how many.
        """
        while self.ready < count and not self.exhausted:
            part = self.source.take(count - self.ready)
            if part is None:
                self.exhausted = True
            else:
                self.parts.append(part)
                self.ready += len(part.ids)

    def serve(self, wanted: np.ndarray) -> np.ndarray:
        """Return how many samples each device gets of what it wants; the first come first.

        Args:
            wanted: samples that each device can take.
        """
        self.prefetch(int(wanted.sum()))
        left = np.maximum(self.ready - np.concatenate([[0], np.cumsum(wanted)[:-1]]), 0)
        return np.minimum(wanted, left)

    def pull(self, count: int) -> Samples | None:
        """Hand out ``count`` samples that are ready.

        Args:
            count: no more than are ready.

        Returns:
            The samples; None for a count of 0.
        """
        if not count:
            return None
        joined = Samples(*_concatenate(self.parts))
        head, tail = _cut(joined, slice(None, count)), _cut(joined, slice(count, None))
        self.ready -= count
        self.parts = [tail] if self.ready else []
        return head


def _cut(samples: Samples, rows: slice) -> Samples:
    return Samples(*jax.tree.map(lambda leaf: leaf[rows], tuple(samples)))


def _concatenate(parts: list[Samples]) -> Any:
    if len(parts) == 1:
        return tuple(parts[0])
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *map(tuple, parts))


def _finished(outcome: Outcome, mask: np.ndarray) -> Finished:
    rows = jax.tree.map(lambda leaf: np.asarray(leaf)[mask], outcome)
    return Finished(
        rows.ids,
        jax.tree.leaves(rows.params),
        rows.loss,
        rows.initial_loss,
        rows.steps,
        np.stack(rows.evaluations, axis=-1),
        rows.status.astype(np.int8),
    )
