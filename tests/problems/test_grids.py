"""Thinned grids, and coarse-to-fine fits of a wrapped phase."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refinejax import (
    Continuation,
    InverseProblem,
    LevenbergMarquardt,
    ParameterSpace,
    Pointwise,
    Restarts,
    Robust,
    run_batch,
)
from refinejax.problems import thinned
from refinejax.problems.phase import turn_problem

LM = LevenbergMarquardt()
SIZE, COUNT = 32, 6
AXIS = np.linspace(-0.5, 0.5, SIZE, dtype=np.float32)
TRUTH = np.array([1.0, -2.0, 0.5], np.float32)


def lens(params, u, v):
    """A tilted bowl of phase [turns]."""
    return params[0] * u + params[1] * v + params[2] * (u * u + v * v)


MODEL = Pointwise(lens, (AXIS[None], AXIS[:, None]))
SPACE = ParameterSpace.create(("x", "y", "bend"), [-8] * 3, [8] * 3)


def window(problem, t):
    """The middle of the window, then more and more of it."""
    u, v = problem.forward.coordinates
    seen = jnp.maximum(jnp.abs(u), jnp.abs(v)) <= 0.12 + 0.4 * t
    return problem.replace(observation=jnp.where(seen, problem.observation, jnp.nan))


def coarse(problem):
    return thinned(problem, 16)


@pytest.fixture(scope="module")
def maps():
    """Noisy wrapped maps, their truth, and starts that are fringes off."""
    rng = np.random.default_rng(1)
    truth = rng.uniform(-3, 3, (COUNT, 3)).astype(np.float32)
    off = rng.choice([-1, 1], (COUNT, 3)) * rng.uniform(1.2, 1.8, (COUNT, 3))
    turns = np.stack([np.asarray(MODEL(p)) for p in truth])
    turns = turns + rng.normal(0, 0.02, turns.shape)
    wrapped = (turns - np.round(turns)).astype(np.float32)
    start = (truth + off).astype(np.float32)
    return turn_problem(MODEL, wrapped, space=SPACE), truth, start


@pytest.fixture(scope="module")
def best(maps):
    """What is reached from the truth."""
    problem, truth, start = maps
    assert np.all(run_batch(LM, problem, start, max_steps=100).loss > 1)  # from the starts it isn't
    return run_batch(LM, problem, truth, max_steps=100)


@pytest.mark.slow
def test_a_continuation_on_a_coarse_grid_and_then_the_fine_one_find_every_lens(maps, best):
    problem, truth, start = maps
    rough = run_batch(Continuation(LM, window), coarse(problem), start, max_steps=100)
    fine = run_batch(LM, problem, rough.params, max_steps=100)
    np.testing.assert_allclose(fine.loss, best.loss, rtol=1e-4)
    np.testing.assert_allclose(fine.params, best.params, atol=1e-3)
    assert np.all(fine.converged)
    errors = [np.std(result.params - truth) for result in (fine, rough)]
    assert errors[0] < 0.7 * errors[1]  # a quarter of the pixels, twice the error


@pytest.mark.slow
@pytest.mark.parametrize("screen", [0, 4])
def test_many_starts_ranked_on_a_coarse_grid_find_every_lens(maps, best, screen):
    problem, _, start = maps
    few = run_batch(Restarts(LM, n=6, std=0.2), problem, start, max_steps=100)
    assert np.sum(few.loss > 1) >= COUNT - 1
    count = 600 if screen else 1000
    refiner = Restarts(LM, n=count, std=0.2, keep=6, coarse=coarse, screen=screen)
    many = run_batch(refiner, problem, start, max_steps=100)
    np.testing.assert_allclose(many.loss, best.loss, rtol=1e-4)
    np.testing.assert_allclose(many.params, best.params, atol=1e-3)
    assert np.all(many.converged)


def test_a_thinned_problem_has_some_of_the_pixels_of_the_whole():
    problem = turn_problem(MODEL, MODEL(TRUTH))
    few = thinned(problem, 8)
    assert few.observation.shape == (8, 8)
    assert few(TRUTH) < 1e-8
    np.testing.assert_allclose(few.predict(TRUTH), problem.predict(TRUTH)[1::4, 1::4], rtol=1e-5)
    assert thinned(problem, 100).observation.shape == (SIZE, SIZE)
    assert thinned(problem, 20).observation.shape == (SIZE, SIZE)  # half of it were too few


def test_data_may_be_of_many_samples_and_noise_a_map():
    observed = np.random.default_rng(0).normal(size=(3, SIZE, SIZE)).astype(np.float32)
    noise = 1 + np.abs(observed[0])
    few = thinned(InverseProblem(MODEL, observed, noise=noise), 8)
    np.testing.assert_array_equal(few.observation, observed[:, 1::4, 1::4])
    np.testing.assert_array_equal(few.noise, noise[1::4, 1::4])
    lines = thinned(InverseProblem(MODEL, observed, noise=noise[:1]), 8)
    np.testing.assert_array_equal(lines.noise, noise[:1, 1::4])
    assert thinned(InverseProblem(MODEL, observed, noise=2.0), 8).noise == 2


def test_grids_of_one_axis_of_unlike_sides_and_of_full_coordinates():
    observed = np.arange(9.0, dtype=np.float32)
    line = InverseProblem(Pointwise(lambda p, t: p * t, (observed,)), observed)
    np.testing.assert_array_equal(thinned(line, 3).observation, [1, 4, 7])
    assert thinned(line, 3)(1.0) == 0
    u, v = np.meshgrid(np.arange(8.0), np.arange(22.0))
    wide = InverseProblem(Pointwise(lens, (u, v)), np.asarray(lens(TRUTH, u, v)))
    few = thinned(wide, 4)
    assert few.observation.shape == (5, 4)
    assert few(TRUTH) < 1e-8


def test_a_thinned_problem_can_be_made_in_the_trace():
    problem = turn_problem(MODEL, MODEL(TRUTH))
    loss = jax.jit(lambda problem: coarse(problem)(TRUTH + 1))(problem)
    np.testing.assert_allclose(loss, coarse(problem)(TRUTH + 1), rtol=1e-5)


def test_bad_arguments_are_named():
    problem = turn_problem(MODEL, MODEL(TRUTH))
    with pytest.raises(ValueError, match=r"^pixels:.*got 0"):
        thinned(problem, 0)
    with pytest.raises(ValueError, match=r"^problem:.*Pointwise.*Robust"):
        thinned(Robust(problem), 8)  # pyright: ignore
    with pytest.raises(ValueError, match=r"^problem:.*Pointwise.*InverseProblem with Partial"):
        thinned(InverseProblem(lambda p: p * AXIS, AXIS), 8)
