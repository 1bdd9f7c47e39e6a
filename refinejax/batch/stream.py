"""`run_stream`: refine samples that come in chunks."""

import functools
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from refinejax._checks import as_key, as_stop, check_refiner, check_seconds
from refinejax._core import Refiner, Stop, as_problem
from refinejax._deadline import Deadline
from refinejax._fork import check_process
from refinejax._gate import check_outside_traces, models_in_jax, read_tree
from refinejax._lane import UNLIMITED
from refinejax._marks import Session, mark
from refinejax._narrowing import narrowing_notes
from refinejax._progress import Bar
from refinejax.batch.engine import Engine, Finished
from refinejax.batch.execution import Execution, as_execution
from refinejax.batch.ledger import Ledger, fingerprint
from refinejax.batch.output import Output
from refinejax.batch.plan import make_plan
from refinejax.batch.result import BatchResult
from refinejax.batch.sizing import Program, fit_lanes
from refinejax.batch.sources import (
    StreamChunk,
    StreamSource,
    check_steps,
    count_samples,
    describe,
    host,
)
from refinejax.batch.stages import BatchStage, rules_of
from refinejax.batch.threads import drive_engines, engines_for


def run_stream(
    refiner: Refiner,
    chunks: Iterable[tuple[Any, Any]],
    key: Any = None,
    *,
    max_steps: int,
    stop: Stop | None = None,
    axes: Any = None,
    execution: Execution | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    time_limit: float | None = None,
) -> Iterator[BatchResult]:
    """Refine samples that come in chunks of any size, as many as there are, in bounded memory.

    The lanes stay full across chunks. Samples are numbered from 0 on through all chunks, so the
    answers are those of `run_batch` on all of them at once.

    Args:
        refiner: the method.
        chunks: pairs (problem, params) as for `run_batch`. What samples share must be the same in
            all chunks. Read as needed.
        key: as for `run_batch`.
        max_steps: as for `run_batch`.
        stop: as for `run_batch`.
        axes: as for `run_batch`.
        execution: as for `run_batch`, but one thread unless ``threads`` says otherwise: with more,
            ``chunks`` are read on any of them, one at a time.
        progress: as for `run_batch`; how many samples there will be is not known.
        checkpoint: as for `run_batch`. Each chunk has a folder of its own in it, numbered as they
            come; chunks that have changed are another job.
        time_limit: seconds, after which the chunks read so far are yielded as they stand.

    Yields:
        A `BatchResult` for each chunk, in order, as soon as it is complete.

    Raises:
        ValueError: as `run_batch`; also if a chunk is of another structure than the first.
    """
    check_process()
    check_refiner(refiner)
    begun, max_steps = time.monotonic(), check_steps(max_steps)
    execution, key, stop = as_execution(execution), as_key(key), as_stop(stop)
    check_seconds("time_limit", time_limit)
    deadline = Deadline(time_limit)
    if not isinstance(chunks, Iterable):
        name = type(chunks).__name__
        raise ValueError(f"chunks: expected an iterable of pairs (problem, params), got a {name}")
    marks = Session()
    job = _Job(mark(refiner, marks), stop, key, max_steps, checkpoint, marks)
    reader = _Reader(iter(chunks), axes, job)
    # Ctrl-C is the consumer's: between two chunks its code runs, not ours.
    with Bar(None, shown=progress) as bar:
        while (more := reader.peek()) and reader.opened[-1].output.ended.all():
            reader.held = None  # finished by an earlier run
            yield reader.opened.pop(0).result(reader.structure, begun)
        if not more:
            return
        rules = stop.resolve(reader.dtype)
        try:
            for finished in _drive(reader, rules, execution, deadline):
                for chunk in list(reader.opened):
                    chunk.put(finished, bar)
                while reader.opened and reader.opened[0].output.ended.all():
                    yield reader.opened.pop(0).result(reader.structure, begun)
            for chunk in reader.opened:
                if (status := deadline.status()) is not None:
                    chunk.output.abandon(status)
                yield chunk.result(reader.structure, begun)
        finally:  # also where the consumer asks for no more
            for chunk in reader.opened:
                chunk.flush()
            reader.job.marks.settle()


def _drive(
    reader: "_Reader", rules: Stop, execution: Execution, deadline: Deadline
) -> Iterator[Finished]:
    """Refine the samples of all chunks that are not finished; yield them as they end."""
    job = reader.job
    stage = BatchStage(job.refiner.with_stop(rules), rules, UNLIMITED, "")
    common = jax.device_put(rules_of(stage, job.key, job.max_steps, reader.shared))
    plan = make_plan(execution.lanes, None, execution.mesh)
    if execution.memory_limit is not None:
        program = Program(common, reader.layout, reader.structure, *reader.first)
        plan = fit_lanes(program, plan, execution.memory_limit, None)
    del reader.first  # a chunk is not kept longer than it is refined
    make = functools.partial(Engine, common, reader.layout, reader.structure, plan)
    threads = execution.threads or 1
    engines = engines_for(make, execution, plan, threads * plan.lanes if threads > 1 else 1)
    with models_in_jax():
        yield from drive_engines(engines, StreamSource(reader), deadline)


