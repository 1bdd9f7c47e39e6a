"""Several stages over one batch: one deadline, one progress bar, one folder for finished samples.

A stage is a `BatchJob`, or an application's own loop over samples (`Pipeline.open` and
`Pipeline.keep`). All stages end at the same time limit or Ctrl-C; those after it leave their
samples as they came. Without a stage before it, a pipeline of one job is `run_batch`.

Resume: a folder belongs to one job, which is known by a hash of everything that the answers depend
on. The same arguments again go on where the run was interrupted: samples finished in any stage are
read, the rest is computed, and the answers are those of an uninterrupted run. With other arguments
the folder is refused, with a `ValueError` that names it and the remedy. Trainings keep the same
rule (see `refinejax.training.train`).
"""

import functools
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refinejax._checks import as_key, as_stop, check_count, check_seconds
from refinejax._core import Refiner, Status, Stop, as_problem
from refinejax._deadline import Deadline
from refinejax._marks import door, mark, session
from refinejax._progress import Bar
from refinejax.batch.engine import Engine, Finished
from refinejax.batch.execution import Execution, as_execution
from refinejax.batch.ledger import Ledger, fingerprint
from refinejax.batch.output import Output, after_early_stage
from refinejax.batch.plan import LanePlan, make_plan, working_set
from refinejax.batch.processes import Share
from refinejax.batch.result import BatchResult
from refinejax.batch.sizing import Program, fit_lanes
from refinejax.batch.sources import ArraySource, check_steps, count_samples, describe, host
from refinejax.batch.stages import BatchStage, rules_of, stages_of
from refinejax.batch.threads import drive_engines, engines_for
from refinejax.batch.traces import LossTraces


@dataclass(frozen=True)
class BatchJob:
    """A batch to refine: the arguments of `run_batch` of the same names.

    Attributes:
        refiner: the method.
        problem: the objective, its data with a leading sample axis.
        params: where to start.
        max_steps: the most steps for one sample.
        key: a PRNG key or seed.
        stop: when to stop; None for the defaults.
        axes: which leaves of the problem belong to a sample; None for the problem's choice.
    """

    refiner: Refiner
    problem: Any
    params: Any
    max_steps: int
    key: Any = None
    stop: Stop | None = None
    axes: Any = None


class _Prepared:
    """A job, checked and taken apart into leaves."""

    def __init__(self, job: BatchJob) -> None:
        self.refiner, self.max_steps = mark(job.refiner), check_steps(job.max_steps)
        problem, params = as_problem(job.problem), host(job.params)
        self.count = count_samples(params)
        self.layout, leaves = describe(problem, job.axes, self.count)
        self.data, self.shared = self.layout.split(leaves)
        self.starts, self.structure = jax.tree.flatten(params)
        dtype = jnp.result_type(*[leaf.dtype for leaf in self.starts])
        self.rules, self.key = as_stop(job.stop).resolve(dtype), as_key(job.key)
        self.bounds = problem.bounds

    def identity(self) -> tuple[Any, list[Any], list[Any]]:
        """Return what the answers depend on: statics, numbers, data of the samples."""
        numbers = (self.refiner, self.rules, self.key, self.max_steps, self.shared)
        statics = (self.layout.lasting(), self.structure, jax.tree.structure(self.refiner))
        return statics, [*jax.tree.leaves(numbers), *self.starts], self.data

    def lanes(self, stage: BatchStage, plan: LanePlan, limit: Any, count: int) -> LanePlan:
        """Return the plan that a limit of memory allows in this stage."""
        if limit is None:
            return plan
        rules = rules_of(stage, self.key, self.max_steps, self.shared)
        program = Program(rules, self.layout, self.structure, self.data, self.starts)
        return fit_lanes(program, plan, limit, count)


