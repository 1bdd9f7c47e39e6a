"""Learned initializations: gradients against finite differences and closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from refinejax import Gradient
from refinejax.meta import (
    Adaptation,
    FullUnroll,
    Implicit,
    Learner,
    Reptile,
    anil,
    fomaml,
    imaml,
    maml,
    meta_sgd,
    reptile,
)
from refinejax.meta.inner import scores
from refinejax.meta.training import meta_task
from refinejax.tasks.sinusoids import Sinusoids

KEY = jax.random.key(0)
RATE = 0.1


@jax.jit
def call(estimator, meta, tasks, keys):
    return estimator(meta, tasks, keys)


class Bowl(struct.PyTreeNode):
    """½(x − c)ᵀH(x − c)."""

    matrix: jax.Array
    center: jax.Array

    def __call__(self, params):
        away = params - self.center
        return away @ self.matrix @ away / 2


class Plane(struct.PyTreeNode):
    """g·x: no Hessian."""

    slope: jax.Array

    def __call__(self, params):
        return self.slope @ params


class Bowls(struct.PyTreeNode):
    """Quadratics: a support and a query with other matrices and centers."""

    flat: bool = struct.field(pytree_node=False, default=False)

    def sample(self, key):
        one, two = jax.random.split(key)
        roots = jax.random.normal(one, (2, 3, 3)) / 2
        matrices = roots @ roots.transpose(0, 2, 1) + jnp.eye(3)
        centers = jax.random.normal(two, (2, 3))
        support = Bowl(matrices[0], centers[0])
        return (Plane(centers[0]) if self.flat else support), Bowl(matrices[1], centers[1])

    def objective(self, task):
        return task[0]

    def query(self, task):
        return task[1]

    def initial(self, task, key):
        return jax.random.normal(key, (3,))


SGD = Gradient(optax.sgd, {"learning_rate": RATE})
TASKS = jax.vmap(Bowls().sample)(jax.random.split(KEY, 4))
KEYS = jax.random.split(KEY, 4)
START = Learner(jnp.array([0.5, -1.0, 2.0]))


def closed_form(steps, weights=None):
    """Return MAML's gradient: Aᵏ H_q (φ_k − c_q) with A = I − αH and φ_k − c = Aᵏ(θ − c)."""
    support, query = (jax.tree.map(np.asarray, task) for task in TASKS)
    weights = [0] * (steps - 1) + [1] if weights is None else weights
    total = np.zeros(3)
    for i in range(4):
        A = np.eye(3) - RATE * support.matrix[i]
        for k, weight in enumerate(weights, start=1):
            power = np.linalg.matrix_power(A, k)
            end = support.center[i] + power @ (np.asarray(START.params) - support.center[i])
            slope = power @ query.matrix[i] @ (end - query.center[i])
            total += weight / np.sum(weights) * slope / 4
    return total


@pytest.mark.parametrize("weights", [pytest.param(None, marks=pytest.mark.slow), (0.2, 0.3, 1.0)])
def test_mamls_gradient_is_that_of_the_closed_form(weights):
    estimator = maml(Bowls(), SGD, steps=3, weights=weights)
    _, gradient = call(estimator, START, TASKS, KEYS)
    np.testing.assert_allclose(gradient.params, closed_form(3, weights), rtol=1e-4)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0,) * 7, (0.0,) * 3, (1.0, -1.0, 1.0)])
def test_weights_that_do_not_fit_are_named(weights):
    with pytest.raises(ValueError, match="weights: expected"):
        maml(Bowls(), SGD, steps=3, weights=weights)(START, TASKS, KEYS)


def test_what_no_initialization_can_be_is_named():
    with pytest.raises(ValueError, match="without learned= and weights="):
        Reptile(Adaptation(Bowls(), SGD, weights=jnp.ones(2), horizon=2))
    with pytest.raises(ValueError, match="strength: expected a number above 0"):
        imaml(Bowls(), SGD, strength=0)
    with pytest.raises(ValueError, match="adapts: expected params that are a mapping with head"):
        anil(Bowls(), SGD, head="head").init(KEY)


@pytest.mark.parametrize("make", [fomaml, anil])
def test_first_order_and_heads_take_weights_too(make):
    options = {"head": ("b",)} if make is anil else {}
    made = make(Bowls(), SGD, steps=2, weights=(1.0, 3.0), anneal=10, **options)
    np.testing.assert_allclose(made.inner.at(10).weights, [0.0, 1.0])


