import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import PROBLEMS, Box

from refinejax import Gradient, RandomSearch, Restarts, Sequential, Status, Stop, run, run_until

SGD = Gradient(optax.sgd, {"learning_rate": 0.01})
ADAM = Gradient(optax.adam, {"learning_rate": 0.03})
START = np.array([2.0, -1.0], np.float32)


def sphere(params):
    return jnp.sum(params**2)


def wells(params):
    """A parabola with a well every unit: least (0) in the origin."""
    return jnp.sum(0.02 * params**2 + 1 - jnp.cos(2 * jnp.pi * params))


@functools.partial(jax.jit, static_argnums=1)
def drawn_by(refiner, objective, params, key):
    return refiner.init(objective, params, key).memory.state.params


def starts(refiner, objective, params, key=0):
    return drawn_by(refiner, objective, params, jax.random.key(key))


def test_the_first_start_is_the_start():
    for key in range(3):
        drawn = starts(Restarts(SGD, n=5, std=1.0), sphere, jnp.asarray(START), key)
        assert drawn.shape == (5, 2)
        np.testing.assert_array_equal(drawn[0], START)
        assert len(np.unique(np.asarray(drawn), axis=0)) == 5


def test_the_others_have_the_stated_spread():
    offsets = starts(Restarts(SGD, n=4001, std=0.3), sphere, jnp.zeros(2))[1:]
    np.testing.assert_allclose(np.std(offsets, axis=0), 0.3, rtol=0.05)
    np.testing.assert_allclose(np.mean(offsets, axis=0), 0, atol=0.02)
    assert abs(np.corrcoef(offsets.T)[0, 1]) < 0.06


def test_the_spread_may_differ_from_param_to_param():
    params = {"a": jnp.zeros(2), "b": jnp.float32(0)}
    spread = {"a": jnp.array([0.1, 1.0]), "b": 5.0}

    def objective(params):
        return sphere(params["a"]) + params["b"] ** 2

    for x64 in (False, True):
        with jax.enable_x64(x64):
            drawn = starts(Restarts(SGD, n=2001, std=spread), objective, params)
            np.testing.assert_allclose(np.std(drawn["a"], axis=0), [0.1, 1], rtol=0.07)
            np.testing.assert_allclose(np.std(drawn["b"]), 5, rtol=0.07)
            assert drawn["b"].dtype == jnp.float32


def test_starts_lie_within_the_bounds():
    box = Box(jnp.array([1.0, -2.0, 0.0]))
    init = jax.jit(Restarts(SGD, n=200, std=3.0).init)
    drawn = init(box, jnp.array([0.0, 1.0]), jax.random.key(0)).memory.state.params
    lower, upper = box.bounds
    assert np.all((drawn >= lower) & (drawn <= upper))


def test_starts_of_a_space_are_spread_in_its_scaled_coordinates():
    problem = PROBLEMS["decay"]
    start = jnp.array([1.0, 1.0])
    result = run(
        Restarts(RandomSearch(), n=400, std=0.1),
        problem.objective,
        start,
        num_steps=0,
        record=lambda state: state.memory.state.params,
    )
    scale = problem.objective.space.scale
    np.testing.assert_allclose(np.std(result.trace[0], axis=0) * scale, 0.1 * scale, rtol=0.15)


def test_one_start_is_that_refiner():
    alone = run_until(ADAM, wells, START, max_steps=500)
    single = run_until(Restarts(ADAM, n=1), wells, START, max_steps=500)
    np.testing.assert_allclose(single.loss, alone.loss, rtol=1e-6)
    np.testing.assert_allclose(single.params, alone.params, rtol=1e-5)
    assert (int(single.steps), int(single.status)) == (int(alone.steps), int(alone.status))


