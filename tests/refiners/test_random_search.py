import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import PROBLEMS

from refinejax import RandomSearch, Status, run, run_until

START = np.full(8, 0.7, np.float32)


def sphere(params):
    return jnp.sum(params**2)


def flat(params):
    return 0 * jnp.sum(params)


def std(state):
    return state.memory.std


def test_converges_log_linearly_on_a_sphere():
    result = run(RandomSearch(std=0.1), sphere, START, num_steps=400)
    log, steps = np.log(np.asarray(result.trace)), np.arange(401)
    slope, offset = np.polyfit(steps[50:], log[50:], 1)
    assert slope < -0.05  # a factor e in the loss every 20 steps at least
    rest = log[50:] - (slope * steps[50:] + offset)
    assert np.std(rest) < 0.05 * (log[50] - log[-1])


@pytest.mark.parametrize("width", [1e-4, 10.0])
def test_finds_the_right_step_size_from_a_wrong_one(width):
    result = run(RandomSearch(std=width), sphere, START, num_steps=400)
    assert result.loss < 1e-6 * result.initial_loss
    # In n dimensions the best step of a (1 + λ) strategy is of the order of the distance / n.
    distance = np.linalg.norm(result.params)
    assert 0.01 < float(std(result.state)) * 8 / distance < 10


def test_the_step_size_of_failures_follows_the_success_rule():
    population, n = 16, 8
    aim = 1 / (5 + np.sqrt(population) / 2)
    rate, damping = aim * population / (2 + aim * population), 1 + n / (2 * population)
    expected, success = [0.3], aim
    for _ in range(5):
        success *= 1 - rate  # nothing is better than a constant
        expected.append(expected[-1] * np.exp((success - aim) / (1 - aim) / damping))
    result = run(RandomSearch(std=0.3), flat, START, num_steps=5, record=std)
    np.testing.assert_allclose(result.trace, expected, rtol=1e-5)
    np.testing.assert_array_equal(result.params, START)


def test_success_widens_the_steps():
    def slope(params):
        return jnp.sum(params)  # half of the candidates succeed

    result = run(RandomSearch(std=0.1), slope, START, num_steps=20, record=std)
    assert np.all(np.diff(result.trace[5:]) > 0)


def test_without_adapt_the_step_size_stays():
    result = run(RandomSearch(std=0.25, adapt=False), sphere, START, num_steps=20, record=std)
    np.testing.assert_array_equal(result.trace, np.full(21, 0.25, np.float32))


def test_candidates_have_the_stated_spread():
    def far(params):
        return jnp.linalg.norm(params - 1e4)  # nearly linear: the best is the one furthest along

    moves = [
        run(RandomSearch(0.5, 1, adapt=False), far, np.zeros(500, np.float32), key, num_steps=1)
        for key in range(8)
    ]
    moved = [m.params for m in moves if np.any(m.params)]
    assert len(moved) >= 2
    np.testing.assert_allclose(np.std(moved), 0.5, rtol=0.1)


def test_the_loss_never_rises():
    result = run(RandomSearch(std=1.0), sphere, START, num_steps=50)
    assert np.all(np.diff(result.trace) <= 0)


def test_a_larger_population_is_better_step_for_step():
    def reached(size):
        losses = [run(RandomSearch(0.1, size), sphere, START, k, num_steps=60).loss for k in (0, 1)]
        return max(map(float, losses))

    assert reached(64) < 0.5 * reached(4)


def test_nan_is_a_failure():
    def half(params):
        return jnp.where(params[0] < 0, jnp.nan, sphere(params))

    result = run(RandomSearch(std=0.5), half, START, num_steps=300)
    assert np.all(np.isfinite(result.trace))
    assert result.loss < 1e-5
    assert result.params[0] >= 0


def test_a_nan_start_is_told():
    result = run_until(RandomSearch(), sphere, START * np.nan, max_steps=50)
    assert (int(result.status), int(result.steps)) == (Status.NONFINITE_START, 0)


def test_needs_no_derivatives():
    def black_box(params):
        shape = jax.ShapeDtypeStruct((), params.dtype)
        return jax.pure_callback(
            lambda p: np.sum(np.asarray(p) ** 2, axis=-1, dtype=np.float32),
            shape,
            params,
            vmap_method="expand_dims",
        )

    result = run(RandomSearch(), black_box, START, num_steps=100)
    assert result.loss < 1e-2 * result.initial_loss


def test_other_keys_draw_other_candidates():
    a, b = (run(RandomSearch(), sphere, START, key, num_steps=3).params for key in (0, 1))
    assert not np.array_equal(a, b)


def test_every_step_draws_anew():
    def record(state):
        return state.params

    refiner = RandomSearch(0.1, 1, adapt=False)
    points = run(refiner, lambda p: -sphere(p), START, num_steps=20, record=record).trace
    moves = np.diff(points, axis=0)
    moves = moves[np.any(moves != 0, axis=1)]
    assert len(moves) > 3
    assert len(np.unique(moves, axis=0)) == len(moves)


def test_all_candidates_lie_within_the_bounds():
    problem = PROBLEMS["face"]
    result = run(
        RandomSearch(std=5.0), problem.objective, problem.start, num_steps=20, record=lambda s: s
    )
    lower, upper = problem.objective.bounds
    assert np.all((result.trace.params >= lower) & (result.trace.params <= upper))


def test_a_population_of_none_is_named():
    for size in (0, -3):
        with pytest.raises(ValueError, match="population_size"):
            RandomSearch(population_size=size)
