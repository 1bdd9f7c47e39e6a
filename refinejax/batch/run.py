"""`run_batch` for arrays, `run_stream` for samples that come in chunks."""

import functools
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from refinejax._core import (
    Refiner,
    Status,
    Stop,
    as_key,
    as_objective,
    bounds_of,
    check_params,
    spread,
)
from refinejax._run import UNLIMITED, check_count
from refinejax.batch.engine import Engine, Finished
from refinejax.batch.interrupt import Deadline
from refinejax.batch.lanes import Layout, Packed, Rows, Rules, cycle, empty
from refinejax.batch.ledger import Ledger, fingerprint
from refinejax.batch.plan import Plan, fit_memory, make_plan, parse_bytes
from refinejax.batch.progress import Bar
from refinejax.batch.result import BatchResult
from refinejax.batch.sources import ArraySource, StreamSource, count_samples, describe
from refinejax.refiners.sequential import Sequential


class Stage(NamedTuple):
    """A refiner, how it ends, and whether another follows."""

    refiner: Refiner
    stop: Stop
    steps: Any
    place: str


def run_batch(
    refiner: Refiner,
    problem: Any,
    params: Any,
    key: Any = None,
    *,
    max_steps: int,
    stop: Stop | None = None,
    axes: Any = None,
    lanes: int | None = None,
    memory_limit: str | float | None = None,
    mesh: Mesh | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    time_limit: float | None = None,
) -> BatchResult:
    """Refine every sample of a batch, each until its own stopping rule is met.

    The answer for a sample is that of `run_until` with key ``fold_in(key, i)``, to rounding; it
    does not depend on the number of lanes, the order or the company. A NaN stays with its sample.

    Args:
        refiner: the method.
        problem: the objective; its data leaves have a leading sample axis (see ``axes``). NumPy
            arrays, also memory-mapped ones, are read as they are needed.
        params: where to start; every leaf with a leading sample axis.
        key: a PRNG key or seed.
        max_steps: the most steps for one sample.
        stop: when to stop; `Stop()` by default.
        axes: pytree prefix of ``problem`` with 0 for leaves that belong to a sample and None for
            what all share. By default the problem says (``batch_axes``); else every leaf that is
            not a single number belongs to a sample.
        lanes: how many samples are under way at once; by default what suits the hardware.
        memory_limit: bytes on each device, or text such as "30GB": choose the lanes by what the
            compiled program says it needs.
        mesh: devices to spread the lanes over; there is no communication between them.
        progress: draw a progress bar on stderr.
        checkpoint: a folder for what is finished. A run that was interrupted and is started again
            with the same arguments computes only the rest.
        time_limit: seconds, after which the run ends with what there is. Ctrl-C does the same.

    Returns:
        `BatchResult` in the order of the samples.

    Raises:
        ValueError: for an empty batch, leading axes that differ, params that are not floating, a
            ``checkpoint`` of another job, a ``memory_limit`` too small for a single lane.
    """
    begun = time.monotonic()
    max_steps = _steps(max_steps)
    problem, params = as_objective(problem), _host(params)
    count = count_samples(params)
    layout, leaves = describe(problem, axes, count)
    data, shared = layout.split(leaves)
    starts, structure = jax.tree.flatten(params)
    rules = (stop or Stop()).resolve(jnp.result_type(*[leaf.dtype for leaf in starts]))
    key = as_key(key)
    output = _Output(starts, count)
    ledger = None
    if checkpoint is not None:
        numbers = jax.tree.leaves((refiner, rules, key, max_steps, shared))
        job = fingerprint(
            (layout, structure, jax.tree.structure(refiner)), [*numbers, *starts], data
        )
        ledger = Ledger(checkpoint, job)
        for columns in ledger.load():
            output.restore(Finished.from_columns(columns))
    plan = make_plan(lanes, count, mesh)
    bar = Bar(count, shown=progress)
    bar.update(int(output.ended.sum()), output.converged(np.flatnonzero(output.ended)))
    with bar, Deadline(time_limit) as deadline:
        for stage in _stages(refiner, rules):
            todo = np.flatnonzero(~output.ended)
            if not len(todo):
                break
            common = _rules(stage, key, max_steps, shared)
            source = ArraySource(data, output.params, todo, output.steps)
            if memory_limit is not None:
                plan = _fit(common, layout, structure, data, starts, plan, memory_limit, len(todo))
            engine = Engine(common, layout, structure, plan)
            for finished in engine.drive(source, deadline):
                done = output.put(finished, rules, max_steps, early=stage.place == "early")
                bar.update(len(done), output.converged(done))
                if ledger is not None:
                    ledger.add(output.columns(done))
            if (verdict := deadline.verdict()) is not None:
                output.abandon(verdict)
                break
        if ledger is not None:
            ledger.flush()
    return output.result(structure, bounds_of(problem), time.monotonic() - begun)


