import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

import refinejax as rj
from refinejax import (
    Continuation,
    Execution,
    Gradient,
    InverseProblem,
    LevenbergMarquardt,
    ParameterSpace,
    Restarts,
    Robust,
    Sequential,
    Status,
    Stop,
    run,
    run_batch,
    run_until,
)
from refinejax.problems import tukey
from refinejax.refiners import Geometric

LM = LevenbergMarquardt(damping=1.0)  # far starts
SGD = Gradient(optax.sgd, {"learning_rate": 0.1})
RESTS = Gradient(optax.sgd, {"learning_rate": 0.0})
START = np.array([2.0, -1.0], np.float32)
TIMES = np.linspace(0, 1, 100, dtype=np.float32)
SPACE = ParameterSpace.create(("a", "w", "p"), [0, 0, -4], [3, 150, 4])


class Bowl(struct.PyTreeNode):
    """|x − center|²."""

    center: jax.Array | np.ndarray

    def __call__(self, params):
        return jnp.sum((params - self.center) ** 2)


BOWL = Bowl(np.zeros(2, np.float32))


def aside(bowl, t):
    """From (4, 4) to the center."""
    return bowl.replace(center=bowl.center + 4 * (1 - t))


def stage(state):
    return state.memory.stage


def wave(params):
    return params[0] * jnp.sin(params[1] * TIMES + params[2])


def opening(problem, t):
    """The beginning of a record, then more and more of it."""
    seen = 0.1 + 0.9 * t >= TIMES
    return problem.replace(observation=jnp.where(seen, problem.observation, jnp.nan))


def waves(count=8):
    """Records of sine waves, and starts some two periods off."""
    rng = np.random.default_rng(0)
    truth = rng.uniform([1, 70, -1], [2, 90, 1], (count, 3)).astype(np.float32)
    off = rng.choice([-1, 1], count) * rng.uniform(10, 13, count)
    start = np.stack([np.ones(count), truth[:, 1] + off, np.zeros(count)], 1).astype(np.float32)
    problem = InverseProblem(wave, np.stack([wave(p) for p in truth]), space=SPACE)
    return problem, truth, start


SLOWLY = pytest.param(Gradient(optax.lbfgs), id="lbfgs", marks=pytest.mark.slow)


@pytest.mark.slow
@pytest.mark.parametrize("refiner", [pytest.param(LM, id="lm"), SLOWLY])
def test_finds_the_frequency_that_the_refiner_alone_misses(refiner):
    problem, truth, start = waves()
    alone = run_batch(refiner, problem, start, max_steps=500)
    assert np.mean(alone.loss > 0.1) > 0.7
    led = run_batch(Continuation(refiner, opening, num_stages=8), problem, start, max_steps=500)
    np.testing.assert_allclose(led.params, truth, atol=1e-2)
    assert np.all(led.converged)


def test_graduated_nonconvexity_finds_the_line_among_outliers():
    def line(params):
        return params[0] + params[1] * TIMES

    start = np.array([4.0, -2.0], np.float32)
    refiner = Continuation(LM, Geometric("scale", 1000.0), num_stages=12)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        truth = rng.uniform(-1, 1, 2).astype(np.float32)
        observed = np.array(line(truth))
        outliers = rng.permutation(len(TIMES))[:40]
        observed[outliers] += rng.uniform(3, 6, len(outliers))
        problem = Robust(InverseProblem(line, jnp.asarray(observed), noise=0.05), tukey, 4.685)
        alone = run_until(LM, problem, start, max_steps=300)
        assert np.max(np.abs(alone.params - truth)) > 1
        led = run_until(refiner, problem, start, max_steps=300)
        np.testing.assert_allclose(led.params, truth, atol=1e-3)
        assert Status(int(led.status)).converged
        # An exact fit: the loss is that of the outliers alone, ⅓ s² each.
        np.testing.assert_allclose(led.loss, 0.4 * 4.685**2 / 3, rtol=1e-4)


