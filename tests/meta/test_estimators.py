"""Estimators of the meta-gradient against the exact one, over windows of every length."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from refinejax import Gradient
from refinejax.learned import DampingConfig, LearnedUpdate, UpdateConfig
from refinejax.meta import (
    Antithetic,
    FullUnroll,
    Trajectory,
    TruncatedUnroll,
    es,
    nres,
    pes,
)
from refinejax.meta.inner import FirstOrder, draw_length, mean_length
from refinejax.tasks.augmented import Augmented
from refinejax.tasks.damped_sine import DampedSines
from refinejax.tasks.noisy_quadratics import NoisyQuadratics
from refinejax.tasks.quadratics import Quadratics

WINDOWS = (1, 4, 10, 20, 40)
SAMPLES = 2000
KEY = jax.random.key(7)


class Decay(struct.PyTreeNode):
    """s ← s·(1 − sin(θ)·a) + θ²/20, from a start that depends on θ; losses s² after each step.

    Small enough that thousands of episodes take no time, and with what can go wrong: a state that
    carries the meta-param over windows, a start that depends on it, tasks, and random numbers.
    """

    horizon: int = struct.field(pytree_node=False, default=40)
    shortest: int | None = struct.field(pytree_node=False, default=None)
    whole: bool = struct.field(pytree_node=False, default=True)

    def init(self, key):
        return {"a": jnp.float32(0.15), "b": jnp.array([0.1, -0.2])}

    def sample(self, key):
        return jax.random.uniform(key, minval=0.2, maxval=1.0)

    def begin(self, meta, task, key):
        return 1 + meta["b"] @ jnp.array([1.0, -1.0]) + 0.1 * jax.random.normal(key)

    def advance(self, meta, task, state, key):
        shrunk = state * (1 - jnp.sin(meta["a"]) * task)
        return shrunk + 0.05 * jax.random.normal(key) + jnp.sum(meta["b"] ** 2) / 4

    def loss(self, meta, task, state, count):
        return state**2 + 0.1 * meta["a"] * jnp.cos(1.0 * count)

    def score(self, task, state):
        return state**2


INNER = Decay()
META = INNER.init(KEY)


@pytest.fixture(scope="module")
def episodes():
    """Tasks, keys, and the exact gradient of each episode."""
    tasks = jax.vmap(INNER.sample)(jax.random.split(KEY, SAMPLES))
    keys = jax.random.split(jax.random.key(8), SAMPLES)
    return tasks, keys, each(FullUnroll(INNER), tasks, keys)


@jax.jit
def call(estimator, meta, tasks, keys):
    return estimator(meta, tasks, keys)


@jax.jit
def each(estimator, tasks, keys):
    """Return the estimate of each episode by itself."""

    def one(task, key):
        return estimator(META, task[None], key[None])[1]

    return jax.vmap(one)(tasks, keys)


def test_the_full_unroll_is_the_derivative_of_a_plain_loop(episodes):
    tasks, keys, _ = episodes

    def loss(meta):
        first, run = jax.random.split(keys[0])
        state, total = INNER.begin(meta, tasks[0], first), 0.0
        for t in range(7):
            state = INNER.advance(meta, tasks[0], state, jax.random.fold_in(run, t))
            total += INNER.loss(meta, tasks[0], state, t) / 7
        return total

    value, slope = jax.jit(jax.value_and_grad(loss))(META)
    found, gradient = call(FullUnroll(Decay(7), segment=3), META, tasks[:1], keys[:1])
    np.testing.assert_allclose(found, value, rtol=1e-5)
    for name in META:
        np.testing.assert_allclose(gradient[name], slope[name], rtol=1e-4, atol=1e-6)


def deviation(estimates, exact):
    """Return by how many standard errors the mean of estimates is off, the largest of all."""
    errors = [np.asarray(estimates[k] - exact[k], float).reshape(SAMPLES, -1) for k in exact]
    errors = np.concatenate(errors, axis=1)
    return np.max(np.abs(errors.mean(axis=0)) / (errors.std(axis=0) / np.sqrt(SAMPLES)))


@pytest.mark.parametrize(
    "window", [pytest.param(w, marks=() if w == 10 else pytest.mark.slow) for w in WINDOWS]
)
@pytest.mark.parametrize("make", [pes, nres])
def test_persistent_strategies_are_unbiased_for_every_window(make, window, episodes):
    tasks, keys, exact = episodes
    estimates = each(make(INNER, window=window, std=0.01), tasks, keys)
    assert deviation(estimates, exact) < 3.5


def test_whole_episodes_are_estimated_without_bias(episodes):
    tasks, keys, exact = episodes
    assert deviation(each(es(INNER, std=0.01), tasks, keys), exact) < 3.5


@pytest.mark.slow
def test_truncation_is_biased_and_the_test_would_see_it(episodes):
    tasks, keys, exact = episodes
    fresh = Antithetic(INNER, window=10, std=0.01, noise="fresh")
    assert deviation(each(fresh, tasks, keys), exact) > 8
    assert deviation(each(TruncatedUnroll(INNER, window=10), tasks, keys), exact) > 8


def test_truncated_backpropagation_is_exact_where_the_window_is_the_horizon(episodes):
    tasks, keys, exact = episodes
    found = call(TruncatedUnroll(INNER, window=40), META, tasks[:50], keys[:50])[1]
    for name in META:
        np.testing.assert_allclose(found[name], exact[name][:50].mean(axis=0), rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("make", [pes, nres, TruncatedUnroll])
def test_online_updates_agree_with_whole_episodes(make, episodes):
    tasks, keys, exact = episodes
    estimator = make(INNER, window=10, lanes=256)
    lanes = estimator.begin(META, KEY)
    assert len(np.unique(lanes.length)) > 1  # staggered

    @jax.jit
    def run(lanes):
        def step(lanes, key):
            _, gradient, lanes, metrics = estimator.update(META, lanes, key)
            return lanes, (gradient, metrics["finite"])

        return jax.lax.scan(step, lanes, jax.random.split(jax.random.key(3), 84))[1]

    gradients, finite = run(lanes)
    assert np.all(finite == 1)
    for name in META:
        rounds = np.asarray(gradients[name], float)[4:].reshape(20, 4, -1).mean(axis=1)
        error = rounds.std(axis=0) / np.sqrt(20)
        expected = np.asarray(exact[name], float).reshape(SAMPLES, -1)
        spread = expected.std(axis=0) / np.sqrt(SAMPLES)
        if make is TruncatedUnroll:
            whole = make(INNER, window=10)(META, tasks, keys)[1][name]
            expected = np.asarray(whole, float).reshape(1, -1)
        off = np.abs(rounds.mean(axis=0) - expected.mean(axis=0))
        assert np.all(off < 4 * np.hypot(error, spread))


def test_tasks_are_drawn_anew_where_an_episode_ends_and_only_there():
    estimator = pes(INNER, window=10, lanes=6)
    update = jax.jit(estimator.update)
    lanes = estimator.begin(META, KEY)
    changes = 0
    for i in range(6):
        ended = np.asarray(lanes.count >= lanes.length)
        after = update(META, lanes, jax.random.key(i))[2]
        np.testing.assert_array_equal(np.asarray(after.task != lanes.task), ended)
        np.testing.assert_array_equal(after.count, np.where(ended, 10, lanes.count + 10))
        new = jax.tree.map(lambda a: np.abs(np.asarray(a)).reshape(6, -1).sum(axis=1), after.noise)
        assert np.all(new["b"] > 0)
        lanes, changes = after, changes + ended.sum()
    assert changes >= 6


class Fragile(Decay):
    """The same, where a task of 0.8 or more is lost after a while."""

    def advance(self, meta, task, state, key):
        after = super().advance(meta, task, state, key)
        return jnp.where((task > 0.8) & (jnp.abs(state) < 0.5), jnp.nan, after)


@pytest.mark.parametrize(
    "make", [pes, *(pytest.param(m, marks=pytest.mark.slow) for m in (TruncatedUnroll, FullUnroll))]
)
def test_lanes_that_are_lost_are_left_out_counted_and_given_another_task(make):
    inner = Fragile()
    if make is FullUnroll:
        estimator = FullUnroll(inner, batch=40)
    elif make is TruncatedUnroll:
        estimator = make(inner, window=10, lanes=40, parts=40)
    else:
        estimator = make(inner, window=10, lanes=40)
    memory = estimator.begin(META, KEY)
    update = jax.jit(estimator.update)
    shares = []
    for i in range(4):
        loss, gradient, after, metrics = update(META, memory, jax.random.key(i))
        assert np.isfinite(loss)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
        shares.append(float(metrics["finite"]))
        if make is not FullUnroll:
            lost = np.asarray(after.count == after.length) & np.asarray(after.task > 0.8)
            again = update(META, after, jax.random.key(100))[2]
            assert not np.any(np.asarray(again.task == after.task)[lost])
        memory = after
    assert 0.3 < min(shares) < 1


@pytest.mark.slow
def test_gradients_of_tasks_are_shortened():
    tasks = jax.vmap(INNER.sample)(jax.random.split(KEY, 4))
    keys = jax.random.split(KEY, 4)
    one = jax.tree.map(lambda x: x[0], each(FullUnroll(INNER), tasks, keys))
    norm = float(optax.tree.norm(one))
    short = call(FullUnroll(INNER, clip=norm / 3), META, tasks[:1], keys[:1])[1]
    np.testing.assert_allclose(optax.tree.norm(short), norm / 3, rtol=1e-4)
    np.testing.assert_allclose(short["b"], one["b"] / 3, rtol=1e-4)


@pytest.mark.slow
def test_horizons_are_drawn_log_uniformly_in_whole_windows():
    inner = Decay(horizon=40, shortest=4)
    drawn = jax.vmap(lambda key: draw_length(inner, 4, key))(jax.random.split(KEY, 4000))
    assert set(np.unique(drawn)) == set(range(4, 41, 4))
    np.testing.assert_allclose(np.mean(drawn == 4), np.log(2) / np.log(11), atol=0.03)
    tasks, keys = jnp.full(2, 0.5), jax.random.split(KEY, 2)
    lengths = [int(draw_length(inner, 1, jax.random.fold_in(key, 2))) for key in keys]
    found = call(FullUnroll(inner), META, tasks, keys)[0]
    parts = [
        call(FullUnroll(Decay(horizon=n)), META, tasks[i : i + 1], keys[i : i + 1])[0]
        for i, n in enumerate(lengths)
    ]
    np.testing.assert_allclose(found, np.mean(parts), rtol=1e-5)


class Rising(struct.PyTreeNode):
    """The loss of step t is m·t: episodes of other lengths have other means."""

    horizon: int = struct.field(pytree_node=False, default=64)
    shortest: int | None = struct.field(pytree_node=False, default=4)
    whole: bool = struct.field(pytree_node=False, default=True)

    def sample(self, key):
        return jnp.zeros(())

    def begin(self, meta, task, key):
        return jnp.zeros(())

    def advance(self, meta, task, state, key):
        return state

    def loss(self, meta, task, state, count):
        return meta * count


@pytest.mark.parametrize("make", [pes, TruncatedUnroll])
def test_episodes_count_alike_however_long_they_are(make):
    """Else the mean over windows would be that of a loss in which long episodes count more."""
    inner = Rising()
    estimator = make(inner, window=4, lanes=256)
    lengths = np.arange(1, 17)
    chances = np.diff(np.log(np.arange(1, 18)))
    expected = 4 * lengths @ chances / chances.sum() / 2 - 0.5
    np.testing.assert_allclose(
        mean_length(inner, 4), 4 * lengths @ chances / chances.sum(), rtol=1e-6
    )
    update, memory = jax.jit(estimator.update), estimator.begin(jnp.ones(()), KEY)
    losses = []
    for step in range(120):
        loss, _, memory, _ = update(jnp.ones(()), memory, jax.random.key(step))
        losses.append(float(loss))
    np.testing.assert_allclose(np.mean(losses[40:]), expected, rtol=0.05)


def test_a_lost_lane_takes_no_other_with_it():
    class Some(Rising):
        """Tasks above ½ are lost at once."""

        def sample(self, key):
            return jax.random.uniform(key)

        def advance(self, meta, task, state, key):
            return jnp.where(task > 0.5, jnp.nan, 1.0) * meta

        def loss(self, meta, task, state, count):
            return state

    estimator = TruncatedUnroll(Some(shortest=None), window=4, lanes=16)
    memory = estimator.begin(jnp.ones(()), KEY)
    lost = memory.task > 0.5
    _, _, after, metrics = estimator.update(jnp.ones(()), memory, jax.random.key(1))
    np.testing.assert_allclose(metrics["finite"], 1 - np.mean(lost))
    longer = np.asarray(memory.length > 4)
    assert np.any(longer & lost)
    going = np.asarray(after.count < after.length)
    np.testing.assert_array_equal(going[longer], ~np.asarray(lost)[longer])


def test_gradients_of_lanes_are_shortened():
    estimator = TruncatedUnroll(Rising(shortest=None), window=4, lanes=4, clip=0.5)
    memory = estimator.begin(jnp.ones(()), KEY)
    gradient = estimator.update(jnp.ones(()), memory.replace(count=memory.count), KEY)[1]
    assert 0 < float(gradient) <= 0.5


def test_relative_losses_are_free_of_the_scale_of_the_loss():
    tasks = Augmented(Quadratics(size=2), params=0.0, loss=3.0)
    inner = Trajectory(tasks, rate, horizon=1, scale="relative")
    for i in range(3):
        task = tasks.sample(jax.random.key(i))
        way = inner.begin(inner.init(KEY), task, KEY)
        np.testing.assert_allclose(inner.loss(inner.init(KEY), task, way, 0), 1.0, rtol=1e-5)


def test_a_loss_of_the_last_step_alone(episodes):
    tasks, keys, _ = episodes
    last = Decay(horizon=10, whole=False)
    first, run = jax.random.split(keys[0])
    state = INNER.begin(META, tasks[0], first)
    for t in range(10):
        state = INNER.advance(META, tasks[0], state, jax.random.fold_in(run, t))
    found = call(FullUnroll(last, segment=4), META, tasks[:1], keys[:1])[0]
    np.testing.assert_allclose(found, INNER.loss(META, tasks[0], state, 9), rtol=1e-5)
    with pytest.raises(ValueError, match="window: only the last step has a loss"):
        pes(last, window=5)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="window: expected a divisor of the horizon of 40"):
        pes(INNER, window=7)
    with pytest.raises(ValueError, match="noise: expected one of accumulated, kept, fresh"):
        Antithetic(INNER, noise="white")
    with pytest.raises(ValueError, match="parts: expected a divisor of the batch of 4, got 3"):
        FullUnroll(INNER, batch=4, parts=3).update(META, (), KEY)
    for options, words in [
        ({"batch": 0}, "batch: expected a whole number of 1"),
        ({"segment": -3}, "segment: expected 0 steps"),
    ]:
        with pytest.raises(ValueError, match=words):
            FullUnroll(INNER, **options)
    with pytest.raises(ValueError, match="std: expected a standard deviation above 0"):
        pes(INNER, std=0.0)
    with pytest.raises(ValueError, match="scale: expected one of log, plain, relative"):
        Trajectory(Quadratics(), rate, scale="sqrt")
    with pytest.raises(ValueError, match="shortest: expected 1 to 20 steps"):
        Trajectory(Quadratics(), rate, shortest=30)


def rate(key):
    return Gradient(sgd, {"log_rate": jnp.float32(-2.5)})


def sgd(log_rate):
    return optax.sgd(jnp.exp(log_rate))


def test_first_order_objectives_have_the_same_value_and_gradient_and_no_hessian():
    task = Quadratics(size=3).sample(KEY)
    flat = FirstOrder(task)
    x = jnp.array([0.3, -1.0, 2.0])
    np.testing.assert_allclose(flat(x), task(x))
    np.testing.assert_allclose(jax.grad(flat)(x), jax.grad(task)(x), rtol=1e-6)
    np.testing.assert_array_equal(jax.hessian(flat)(x), 0)


@pytest.mark.slow
def test_trajectories_learn_the_rate_that_is_best_by_the_closed_form():
    tasks = NoisyQuadratics(size=2, noise=1.0)
    inner = Trajectory(tasks, rate, horizon=20, scale="plain", judged=True)
    estimator = FullUnroll(inner, batch=4000, parts=1)
    meta = inner.init(KEY)
    loss, gradient, _, _ = jax.jit(estimator.update)(meta, (), KEY)
    exact, slope = jax.value_and_grad(lambda x: tasks.expected(jnp.exp(x), 20))(jnp.float32(-2.5))
    np.testing.assert_allclose(loss, exact, rtol=0.03)
    np.testing.assert_allclose(gradient.numbers["log_rate"], slope, rtol=0.1)


@pytest.mark.slow
def test_trajectories_are_those_of_the_refiner():
    tasks = Quadratics(size=3)
    log, relative = (
        Trajectory(tasks, rate, horizon=3, scale=scale, penalty=0.0)
        for scale in ("log", "relative")
    )
    meta = rate(KEY)
    task = tasks.sample(KEY)
    first, run = jax.random.split(KEY)
    way = log.begin(meta, task, first)
    start = way.state.params
    losses = [float(way.state.loss)]
    moved = []
    for t in range(3):
        before = way.state.params
        way = log.advance(meta, task, way, jax.random.fold_in(run, t))
        losses.append(float(way.state.loss))
        moved.append(float(jnp.sum((way.state.params - before) ** 2)))
    x = start
    for t in range(3):
        x = x - np.exp(-2.5) * jax.grad(task)(x)
        np.testing.assert_allclose(task(x), losses[t + 1], rtol=1e-4)
    tasks_ = jax.tree.map(lambda leaf: leaf[None], task)
    for inner, expected in (
        (log, np.mean(np.log(losses[1:]))),
        (relative, np.mean(losses[1:]) / losses[0]),
        (log.replace(penalty=0.5), np.mean(np.log(losses[1:])) + 0.5 * np.mean(moved)),
    ):
        found = call(FullUnroll(inner), meta, tasks_, KEY[None])[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4)


class WithStart(struct.PyTreeNode):
    """A distribution whose tasks carry their start, so that a plain loop can begin there too."""

    tasks: Any

    def sample(self, key):
        one, two = jax.random.split(key)
        task = self.tasks.sample(one)
        return task, self.tasks.initial(task, two)

    def objective(self, task):
        return self.tasks.objective(task[0])

    def initial(self, task, key):
        return task[1]


@pytest.mark.parametrize(
    "build",
    [
        UpdateConfig(5, width=8, depth=1),
        pytest.param(DampingConfig(5, (8,)), marks=pytest.mark.slow),  # the same loop, around LM
    ],
)
def test_a_trajectory_in_logs_is_the_mean_log_loss_of_a_plain_loop_without_the_guard(build):
    """Andrychowicz et al. 2016, eq. 3, with logarithms: mean over k of log L(x_k)."""
    inner = Trajectory(WithStart(DampedSines(count=16)), build, horizon=2, scale="log")
    tasks = jax.vmap(inner.sample)(jax.random.split(KEY, 4))

    def one(meta, drawn):
        free = meta.replace(guarded=False) if isinstance(meta, LearnedUpdate) else meta
        objective = inner.tasks.objective(drawn)
        first = free.init(objective, drawn[1], KEY)
        second = free.step(objective, first, KEY)
        third = free.step(objective, second, KEY)
        return (jnp.log(second.loss) + jnp.log(third.loss)) / 2

    def mean(meta):
        return jnp.mean(jax.vmap(one, in_axes=(None, 0))(meta, tasks))

    weights = build(jax.random.key(1))
    expected, slope = jax.jit(jax.value_and_grad(mean))(weights)
    estimator = FullUnroll(inner, batch=4, parts=2)
    found, gradient = call(estimator, weights, tasks, jax.random.split(KEY, 4))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    largest = max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(slope))
    for ours, plain in zip(jax.tree.leaves(gradient), jax.tree.leaves(slope), strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-4 * largest)