def test_finds_the_global_minimum_that_one_start_misses():
    alone = run_until(ADAM, wells, START, max_steps=1000)
    assert alone.loss > 0.05
    stop = Stop(gradient=1e-2)
    many = run_until(Restarts(ADAM, n=200, std=2.0), wells, START, max_steps=1000, stop=stop)
    assert many.loss < 1e-5
    np.testing.assert_allclose(many.params, 0, atol=1e-2)
    assert Status(int(many.status)).converged


@pytest.mark.parametrize("key", range(3))
def test_is_never_worse_than_the_start_alone(key):
    alone = run_until(SGD, wells, START, max_steps=40)
    many = run_until(Restarts(SGD, n=4, std=1.0), wells, START, key, max_steps=40)
    assert float(many.loss) <= float(alone.loss) * (1 + 1e-6)


def test_the_initial_loss_is_that_of_the_start():
    result = run(Restarts(SGD, n=50, std=1.0), sphere, START, num_steps=1)
    np.testing.assert_allclose(result.initial_loss, 5, rtol=1e-6)


def log_sum(params):
    return jnp.sum(params - jnp.log(params))


def test_starts_at_nan_are_tolerated():
    near = np.array([0.1, 0.1], np.float32)  # many of the others are negative
    result = run_until(Restarts(ADAM, n=16, std=0.5), log_sum, near, max_steps=1000)
    np.testing.assert_allclose(result.params, 1, atol=1e-2)
    bad = np.array([-0.1, 0.5], np.float32)
    result = run_until(Restarts(ADAM, n=16, std=0.5), log_sum, bad, max_steps=1000)
    assert Status(int(result.status)).converged
    np.testing.assert_allclose(result.params, 1, atol=1e-2)


def test_all_starts_at_nan_are_told():
    result = run_until(Restarts(SGD, n=4), log_sum, -START - 5, max_steps=1000)
    assert result.status == Status.NONFINITE_START


def test_a_target_ends_all():
    refiner = Restarts(SGD, n=8, std=1.0)
    result = run_until(refiner, sphere, START, max_steps=500, stop=Stop(target=0.5))
    assert result.status == Status.TARGET_REACHED
    assert result.loss <= 0.5
    statuses = result.state.memory.status
    assert np.sum(statuses == Status.RUNNING) > 0


def test_starts_end_by_rules_of_their_own():
    refiner = Restarts(SGD, n=3, std=0.1, stop=Stop.never().replace(gradient=0.3))
    result = run_until(refiner, sphere, START, max_steps=500, stop=Stop())
    assert result.status == Status.CONVERGED_GRAD
    assert 1e-5 < result.loss < 1e-2  # the default rules go on to 1e-11


def test_starts_of_a_random_refiner_draw_different_numbers():
    refiner = Restarts(RandomSearch(), n=4, std=0.0)
    state = run(refiner, sphere, START, num_steps=2).state
    assert len(np.unique(np.asarray(state.memory.state.params), axis=0)) == 4


@pytest.mark.slow
def test_restarts_of_a_chain():
    chain = Sequential(RandomSearch(), ADAM, steps=3)
    result = run_until(Restarts(chain, n=3, std=0.5), sphere, START, max_steps=500)
    assert result.loss < 1e-8


def flatter(objective):
    """A coarse view of `wells`: without the wells."""
    del objective
    return lambda params: jnp.sum((params - 0.3) ** 2)


def test_screening_refines_the_best_by_the_coarse_objective_and_the_start():
    every = starts(Restarts(SGD, n=40, std=1.0), wells, jnp.asarray(START))
    for coarse, loss in ((None, wells), (flatter, flatter(wells))):
        refiner = Restarts(SGD, n=40, std=1.0, keep=5, coarse=coarse)
        kept = starts(refiner, wells, jnp.asarray(START))
        by_hand = np.argsort([float(loss(p)) for p in every[1:]])[:4] + 1
        np.testing.assert_allclose(kept, every[np.array([0, *by_hand])], rtol=1e-6)