def test_stages_minimize_the_scheduled_objectives_and_the_last_the_objective_itself():
    newton = Gradient(optax.sgd, {"learning_rate": 0.5})  # there in a step
    refiner = Continuation(newton, aside, num_stages=5, steps=1, stop=Stop.never())
    points = run(refiner, BOWL, START, num_steps=6, record=lambda s: s.params).trace
    np.testing.assert_allclose(points[1:], np.repeat([[4.0], [3], [2], [1], [0], [0]], 2, axis=1))


def test_the_loss_is_that_of_the_objective_itself_and_the_result_the_best_seen():
    near = np.array([0.1, 0.0], np.float32)  # the way leads away from it
    refiner = Continuation(SGD, aside, num_stages=3, steps=4)
    result = run(refiner, BOWL, near, num_steps=9, record=lambda s: (s.params, s.loss))
    points, losses = result.trace
    np.testing.assert_allclose(losses, np.sum(points**2, axis=1), rtol=1e-5)
    assert np.max(losses) > 1
    assert result.loss == result.initial_loss == losses[0]
    np.testing.assert_array_equal(result.params, near)


def test_a_stage_begins_at_the_best_point_of_the_one_before():
    swings = Gradient(optax.sgd, {"learning_rate": 0.1, "momentum": 0.9})
    first = run(swings, aside(BOWL, 0.0), START, num_steps=9, record=lambda s: s.params)
    assert 0 < np.argmin(np.sum((first.trace - 4) ** 2, axis=1)) < 9  # else it tests nothing
    chain = Continuation(swings, aside, num_stages=2, steps=9, stop=Stop.never())
    end = run(chain, BOWL, START, num_steps=9)
    began = run(swings, BOWL, first.params, num_steps=3, record=lambda s: s.params).trace
    points = run(chain, BOWL, START, num_steps=12, record=lambda s: s.params).trace
    np.testing.assert_allclose(points[:10], first.trace, rtol=1e-5)
    np.testing.assert_allclose(points[10:], began[1:], rtol=1e-5)
    np.testing.assert_allclose(end.state.memory.lane.best_params, first.params, rtol=1e-5)


def test_a_schedule_that_is_singular_at_the_end_is_not_asked_there():
    def singular(bowl, t):
        return bowl.replace(center=bowl.center + jnp.log(1 - t) + 0 / (1 - t))

    def final(start):
        return run(
            Continuation(SGD, singular, num_stages=2, steps=1), BOWL, start, num_steps=5
        ).loss

    assert np.all(np.isfinite(jax.grad(final)(START)))


def test_one_stage_is_that_refiner():
    alone, single = (
        run_until(r, BOWL, START, max_steps=300)
        for r in (SGD, Continuation(SGD, aside, num_stages=1))
    )
    np.testing.assert_allclose(single.loss, alone.loss, rtol=1e-6)
    assert (int(single.steps), int(single.status)) == (int(alone.steps), int(alone.status))


def test_a_stage_ends_by_a_stopping_rule_too():
    refiner = Continuation(SGD, aside, num_stages=2, steps=1000, stop=Stop.never(target=1.0))
    stages, points = run(
        refiner, BOWL, START, num_steps=40, record=lambda s: (stage(s), s.params)
    ).trace
    met = int(np.argmax(np.sum((points - 4) ** 2, axis=1) <= 1))
    assert 0 < met < 39
    np.testing.assert_array_equal(stages[: met + 1], 0)
    np.testing.assert_array_equal(stages[met + 1 :], 1)


def test_the_rules_of_the_driver_end_the_stages_and_the_whole():
    refiner = Continuation(SGD, aside, num_stages=3, steps=1000)
    result = run_until(refiner, BOWL, START, max_steps=900, stop=Stop(gradient=0.5))
    assert result.status == Status.CONVERGED_GRAD
    assert int(stage(result.state)) == 2
    assert int(result.steps) < 100


