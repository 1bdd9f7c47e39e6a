"""`run_batch`: refine every sample of arrays."""

import os
from dataclasses import replace
from typing import Any

from refinejax._checks import check_refiner
from refinejax._core import Refiner, Stop
from refinejax._gate import check_outside_traces, read_tree
from refinejax._marks import door
from refinejax._narrowing import narrowing_notes
from refinejax.batch.execution import Execution
from refinejax.batch.pipeline import BatchJob, Pipeline
from refinejax.batch.result import BatchResult


@door
def run_batch(
    refiner: Refiner,
    problem: Any,
    params: Any,
    key: Any = None,
    *,
    max_steps: int,
    stop: Stop | None = None,
    axes: Any = None,
    execution: Execution | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    time_limit: float | None = None,
    trace: int = 0,
) -> BatchResult:
    """Refine every sample of a batch, each until its own stopping rule is met.

    The answer for a sample equals `run_until` with key ``fold_in(key, i)``, to rounding (or
    with the problem's own ``key_ids``, see `Problem`, in place of i); it does not depend on the
    number of lanes, the order or the company. A NaN stays with its sample.

    Args:
        refiner: the method.
        problem: the objective; its data leaves have a leading sample axis (see ``axes``). NumPy
            arrays, also memory-mapped ones, are read as they are needed; lists, masked
            observations and arrays of any byte order are converted, as in `refine`.
        params: where to start; every leaf with a leading sample axis.
        key: a PRNG key or seed.
        max_steps: the most steps for one sample.
        stop: when to stop; `Stop()` by default.
        axes: pytree prefix of ``problem`` with 0 for leaves that belong to a sample and None for
            what all share. By default the problem says (``batch_axes``); else every leaf that is
            not a single number belongs to a sample.
        execution: lanes, threads, mesh and memory limit, see `Execution`.
        progress: draw a progress bar on stderr.
        checkpoint: a folder for finished samples. A run that was interrupted and is started again
            with the same arguments computes only the rest; another job is refused.
        time_limit: seconds, after which the run ends with what there is. Ctrl-C does the same.
        trace: record the losses of the first so many samples, step by step, in ``result.trace``;
            these are refined one step a chunk, which takes longer.

    Returns:
        `BatchResult` in the order of the samples. Its notes say where float64 that is cut to
        float32 loses what matters.

    Raises:
        ValueError: for something else than a refiner, or a setting of it that cannot be right; for
            an empty batch, leading axes that differ, params that are not floating, a
            ``checkpoint`` of another job, a ``memory_limit`` too small for a single lane; for a
            ``key``, ``stop``, ``execution`` or ``time_limit`` of another type.
    """
    check_refiner(refiner)
    check_outside_traces("run_batch", problem, params)
    params = read_tree(params, "params", lists=False)
    job = BatchJob(refiner, problem, params, max_steps, key=key, stop=stop, axes=axes)
    with Pipeline(
        execution, progress=progress, checkpoint=checkpoint, time_limit=time_limit
    ) as pipeline:
        result = pipeline.run(job, trace=trace)
    notes = narrowing_notes(len(result), data={"problem": problem}, params={"params": params})
    return replace(result, notes=notes)