@pytest.mark.slow
def test_weights_are_annealed_to_the_last_loss():
    weights = (1.0, 1.0, 2.0)
    task = meta_task(maml(Bowls(), SGD, steps=3, weights=weights, anneal=100), count=2)
    ask = jax.jit(lambda step: task.loss_and_grad(START, ((), jnp.float32(0)), step, KEY)[:2])
    early, half, late = ask(jnp.int32(0)), ask(jnp.int32(50)), ask(jnp.int32(250))
    for found, wanted in ((early, weights), (half, (0.5, 0.5, 3)), (late, None)):
        constant = meta_task(maml(Bowls(), SGD, steps=3, weights=wanted), count=2)
        known = jax.jit(constant.loss_and_grad)(START, ((), jnp.float32(0)), jnp.int32(0), KEY)[:2]
        np.testing.assert_allclose(found[0], known[0], rtol=1e-5)
        np.testing.assert_allclose(found[1].params, known[1].params, rtol=1e-4)
    with pytest.raises(ValueError, match="anneal: expected a number of training steps"):
        maml(Bowls(), SGD, steps=3, anneal=100)


def test_first_order_drops_the_hessian_and_is_maml_where_there_is_none():
    support, query = (jax.tree.map(np.asarray, task) for task in TASKS)
    expected = np.zeros(3)
    for i in range(4):
        A = np.linalg.matrix_power(np.eye(3) - RATE * support.matrix[i], 2)
        end = support.center[i] + A @ (np.asarray(START.params) - support.center[i])
        expected += query.matrix[i] @ (end - query.center[i]) / 4
    found = call(fomaml(Bowls(), SGD, steps=2), START, TASKS, KEYS)[1].params
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.abs(found - closed_form(2)).max() > 0.1
    flat = jax.vmap(Bowls(flat=True).sample)(jax.random.split(KEY, 4))
    both = [
        call(make(Bowls(flat=True), SGD, steps=2), START, flat, KEYS)[1].params
        for make in (maml, fomaml)
    ]
    np.testing.assert_allclose(*both, rtol=1e-5)


SINES = Sinusoids(shots=5, queries=5, hidden=(4,))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_gradients_through_a_network_equal_finite_differences(optimizer):
    with jax.enable_x64(True):
        refiner = Gradient(optax.sgd, {"learning_rate": 0.02})
        if optimizer == "adam":
            refiner = Gradient(optax.adam, {"learning_rate": 0.02, "eps_root": 1e-8})
        estimator = maml(SINES, refiner, steps=2)
        meta = estimator.init(KEY)
        wide = jax.tree.map(lambda x: x.astype(float), (meta, jax.vmap(SINES.sample)(KEYS)))
        meta, tasks = wide
        value = functools.partial(call, estimator)
        _, gradient = value(meta, tasks, KEYS)
        way = jax.tree.map(
            lambda x: jnp.asarray(np.random.default_rng(1).normal(size=x.shape)), meta
        )
        h = 1e-5
        ahead, behind = (value(optax.tree.add_scale(meta, s, way), tasks, KEYS)[0] for s in (h, -h))
        slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, way)))
        np.testing.assert_allclose((ahead - behind) / (2 * h), slope, rtol=1e-4)
        assert np.abs(slope) > 1e-2


