"""Laws 9 and 13 for every refiner: lanes and devices change nothing (`cases.py`)."""

import json

import jax
import numpy as np
import pytest
from cases import PROBLEMS, REFINERS
from children import call

from refinejax import Execution, run_batch, run_until
from refinejax.batch import engine
from refinejax.batch.lanes import cycle

COUNT, DEVICES, STEPS, KEY = 5, 2, 12, 3
QUICK = "lm"  # to shard; `test_mesh` has a random search and Adam
LANES = (1, 2, 3, COUNT, 2 * COUNT)
WORDS = ("all-", "collective-", "reduce-scatter", "send", "recv")  # of communication
FIELDS = ("params", "loss", "initial_loss", "steps", "status")
CORNER = PROBLEMS["corner"]


def samples():
    """Observations and starts of several boxes."""
    rng = np.random.default_rng(0)
    observation = np.asarray(CORNER.objective.observation)
    observations = observation + 0.3 * rng.normal(size=(COUNT, *observation.shape))
    starts = CORNER.start + rng.uniform(-0.3, 0.3, (COUNT, 2))
    return observations.astype(np.float32), starts.astype(np.float32)


def fit(name, **options):
    observations, starts = samples()
    problem = CORNER.objective.replace(observation=observations)
    how = {"max_steps": STEPS, "execution": Execution(**options)}
    result = run_batch(REFINERS[name].refiner, problem, starts, KEY, **how)
    return {field: np.asarray(getattr(result, field)).tolist() for field in FIELDS}


def one_by_one(name):
    key, found = jax.random.key(KEY), []
    for i, (observation, start) in enumerate(zip(*samples(), strict=True)):
        problem = CORNER.objective.replace(observation=observation)
        refiner, of_sample = REFINERS[name].refiner, jax.random.fold_in(key, i)
        found.append(run_until(refiner, problem, start, of_sample, max_steps=STEPS))
    return {field: [np.asarray(getattr(x, field)).tolist() for x in found] for field in FIELDS}


def assert_same(found, expected):
    assert found["status"] == expected["status"]
    assert found["steps"] == expected["steps"]
    for field in ("params", "loss", "initial_loss"):
        np.testing.assert_allclose(found[field], expected[field], rtol=1e-3, atol=1e-4)


def names():
    """All, of which those are quick of whose families `test_engine` has none."""
    for name in REFINERS:
        quick = name in ("cma", "learned-update", "lm")
        yield pytest.param(name, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize("name", [*names()])
def test_13_the_engine_gives_what_one_by_one_gives(name):
    assert_same(fit(name, lanes=2), one_by_one(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", REFINERS)
def test_13_the_number_of_lanes_does_not_matter(name):
    expected = one_by_one(name)
    for lanes in LANES:
        assert_same(fit(name, lanes=lanes), expected)


def observe(*chosen):
    """In a child with several devices: print what one and all of them give, and what they say."""
    mesh, texts = jax.make_mesh((DEVICES,), ("lanes",)), []

    def watched(*arguments, **options):
        if not texts:
            texts.append(cycle.lower(*arguments, **options).compile().as_text())
        return cycle(*arguments, **options)

    found = {}
    engine.cycle = watched
    for name in chosen:
        alone = fit(name, lanes=2)
        texts.clear()
        together = fit(name, lanes=2, mesh=mesh)
        said = [line for line in texts[0].splitlines() if is_communication(line)]
        found[name] = (alone, together, said)
    print(json.dumps(found))


def is_communication(line):
    """Whether an instruction of a compiled program sends something to another device."""
    operation = line.partition(" = ")[2].partition("(")[0].split(" ")[-1]
    return operation.startswith(WORDS)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == QUICK else pytest.mark.slow) for name in REFINERS],
)
def test_9_sharded_equals_unsharded_without_collectives(name):
    alone, together, said = json.loads(call(observe, name, devices=DEVICES))[name]
    assert_same(together, alone)
    assert said == []