class _Job(NamedTuple):
    """What the results of all chunks depend on, and the folder for finished samples."""

    refiner: Refiner
    stop: Stop
    key: Any
    max_steps: int
    checkpoint: str | os.PathLike[str] | None
    marks: Session

    def ledger(self, number: int, statics: Any, arrays: list[Any], data: list[Any]) -> Any:
        """Return the ledger of a chunk, or None without a checkpoint."""
        if self.checkpoint is None:
            return None
        numbers = (self.refiner, self.stop, self.key, self.max_steps)
        statics = self.marks.job((statics, jax.tree.structure(numbers)))
        numbers = jax.tree.leaves(numbers)
        job = fingerprint(statics, [*numbers, *arrays], data)
        return Ledger(Path(self.checkpoint) / f"chunk-{number:06d}", job)


class _Chunk(NamedTuple):
    """A chunk that has been read: its results so far."""

    output: Output
    bounds: Any
    ledger: Ledger | None
    notes: tuple[str, ...]

    def put(self, finished: Finished, bar: Bar) -> None:
        """Store the samples that belong to this chunk."""
        output, ids = self.output, finished.ids
        inside = (ids >= output.first) & (ids < output.first + len(output.ended))
        if not inside.any():
            return
        done = output.put(finished.rows(inside))
        bar.add(len(done), output.converged(done))
        if self.ledger is not None:
            self.ledger.add(output.columns(done))
            if output.ended.all():
                self.ledger.flush()

    def flush(self) -> None:
        """Write finished samples."""
        if self.ledger is not None:
            self.ledger.flush()

    def result(self, structure: Any, begun: float) -> BatchResult:
        """Put the result together."""
        self.flush()
        result = self.output.result(structure, self.bounds, time.monotonic() - begun)
        return replace(result, notes=self.notes)


def _pair(chunk: Any) -> tuple[Any, Any]:
    if not isinstance(chunk, tuple | list) or len(chunk) != 2:
        raise ValueError(f"chunks: expected pairs (problem, params), got a {type(chunk).__name__}")
    return chunk[0], chunk[1]


class _Reader:
    """Reads chunks, checks that they agree, and opens an output for each."""

    def __init__(self, chunks: Iterator[tuple[Any, Any]], axes: Any, job: _Job) -> None:
        self.chunks, self.axes, self.job = chunks, axes, job
        self.held: StreamChunk | None = None
        self.layout: Any = None
        self.opened: list[_Chunk] = []
        self.next_id = self.number = 0

    def peek(self) -> bool:
        """Read the first chunk, which says what all are like."""
        self.held = next(self, None)
        return self.held is not None

    def __iter__(self) -> "_Reader":
        return self

    def __next__(self) -> StreamChunk:
        """Read the next chunk."""
        if self.held is not None:
            held, self.held = self.held, None
            return held
        problem, params = _pair(next(self.chunks))
        marks = self.job.marks
        marks.settle()
        check_outside_traces("run_stream", problem, params)
        given = read_tree(params, "params", lists=False)
        problem, params = as_problem(problem), host(given)
        layout, leaves = describe(problem, self.axes, count_samples(params), marks)
        starts, structure = jax.tree.flatten(params)
        data, shared = layout.split(leaves)
        self._check(layout, structure, shared, data, starts)
        output = Output(starts, len(starts[0]), self.next_id)
        ledger = self.job.ledger(
            self.number, (layout.lasting(), structure, self.next_id), [*shared, *starts], data
        )
        for columns in [] if ledger is None else ledger.load():
            output.restore(Finished.from_columns(columns))
        notes = narrowing_notes(len(starts[0]), data={"problem": problem}, params={"params": given})
        self.opened.append(_Chunk(output, problem.bounds, ledger, notes))
        self.next_id, self.number = self.next_id + len(starts[0]), self.number + 1
        return StreamChunk(data, starts, np.flatnonzero(~output.ended), output.first)

    def _check(
        self, layout: Any, structure: Any, shared: Any, data: list[Any], starts: list[np.ndarray]
    ) -> None:
        """Raise `ValueError` if a chunk is unlike the first."""
        types = [(np.shape(leaf)[1:], jnp.result_type(leaf)) for leaf in [*data, *starts]]
        if self.layout is None:
            self.layout, self.structure, self.shared = layout, structure, shared
            self.types, self.first = types, (data, starts)
            self.dtype = jnp.result_type(*[leaf.dtype for leaf in starts])
        same = layout == self.layout and structure == self.structure and types == self.types
        if not (same and all(map(np.array_equal, shared, self.shared))):
            raise ValueError(
                "chunks: a chunk differs from the first in structure, shape, dtype or what all "
                "samples share; make every chunk the same way, with the same functions"
            )