@pytest.mark.slow
def test_anil_moves_the_head_alone():
    refiner = Gradient(optax.sgd, {"learning_rate": 0.05})
    estimator = anil(SINES, refiner, steps=2)
    meta = estimator.init(KEY)
    task = SINES.sample(KEY)
    inner = estimator.inner
    state = inner.begin(meta, task, KEY)
    for _ in range(2):
        state = inner.advance(meta, task, state, KEY)
    after = inner.adapted(state)
    for a, b in zip(*map(jax.tree.leaves, (after["body"], meta.params["body"])), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(after["head"]["kernel"] - meta.params["head"]["kernel"]).max() > 1e-4
    tasks = jax.tree.map(lambda x: x[None], task)
    gradient = call(estimator, meta, tasks, KEY[None])[1].params
    assert np.abs(gradient["body"][0]["kernel"]).max() > 0  # the body is trained all the same
    with pytest.raises(ValueError, match="adapts: the params have no 'hed', but body, head"):
        anil(SINES, refiner, head=("hed",)).init(KEY)


@pytest.mark.parametrize("per_step", [pytest.param(False, marks=pytest.mark.slow), True])
def test_meta_sgd_learns_rates_by_the_closed_form(per_step):
    estimator = meta_sgd(Bowls(), rate=RATE, steps=2, per_step=per_step)
    meta = estimator.init(KEY).replace(params=START.params)
    rates = meta.refiner.numbers["rates"]
    assert rates.shape == ((2, 3) if per_step else (3,))
    _, gradient = call(estimator, meta, TASKS, KEYS)
    support, query = (jax.tree.map(np.asarray, task) for task in TASKS)
    expected = np.zeros((2, 3))
    for i in range(4):
        H, c = support.matrix[i], support.center[i]
        first = H @ (np.asarray(START.params) - c)
        middle = np.asarray(START.params) - RATE * first
        second = H @ (middle - c)
        slope = query.matrix[i] @ (middle - RATE * second - query.center[i])
        expected[1] += -second * slope / 4
        expected[0] += -first * ((np.eye(3) - RATE * H) @ slope) / 4
    found = gradient.refiner.numbers["rates"]
    np.testing.assert_allclose(
        found, expected if per_step else expected.sum(axis=0), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(gradient.params, closed_form(2), rtol=1e-4)


def test_reptile_stays_where_its_steps_cancel():
    support = TASKS[0]
    estimator = reptile(Bowls(), SGD, steps=3)
    powers = [
        np.eye(3) - np.linalg.matrix_power(np.eye(3) - RATE * np.asarray(H), 3)
        for H in support.matrix
    ]
    weighted = sum(P @ np.asarray(c) for P, c in zip(powers, support.center, strict=True))
    fixed = np.linalg.solve(sum(powers), weighted)
    still = call(estimator, Learner(jnp.asarray(fixed, jnp.float32)), TASKS, KEYS)[1]
    np.testing.assert_allclose(still.params, 0, atol=1e-5)
    loss, away = call(estimator, START, TASKS, KEYS)
    np.testing.assert_allclose(
        away.params, sum(powers) @ (np.asarray(START.params) - fixed) / 4, rtol=1e-4
    )
    assert np.isfinite(loss)


def test_the_implicit_gradient_is_that_of_the_exact_solution():
    refiner = Gradient(optax.sgd, {"learning_rate": 0.15})
    estimator = imaml(Bowls(), refiner, strength=2.0, steps=100, iterations=3)
    loss, gradient = call(estimator, START, TASKS, KEYS)
    support, query = (jax.tree.map(np.asarray, task) for task in TASKS)
    expected, value = np.zeros(3), 0.0
    for i in range(4):
        H = support.matrix[i]
        end = np.linalg.solve(H + 2 * np.eye(3), H @ support.center[i] + 2 * START.params)
        away = end - query.center[i]
        value += away @ query.matrix[i] @ away / 8
        expected += np.linalg.solve(np.eye(3) + H / 2, query.matrix[i] @ away) / 4
    np.testing.assert_allclose(loss, value, rtol=1e-4)
    np.testing.assert_allclose(gradient.params, expected, rtol=1e-3)


def test_the_implicit_gradient_needs_what_it_needs():
    with pytest.raises(ValueError, match=r"inner: expected an Adaptation\(tasks, refiner, prox"):
        Implicit(Adaptation(Bowls(), SGD))
    with pytest.raises(ValueError, match="refiner: expected either a refiner or learned="):
        Adaptation(Bowls())
    with pytest.raises(ValueError, match=r"inner: expected an Adaptation\(tasks, refiner\)"):
        Reptile(meta_sgd(Bowls()).inner)


def test_scores_are_of_the_query_at_the_start_and_after_each_step():
    inner = maml(Bowls(), SGD, steps=1).inner
    found = scores(inner, START, KEY, 4)
    task = Bowls().sample(jax.random.split(KEY)[0])
    x = START.params
    expected = [task[1](x)]
    for _ in range(4):
        x = x - RATE * jax.grad(task[0])(x)
        expected.append(task[1](x))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.slow
def test_maml_learns_to_begin_where_few_steps_go_far():
    refiner = Gradient(optax.sgd, {"learning_rate": 0.01})
    tasks = Sinusoids(hidden=(20, 20))
    estimator = maml(tasks, refiner, steps=1, batch=25, parts=1)
    optimizer = optax.adam(1e-3)
    meta = estimator.init(KEY)

    @jax.jit
    def train(meta):
        def step(carry, key):
            meta, state = carry
            loss, gradient, _, _ = estimator.update(meta, (), key)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(meta, updates), state), loss

        keys = jax.random.split(jax.random.key(1), 3000)
        return jax.lax.scan(step, (meta, optimizer.init(meta)), keys)

    (after, _), losses = train(meta)
    assert np.mean(losses[-100:]) < 0.5 * np.mean(losses[:100])
    keys = jax.random.split(jax.random.key(2), 200)
    found = jax.vmap(lambda k: scores(estimator.inner, after, k, 10))(keys)
    assert np.mean(found[:, 1]) < 0.6 * np.mean(found[:, 0])
    assert isinstance(estimator, FullUnroll)
