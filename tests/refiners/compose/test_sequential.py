import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from refinejax import Gradient, RandomSearch, Sequential, Status, Stop, run, run_until

START = np.array([2.0, -1.0], np.float32)
SWINGS = Gradient(optax.sgd, {"learning_rate": 0.1, "momentum": 0.9})
SLOW = Gradient(optax.sgd, {"learning_rate": 0.01})
RESTS = Gradient(optax.sgd, {"learning_rate": 0.0})
ADAM = Gradient(optax.adam, {"learning_rate": 0.05})


def sphere(params):
    return jnp.sum(params**2)


def stage(state):
    return state.memory.stage


def test_hands_over_from_the_best_point():
    alone = run(SWINGS, sphere, START, num_steps=9, record=lambda s: (s.params, s.loss))
    points, losses = alone.trace
    best = int(np.argmin(losses))
    assert 0 < best < 9  # else it tests nothing
    chain = run(Sequential(SWINGS, RESTS, steps=9), sphere, START, num_steps=12)
    np.testing.assert_allclose(chain.state.params, points[best], rtol=1e-5)
    np.testing.assert_allclose(chain.trace[-3:], np.full(3, losses[best]), rtol=1e-5)


def test_is_one_after_the_other():
    first = run(SWINGS, sphere, START, num_steps=5)
    second = run(SLOW, sphere, first.params, num_steps=7)
    chain = run(Sequential(SWINGS, SLOW, steps=5), sphere, START, num_steps=12)
    np.testing.assert_allclose(chain.trace[:6], first.trace, rtol=1e-5)
    np.testing.assert_allclose(chain.trace[6:], second.trace[1:], rtol=1e-5)
    np.testing.assert_allclose(chain.params, second.params, rtol=1e-5)
    assert int(chain.steps) == 12


def test_stages_take_the_steps_they_are_given():
    two = run(Sequential(SLOW, SLOW, steps=3), sphere, START, num_steps=6, record=stage)
    np.testing.assert_array_equal(two.trace, [0, 0, 0, 0, 1, 1, 1])
    three = Sequential(SLOW, SLOW, SLOW, steps=(2, 1))
    np.testing.assert_array_equal(
        run(three, sphere, START, num_steps=5, record=stage).trace, [0, 0, 0, 1, 2, 2]
    )
    none = run(Sequential(SLOW, SLOW, steps=0), sphere, START, num_steps=2, record=stage)
    np.testing.assert_array_equal(none.trace, [0, 1, 1])


def test_other_step_limits_do_not_trace_again():
    traces = 0

    def counted(params):
        nonlocal traces
        traces += 1
        return sphere(params)

    a = run(Sequential(SLOW, SWINGS, steps=2), counted, START, num_steps=6)
    first = traces
    b = run(Sequential(SLOW, SWINGS, steps=4), counted, START, num_steps=6)
    assert traces == first
    assert a.loss != b.loss


def test_a_stage_ends_by_a_stopping_rule_too():
    chain = Sequential(SLOW, RESTS, steps=1000, stop=Stop.never(target=4.0))
    result = run(chain, sphere, START, num_steps=40, record=lambda s: (stage(s), s.loss))
    stages, losses = result.trace
    met = int(np.argmax(losses <= 4.0))
    assert 0 < met < 39
    np.testing.assert_array_equal(stages[: met + 1], 0)
    np.testing.assert_array_equal(stages[met + 1 :], 1)


def test_the_rules_of_the_driver_end_the_first_stage_and_the_whole():
    chain = Sequential(SLOW, ADAM, steps=1000)
    result = run_until(chain, sphere, START, max_steps=2000, stop=Stop(gradient=0.5))
    assert result.status == Status.CONVERGED_GRAD
    assert int(result.state.memory.stage) == 1
    result = run_until(chain, sphere, START, max_steps=2000, stop=Stop(target=1.0))
    assert result.status == Status.TARGET_REACHED
    assert int(result.state.memory.stage) == 0


def test_a_first_stage_that_gives_up_is_followed_by_the_next():
    def cliff(params):
        return jnp.sum(jnp.sqrt(0 * params) + params**2)  # its gradient is NaN

    chain = Sequential(SLOW, RandomSearch(), steps=1000)
    result = run_until(chain, cliff, START, max_steps=300)
    assert int(result.state.memory.stage) == 1
    assert result.loss < 1e-6


def test_the_verdict_is_that_of_the_last_stage():
    def cliff(params):
        return jnp.sum(jnp.sqrt(0 * params) + params**2)

    result = run_until(Sequential(RandomSearch(), SLOW, steps=5), cliff, START, max_steps=300)
    assert result.status == Status.NONFINITE
    assert result.loss < result.initial_loss


def test_a_nan_start_is_told():
    result = run_until(Sequential(SLOW, ADAM), sphere, START * np.nan, max_steps=50)
    assert (int(result.status), int(result.steps)) == (Status.NONFINITE_START, 0)


def test_stages_draw_different_numbers_and_follow_the_key():
    def away(params):
        return -sphere(params)

    search = RandomSearch(0.1, 1, adapt=False)
    chain = Sequential(search, search, steps=6)
    points = run(chain, away, START, 1, num_steps=12, record=lambda s: s.params).trace
    moves = np.diff(points, axis=0)
    moves = moves[np.any(moves != 0, axis=1)]
    assert len(np.unique(moves, axis=0)) == len(moves) > 3
    other = run(chain, away, START, 2, num_steps=12)
    assert not np.array_equal(points[-1], other.state.params)


def test_evaluates_only_the_stage_that_is_on():
    count = 0

    def tally():
        nonlocal count
        count += 1

    def counted(params):
        jax.debug.callback(tally)
        return sphere(params)

    jax.block_until_ready(run(Sequential(SLOW, SLOW, steps=4), counted, START, num_steps=10))
    jax.effects_barrier()
    assert count == 1 + 4 + 1 + 6  # start, first stage, start of the second, second stage


@pytest.mark.slow
def test_chains_of_chains():
    inner = Sequential(SWINGS, SLOW, steps=2)
    result = run(Sequential(inner, SLOW, steps=4), sphere, START, num_steps=6)
    flat = run(Sequential(SWINGS, SLOW, SLOW, steps=(2, 2)), sphere, START, num_steps=6)
    np.testing.assert_allclose(result.trace, flat.trace, rtol=1e-5)


def test_one_stage_is_that_refiner():
    alone, chain = (run(r, sphere, START, num_steps=5) for r in (SWINGS, Sequential(SWINGS)))
    np.testing.assert_allclose(chain.trace, alone.trace, rtol=1e-6)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="refiners"):
        Sequential()
    with pytest.raises(ValueError, match="refiners"):
        Sequential(SLOW, optax.adam(0.1))
    with pytest.raises(ValueError, match="steps"):
        Sequential(SLOW, ADAM, steps=(3, 4))
    with pytest.raises(ValueError, match="steps"):
        Sequential(SLOW, ADAM, steps=-1)
