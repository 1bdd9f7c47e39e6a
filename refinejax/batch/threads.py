"""Several engines, each on its own thread, that share the samples of one source."""

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from refinejax._core import Status
from refinejax._deadline import EndCondition
from refinejax.batch.engine import Engine, Finished
from refinejax.batch.execution import Execution
from refinejax.batch.plan import LanePlan
from refinejax.batch.sources import Samples, Source

_ONE_CORE = 1.5  # cores in use below which another engine finds a free one


class SharedSource:
    """A source that several threads may ask, one at a time."""

    def __init__(self, source: Source) -> None:
        self.source, self.lock = source, threading.Lock()

    def take(self, count: int) -> Samples | None:
        """Return the next samples."""
        with self.lock:
            return self.source.take(count)


class SharedEnd:
    """Ends all threads: when the run has to end, or when one of the threads has failed."""

    def __init__(self, condition: EndCondition) -> None:
        self.condition, self.over = condition, False

    def status(self) -> Status | None:
        """Return STOPPED after a failure, else the status of the run."""
        return Status.STOPPED if self.over else self.condition.status()


def engines_for(
    make: Callable[[], Engine], execution: Execution, plan: LanePlan, samples: int
) -> list[Engine]:
    """Return the engines that can be of use, in the order in which they begin.

    Args:
        make: makes an engine.
        execution: lanes and threads.
        plan: lanes of one engine.
        samples: how many samples there are.
    """
    if execution.threads is not None:
        most = int(execution.threads)
    elif execution.one_engine or jax.devices()[0].platform != "cpu":
        most = 1
    else:
        most = cores()
    return [make() for _ in range(max(min(most, -(-samples // plan.lanes)), 1))]


def drive_engines(
    engines: Sequence[Engine], source: Source, end: EndCondition, *, always: bool = True
) -> Iterator[Finished]:
    """Refine all samples of ``source``; yield them as they end, from whichever engine.

    The first engine compiles the program that all share; the others begin after that. Where the
    caller is within a context of JAX that other threads do not know, such as
    ``jax.enable_x64(True)``, the first engine runs alone.

    Args:
        engines: equal, with lanes of their own.
        source: of the samples.
        end: says between chunks whether to end.
        always: start the other engines in any case; else only if the first one keeps less than
            1.5 cores busy. XLA divides large operations among the cores by itself.

    Yields:
        Samples that have ended, from whichever engine.
    """
    if len(engines) == 1 or not _known_elsewhere():
        yield from engines[0].drive(source, end)
        return
    shared, ending, first = SharedSource(source), SharedEnd(end), engines[0]
    begin = first.compiled if always else first.measured
    # Bounded, so that a slow consumer of a stream holds the engines back.
    ended: queue.Queue[Finished | BaseException | None] = queue.Queue(16 * len(engines))

    def follow(engine: Engine) -> None:
        try:
            begin.wait()
            if not ending.over and (always or first.cores_used() < _ONE_CORE):
                for finished in engine.drive(shared, ending):
                    ended.put(finished)
            ended.put(None)
        except BaseException as error:
            ended.put(error)

    others = [threading.Thread(target=follow, args=(e,), daemon=True) for e in engines[1:]]
    running = len(others)
    try:
        for thread in others:
            thread.start()
        # The first engine stays on this thread: its samples are handed over at no cost.
        for finished in first.drive(shared, ending):
            yield finished
            while not ended.empty():
                found = _checked(ended.get())
                running -= found is None
                if found is not None:
                    yield found
        begin.set()
        while running:
            found = _checked(ended.get())
            running -= found is None
            if found is not None:
                yield found
    finally:
        ending.over = True
        begin.set()
        while any(thread.is_alive() for thread in others):
            _discard(ended)
            for thread in others:
                thread.join(0.01)


def _checked(found: Finished | BaseException | None) -> Finished | None:
    """Return finished samples, or None where a thread is done; raise its error."""
    if isinstance(found, BaseException):
        raise found
    return found


def _discard(ended: queue.Queue[Any]) -> None:
    """Make room, so that no thread waits for a consumer that has gone."""
    while not ended.empty():
        ended.get_nowait()


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _known_elsewhere() -> bool:
    """Return whether other threads are configured as this one is."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(_configuration()))
    thread.start()
    thread.join()
    return found == [_configuration()]


def _configuration() -> Any:
    mesh = jax.sharding.get_abstract_mesh()
    return {name: getattr(jax.config, name, None) for name in jax.config.values}, mesh