def run_stream(
    refiner: Refiner,
    chunks: Iterable[tuple[Any, Any]],
    key: Any = None,
    *,
    max_steps: int,
    stop: Stop | None = None,
    axes: Any = None,
    lanes: int | None = None,
    mesh: Mesh | None = None,
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
        lanes: as for `run_batch`.
        mesh: as for `run_batch`.

    Yields:
        A `BatchResult` for each chunk, in order, as soon as it is complete.

    Raises:
        ValueError: as `run_batch`; also if a chunk is of another structure than the first.
    """
    max_steps = _steps(max_steps)
    begun = time.monotonic()
    reader = _Reader(iter(chunks), axes)
    if not reader.peek():
        return
    rules = (stop or Stop()).resolve(reader.dtype)
    stage = Stage(refiner.under(rules), rules, UNLIMITED, "")
    common = _rules(stage, as_key(key), max_steps, reader.shared)
    engine = Engine(common, reader.layout, reader.structure, make_plan(lanes, None, mesh))
    source = StreamSource(reader)
    outputs = reader.outputs
    with Deadline(None) as deadline:
        for finished in engine.drive(source, deadline):
            _scatter(finished, outputs, rules, max_steps)
            while outputs and outputs[0].ended.all():
                output, bounds = outputs.pop(0), reader.bounds.pop(0)
                yield output.result(reader.structure, bounds, time.monotonic() - begun)
        for output, bounds in zip(outputs, reader.bounds, strict=True):  # only if interrupted
            output.abandon(deadline.verdict() or Status.STOPPED)
            yield output.result(reader.structure, bounds, time.monotonic() - begun)


class _Reader:
    """Reads chunks, checks that they agree, and opens an output for each."""

    def __init__(self, chunks: Iterator[tuple[Any, Any]], axes: Any) -> None:
        self.chunks, self.axes = chunks, axes
        self.held: tuple[list[Any], list[Any]] | None = None
        self.layout: Any = None
        self.outputs: list[_Output] = []
        self.bounds: list[Any] = []
        self.next_id = 0

    def peek(self) -> bool:
        """Read the first chunk, which says what all are like."""
        self.held = next(self, None)
        return self.held is not None

    def __iter__(self) -> "_Reader":
        return self

    def __next__(self) -> tuple[list[Any], list[Any]]:
        if self.held is not None:
            held, self.held = self.held, None
            return held
        problem, params = next(self.chunks)
        problem, params = as_objective(problem), _host(params)
        layout, leaves = describe(problem, self.axes, count_samples(params))
        starts, structure = jax.tree.flatten(params)
        data, shared = layout.split(leaves)
        kinds = [(np.shape(leaf)[1:], jnp.result_type(leaf)) for leaf in [*data, *starts]]
        if self.layout is None:
            self.layout, self.structure, self.shared = layout, structure, shared
            self.kinds = kinds
            self.dtype = jnp.result_type(*[leaf.dtype for leaf in starts])
        alike = layout == self.layout and structure == self.structure
        same = alike and kinds == self.kinds
        if not (same and all(map(np.array_equal, shared, self.shared))):
            raise ValueError(
                "chunks: a chunk differs from the first in structure, shape, dtype or what all "
                "samples share; make every chunk the same way, with the same functions"
            )
        self.outputs.append(_Output(starts, len(starts[0]), self.next_id))
        self.bounds.append(bounds_of(problem))
        self.next_id += len(starts[0])
        return data, starts


def _scatter(finished: Finished, outputs: list["_Output"], rules: Stop, max_steps: int) -> None:
    """Put each sample into the output of its chunk."""
    for output in outputs:
        inside = (finished.ids >= output.first) & (finished.ids < output.first + len(output.ended))
        if inside.any():
            output.put(finished.rows(inside), rules, max_steps, early=False)


class _Output:
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
        self.initial_loss[rows.ids] = rows.initial_loss
        self.begun[rows.ids] = self.ended[rows.ids] = True

    def _store(self, rows: Finished) -> None:
        ids = rows.ids - self.first
        for mine, new in zip(self.params, rows.params, strict=True):
            mine[ids] = new
        self.loss[ids], self.steps[ids], self.status[ids] = rows.loss, rows.steps, rows.status

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

    def abandon(self, verdict: Status) -> None:
        """Note why samples that have not ended will not."""
        self.status[~self.ended] = int(verdict)

    def result(self, structure: Any, bounds: Any, seconds: float) -> BatchResult:
        """Put the result together."""
        params = jax.tree.unflatten(structure, self.params)
        return BatchResult(
            params=params,
            loss=self.loss,
            initial_loss=self.initial_loss,
            steps=self.steps,
            status=self.status,
            at_bound=None if bounds is None else _at_bound(params, bounds),
            seconds=seconds,
        )


def _at_bound(params: Any, bounds: Any) -> Any:
    lower, upper = (spread(bound, params) for bound in bounds)

    def touch(p: np.ndarray, low: Any, high: Any) -> np.ndarray:
        return (p <= np.asarray(low, p.dtype)) | (p >= np.asarray(high, p.dtype))

    return jax.tree.map(touch, params, lower, upper)


def _steps(max_steps: Any) -> int:
    check_count("max_steps", max_steps)
    return min(int(max_steps), UNLIMITED)


def _host(params: Any) -> Any:
    """Make every leaf a floating NumPy array of a dtype that JAX uses."""

    def convert(path: Any, leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf)
        if not np.issubdtype(leaf.dtype, np.floating) and leaf.dtype != jnp.bfloat16:
            check_params(leaf, "params" + jax.tree_util.keystr(path))
        return np.asarray(leaf, jax.dtypes.canonicalize_dtype(leaf.dtype))

    return jax.tree_util.tree_map_with_path(convert, params)


def _stages(refiner: Refiner, rules: Stop) -> list[Stage]:
    """Take a `Sequential` apart, so that no sample pays for a stage it is not in."""
    governed = refiner.under(rules)
    if not isinstance(governed, Sequential):
        return [Stage(governed, rules, UNLIMITED, "")]
    own = (governed.stop or rules).resolve(rules.loss.dtype)
    early = own.replace(target=jnp.maximum(own.target, rules.target))
    *first, last = governed.stages
    stages = [Stage(r, early, n, "early") for r, n in zip(first, governed.steps, strict=True)]
    return [*stages, Stage(last, rules, UNLIMITED, "last")]


def _rules(stage: Stage, key: Any, max_steps: int, shared: list[Any]) -> Rules:
    return Rules(
        refiner=stage.refiner,
        stop=stage.stop,
        key=Packed.pack(key),
        max_steps=jnp.int32(max_steps),
        stage_steps=jnp.int32(stage.steps),
        shared=shared,
        stage=stage.place,
    )


def _fit(
    rules: Rules,
    layout: Layout,
    structure: Any,
    data: list[Any],
    starts: list[np.ndarray],
    plan: Plan,
    limit: str | float,
    count: int,
) -> Plan:
    """Choose the lanes by the memory that the compiled program needs."""

    def measure(plan: Plan) -> int:
        def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
            dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
            return jax.ShapeDtypeStruct((plan.group, *leaf.shape[1:]), dtype)

        number = jax.ShapeDtypeStruct((plan.group,), jnp.int32)
        params = jax.tree.unflatten(structure, [abstract(leaf) for leaf in starts])
        rows = Rows(params, [abstract(leaf) for leaf in data], number, number)
        blank = functools.partial(empty, layout=layout, count=plan.lanes)
        lanes = jax.eval_shape(blank, rules, rows)
        one = np.int32(1)
        lowered = cycle.lower(rules, lanes, rows, one, one, layout=layout, mesh=plan.mesh)
        sizes = lowered.compile().memory_analysis()
        if sizes is None:
            raise ValueError(
                "memory_limit: this backend does not say how much memory a program needs; "
                "give lanes= instead"
            )
        total = sizes.argument_size_in_bytes + sizes.output_size_in_bytes
        return int(total + sizes.temp_size_in_bytes - sizes.alias_size_in_bytes)

    return fit_memory(measure, parse_bytes(limit), plan, count)
