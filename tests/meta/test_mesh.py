"""Meta-training over devices: the same gradients, and each device does its share."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from children import call

from refinejax import Gradient
from refinejax.meta import FullUnroll, Trajectory, TruncatedUnroll, pes
from refinejax.meta.training import meta_task
from refinejax.tasks.quadratics import Quadratics

DEVICES = 2
KEY = jax.random.key(0)


def rate(key):
    return Gradient(sgd, {"log_rate": jnp.float32(-3.0)})


def sgd(log_rate):
    return optax.sgd(jnp.exp(log_rate))


INNER = Trajectory(Quadratics(size=4), rate, horizon=4)
ESTIMATORS = {
    "each": FullUnroll(INNER, batch=8),
    "in one part": FullUnroll(INNER, batch=8, parts=1),
    "in two parts": FullUnroll(INNER, batch=8, parts=2),
    "truncated": TruncatedUnroll(INNER, window=2, lanes=8),
    "truncated in one part": TruncatedUnroll(INNER, window=2, lanes=8, parts=1),
    "pes": pes(INNER, window=2, lanes=8),
}


QUICK = "truncated in one part"


def observe(*names):
    """Print (gradient, gradient over devices, share of the work of a device) by name."""
    mesh = jax.make_mesh((DEVICES,), ("tasks",))
    found = {}
    for name in names:
        estimator = ESTIMATORS[name]
        gradients, flops = [], []
        for devices in (None, mesh):
            task = meta_task(estimator, mesh=devices, count=4)
            weights = task.init(KEY)
            memory = jax.jit(task.begin)(weights, KEY)
            ask = jax.jit(task.loss_and_grad).lower(weights, memory, jnp.int32(0), KEY).compile()
            gradients.append(float(ask(weights, memory, jnp.int32(0), KEY)[1].numbers["log_rate"]))
            flops.append(ask.cost_analysis()["flops"])
        found[name] = (*gradients, flops[1] / flops[0])
    print(json.dumps(found))


def in_child(*names):
    return json.loads(call(observe, *names, devices=DEVICES).splitlines()[-1])


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == QUICK else pytest.mark.slow) for name in ESTIMATORS],
)
def test_each_device_takes_its_share_of_the_tasks(name):
    alone, together, share = in_child(name)[name]
    np.testing.assert_allclose(together, alone, rtol=1e-4)
    assert share < 0.75


def test_what_cannot_be_divided_is_named():
    mesh = jax.sharding.AbstractMesh((3,), ("tasks",))
    with pytest.raises(ValueError, match="cannot be divided over 3 devices"):
        FullUnroll(INNER, batch=8, mesh=mesh).update(INNER.init(KEY), (), KEY)