def test_screening_steps_are_taken_on_the_coarse_objective():
    every = starts(Restarts(SGD, n=20, std=1.0), wells, jnp.asarray(START))
    refiner = Restarts(SGD, n=20, std=1.0, keep=4, coarse=flatter, screen=3)
    kept = starts(refiner, wells, jnp.asarray(START))
    moved = 0.3 + (every[1:] - 0.3) * (1 - 0.02) ** 3
    best = np.argsort(np.sum((moved - 0.3) ** 2, axis=1))[:3]
    np.testing.assert_array_equal(kept[0], START)
    np.testing.assert_allclose(kept[1:], moved[best], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("key", range(3))
def test_screened_starts_find_what_as_many_unscreened_miss(key):
    far = np.array([2.0, -1.0, 1.0], np.float32)
    few = run_until(Restarts(ADAM, n=4, std=2.0), wells, far, key, max_steps=1000)
    assert few.loss > 0.015
    refiner = Restarts(ADAM, n=2000, std=2.0, keep=4, screen=50)
    many = run_until(refiner, wells, far, key, max_steps=1000)
    np.testing.assert_allclose(many.params, 0, atol=1e-2)
    assert many.status > 0


@pytest.mark.parametrize("key", range(3))
def test_misled_by_the_coarse_objective_it_is_not_worse_than_the_start_alone(key):
    def astray(objective):
        return lambda params: -objective(params)

    alone = run_until(SGD, sphere, START, max_steps=40)
    refiner = Restarts(SGD, n=30, std=1.0, keep=3, coarse=astray)
    many = run_until(refiner, sphere, START, key, max_steps=40)
    assert float(many.loss) <= float(alone.loss) * (1 + 1e-6)
    np.testing.assert_allclose(many.initial_loss, alone.initial_loss, rtol=1e-6)


def test_screening_passes_nan_by():
    near = np.array([0.2, 0.2], np.float32)  # many of the others are negative
    refiner = Restarts(ADAM, n=64, std=0.5, keep=8)
    kept = starts(refiner, log_sum, jnp.asarray(near))
    assert np.all(kept > 0)


def test_one_kept_is_that_refiner_and_all_kept_are_all():
    alone = run_until(ADAM, wells, START, max_steps=500)
    single = run_until(Restarts(ADAM, n=9, keep=1), wells, START, max_steps=500)
    np.testing.assert_allclose(single.params, alone.params, rtol=1e-5)
    every = starts(Restarts(SGD, n=7), wells, jnp.asarray(START))
    kept = starts(Restarts(SGD, n=7, keep=7), wells, jnp.asarray(START))
    assert kept.shape == (7, 2)
    np.testing.assert_allclose(np.unique(kept, axis=0), np.unique(every, axis=0), rtol=1e-6)


def test_screening_takes_no_more_memory_than_the_lanes():
    def image(params):  # a megabyte for each start that is evaluated
        return jnp.sum(jnp.sort(params[0] * jnp.arange(2.0**18) % 7) ** params[1])

    def needed(n):
        init = jax.jit(Restarts(RandomSearch(), n=n, keep=2).init, static_argnums=0)
        compiled = init.lower(image, jnp.ones(2), jax.random.key(0)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert needed(64) < 1.5 * needed(4)


def test_bad_numbers_are_named():
    for n in (0, -1):
        with pytest.raises(ValueError, match=r"^n:"):
            Restarts(SGD, n=n)
    for keep in (0, 9):
        with pytest.raises(ValueError, match=rf"^keep:.*got {keep}"):
            Restarts(SGD, n=8, keep=keep)
    with pytest.raises(ValueError, match=r"^screen:.*got -1"):
        Restarts(SGD, keep=2, screen=-1)
    with pytest.raises(ValueError, match=r"^coarse:.*got 3"):
        Restarts(SGD, keep=2, coarse=3)  # pyright: ignore
    for given in ({"coarse": flatter}, {"screen": 2}):
        with pytest.raises(ValueError, match=rf"^keep:.*{next(iter(given))}"):
            Restarts(SGD, **given)
