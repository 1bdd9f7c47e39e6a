"""Learned update rules: their formulas, the contract of optax, and layers for sparse recovery."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from refinejax import Gradient, run
from refinejax.learned import (
    LSTMRule,
    MLPRule,
    RNNprop,
    RuleConfig,
    builder,
    learned_rates,
    learned_rule,
)
from refinejax.learned.lista import Shrinkage, analytic, shrink, shrinkage
from refinejax.learned.rule import Seen
from refinejax.learned.rule_cells import Gates
from refinejax.networks import Network
from refinejax.tasks.quadratics import Quadratics
from refinejax.tasks.sparse import Lassos, SparseRecovery, dictionary

KEY = jax.random.key(0)
PARAMS = {"w": jnp.array([[0.5, -1.0, 2.0]]), "b": jnp.array(0.3)}
RULES = {
    name: functools.partial(learned_rule, RuleConfig(name, width=4, rate=0.5)(KEY).numbers["rule"])
    for name in ("lstm", "rnnprop", "mlp")
}
RULES["rates"] = functools.partial(learned_rates, 0.1)
MOSTLY_SLOW = [
    pytest.param(name, marks=() if name in ("rnnprop", "rates") else pytest.mark.slow)
    for name in RULES
]


def loss(params):
    return jnp.sum((params["w"] - 1) ** 2) + (params["b"] * 2) ** 2


@pytest.mark.parametrize("name", MOSTLY_SLOW)
def test_rules_keep_the_contract_of_optax(name):
    rule = RULES[name]()
    grads = jax.grad(loss)(PARAMS)
    state = rule.init(PARAMS)
    update = jax.jit(rule.update)
    steps, after = update(grads, state, PARAMS)
    assert jax.tree.structure(steps) == jax.tree.structure(PARAMS)
    assert jax.tree.map(jnp.shape, steps) == jax.tree.map(jnp.shape, PARAMS)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    plain, _ = rule.update(grads, state, PARAMS, value=1.0, unknown=None)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-5), plain, steps)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (grads, PARAMS))
    assert jax.tree.leaves(update(half[0], rule.init(half[1]), half[1])[0])[0].dtype == jnp.bfloat16


@pytest.mark.parametrize("name", MOSTLY_SLOW)
def test_rules_go_into_chains_masks_schedules_and_batches(name):
    rule = RULES[name]()
    grads = jax.grad(loss)(PARAMS)
    alone = rule.update(grads, rule.init(PARAMS), PARAMS)[0]
    chain = optax.chain(rule, optax.scale_by_schedule(lambda count: 0.5 ** (count + 1)))
    state = chain.init(PARAMS)
    for factor in (0.5, 0.25):
        steps, state = chain.update(grads, state, PARAMS)
        if factor == 0.5:
            np.testing.assert_allclose(steps["w"], 0.5 * alone["w"], rtol=1e-5)
    masked = optax.masked(rule, {"w": True, "b": False})
    steps, _ = masked.update(grads, masked.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(steps["b"], grads["b"])
    np.testing.assert_allclose(steps["w"], alone["w"], rtol=1e-5)
    two = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), PARAMS)
    batch = jax.vmap(lambda p: rule.update(jax.grad(loss)(p), rule.init(p), p)[0])(two)
    np.testing.assert_allclose(batch["w"][0], alone["w"], rtol=2e-5)
    moved = optax.apply_updates(PARAMS, alone)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(moved))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm", "rnnprop", "mlp"])
def test_rules_are_refiners_and_can_be_differentiated_at_a_gradient_of_zero(name):
    refiner = RuleConfig(name, width=4)(KEY)
    task = Quadratics(size=3).sample(KEY)

    def trained(refiner, start):
        return run(refiner, task, start, num_steps=3).state.loss

    for start in (jnp.ones(3), jnp.linalg.solve(task.matrix, task.target)):
        slope = jax.grad(trained)(refiner, start)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))
    assert np.any([np.any(leaf != 0) for leaf in jax.tree.leaves(slope)])
    flat = jax.grad(lambda r: run(r, lambda x: 0 * jnp.sum(x), jnp.ones(3), num_steps=2).loss)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(flat(refiner)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(cell, carry, x):
    c, h = carry
    z = np.concatenate([x, h], axis=1) @ np.asarray(cell["kernel"]) + np.asarray(cell["bias"])
    i, f, g, o = np.split(z, 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return (c, sigmoid(o) * np.tanh(c))


def test_the_lstm_rule_is_that_of_its_formula():
    net = Network.of(LSTMRule(3, 2, p=5.0, rate=0.2, rngs=nnx.Rngs(0)))
    weights = net.weights
    gradient = np.array([2.0, -1e-4, 0.0])
    features = np.array([[np.log(2) / 5, 1], [-1, -np.exp(5.0) * 1e-4], [-1, 0]])
    carries = [(np.zeros((3, 3)), np.zeros((3, 3)))] * 2
    hidden = net.call("begin", 3)
    for _ in range(2):
        step, hidden = net(Seen(jnp.asarray(gradient), None, jnp.int32(0)), hidden)
        h = features
        for i in range(2):
            carries[i] = lstm(weights["cells"][i]["linear"], carries[i], h)
            h = carries[i][1]
    last = weights["last"]
    expected = 0.2 * (h @ np.asarray(last["kernel"]) + np.asarray(last["bias"]))[:, 0]
    np.testing.assert_allclose(step, expected, rtol=1e-4, atol=1e-6)
    assert np.all(np.asarray(Gates(2, 3, rngs=nnx.Rngs(0)).linear.bias[...])[3:6] == 1)


def test_rnnprop_sees_adams_direction_and_does_not_see_units():
    net = Network.of(RNNprop(4, rngs=nnx.Rngs(0)))
    rule = learned_rule(net)
    adam = optax.adam(-1.0, b1=0.95, b2=0.95, eps=1e-12)
    steps = {}
    for scale in (1.0, 1e4):
        state, memory = rule.init(jnp.ones(2)), adam.init(jnp.ones(2))
        for g in ([0.3, -1.0], [0.5, 2.0], [-0.1, 0.4]):
            grads = scale * jnp.array(g)
            step, state = rule.update(grads, state)
            direction, memory = adam.update(grads, memory)
        steps[scale] = step
        m, v, _ = state.hidden[0]
        debias = 1 - 0.95**3
        np.testing.assert_allclose(m / debias / jnp.sqrt(v / debias), direction, rtol=1e-4)
        assert np.all(np.abs(step) <= 0.1)
    np.testing.assert_allclose(steps[1.0], steps[1e4], rtol=1e-3)


def test_the_rule_of_a_perceptron_does_not_see_units_and_asks_for_params():
    rule = learned_rule(Network.of(MLPRule((4,), rngs=nnx.Rngs(0))))
    params, grads = jnp.array([0.3, -2.0]), jnp.array([1.0, 0.2])
    steps = [rule.update(scale * grads, rule.init(params), params)[0] for scale in (1.0, 1e3)]
    np.testing.assert_allclose(*steps, rtol=1e-3)
    with pytest.raises(ValueError, match="params: this rule reads them"):
        rule.update(grads, rule.init(params))


def test_rates_of_a_rule_are_fixed_or_learned():
    for learned in (False, True):
        refiner = RuleConfig("lstm", width=3, rate=0.25, learn_rate=learned)(KEY)
        rates = [
            leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(refiner)
            if "rate" in jax.tree_util.keystr(path)
        ]
        assert len(rates) == learned
        if learned:
            np.testing.assert_allclose(jnp.exp(rates[0]), 0.25, rtol=1e-6)
    with pytest.raises(ValueError, match="cell: expected one of lstm, rnnprop, mlp, got 'gru'"):
        RuleConfig("gru")
    for options in ({"width": 0}, {"layers": 0}, {"rate": -0.1}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}: expected"):
            RuleConfig(**options)
    assert builder("rule", {"cell": "mlp", "width": 3})(KEY).factory is learned_rule


def test_rates_of_each_param_and_step():
    rates = {"w": jnp.array([[[0.1, 0.2, 0.3]], [[1.0, 1.0, 1.0]]]), "b": jnp.array([0.0, 2.0])}
    rule = learned_rates(rates, per_step=True)
    grads = {"w": jnp.ones((1, 3)), "b": jnp.array(3.0)}
    state = rule.init(grads)
    for expected in ([0.1, 0.2, 0.3, 0.0], [1, 1, 1, 6], [1, 1, 1, 6]):
        steps, state = rule.update(grads, state)
        np.testing.assert_allclose([*steps["w"][0], steps["b"]], -np.array(expected), rtol=1e-6)
    refiner = Gradient(learned_rates, {"rates": 0.1})
    task = Quadratics(size=2).sample(KEY)
    found = run(refiner, task, jnp.ones(2), num_steps=1)
    expected = run(Gradient(optax.sgd, {"learning_rate": 0.1}), task, jnp.ones(2), num_steps=1)
    np.testing.assert_allclose(found.state.params, expected.state.params, rtol=1e-6)


def test_rates_of_a_part_of_the_params():
    """By optax's own ways to leave some out: they stay, and so do the rates of the others."""
    rates = {"w": jnp.array([0.1, 0.2]), "b": jnp.array(0.5)}
    grads = {"w": jnp.ones(2), "b": jnp.array(1.0)}
    hidden = optax.masked(learned_rates(rates), {"w": True, "b": False})
    steps, _ = hidden.update(grads, hidden.init(grads))
    np.testing.assert_allclose([*steps["w"], steps["b"]], [-0.1, -0.2, 1.0], rtol=1e-6)
    labels = {"w": "learned", "b": "none"}
    parts = {"learned": learned_rates(rates), "none": optax.set_to_zero()}
    divided = optax.partition(parts, labels)
    steps, _ = divided.update(grads, divided.init(grads))
    np.testing.assert_allclose([*steps["w"], steps["b"]], [-0.1, -0.2, 0.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("rates", "per_step", "words"),
    [
        (0.1, True, "per_step: expected rates with an axis of steps"),
        (jnp.ones(3), False, "rates: expected what broadcasts to shape"),
        (jnp.ones((4, 3)), True, "rates: expected what broadcasts to shape"),
    ],
)
def test_rates_that_do_not_fit_are_named(rates, per_step, words):
    rule = learned_rates(rates, per_step)
    with pytest.raises(ValueError, match=words):
        rule.update(jnp.ones(()), rule.init(jnp.ones(())))


MATRIX = dictionary(jax.random.key(1), 6, 10)
TASKS = SparseRecovery(MATRIX)


@pytest.mark.parametrize("kind", ["lista", "cpss"])
def test_untrained_layers_are_ista(kind):
    task = TASKS.sample(KEY)
    refiner = shrinkage(kind, MATRIX, 4, weight=0.1)
    found = run(refiner, TASKS.objective(task), jnp.zeros(10), num_steps=6)
    A, b, x = np.asarray(MATRIX), np.asarray(task.observation), np.zeros(10)
    length = 1.001 * np.linalg.norm(A, 2) ** 2
    for _ in range(6):
        x = x + A.T @ (b - A @ x) / length
        x = np.sign(x) * np.maximum(np.abs(x) - 0.1 / length, 0)
    np.testing.assert_allclose(found.state.params, x, atol=1e-5)
    np.testing.assert_allclose(found.state.loss, TASKS.objective(task)(x), rtol=1e-4)


def test_the_weights_of_alista_are_the_least_coherent():
    W, A = np.asarray(analytic(MATRIX), float), np.asarray(MATRIX, float)
    np.testing.assert_allclose(np.sum(W * A, axis=0), 1, rtol=1e-4)
    rng = np.random.default_rng(0)
    least = np.linalg.norm(W.T @ A)
    for _ in range(20):
        other = W + 0.1 * rng.normal(size=W.shape)
        other = other / np.sum(other * A, axis=0)
        assert np.linalg.norm(other.T @ A) > least
    refiner = shrinkage("alista", MATRIX, 3)
    task = TASKS.objective(TASKS.sample(KEY))
    found = run(refiner, task, jnp.zeros(10), num_steps=1).state.params
    moved = W.T @ np.asarray(task.observation)
    threshold = 0.1 / (1.001 * np.linalg.norm(A, 2) ** 2)
    expected = np.sign(moved) * np.maximum(np.abs(moved) - threshold, 0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    slope = jax.grad(lambda r: run(r, task, jnp.zeros(10), num_steps=2).state.loss)(refiner)
    assert np.all(slope.fixed == 0)
    assert np.any(slope.first != 0)


def test_the_largest_entries_are_not_shrunk():
    x = jnp.array([3.0, -2.0, 1.0, 0.3])
    np.testing.assert_allclose(shrink(x, 0.5, 0.5), [3.0, -2.0, 0.5, 0.0])
    np.testing.assert_allclose(shrink(x, 0.5, 0.0), [2.5, -1.5, 0.5, 0.0])
    np.testing.assert_allclose(shrink(x, 2.5, 0.5), [3.0, 0.0, 0.0, 0.0])


def test_layers_say_what_they_need():
    with pytest.raises(ValueError, match="kind: expected one of lista, cpss, alista"):
        Shrinkage(jnp.ones(1), None, jnp.ones(1), kind="ista")
    with pytest.raises(ValueError, match="objective: expected one with a matrix"):
        run(shrinkage("cpss", MATRIX, 1), lambda x: jnp.sum(x), jnp.zeros(10), num_steps=1)
    lasso = Lassos(rows=6, columns=10).sample(KEY)
    assert run(shrinkage("cpss", MATRIX, 1), lasso, jnp.zeros(10), num_steps=1).loss >= 0