class Pipeline:
    """Runs stages over one batch, within one deadline, and keeps finished samples.

    To be used as a context, which takes over Ctrl-C and draws the bar.

    Args:
        execution: of all stages, see `Execution`.
        progress: draw a progress bar on stderr.
        checkpoint: a folder for finished samples; None for none.
        time_limit: seconds for all stages.
        identity: what the answers depend on beside the first stage: arrays, whose leading axis are
            samples, and numbers.

    Attributes:
        deadline: of all stages.
        early: the status of samples that a stage has not ended, once there are such; else None.

    Raises:
        ValueError: for options of another type, or a ``time_limit`` below 0.
    """

    def __init__(
        self,
        execution: Execution | None = None,
        *,
        progress: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        time_limit: float | None = None,
        identity: Sequence[Any] = (),
    ) -> None:
        self.execution, self.checkpoint = as_execution(execution), checkpoint
        check_seconds("time_limit", time_limit)
        self.identity = list(identity)
        self.begun = time.monotonic()
        self.deadline = Deadline(time_limit)
        self.bar = Bar(None, shown=progress)
        self.ledger: Ledger | None = None
        self.early: Status | None = None
        self.later = False  # whether a stage has begun: the first one always does

    def __enter__(self) -> "Pipeline":
        """Take over Ctrl-C, begin to draw."""
        self.bar.__enter__()
        self.deadline.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write finished samples; give Ctrl-C back."""
        try:
            self.flush()
        finally:
            self.deadline.__exit__(kind, error, trace)
            self.bar.__exit__(kind, error, trace)

    def status(self) -> Status | None:
        """Return the status of samples that have not ended if the run has to end, else None."""
        return self.early or self.deadline.status()

    @property
    def seconds(self) -> float:
        """Seconds since the pipeline was made."""
        return time.monotonic() - self.begun

    @door
    def run(
        self, job: BatchJob, name: str = "", *, recorded: bool = True, trace: int = 0
    ) -> BatchResult:
        """Refine every sample of a job; if the run has to end already, leave all as they came.

        Args:
            job: what to refine.
            name: of the stage, different for each one that is recorded.
            recorded: whether samples count in the bar and are kept in the folder; else the job is a
                step within a stage.
            trace: record the losses of the first so many samples.

        Returns:
            The results, in the order of the samples.

        Raises:
            ValueError: as `run_batch`.
        """
        check_count("trace", trace)
        begun, ready = time.monotonic(), _Prepared(job)
        share = Share.of(self.execution.mesh, ready.count)
        if trace and share.processes > 1:
            raise ValueError(
                "trace: expected 0 where the mesh spans several processes, which do not exchange "
                f"losses step by step, got {trace}"
            )
        output = Output(ready.starts, ready.count, traces=LossTraces(min(trace, ready.count)))
        output.ended |= ~share.mine
        if recorded:
            self.open(output, name, ready.identity(), share=share)
        if self.early is None and not (self.later and self.deadline.status() is not None):
            self.later = True
            for finished, over in self._stages(ready, share, output):
                self.keep(output, finished, over, recorded=recorded)
        if (status := self.status()) is not None:
            output.abandon(status)
        share.exchange(output.arrays())
        self._note(output.status)
        return output.result(ready.structure, ready.bounds, time.monotonic() - begun)

    def _stages(
        self, ready: _Prepared, share: Share, output: Output
    ) -> Iterator[tuple[Finished, np.ndarray | None]]:
        """Run the stages of the job's refiner; yield samples, and which are done with (all)."""
        sample = math.inf if ready.layout.calls_host else working_set(ready.data, ready.starts)
        plan = make_plan(self.execution.lanes, share.size, share.mesh, sample)
        self.execution = replace(self.execution, lanes=plan.lanes)  # one program for all stages
        for stage in stages_of(ready.refiner, ready.rules):
            todo = np.flatnonzero(~output.ended)
            if not len(todo):
                return
            common = jax.device_put(rules_of(stage, ready.key, ready.max_steps, ready.shared))
            plan = ready.lanes(stage, plan, self.execution.memory_limit, len(todo))
            make = functools.partial(Engine, common, ready.layout, ready.structure, plan)
            traced = todo < len(output.traces)
            for rows, traces in ((todo[traced], output.traces), (todo[~traced], None)):
                if traces is None and traced.any() and self.deadline.status() is not None:
                    return
                source = ArraySource(
                    ready.data, output.params, rows, output.steps, output.initial_loss
                )
                for finished in self._drive(
                    make, source, len(rows), plan, traces, ready.layout.calls_host
                ):
                    if stage.place == "early":
                        yield after_early_stage(finished, ready.rules, ready.max_steps)
                    else:
                        yield finished, None
            if self.deadline.status() is not None:
                return

    def _drive(
        self,
        make: Any,
        source: ArraySource,
        count: int,
        plan: LanePlan,
        traces: LossTraces | None,
        host: bool,
    ) -> Iterator[Finished]:
        """Refine the samples of a source, on one engine where their losses are recorded."""
        if not count:
            return
        if traces is not None:
            yield from make(traces=traces).drive(source, self.deadline)
            return
        always = self.execution.threads is not None
        # A function on the host may not be safe to call from several threads: only if asked to.
        engines = engines_for(make, self.execution, plan, count if always or not host else 1)
        yield from drive_engines(engines, source, self.deadline, always=always)

    def open(
        self,
        output: Output,
        name: str,
        identity: tuple[Any, list[Any], list[Any]],
        share: Share | None = None,
    ) -> None:
        """Begin a stage: read what an earlier run has finished of it.

        Args:
            output: where the results go; finished ones are put there.
            name: of the stage.
            identity: statics, numbers and data of the samples, on which the answers depend. The
                first stage's, with the pipeline's, tell the job.
            share: the samples of this process, if there are others.

        Raises:
            ValueError: if the folder belongs to another job.
        """
        mine = np.ones(len(output.ended), bool) if share is None else share.mine
        if self.checkpoint is not None:
            if self.ledger is None:
                folder = self.checkpoint if share is None else share.folder(self.checkpoint)
                self.ledger = Ledger(folder, self._fingerprint(identity))
            for columns in self.ledger.begin(name):
                output.restore(Finished.from_columns(columns, output.margins))
        self.bar.begin(name or "refining", int(mine.sum()))
        restored = np.flatnonzero(output.ended & mine)
        self.bar.add(len(restored), output.converged(restored))

    def _fingerprint(self, identity: tuple[Any, list[Any], list[Any]]) -> str:
        statics, numbers, data = identity
        more = [leaf for leaf in jax.tree.leaves(self.identity) if np.ndim(leaf)]
        single = [leaf for leaf in jax.tree.leaves(self.identity) if not np.ndim(leaf)]
        with session() as current:
            job = current.job((statics, len(single)))
        return fingerprint(job, [*numbers, *single], [*data, *more])

    def keep(
        self,
        output: Output,
        finished: Finished,
        over: np.ndarray | None = None,
        *,
        recorded: bool = True,
    ) -> None:
        """Store samples; count those that are done with, and keep them in the folder.

        Args:
            output: where they go.
            finished: the samples.
            over: which of them no later stage of the same job refines; all by default.
            recorded: whether to count and keep them.
        """
        done = output.put(finished, over)
        if not recorded:
            return
        self.bar.add(len(done), output.converged(done))
        if self.ledger is not None:
            self.ledger.add(output.columns(done))

    def flush(self) -> None:
        """Write finished samples now, not only every few seconds."""
        if self.ledger is not None:
            self.ledger.flush()

    def close(self, output: Output) -> BatchResult:
        """End a stage that is an application's own loop: its results, params a single array.

        Args:
            output: its results so far.

        Returns:
            The results.
        """
        if (status := self.status()) is not None:
            output.abandon(status)
        self._note(output.status)
        return output.result(jax.tree.structure(0), None, self.seconds)

    def _note(self, status: np.ndarray) -> None:
        """Remember that a stage was not brought to its end."""
        for reason in (Status.STOPPED, Status.TIME_LIMIT):
            if np.any(status == int(reason)):
                self.early = reason
                return
