"""`run_batch`: refine every sample of arrays."""

import functools
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refinejax._checks import as_key, as_stop, check_seconds
from refinejax._core import Refiner, Stop, as_objective
from refinejax._deadline import Deadline
from refinejax._progress import Bar
from refinejax._trees import bounds_of
from refinejax.batch.engine import Engine, Finished
from refinejax.batch.execution import Execution, as_execution
from refinejax.batch.ledger import Ledger, fingerprint
from refinejax.batch.output import Output
from refinejax.batch.plan import make_plan
from refinejax.batch.processes import Share
from refinejax.batch.result import BatchResult
from refinejax.batch.sizing import fit_lanes
from refinejax.batch.sources import ArraySource, check_steps, count_samples, describe, host
from refinejax.batch.stages import rules_of, stages_of
from refinejax.batch.threads import drive_engines, engines_for


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
) -> BatchResult:
    """Refine every sample of a batch, each until its own stopping rule is met.

    The answer for a sample is that of `run_until` with key ``fold_in(key, i)``, to rounding (or
    with the problem's own ``key_ids``, see `Objective`, in place of i); it does not depend on the
    number of lanes, the order or the company. A NaN stays with its sample.

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
        execution: lanes, threads, mesh and memory limit, see `Execution`.
        progress: draw a progress bar on stderr.
        checkpoint: a folder for what is finished. A run that was interrupted and is started again
            with the same arguments computes only the rest.
        time_limit: seconds, after which the run ends with what there is. Ctrl-C does the same.

    Returns:
        `BatchResult` in the order of the samples.

    Raises:
        ValueError: for an empty batch, leading axes that differ, params that are not floating, a
            ``checkpoint`` of another job, a ``memory_limit`` too small for a single lane; for a
            ``key``, ``stop``, ``execution`` or ``time_limit`` of another type.
    """
    begun = time.monotonic()
    max_steps = check_steps(max_steps)
    check_seconds("time_limit", time_limit)
    execution = as_execution(execution)
    problem, params = as_objective(problem), host(params)
    count = count_samples(params)
    layout, leaves = describe(problem, axes, count)
    data, shared = layout.split(leaves)
    starts, structure = jax.tree.flatten(params)
    rules = as_stop(stop).resolve(jnp.result_type(*[leaf.dtype for leaf in starts]))
    key = as_key(key)
    output = Output(starts, count)
    share = Share.of(execution.mesh, count)
    output.ended |= ~share.mine
    ledger = None
    if checkpoint is not None:
        numbers = jax.tree.leaves((refiner, rules, key, max_steps, shared))
        statics = (layout.lasting(), structure, jax.tree.structure(refiner))
        job = fingerprint(statics, [*numbers, *starts], data)
        ledger = Ledger(share.folder(checkpoint), job)
        for columns in ledger.load():
            output.restore(Finished.from_columns(columns))
    plan = make_plan(execution.lanes, share.size, share.mesh)
    bar = Bar(share.size, shown=progress)
    restored = np.flatnonzero(output.ended & share.mine)
    bar.update(len(restored), output.converged(restored))
    with bar, Deadline(time_limit) as deadline:
        try:
            for stage in stages_of(refiner, rules):
                todo = np.flatnonzero(~output.ended)
                if not len(todo):
                    break
                common = rules_of(stage, key, max_steps, shared)
                source = ArraySource(data, output.params, todo, output.steps, output.initial_loss)
                if (limit := execution.memory_limit) is not None:
                    plan = fit_lanes(
                        common, layout, structure, data, starts, plan, limit, len(todo)
                    )
                common = jax.device_put(common)  # once for all engines
                make = functools.partial(Engine, common, layout, structure, plan)
                engines = engines_for(make, execution, plan, len(todo))
                always = execution.threads is not None
                for finished in drive_engines(engines, source, deadline, always=always):
                    done = output.put(finished, rules, max_steps, early=stage.place == "early")
                    bar.update(len(done), output.converged(done))
                    if ledger is not None:
                        ledger.add(output.columns(done))
                if (status := deadline.status()) is not None:
                    output.abandon(status)
                    break
        finally:
            if ledger is not None:
                ledger.flush()
    share.exchange(output.arrays())
    return output.result(structure, bounds_of(problem), time.monotonic() - begun)
