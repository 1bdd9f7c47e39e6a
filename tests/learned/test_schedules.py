"""Learning rates that change: against optax, loops written out in NumPy, and differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from refinejax import Gradient, run
from refinejax.learned import hypergradient, learned_schedule, plateau, schedule

SCALES = np.array([1.0, 10.0, 0.1])
START = jnp.array([1.0, -2.0, 3.0])


def valley(x):
    return 0.5 * jnp.sum(jnp.asarray(SCALES, x.dtype) * x**2)


def follow(optimizer, count, values=None):
    """Return params after each step on the valley, and the states."""
    x, state, seen, states = START, optimizer.init(START), [], []
    update = jax.jit(optimizer.update)
    for t in range(count):
        value, grad = jax.value_and_grad(valley)(x)
        steps, state = update(grad, state, x, value=value if values is None else values[t])
        x = optax.apply_updates(x, steps)
        seen.append(x)
        states.append(state)
    return np.array(seen), states


def test_warm_up_and_cosine_are_those_of_optax():
    theirs = optax.cosine_decay_schedule(0.3, 80)
    ours = schedule("cosine", 0.3, 100, 20)
    for count in (20, 21, 50, 99, 100, 130):
        np.testing.assert_allclose(ours(count), theirs(count - 20), rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose([ours(0), ours(9)], [0.3 / 20, 0.15], rtol=1e-6)
    with pytest.raises(ValueError, match="name: expected one of constant, cosine, linear, got 'x'"):
        schedule("x", 0.1, 10)


def scheduled(peak, steps):
    return optax.sgd(schedule("cosine", peak, steps))


def stepped(log_rates):
    return optax.sgd(learned_schedule(log_rates, 10))


def test_numbers_of_schedules_can_be_differentiated():
    def end(peak):
        return run(Gradient(scheduled, {"peak": peak, "steps": 10.0}), valley, START, num_steps=8)

    def loss(peak):
        return end(peak).state.loss

    with jax.enable_x64(True):
        slope = jax.grad(loss)(0.05)
        between = (loss(0.05 + 1e-5) - loss(0.05 - 1e-5)) / 2e-5
    np.testing.assert_allclose(slope, between, rtol=1e-3)


def test_a_learned_schedule_passes_through_its_points_and_learns():
    log_rates = jnp.log(jnp.array([0.01, 0.1, 0.02]))
    made = learned_schedule(log_rates, 10)
    np.testing.assert_allclose(
        [made(0), made(5), made(10), made(50)], [0.01, 0.1, 0.02, 0.02], rtol=1e-5
    )
    np.testing.assert_allclose(made(2.5), np.sqrt(0.001), rtol=1e-5)

    def loss(log_rates):
        done = run(Gradient(stepped, {"log_rates": log_rates}), valley, START, num_steps=10)
        return done.state.loss

    adam = optax.adam(0.05)

    def descend(carry, _):
        points, state = carry
        value, slope = jax.value_and_grad(lambda p: jnp.log(loss(p)))(points)
        updates, state = adam.update(slope, state)
        return (optax.apply_updates(points, updates), state), (value, points)

    points = jnp.linspace(jnp.log(0.4), jnp.log(0.08), 6)  # all alike would be a saddle
    values, seen = jax.jit(lambda p: jax.lax.scan(descend, (p, adam.init(p)), length=300)[1])(
        points
    )
    trained = seen[np.argmin(values)]  # the last may have left a narrow valley
    constant = [loss(jnp.full(6, jnp.log(rate))) for rate in np.geomspace(0.01, 0.2, 20)]
    assert loss(trained) < 0.5 * min(constant)
    with pytest.raises(ValueError, match="log_rates: expected 2 numbers or more"):
        learned_schedule(jnp.zeros(1), 10)


def adam_loop(count, rate, hyper, b1=0.9, b2=0.999, eps=1e-8):
    """Adam-HD, written from algorithm 6 of the paper, in NumPy."""
    x, m, v = np.array(START, float), 0.0, 0.0
    before, seen = np.zeros(3), []
    for t in range(1, count + 1):
        g = SCALES * x
        rate = rate + hyper * g @ before
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        before = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        x = x - rate * before
        seen.append(x)
    return np.array(seen)


def descent_loop(count, rate, hyper, multiplicative):
    """SGD-HD, written from algorithm 4 and equation 8, in NumPy."""
    x, before, seen = np.array(START, float), np.zeros(3), []
    for t in range(count):
        g = SCALES * x
        along = g @ before
        if multiplicative:
            along = rate * along / (np.linalg.norm(g) * np.linalg.norm(before)) if t else 0.0
        rate, before = rate + hyper * along, g
        x = x - rate * g
        seen.append(x)
    return np.array(seen)


def test_hypergradient_descent_is_that_of_the_paper():
    seen, _ = follow(hypergradient(0.01, 1e-4), 30)
    np.testing.assert_allclose(seen, descent_loop(30, 0.01, 1e-4, False), rtol=2e-4, atol=1e-6)
    seen, _ = follow(hypergradient(0.01, 0.02, multiplicative=True), 30)
    np.testing.assert_allclose(seen, descent_loop(30, 0.01, 0.02, True), rtol=2e-4, atol=1e-6)
    seen, _ = follow(hypergradient(0.01, 1e-4, optax.scale_by_adam), 30)
    np.testing.assert_allclose(seen, adam_loop(30, 0.01, 1e-4), rtol=2e-4, atol=1e-5)


def test_the_hypergradient_is_the_slope_by_the_rate():
    """α moves by −β times the derivative of f(x − α·u) with respect to α."""
    _, states = follow(hypergradient(0.02, 1.0), 2)
    change = states[1].rate - states[0].rate
    first = jax.grad(valley)(START)
    slope = jax.grad(lambda rate: valley(START - rate * first))(0.02)
    np.testing.assert_allclose(change, -slope, rtol=1e-4)


def test_a_rate_that_is_too_small_grows():
    slow = run(Gradient(optax.sgd, {"learning_rate": 1e-3}), valley, START, num_steps=100)
    refiner = Gradient(hypergradient, {"rate": 1e-3, "hyper_rate": 1e-4})
    assert run(refiner, valley, START, num_steps=100).loss < 0.2 * slow.loss


def test_plateau_is_that_of_optax():
    values = np.concatenate([np.linspace(5, 1, 7), np.full(20, 1.0), [0.5], np.full(12, 0.6)])
    for patience, cooldown in ((3, 0), (4, 5)):
        theirs = optax.chain(
            optax.scale(-0.1),
            optax.contrib.reduce_on_plateau(0.4, patience, cooldown=cooldown, min_scale=0.05),
        )
        ours = plateau(0.1, 0.4, patience, 1e-4, cooldown, 0.05, direction=optax.identity)
        expected, _ = follow(theirs, len(values), values)
        found, states = follow(ours, len(values), values)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert states[-1].rate < 0.02


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_rates_move_by_little_in_any_precision(dtype):
    """In bfloat16 itself 0.1 + 1e-5 is 0.1, and a loss that falls by 0.05 % does not fall."""
    params = jnp.ones(3, dtype)
    rule = hypergradient(0.1, 1e-5)
    state = rule.init(params)
    for _ in range(100):
        steps, state = rule.update(jnp.ones(3, dtype), state, params)
    assert steps.dtype == dtype
    np.testing.assert_allclose(state.rate, 0.1 + 99 * 3e-5, rtol=1e-3)
    rule = plateau(0.1, patience=3)
    state = rule.init(params)
    for k in range(30):
        steps, state = rule.update(params, state, params, value=jnp.float32(0.9995**k))
    assert steps.dtype == dtype
    np.testing.assert_allclose(state.rate, 0.1)


@pytest.mark.parametrize(("steps", "warmup"), [(10, 10), (0, 0), (10, 20)])
def test_schedules_are_numbers_whatever_the_warmup(steps, warmup):
    made = schedule("cosine", 0.1, steps, warmup)
    found = np.array([made(count) for count in range(30)])
    assert np.all(np.isfinite(found))
    assert found[-1] == 0
    assert np.isfinite(learned_schedule(jnp.zeros(3), 0)(0))


def test_plateau_needs_the_loss():
    optimizer = plateau(0.1)
    with pytest.raises(ValueError, match="value: expected the loss at the params, got None"):
        optimizer.update(START, optimizer.init(START), START)


def test_new_numbers_do_not_compile_anew():
    traces = []

    def counted(x):
        traces.append(1)
        return valley(x)

    run(Gradient(plateau, {"rate": 0.1, "factor": 0.5}), counted, START, num_steps=5)
    first = len(traces)
    run(Gradient(plateau, {"rate": 0.2, "factor": 0.3}), counted, START, num_steps=5)
    assert first == len(traces) > 0


def test_a_vanished_gradient_leaves_the_rate():
    optimizer = hypergradient(0.1, 0.1, multiplicative=True)
    zeros = jnp.zeros(3)
    _, state = optimizer.update(zeros, optimizer.init(START), START)
    steps, state = optimizer.update(zeros, state, START)
    assert np.isfinite(state.rate)
    np.testing.assert_allclose(state.rate, 0.1, rtol=1e-6)
    assert not np.any(steps)