def test_a_target_is_one_of_the_objective_itself():
    close = np.full(2, 4.1, np.float32)  # an easy problem all but solved
    refiner = Continuation(SGD, aside, num_stages=3, steps=10)
    result = run_until(refiner, BOWL, close, max_steps=900, stop=Stop(target=0.5))
    assert result.status == Status.TARGET_REACHED
    assert 0.3 < result.loss <= 0.5
    early = run(refiner, BOWL, close, num_steps=5, record=stage).trace
    np.testing.assert_array_equal(early, 0)


def test_a_nan_start_is_told():
    result = run_until(Continuation(SGD, aside), BOWL, START * np.nan, max_steps=50)
    assert (int(result.status), int(result.steps)) == (Status.NONFINITE_START, 0)


def test_stages_that_end_in_nan_give_the_best_point_and_say_so():
    class Cliff(Bowl):
        def __call__(self, params):
            return super().__call__(params) + 0 * jnp.sqrt(params - self.center + 1)

    def lower(cliff, t):
        return cliff.replace(center=cliff.center - 4 * (1 - t))

    result = run_until(
        Continuation(SGD, lower, num_stages=2),
        Cliff(jnp.float32(0)),
        np.float32(0.5),
        max_steps=100,
    )
    assert np.isnan(result.state.loss)
    assert result.status == Status.NONFINITE
    assert 0 <= result.loss < result.initial_loss


def test_an_easy_problem_that_is_nan_is_passed_by():
    def hole(bowl, t):
        return bowl.replace(center=jnp.where(t < 0.7, jnp.nan, bowl.center))

    result = run_until(Continuation(SGD, hole, num_stages=5), BOWL, START, max_steps=300)
    assert Status(int(result.status)).converged
    assert result.loss < 1e-8


def test_new_numbers_do_not_trace_again():
    traces = 0

    class Counted(Bowl):
        def __call__(self, params):
            nonlocal traces
            traces += 1
            return super().__call__(params)

    def outcome(factor, steps, center):
        refiner = Continuation(SGD, Geometric("center", factor), num_stages=3, steps=steps)
        objective = Counted(np.full(2, center, np.float32))
        return run(refiner, objective, START, num_steps=6).loss

    first = outcome(3.0, 2, 1.0)
    before = traces
    others = [outcome(2.0, 2, 1.0), outcome(3.0, 1, 1.0), outcome(3.0, 2, 1.5)]
    assert traces == before
    assert len({float(first), *map(float, others)}) == 4


@pytest.mark.slow
def test_gradients_through_all_stages_equal_finite_differences():
    with jax.enable_x64(True):
        start, bowl = jnp.array([2.0, -1.0]), Bowl(jnp.array([0.5, 0.2]))

        def final(start, center, factor):
            schedule = Geometric("center", factor)
            refiner = Continuation(SGD, schedule, num_stages=3, steps=2, stop=Stop.never())
            return run(refiner, bowl.replace(center=center), start, num_steps=6).state.loss

        arguments = (start, bowl.center, jnp.float64(3.0))
        for index in range(3):
            slope = jax.grad(final, argnums=index)(*arguments)
            width = 1e-6
            moved = [
                final(*[x + s * width if i == index else x for i, x in enumerate(arguments)])
                for s in (1, -1)
            ]
            np.testing.assert_allclose(
                np.sum(slope), (moved[0] - moved[1]) / (2 * width), rtol=1e-6
            )
            assert np.any(slope != 0)


@pytest.mark.slow
def test_the_batch_engine_equals_one_by_one():
    problem, _, start = waves()
    refiner = Continuation(LM, opening, num_stages=8)
    batch = run_batch(refiner, problem, start, max_steps=200, execution=Execution(lanes=3))
    for i in range(len(start)):
        one = problem.replace(observation=problem.observation[i])
        alone = run_until(
            refiner, one, start[i], jax.random.fold_in(jax.random.key(0), i), max_steps=200
        )
        np.testing.assert_allclose(batch.params[i], alone.params, rtol=1e-3, atol=1e-4)
        assert Status(int(alone.status)).converged
        assert batch.converged[i]


