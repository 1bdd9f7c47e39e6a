"""Several engines on threads of their own, which share the samples of one source."""

import os
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from refinejax._core import Status
from refinejax._deadline import Judge
from refinejax.batch.engine import Engine, Finished
from refinejax.batch.sources import Samples, Source


class Locked:
    """A source that several threads may ask."""

    def __init__(self, source: Source) -> None:
        self.source, self.lock = source, threading.Lock()

    def take(self, count: int) -> Samples | None:
        """Return the next samples."""
        with self.lock:
            return self.source.take(count)


class Halt:
    """A judge who also ends when one of the threads has failed."""

    def __init__(self, judge: Judge) -> None:
        self.judge, self.over = judge, False

    def status(self) -> Status | None:
        """Return as the other judge."""
        return Status.STOPPED if self.over else self.judge.status()


def drive_together(
    engines: Sequence[Engine], source: Source, deadline: Judge
) -> Iterator[Finished]:
    """Refine all samples of ``source``; yield them as they end, whichever engine had them.

    The others wait until the first engine has compiled what all run. Where the caller is within a
    context of JAX that other threads do not know, such as ``jax.enable_x64(True)``, the first goes
    alone.
    """
    if len(engines) == 1 or not _known_elsewhere():
        yield from engines[0].drive(source, deadline)
        return
    shared, halt, compiled = Locked(source), Halt(deadline), engines[0].compiled
    ended: queue.SimpleQueue[Finished | BaseException | None] = queue.SimpleQueue()

    def follow(engine: Engine) -> None:
        try:
            if engine is not engines[0]:
                compiled.wait()
            for finished in engine.drive(shared, halt):
                ended.put(finished)
            ended.put(None)
        except BaseException as error:
            ended.put(error)
        finally:
            compiled.set()

    threads = [threading.Thread(target=follow, args=(e,), daemon=True) for e in engines]
    try:
        for thread in threads:
            thread.start()
        running = len(threads)
        while running:
            found = ended.get()
            if isinstance(found, BaseException):
                raise found
            if found is None:
                running -= 1
            else:
                yield found
    finally:
        halt.over = True
        for thread in threads:
            thread.join()


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
