"""`run_batch`: refine every sample of arrays."""

import functools
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from refinejax._checks import as_key, as_stop, check_positive, check_seconds
from refinejax._core import Refiner, Stop, as_objective
from refinejax._deadline import Deadline
from refinejax._progress import Bar
from refinejax._trees import bounds_of
from refinejax.batch.engine import Engine, Finished
from refinejax.batch.lanes import Layout, Rows, Rules, cycle, cycle_reordered, empty
from refinejax.batch.ledger import Ledger, fingerprint
from refinejax.batch.output import Output
from refinejax.batch.plan import Plan, fit_memory, make_plan, parse_bytes
from refinejax.batch.processes import Share
from refinejax.batch.result import BatchResult
from refinejax.batch.sources import ArraySource, check_steps, count_samples, describe, host
from refinejax.batch.stages import rules_of, stages_of
from refinejax.batch.together import drive_together


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
    threads: int = 1,
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
        lanes: how many samples are under way at once; by default what suits the hardware.
        memory_limit: bytes on each device, or text such as "30GB": choose the lanes by what the
            compiled program says it needs.
        mesh: devices to spread the lanes over; there is no communication between them. If they
            belong to several processes (``jax.distributed``), each refines its share on its own
            devices, and all get the whole result.
        threads: engines with lanes of their own, each on a thread, which share the samples. For
            problems of many small operations, of which XLA uses but one core of a CPU; where they
            are large it divides them itself, and more threads are no faster.
        progress: draw a progress bar on stderr.
        checkpoint: a folder for what is finished. A run that was interrupted and is started again
            with the same arguments computes only the rest.
        time_limit: seconds, after which the run ends with what there is. Ctrl-C does the same.

    Returns:
        `BatchResult` in the order of the samples.

    Raises:
        ValueError: for an empty batch, leading axes that differ, params that are not floating, a
            ``checkpoint`` of another job, a ``memory_limit`` too small for a single lane; for a
            ``key``, ``stop`` or ``time_limit`` that is none; for ``threads`` beside ``mesh`` or
            ``memory_limit``, which are about one engine.
    """
    begun = time.monotonic()
    max_steps = check_steps(max_steps)
    check_seconds("time_limit", time_limit)
    check_positive("threads", threads)
    if threads > 1 and (mesh is not None or memory_limit is not None):
        raise ValueError("threads: leave it at 1 with mesh or memory_limit")
    problem, params = as_objective(problem), host(params)
    count = count_samples(params)
    layout, leaves = describe(problem, axes, count)
    data, shared = layout.split(leaves)
    starts, structure = jax.tree.flatten(params)
    rules = as_stop(stop).resolve(jnp.result_type(*[leaf.dtype for leaf in starts]))
    key = as_key(key)
    output = Output(starts, count)
    share = Share.of(mesh, count)
    output.ended |= ~share.mine
    ledger = None
    if checkpoint is not None:
        numbers = jax.tree.leaves((refiner, rules, key, max_steps, shared))
        statics = (layout.lasting(), structure, jax.tree.structure(refiner))
        job = fingerprint(statics, [*numbers, *starts], data)
        ledger = Ledger(share.folder(checkpoint), job)
        for columns in ledger.load():
            output.restore(Finished.from_columns(columns))
    plan = make_plan(lanes, share.size, share.mesh)
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
                if memory_limit is not None:
                    plan = _fit(
                        common, layout, structure, data, starts, plan, memory_limit, len(todo)
                    )
                useful = min(int(threads), -(-len(todo) // plan.lanes))
                common = jax.device_put(common)  # once for all engines
                engines = [Engine(common, layout, structure, plan) for _ in range(useful)]
                for finished in drive_together(engines, source, deadline):
                    done = output.put(finished, rules, max_steps, early=stage.place == "early")
                    bar.update(len(done), output.converged(done))
                    if ledger is not None:
                        ledger.add(output.columns(done))
                if (verdict := deadline.status()) is not None:
                    output.abandon(verdict)
                    break
        finally:
            if ledger is not None:
                ledger.flush()
    share.exchange(output.arrays())
    return output.result(structure, bounds_of(problem), time.monotonic() - begun)


def lanes_within(
    memory_limit: str | float, refiner: Refiner, problem: Any, params: Any, *, axes: Any = None
) -> int:
    """Return the number of lanes that `run_batch` would choose for a ``memory_limit``.

    Args:
        memory_limit: as for `run_batch`.
        refiner: as for `run_batch`.
        problem: as for `run_batch`.
        params: as for `run_batch`.
        axes: as for `run_batch`.

    Raises:
        ValueError: if it is too small for a single lane.
    """
    problem, params = as_objective(problem), host(params)
    count = count_samples(params)
    layout, leaves = describe(problem, axes, count)
    data, shared = layout.split(leaves)
    starts, structure = jax.tree.flatten(params)
    rules = Stop().resolve(jnp.result_type(*[leaf.dtype for leaf in starts]))
    common = rules_of(stages_of(refiner, rules)[0], as_key(None), 1, shared)
    plan = make_plan(None, count, None)
    return _fit(common, layout, structure, data, starts, plan, memory_limit, count).lanes


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
        loss = jax.ShapeDtypeStruct((plan.group,), jnp.result_type(*[x.dtype for x in starts]))
        rows = Rows(params, [abstract(leaf) for leaf in data], number, number, loss)
        blank = functools.partial(empty, layout=layout, count=plan.lanes)
        lanes = jax.eval_shape(blank, rules, rows)
        one = np.int32(1)
        program = cycle_reordered if layout.reorder else cycle
        lowered = program.lower(rules, lanes, rows, one, one, layout=layout, mesh=plan.mesh)
        sizes = lowered.compile().memory_analysis()
        if sizes is None:
            raise ValueError(
                "memory_limit: this backend does not say how much memory a program needs; "
                "give lanes= instead"
            )
        total = sizes.argument_size_in_bytes + sizes.output_size_in_bytes
        return int(total + sizes.temp_size_in_bytes - sizes.alias_size_in_bytes)

    return fit_memory(measure, parse_bytes(limit), plan, count)