@pytest.mark.slow
def test_a_schedule_gets_the_problem_of_its_user_in_scaled_coordinates_too():
    seen = []

    def note(problem, t):
        seen.append(type(problem))
        return problem.replace(noise=problem.noise * (2 - t))

    problem, _, start = waves(1)
    one = problem.replace(observation=jnp.asarray(problem.observation[0]))
    run(Continuation(LM, note), one, start[0], num_steps=1)
    run(Continuation(LM, note), one.replace(space=None), start[0], num_steps=1)
    assert set(seen) == {InverseProblem}


@pytest.mark.slow
def test_functions_have_their_numbers_as_leaves():
    def hills(width, params):
        return jnp.sum(params**2 - jnp.cos(params / width))

    def smooth(objective, t):
        return jax.tree.map(lambda width: width + 10 * (1 - t), objective)

    objective = jax.tree_util.Partial(hills, 0.1)
    start = np.array([1.5, -0.9], np.float32)
    refiner = Gradient(optax.lbfgs)
    alone = run_until(refiner, objective, start, max_steps=300)
    led = run_until(Continuation(refiner, smooth, num_stages=8), objective, start, max_steps=300)
    assert alone.loss > -1.9
    np.testing.assert_allclose(led.loss, -2, rtol=1e-5)


@pytest.mark.slow
def test_composes():
    for refiner in (
        Continuation(Restarts(SGD, n=3), aside, num_stages=2),
        Restarts(Continuation(SGD, aside, num_stages=2), n=3),
        Sequential(Continuation(SGD, aside, num_stages=2, steps=3), SGD, steps=9),
        Continuation(Continuation(SGD, aside, num_stages=2), aside, num_stages=2),
    ):
        result = run_until(refiner, BOWL, START, max_steps=500)
        assert result.loss < 1e-6
        assert Status(int(result.status)).converged


def test_half_precision_stays():
    bowl = Bowl(np.zeros(2, np.float16))
    state = run(Continuation(SGD, Geometric("center")), bowl, START.astype(np.float16), num_steps=2)
    assert state.params.dtype == state.loss.dtype == jnp.float16


def test_geometric_goes_from_the_factor_to_one():
    problem = Robust(InverseProblem(wave, TIMES, noise=2.0), scale=3.0)
    for t, ratio in ((0.0, 16.0), (0.5, 4.0), (1.0, 1.0)):
        assert Geometric("scale", 16.0)(problem, t).scale == 3 * ratio
        assert Geometric("problem.noise", 16.0)(problem, t).problem.noise == 2 * ratio


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"^schedule:.*got 3"):
        Continuation(SGD, 3)  # pyright: ignore
    with pytest.raises(ValueError, match=r"^num_stages:.*got 0"):
        Continuation(SGD, aside, num_stages=0)
    with pytest.raises(ValueError, match=r"^steps:.*got -1"):
        Continuation(SGD, aside, steps=-1)
    with pytest.raises(ValueError, match=r"^field:.*Bowl.*got 'noise'"):
        run(Continuation(SGD, Geometric("noise")), BOWL, START, num_steps=1)


def test_a_schedule_that_changes_more_than_values_is_named():
    def other(bowl, t):
        return lambda params: bowl(params) * t

    def longer(bowl, t):
        return bowl.replace(center=jnp.full(3, t))

    with pytest.raises(ValueError, match=r"^schedule:.*structure"):
        rj.run(Continuation(SGD, other), BOWL, START, num_steps=1)
    with pytest.raises(ValueError, match=r"^schedule:.*\(2,\).*center.*\(3,\)"):
        rj.run(Continuation(SGD, longer), BOWL, START, num_steps=1)
