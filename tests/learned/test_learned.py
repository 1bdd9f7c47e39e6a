"""Learned refiners: what they compute, that they do no harm, and how they are trained."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from refinejax import Gradient, InverseProblem, LevenbergMarquardt, ParameterSpace, run
from refinejax.learned import (
    ARCHITECTURES,
    DampingConfig,
    Imitation,
    LearnedDamping,
    LearnedUpdate,
    UpdateConfig,
    builder,
)
from refinejax.learned.masked import masked_gradient
from refinejax.meta import FullUnroll, Trajectory, meta_task
from refinejax.meta.inner import scores
from refinejax.networks import Network
from refinejax.tasks.damped_sine import DampedSines, damped_sine

TASKS = DampedSines(count=16)
MATRIX = jnp.array([[3.0, 1.0], [-1.0, 0.5], [0.2, 2.0]])


def linear(params):
    return MATRIX @ params


class Advice(nnx.Module):
    """A network that says the same whatever it reads."""

    def __init__(self, out):
        self.out = nnx.Param(jnp.asarray(out, jnp.float32))

    def __call__(self, own, shared, cosines):
        assert own.shape == (2, 5)
        assert shared.shape == (6,)
        assert cosines.shape == (2, 2)
        return self.out[...]


def test_a_step_of_learned_damping_is_that_of_the_formula():
    out = np.array([[0.3, 0.8], [-0.5, -1.2]])
    refiner = LearnedDamping(Network.of(Advice(out)))
    problem = InverseProblem(linear, jnp.array([1.0, 2.0, -1.0]), noise=0.7)
    start = jnp.array([5.0, -4.0])
    found = run(refiner, problem, start, num_steps=1)
    jacobian = np.asarray(MATRIX) / 0.7
    residual = jacobian @ np.asarray(start) - np.array([1.0, 2.0, -1.0]) / 0.7
    matrix, gradient = 2 / 3 * jacobian.T @ jacobian, 2 / 3 * jacobian.T @ residual
    promised = gradient @ np.linalg.solve(matrix, gradient) / 2 / np.mean(residual**2)
    gate = promised / (promised + 1e-2)
    damping = np.exp(-2 + 8 * np.tanh(3 / 8 * out[:, 0])) * gate
    share = 2 ** (np.tanh(out[:, 1]) * gate)
    damped = matrix + np.diag(damping * np.diag(matrix))
    expected = start - share * np.linalg.solve(damped, gradient)
    np.testing.assert_allclose(found.params, expected, rtol=2e-4)
    left = jacobian @ expected - np.array([1.0, 2.0, -1.0]) / 0.7
    np.testing.assert_allclose(found.loss, np.mean(left**2), rtol=1e-3)


@pytest.mark.parametrize("out", [[[9.0, 9.0], [-9.0, 9.0]], [[-9.0, 9.0]] * 2, [[9.0, -9.0]] * 2])
def test_bad_advice_is_refused_and_the_optimum_found_all_the_same(out):
    refiner = LearnedDamping(Network.of(Advice(out)))
    valley = InverseProblem(valley_of, jnp.zeros(2))
    found = run(refiner, valley, jnp.array([-1.2, 1.0]), num_steps=300, record=lambda s: s.loss)
    assert np.all(np.diff(found.trace) <= 0)
    np.testing.assert_allclose(found.params, [1, 1], atol=1e-2)


def valley_of(params):
    x, y = params
    return jnp.stack([1 - x, 10 * (y - x**2)])


def test_a_network_for_other_params_is_refused():
    refiner = DampingConfig(params=3)(jax.random.key(0))
    problem = InverseProblem(linear, jnp.zeros(3))
    with pytest.raises(ValueError, match="made for 3 params, got a problem of 2"):
        run(refiner, problem, jnp.ones(2), num_steps=1)


CELLS = {
    "residual": UpdateConfig(5, width=8, depth=1),
    "lstm": UpdateConfig(5, width=8, cell="lstm"),
    "inference_machine": UpdateConfig(5, width=8, cell="inference_machine", slope=False),
}


@pytest.mark.parametrize(
    "cell", [pytest.param(c, marks=() if c == "residual" else pytest.mark.slow) for c in CELLS]
)
def test_no_update_makes_anything_worse_wherever_it_starts_and_however_bad_it_is(cell):
    refiner = CELLS[cell](jax.random.key(0))
    wild = jax.tree.map(lambda w: 30 * w, refiner)
    far = DampedSines(error=jnp.array(20.0), count=16)
    keys = jax.random.split(jax.random.key(1), 16)
    inner = Trajectory(far, CELLS[cell])
    losses = jax.vmap(lambda k: scores(inner, wild, k, 12)[1:])(keys)
    assert np.all(np.isfinite(losses))
    assert np.all(np.diff(losses, axis=1) <= 0)
    assert np.any(losses[:, -1] < losses[:, 0])


@pytest.mark.parametrize("cell", ["lstm", "inference_machine"])
def test_memory_makes_the_second_step_another(cell):
    refiner = CELLS[cell](jax.random.key(0))
    task = TASKS.sample(jax.random.key(1))
    state = refiner.init(TASKS.objective(task), task.truth + 0.3, jax.random.key(2))
    reading, first = state.memory.reading, state.memory.hidden
    move, second = refiner.network(reading, first)
    again, _ = refiner.network(reading, second)
    assert np.abs(move - again).max() > 1e-4


def test_the_gru_of_the_inference_machine_is_that_of_its_formula():
    refiner = CELLS["inference_machine"](jax.random.key(0))
    weights = refiner.network.weights
    task = TASKS.sample(jax.random.key(1))
    state = refiner.init(TASKS.objective(task), task.truth + 0.3, jax.random.key(2))
    reading = state.memory.reading
    h = np.linspace(-1, 1, 8)
    _, (lower, _) = refiner.network(reading, (jnp.asarray(h), jnp.asarray(h)))

    def layer(name, x):
        return x @ np.asarray(name["kernel"]) + np.asarray(name.get("bias", 0))

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    told = np.concatenate([reading.params, [reading.loss / 5]])
    x = np.tanh(layer(weights["reader"]["body"], told))
    inputs = layer(weights["lower"]["dense_i"], x)
    past = layer(weights["lower"]["dense_h"], h)
    reset, update = (sigmoid(inputs[p] + past[p]) for p in (slice(0, 8), slice(8, 16)))
    new = np.tanh(inputs[16:] + reset * past[16:])
    np.testing.assert_allclose(lower, (1 - update) * new + update * h, rtol=1e-4)


def test_an_update_moves_in_units_of_the_bounds_and_stays_within():
    space = ParameterSpace.create(("a", "b"), [0.0, -100.0], [8.0, 100.0])
    problem = InverseProblem(linear, linear(jnp.array([5.0, -100.0])), space=space)
    network = Network.of(Push([-0.25, -3.0]))
    found = run(LearnedUpdate(network), problem, jnp.array([6.0, 150.0]), num_steps=1)
    np.testing.assert_allclose(found.params, [5.0, -100.0])


class Push(nnx.Module):
    """A network that always says the same step."""

    def __init__(self, step):
        self.out = nnx.Param(jnp.asarray(step))

    def begin(self):
        return ()

    def __call__(self, reading, hidden):
        return self.out[...], hidden


def test_a_refused_step_is_halved_until_it_helps():
    problem = InverseProblem(lambda x: x, jnp.array([0.9]))
    refiner = LearnedUpdate(Network.of(Push([16.0])), slope=False)
    found = run(refiner, problem, jnp.zeros(1), num_steps=5, record=lambda s: s.params)
    np.testing.assert_allclose(found.trace[:, 0], [0, 0, 0, 0, 0, 1.0])


def test_builders_go_by_name_and_name_what_is_wrong():
    assert isinstance(ARCHITECTURES["damping"]({"hidden": [4]}, jax.random.key(0)), LearnedDamping)
    assert builder("update", {"params": 2}) == builder("update", {"params": 2})
    with pytest.raises(ValueError, match="expected one of damping, update, rule, got 'dampin'"):
        builder("dampin", {})
    with pytest.raises(ValueError, match=r"damping\.widht: no such key; there are: params, hidden"):
        builder("damping", {"widht": 3})
    with pytest.raises(ValueError, match="cell: expected one of residual, lstm"):
        builder("update", {"params": 2, "cell": "gru"})


def test_parts_that_are_not_finite_are_left_out():
    keys = jax.random.split(jax.random.key(0), 12)
    bad = jax.random.key_data(keys[4])[1]

    def loss(weights, key):
        x = jax.random.normal(key)
        lost = jax.random.key_data(key)[1] == bad
        return jnp.where(lost, jnp.nan, 1.0) * (weights * x) ** 2, x

    found = masked_gradient(loss, jnp.array(2.0), keys, 4)
    value, gradient, share = found.loss, found.gradient, np.mean(found.kept)
    np.testing.assert_array_equal(found.aux, jax.vmap(jax.random.normal)(keys))
    x = np.asarray(jax.vmap(jax.random.normal)(keys))[[0, 1, 2, 6, 7, 8, 9, 10, 11]]
    np.testing.assert_allclose(value, np.mean(4 * x**2), rtol=1e-5)
    np.testing.assert_allclose(gradient, np.mean(4 * x**2), rtol=1e-5)
    assert share == 0.75
    with pytest.raises(ValueError, match="12 tasks cannot be divided into 5"):
        masked_gradient(loss, jnp.array(2.0), keys, 5)


def imitation(**options):
    teacher = Gradient(optax.adam, {"learning_rate": 0.05})
    build = UpdateConfig(5, width=8, depth=1)
    return Imitation(
        TASKS, teacher, LevenbergMarquardt(), build, length=6, stride=3, batch=8, parts=4, **options
    )


@pytest.mark.slow
def test_examples_are_the_teachers_way_and_repeat_with_the_key():
    task = imitation()
    sine, examples = task.examples(jax.random.key(3))
    start = jax.tree.map(lambda leaf: leaf[0], examples.points)
    alone = run(task.teacher, TASKS.objective(sine), start, num_steps=6, record=lambda s: s.params)
    np.testing.assert_allclose(examples.points, alone.trace, rtol=1e-5, atol=1e-6)
    best = run(LevenbergMarquardt(), TASKS.objective(sine), sine.truth, num_steps=30)
    np.testing.assert_allclose(examples.optimum, best.params, atol=1e-2)
    again = task.examples(jax.random.key(3))[1]
    np.testing.assert_array_equal(examples.points, again.points)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["imitation", "unrolled"])
def test_training_lowers_what_is_trained(kind):
    inner = Trajectory(TASKS, UpdateConfig(5, width=8, depth=1), horizon=2)
    unrolled = meta_task(FullUnroll(inner, batch=8, parts=4), count=32, validate_by="log_last")
    task = unrolled if kind == "unrolled" else imitation(held_out=32)
    optimizer = optax.adam(1e-2)

    @jax.jit
    def train(weights):
        def step(carry, key):
            weights, memory, state = carry
            _, gradient, memory, notes = task.loss_and_grad(weights, memory, 0, key)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(weights, updates), memory, state), notes["finite"]

        keys = jax.random.split(jax.random.key(1), 60)
        first = (weights, task.begin(weights, keys[0]), optimizer.init(weights))
        carry, finite = jax.lax.scan(step, first, keys)
        return carry[0], finite

    first = task.init(jax.random.key(0))
    weights, finite = train(first)
    validate = jax.jit(task.validate)
    before, after = (validate(w, jax.random.key(2))["loss"] for w in (first, weights))
    assert np.mean(finite) > 0.9
    assert after < before - 0.05


def test_damped_sines_are_those_of_their_formula():
    params, times = np.array([1.2, 0.1, 2.5, 0.3, -0.2]), np.linspace(0, 10, 7)
    expected = 1.2 * np.exp(-0.1 * times) * np.sin(2.5 * times + 0.3) - 0.2
    found = damped_sine(jnp.asarray(params), jnp.asarray(times))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    tasks = DampedSines()
    keys = jax.random.split(jax.random.key(0), 200)
    drawn = jax.vmap(tasks.sample)(keys)
    losses = jax.vmap(lambda task: tasks.objective(task)(task.truth))(drawn)
    np.testing.assert_allclose(np.mean(losses), 1, atol=4 * np.sqrt(2 / 64 / 200))
    starts = jax.vmap(tasks.initial)(drawn, keys)
    np.testing.assert_allclose(
        np.std(starts - drawn.truth, axis=0), 0.6 * np.array([0.3, 0.05, 0.5, 1.0, 0.5]), rtol=0.2
    )
