"""Distributions of tasks: what they draw, what their losses are, and that parts share nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize
from scipy.sparse import diags
from scipy.sparse.linalg import expm_multiply

from refinejax import Gradient, LevenbergMarquardt, run
from refinejax.problems import InverseProblem
from refinejax.tasks.augmented import Augmented, RescaledTask
from refinejax.tasks.classification import MLPTraining
from refinejax.tasks.damped_sine import DampedSines
from refinejax.tasks.diffusion import Diffusions, diffuse
from refinejax.tasks.distribution import JudgedTasks, Split, TaskDistribution, judge
from refinejax.tasks.least_squares import LeastSquaresTasks
from refinejax.tasks.noisy_quadratics import NoisyQuadratics
from refinejax.tasks.quadratics import Quadratics
from refinejax.tasks.rastrigins import Rastrigins
from refinejax.tasks.sinusoids import Sinusoids, network
from refinejax.tasks.sparse import Lassos, SparseRecovery, dictionary

KEY = jax.random.key(0)
ROWS = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
LABELS = np.arange(40) % 3
MLPS = MLPTraining(jnp.asarray(ROWS), jnp.asarray(LABELS), classes=3, hidden=(5,), batch=8)
TASKS = {
    "quadratics": Quadratics(size=3),
    "uniform quadratics": Quadratics(size=3, law="uniform"),
    "noisy quadratics": NoisyQuadratics(),
    "least squares": LeastSquaresTasks(rows=5, columns=3),
    "sinusoids": Sinusoids(shots=4, queries=5, hidden=(6,)),
    "rastrigins": Rastrigins(),
    "lassos": Lassos(rows=4, columns=6),
    "sparse recovery": SparseRecovery(dictionary(KEY, 4, 6)),
    "diffusions": Diffusions(cells=8, steps=2),
    "networks": MLPS,
    "augmented": Augmented(Sinusoids(shots=4, queries=5, hidden=(6,)), loss=1.0),
    "damped sines": DampedSines(count=8),
}


QUICK = ("quadratics", "sinusoids", "networks")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in TASKS]
)
def test_tasks_can_be_batched_and_stored_and_their_losses_descended(name):
    tasks = TASKS[name]
    assert isinstance(tasks, TaskDistribution)
    assert isinstance(Split(tasks), JudgedTasks)

    def first(key):
        one, two = jax.random.split(key)
        task = tasks.sample(one)
        params = tasks.initial(task, two)
        objective = tasks.objective(task)
        loss, grad = jax.value_and_grad(objective)(params)
        return task, loss, judge(tasks, task)(params), jax.tree.map(jnp.linalg.norm, grad)

    batch, loss, judged, slope = jax.jit(jax.vmap(first))(jax.random.split(KEY, 5))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(batch))
    assert loss.shape == judged.shape == (5,)
    assert np.all(np.isfinite([loss, judged]))
    assert np.any([np.any(s > 0) for s in jax.tree.leaves(slope)])
    again = jax.jit(tasks.sample)(jax.random.split(jax.random.split(KEY, 5)[3])[0])
    one = jax.tree.map(lambda leaf: leaf[3], batch)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(one), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_parts_share_no_task_also_with_the_same_keys():
    keys = jax.random.split(KEY, 50)
    drawn = [
        np.asarray(jax.vmap(Split(Quadratics(size=2), part).sample)(keys).target)
        for part in ("train", "validation", "test")
    ]
    assert len(np.unique(np.concatenate(drawn), axis=0)) == 150
    with pytest.raises(ValueError, match="part: expected one of train, validation, test, got 'te'"):
        Split(Quadratics(), "te")


def test_quadratics_are_sums_of_squares():
    task = Quadratics(size=4, law="uniform").sample(KEY)
    x = np.array([1.0, -1.0, 2.0, 0.5])
    expected = np.sum((np.asarray(task.matrix) @ x - np.asarray(task.target)) ** 2)
    np.testing.assert_allclose(task(jnp.asarray(x)), expected, rtol=1e-5)
    assert 0 <= task.matrix.min() < 0.3
    assert 0.7 < task.matrix.max() <= 1
    with pytest.raises(ValueError, match="law: expected one of normal, uniform"):
        Quadratics(law="gaussian")


def test_the_closed_form_of_noisy_quadratics_is_what_is_simulated():
    tasks = NoisyQuadratics(noise=0.8, condition=5.0, size=3)
    task = tasks.sample(KEY)
    truth = tasks.query(task)

    @jax.jit
    @jax.vmap
    def simulate(key):
        def advance(x, key):
            x = x - 0.4 * jax.grad(task.draw(key))(x)
            return x, truth(x)

        one, two = jax.random.split(key)
        return jnp.mean(
            jax.lax.scan(advance, tasks.initial(task, one), jax.random.split(two, 7))[1]
        )

    losses = np.asarray(simulate(jax.random.split(KEY, 20_000)))
    error = losses.std() / np.sqrt(losses.size)
    np.testing.assert_allclose(tasks.expected(0.4, 7), losses.mean(), atol=4 * error)


@pytest.mark.slow
def test_least_squares_and_diffusions_are_about_1_at_the_truth():
    for tasks in (LeastSquaresTasks(rows=40), Diffusions()):
        keys = jax.random.split(KEY, 30)
        losses = jax.jit(jax.vmap(lambda key, tasks=tasks: at_truth(tasks, key)))(keys)
        scale = 1.0 if isinstance(tasks, Diffusions) else 0.01
        np.testing.assert_allclose(np.mean(losses) / scale, 1, atol=0.15)


def at_truth(tasks, key):
    task = tasks.sample(key)
    return tasks.objective(task)(task.truth)


def test_sinusoids_pass_through_their_points():
    tasks = Sinusoids(amplitude=(2.0, 2.0), phase=(0.5, 0.5))
    curve = tasks.sample(KEY)
    for x, y in (curve.support, curve.query):
        np.testing.assert_allclose(y, 2 * np.sin(np.asarray(x) - 0.5), atol=1e-5)
    params = {
        "body": [{"kernel": jnp.array([[1.0, -1.0]]), "bias": jnp.array([0.5, 0.0])}],
        "head": {"kernel": jnp.array([[2.0], [3.0]]), "bias": jnp.array([1.0])},
    }
    found = network(params, jnp.array([1.0, -2.0]))
    np.testing.assert_allclose(found, [2 * 1.5 + 1, 3 * 2 + 1])


def test_rastrigin_without_waves_is_a_quadratic():
    task = Rastrigins(height=0.0, size=3).sample(KEY)
    best = np.linalg.solve(task.matrix, task.target)
    np.testing.assert_allclose(task(jnp.asarray(best)), 0, atol=1e-4)
    wavy = task.replace(height=10.0)
    x = jnp.array([0.3, 1.0, -0.2])
    waves = 10 * (3 - np.asarray(task.weights) @ np.cos(2 * np.pi * np.asarray(x)))
    np.testing.assert_allclose(wavy(x), task(x) + waves, rtol=1e-4)


def test_lassos_have_columns_of_length_1_and_sparse_truths():
    tasks = Lassos(rows=6, columns=400)
    task = tasks.sample(KEY)
    np.testing.assert_allclose(np.linalg.norm(task.matrix, axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(np.mean(np.asarray(task.truth) != 0), 0.1, atol=0.06)
    np.testing.assert_allclose(task.observation, task.matrix @ task.truth, rtol=1e-5)
    recovery = SparseRecovery(task.matrix)

    @jax.jit
    @jax.vmap
    def at_start(key):
        return recovery.query(recovery.sample(key))(jnp.zeros(400))

    starts = at_start(jax.random.split(KEY, 300))
    np.testing.assert_allclose(np.mean(starts), 1, atol=0.05)


def test_a_lasso_is_that_of_scipy():
    task = Lassos(rows=6, columns=8, weight=0.1).sample(KEY)
    A, b = np.asarray(task.matrix, float), np.asarray(task.observation, float)

    def split(z):
        x = z[:8] - z[8:]
        return np.sum((A @ x - b) ** 2) / 2 + 0.1 * np.sum(z)

    best = minimize(split, np.zeros(16), bounds=[(0, None)] * 16, options={"maxiter": 500})
    np.testing.assert_allclose(task(jnp.asarray(best.x[:8] - best.x[8:])), best.fun, rtol=1e-4)


def test_diffusion_is_that_of_its_matrix_and_keeps_the_heat():
    k = np.array([0.05, 0.05, 0.2, 0.2, 0.1, 0.1])
    heat = np.array([0.0, 1.0, 0.5, 0.0, 0.0, 0.2])
    between = 2 * k[:-1] * k[1:] / (k[:-1] + k[1:]) * 36
    main = -np.append(between, 0) - np.append(0, between)
    expected = expm_multiply(0.2 * diags([between, main, between], [-1, 0, 1]).tocsc(), heat)
    found = diffuse(jnp.log(jnp.asarray(k)), jnp.asarray(heat), 0.2, 200)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(np.sum(found), np.sum(heat), rtol=1e-5)
    with pytest.raises(ValueError, match="cells: expected a multiple of the 4 parts, got 30"):
        Diffusions(cells=30)


@pytest.mark.slow
def test_conductivities_are_found():
    tasks = Diffusions(noise=1e-4)
    task = jax.jit(tasks.sample)(jax.random.key(3))
    result = run(
        LevenbergMarquardt(), tasks.objective(task), tasks.initial(task, KEY), num_steps=20
    )
    np.testing.assert_allclose(result.params, task.truth, atol=0.05)


def test_networks_are_trained_on_one_half_and_judged_on_the_other():
    loss, judged = MLPS.objective(KEY), MLPS.query(KEY)
    assert set(loss.pool.tolist()) | set(judged.rows.tolist()) == set(range(40))
    assert set(loss.draw(jax.random.key(5)).rows.tolist()) <= set(loss.pool.tolist())
    assert not np.array_equal(loss.draw(KEY).rows, loss.draw(jax.random.key(5)).rows)
    flat = [{"kernel": jnp.zeros((6, 5)), "bias": jnp.zeros(5)}]
    flat += [{"kernel": jnp.zeros((5, 3)), "bias": jnp.array([0.0, 1.0, 0.0])}]
    share = np.mean(LABELS[np.asarray(judged.rows)] == 1)
    np.testing.assert_allclose(judged(flat), np.log(np.e + 2) - share, rtol=1e-5)


def test_augmented_tasks_are_the_same_in_other_units():
    tasks = Augmented(Quadratics(size=4), params=2.0, loss=1.0)
    task = tasks.sample(KEY)
    inner, scales, factor = task
    assert np.all(np.abs(np.log(scales)) <= 2)
    assert np.std(np.log(scales)) > 0.3
    start = tasks.initial(task, KEY)
    np.testing.assert_allclose(
        tasks.objective(task)(start), factor * inner(Quadratics().initial(inner, KEY)), rtol=1e-5
    )
    np.testing.assert_allclose(tasks.query(task)(start), inner(scales * start), rtol=1e-6)
    plain = run(Gradient(optax.sgd, {"learning_rate": 1e-3}), inner, scales * start, num_steps=1)
    assert plain.loss < plain.initial_loss


def test_augmented_residuals_find_what_the_problem_has():
    """In other units and with a factor on the loss Levenberg–Marquardt goes the same way."""
    plain = LeastSquaresTasks()
    tasks = Augmented(plain, params=1.0, loss=2.0)
    task = tasks.sample(KEY)
    inner, scales, _ = task
    whole, start = tasks.objective(task), tasks.initial(task, KEY)
    np.testing.assert_allclose(jnp.mean(whole.residual(start) ** 2), whole(start), rtol=1e-5)
    found = run(LevenbergMarquardt(), whole, start, num_steps=30).params
    theirs = run(
        LevenbergMarquardt(), plain.objective(inner), plain.initial(inner, KEY), num_steps=30
    ).params
    np.testing.assert_allclose(scales * found, theirs, rtol=1e-2, atol=1e-3)
    without = Augmented(Quadratics(size=2))
    assert without.objective(without.sample(KEY)).bounds is None


@pytest.mark.slow
def test_augmented_problems_keep_their_prior():
    """In the same units the steps are the same; in others they lead to the same place."""
    observed = np.array([1.0, 2.0], np.float32)
    problem = InverseProblem(lambda p: jnp.stack([p[0] * p[1], p[0]]), observed, prior=near)
    start = jnp.array([0.5, 0.5])
    plain = run(LevenbergMarquardt(), problem, start, num_steps=20)
    same = run(LevenbergMarquardt(), RescaledTask(problem, jnp.ones(2), 1.0), start, num_steps=20)
    np.testing.assert_allclose(same.params, plain.params, rtol=1e-5)
    c = jnp.array([3.0, 0.2])
    other = run(LevenbergMarquardt(), RescaledTask(problem, c, 5.0), start / c, num_steps=40)
    np.testing.assert_allclose(c * other.params, plain.params, rtol=1e-2)
    np.testing.assert_allclose(other.loss, 5 * plain.loss, rtol=1e-4)
    v = jnp.array([1.0, -2.0])
    scaled = RescaledTask(problem, c, 5.0)
    np.testing.assert_allclose(
        scaled.curvature(start)(v), scaled.normal(start).matrix @ v, rtol=1e-4
    )


def near(params):
    return jnp.sum((params - 1) ** 2)


def test_a_rod_keeps_the_time_at_which_it_was_seen():
    """A curriculum moves the time of the distribution while episodes are under way."""
    early, late = Diffusions(time=0.05), Diffusions(time=0.3)
    task = early.sample(KEY)
    np.testing.assert_array_equal(
        late.objective(task)(task.truth), early.objective(task)(task.truth)
    )
    assert late.objective(task)(task.truth) < 3
