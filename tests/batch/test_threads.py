"""Engines on several threads give what one gives, and fail as one does."""

import os
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

import refinejax as rj
from refinejax.batch.threads import SharedSource, cores

COUNT, LANES = 70, 8
ADAM = rj.Gradient(optax.adam, {"learning_rate": 0.1})


class Bowl(struct.PyTreeNode):
    """|x − c|²; counts how often it is traced."""

    center: jax.Array
    traces: list = struct.field(pytree_node=False, default_factory=list)

    def __call__(self, params):
        self.traces.append(threading.current_thread().name)
        return jnp.sum((params - self.center) ** 2)


def centers(count=COUNT):
    return np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)


def fit(threads, refiner=ADAM, problem=None, lanes=LANES, **options):
    problem = Bowl(centers()) if problem is None else problem
    start = np.zeros((COUNT, 3), np.asarray(problem.center).dtype)
    execution = rj.Execution(lanes=lanes, threads=threads)
    options = {"max_steps": 60, "execution": execution, **options}
    return rj.run_batch(refiner, problem, start, 5, **options)


def assert_same(one, other):
    for name in ("params", "loss", "initial_loss", "steps", "status"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("refiner", [ADAM, rj.RandomSearch(population_size=4)])
def test_the_answers_are_those_of_one_engine(refiner):
    alone = fit(1, refiner)
    assert_same(fit(2, refiner), alone)
    assert_same(fit(5, refiner), alone)


def test_what_is_compiled_is_compiled_once():
    problem = Bowl(centers())
    fit(1, problem=problem)
    before = len(problem.traces)
    again = Bowl(centers(), traces := [])
    fit(3, problem=again)
    assert len(traces) <= before
    fit(3, problem=again)
    assert len(traces) <= before


def test_more_threads_than_lanes_can_use_do_not_matter():
    assert_same(fit(50), fit(1))
    few = fit(4, lanes=128)
    assert few.status.shape == (COUNT,)


def test_a_thread_in_another_precision_is_not_used():
    with jax.enable_x64(True):
        problem = Bowl(centers().astype(float))
        alone, together = fit(1, problem=problem), fit(3, problem=problem)
    assert together.params.dtype == np.float64
    assert_same(together, alone)


class Broken(np.ndarray):
    """Rows that cannot be read from the fortieth on."""

    def __getitem__(self, index):
        if isinstance(index, slice) and (index.stop or 0) > 40:
            raise OSError("the disk is gone")
        return super().__getitem__(index)


def test_an_error_of_a_thread_is_an_error_of_the_run():
    problem = Bowl(centers().view(Broken))
    before = threading.active_count()
    with pytest.raises(OSError, match="the disk is gone"):
        fit(3, problem=problem)
    assert threading.active_count() <= before + 1


class Interrupting(np.ndarray):
    """Rows at whose fourth reading by an engine the user presses Ctrl-C."""

    def __getitem__(self, index):
        if isinstance(index, slice) and hasattr(self, "readers"):
            self.readers.append(threading.current_thread())
            if len(self.readers) == 4:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return np.asarray(self).__getitem__(index)


def test_time_and_interruption_end_all_threads():
    ended = fit(3, time_limit=0.0)
    assert set(ended.counts()) == {"TIME_LIMIT"}
    rows = centers().view(Interrupting)
    rows.readers = []
    stopped = fit(3, problem=Bowl(rows), max_steps=10**9, stop=rj.Stop.never())
    assert len(set(rows.readers)) > 1
    assert set(stopped.counts()) == {"STOPPED"}


def test_a_source_is_asked_by_one_at_a_time():
    class Slow:
        inside = 0

        def take(self, count):
            self.inside += 1
            for _ in range(100):
                os.stat(".")  # a system call gives the others their turn
                assert self.inside == 1
            self.inside -= 1

    source = SharedSource(Slow())
    failed, together = [], threading.Barrier(4)

    def ask():
        together.wait()
        try:
            for _ in range(20):
                source.take(1)
        except AssertionError as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert cores() >= 1
