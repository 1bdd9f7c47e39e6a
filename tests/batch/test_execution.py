"""Execution options: checked where they are made, and without effect on the answers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

import refinejax as rj
from refinejax._deadline import Deadline
from refinejax.batch import threads
from refinejax.batch.engine import Engine
from refinejax.batch.threads import drive_engines, engines_for

SGD = rj.Gradient(optax.sgd, {"learning_rate": 0.1})
COUNT = 40


class Bowl(struct.PyTreeNode):
    """|x − c|²."""

    center: jax.Array

    def __call__(self, params):
        return jnp.sum((params - self.center) ** 2)


def fit(execution=None, **options):
    center = np.random.default_rng(0).normal(size=(COUNT, 3)).astype(np.float32)
    options = {"max_steps": 60, **options}
    return rj.run_batch(SGD, Bowl(center), np.zeros_like(center), 5, execution=execution, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lanes": 0}, "lanes: expected a whole number of 1 or more, got 0"),
        ({"lanes": 2.5}, r"lanes: .*2\.5"),
        ({"threads": 0}, "threads: expected a whole number of 1"),
        ({"memory_limit": "lots"}, "memory_limit: expected .*lots"),
        ({"memory_limit": "1GB", "threads": 2}, "threads: expected 1 or None .*got 2"),
        ({"mesh": jax.make_mesh((1,), ("lanes",)), "threads": 2}, "threads: expected 1 or None"),
    ],
)
def test_a_bad_option_is_named_where_it_is_made(options, words):
    with pytest.raises(ValueError, match=words):
        rj.Execution(**options)


def test_what_are_no_options_is_shown_with_the_remedy():
    with pytest.raises(ValueError, match=r"execution: expected options, .*lanes=64.*got 8"):
        fit(8)


def plan(lanes):
    return threads.LanePlan(lanes, 1)


@pytest.mark.parametrize(
    ("execution", "samples", "expected"),
    [
        (rj.Execution(), 1000, 3),
        (rj.Execution(), 70, 2),
        (rj.Execution(), 64, 1),
        (rj.Execution(), 1, 1),
        (rj.Execution(threads=7), 1000, 7),
        (rj.Execution(threads=1), 1000, 1),
        (rj.Execution(memory_limit="1GB"), 1000, 1),
        (rj.Execution(mesh=jax.make_mesh((1,), ("lanes",))), 1000, 1),
    ],
)
def test_engines_are_at_most_the_cores_and_no_more_than_have_samples(
    execution, samples, expected, monkeypatch
):
    monkeypatch.setattr(threads, "cores", lambda: 3)
    assert len(engines_for(object, execution, plan(64), samples)) == expected


class Counted:
    """An engine that hands out what it takes, and says how many cores it keeps busy."""

    def __init__(self, used):
        self.used, self.took = used, 0
        self.compiled, self.measured = threads.threading.Event(), threads.threading.Event()

    def cores_used(self):
        return self.used

    def drive(self, source, end):
        while (found := source.take(1)) is not None and end.status() is None:
            self.took += 1
            if self.took == 3:
                self.compiled.set()
                self.measured.set()
                self.other.wait(1e-3)
            yield found


class Numbers:
    """A source of numbers."""

    def __init__(self, count):
        self.left = list(range(count))

    def take(self, count):
        return self.left.pop() if self.left else None


@pytest.mark.parametrize(("used", "always", "helps"), [(1.0, False, True), (1.9, False, False)])
def test_other_engines_begin_where_the_first_keeps_one_core_busy(used, always, helps):
    engines = [Counted(used) for _ in range(2)]
    engines[0].other = engines[1].compiled  # the first waits for the second to take part
    engines[1].other = engines[0].compiled
    found = sorted(drive_engines(engines, Numbers(500), Deadline(None), always=always))
    assert found == list(range(500))
    assert (engines[1].took > 0) == helps


def test_the_answers_do_not_depend_on_the_threads_that_were_chosen(monkeypatch):
    one = fit(rj.Execution(lanes=4, threads=1))
    for used in (0.0, 9.0):
        monkeypatch.setattr(Engine, "cores_used", lambda self, used=used: used)
        monkeypatch.setattr(threads, "cores", lambda: 3)
        chosen = fit(rj.Execution(lanes=4))
        for name in ("params", "loss", "steps", "status"):
            np.testing.assert_array_equal(getattr(chosen, name), getattr(one, name))
