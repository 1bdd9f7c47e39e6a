"""Lanes spread over devices give what one device gives, without a word between them (law 9)."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from children import call
from flax import struct
from jax.typing import ArrayLike

import refinejax as rj
from refinejax.batch import engine
from refinejax.batch.lanes import cycle

DEVICES = 4
COUNT = 33
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
    "reduce-scatter",
    "send",
    "recv",
)
METHODS = {
    "random": rj.RandomSearch(population_size=4),
    "adam": rj.Gradient(optax.adam, {"learning_rate": 0.1}),
}


class Bowl(struct.PyTreeNode):
    """A paraboloid around the center of each sample."""

    center: ArrayLike

    def __call__(self, params):
        return jnp.sum((params - self.center) ** 2)


def samples(count):
    rng = np.random.default_rng(0)
    center = rng.normal(size=(COUNT, 2)).astype(np.float32)
    start = center + 0.3 * rng.standard_cauchy((COUNT, 2)).astype(np.float32)
    return center[:count], start[:count]


# In the child, which has several devices


def fit(mesh, count=COUNT, lanes=8, method="adam"):
    center, start = samples(count)
    stop = rj.Stop(target=1e-3)
    result = rj.run_batch(
        METHODS[method],
        Bowl(center),
        start,
        5,
        max_steps=150,
        stop=stop,
        execution=rj.Execution(lanes=lanes, mesh=mesh),
    )
    return as_lists(result)


def as_lists(result):
    names = ("params", "loss", "initial_loss", "steps", "status")
    return {name: np.asarray(getattr(result, name)).tolist() for name in names}


def stream(mesh):
    center, start = samples(COUNT)
    chunks = [(Bowl(center[at]), start[at]) for at in (slice(0, 5), slice(5, 6), slice(6, None))]
    stop = rj.Stop(target=1e-3)
    results = rj.run_stream(
        METHODS["adam"],
        chunks,
        5,
        max_steps=150,
        stop=stop,
        execution=rj.Execution(lanes=8, mesh=mesh),
    )
    return [as_lists(result) for result in results]


def program(mesh):
    """The compiled text of the loop, and on how many devices the lanes lie."""
    seen = []

    def watch(rules, lanes, *rest, **options):
        if not seen:
            text = cycle.lower(rules, lanes, *rest, **options).compile().as_text()
            seen.extend([text, len(lanes.ids.sharding.device_set)])
        return cycle(rules, lanes, *rest, **options)

    engine.cycle = watch
    fit(mesh)
    engine.cycle = cycle
    return seen


def observe():
    mesh = jax.make_mesh((DEVICES,), ("lanes",))
    plane = jax.make_mesh((2, 2), ("rows", "columns"))
    plain = jax.sharding.Mesh(mesh.devices, mesh.axis_names)  # other types of axes
    text, devices = program(mesh)
    found = {
        "visible": jax.device_count(),
        "devices": devices,
        "loops": text.count(" while("),
        "collectives": [word for word in COLLECTIVES if f" {word}(" in text or f" {word}-" in text],
        "one": {name: fit(None, method=name) for name in METHODS},
        "many": {name: fit(mesh, method=name) for name in METHODS},
        "again": fit(mesh),
        "plane": fit(plane),
        "plain": fit(plain),
        "few lanes": fit(mesh, lanes=1),
        "odd lanes": fit(mesh, lanes=6),
        "default lanes": fit(mesh, lanes=None),
        "few samples": fit(mesh, count=2),
        "one sample": fit(mesh, count=1),
        "stream": stream(mesh),
    }
    print(json.dumps(found))


# In the parent


@pytest.fixture(scope="module")
def seen():
    found = json.loads(call(observe, devices=DEVICES, warnings="error"))
    assert found["visible"] == DEVICES
    return found


def assert_equal(result, expected, rows=slice(None)):
    for name in ("steps", "status"):
        assert result[name] == expected[name][rows], name
    for name in ("params", "loss", "initial_loss"):
        np.testing.assert_allclose(
            result[name], expected[name][rows], rtol=1e-5, atol=1e-7, err_msg=name
        )


@pytest.mark.parametrize("method", METHODS)
def test_sharded_equals_unsharded(seen, method):
    assert_equal(seen["many"][method], seen["one"][method])
    assert len(set(seen["one"][method]["steps"])) > 5


def test_the_lanes_lie_on_all_devices(seen):
    assert seen["devices"] == DEVICES


def test_there_are_no_collectives_in_the_compiled_loop(seen):
    assert seen["loops"] > 0
    assert seen["collectives"] == []


def test_the_same_run_gives_the_same_bits(seen):
    assert seen["again"] == seen["many"]["adam"]


@pytest.mark.parametrize("case", ["few lanes", "odd lanes", "default lanes", "plane", "plain"])
def test_lanes_need_not_be_a_multiple_of_the_devices_nor_the_mesh_a_line(seen, case):
    assert_equal(seen[case], seen["one"]["adam"])


@pytest.mark.parametrize(("case", "count"), [("few samples", 2), ("one sample", 1)])
def test_there_may_be_fewer_samples_than_devices(seen, case, count):
    assert_equal(seen[case], seen["one"]["adam"], slice(count))


def test_a_stream_may_be_sharded(seen):
    assert [len(chunk["loss"]) for chunk in seen["stream"]] == [5, 1, 27]
    for chunk, rows in zip(seen["stream"], (slice(0, 5), slice(5, 6), slice(6, None)), strict=True):
        assert_equal(chunk, seen["one"]["adam"], rows)
