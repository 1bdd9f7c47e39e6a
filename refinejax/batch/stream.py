"""`run_stream`: refine samples that come in chunks."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from refinejax._checks import as_key
from refinejax._core import Refiner, Stop, as_objective
from refinejax._deadline import Deadline
from refinejax._run import UNLIMITED
from refinejax._trees import bounds_of
from refinejax.batch.engine import Engine, Finished
from refinejax.batch.output import Output
from refinejax.batch.plan import make_plan
from refinejax.batch.result import BatchResult
from refinejax.batch.sources import StreamSource, check_steps, count_samples, describe, host
from refinejax.batch.stages import Stage, rules_of


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
    max_steps = check_steps(max_steps)
    begun = time.monotonic()
    reader = _Reader(iter(chunks), axes)
    if not reader.peek():
        return
    rules = (stop or Stop()).resolve(reader.dtype)
    stage = Stage(refiner.with_stop(rules), rules, UNLIMITED, "")
    common = rules_of(stage, as_key(key), max_steps, reader.shared)
    engine = Engine(common, reader.layout, reader.structure, make_plan(lanes, None, mesh))
    source = StreamSource(reader)
    outputs = reader.outputs
    # Ctrl-C is the consumer's: between two chunks its code runs, not ours.
    for finished in engine.drive(source, Deadline(None)):
        _scatter(finished, outputs, rules, max_steps)
        while outputs and outputs[0].ended.all():
            output, bounds = outputs.pop(0), reader.bounds.pop(0)
            yield output.result(reader.structure, bounds, time.monotonic() - begun)


class _Reader:
    """Reads chunks, checks that they agree, and opens an output for each."""

    def __init__(self, chunks: Iterator[tuple[Any, Any]], axes: Any) -> None:
        self.chunks, self.axes = chunks, axes
        self.held: tuple[list[Any], list[Any]] | None = None
        self.layout: Any = None
        self.outputs: list[Output] = []
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
        problem, params = as_objective(problem), host(params)
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
        self.outputs.append(Output(starts, len(starts[0]), self.next_id))
        self.bounds.append(bounds_of(problem))
        self.next_id += len(starts[0])
        return data, starts


def _scatter(finished: Finished, outputs: list["Output"], rules: Stop, max_steps: int) -> None:
    """Put each sample into the output of its chunk."""
    for output in outputs:
        inside = (finished.ids >= output.first) & (finished.ids < output.first + len(output.ended))
        if inside.any():
            output.put(finished.rows(inside), rules, max_steps, early=False)
