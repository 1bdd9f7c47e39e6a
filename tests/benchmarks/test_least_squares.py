"""The parts of `benchmarks.core.least_squares`: standard problems, the lens in NumPy, tuning."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import lens as small_lens
from benchmarks.core import _more_wild, _standard, least_squares
from benchmarks.peers.jax_fits import Candidate, wrapped
from benchmarks.peers.least_squares import refinejax, scipy
from benchmarks.peers.numpy_fits import NumpyLens

PROBLEMS = {problem.name: problem for problem in _more_wild.problems()}
# Sums of squares at the start, by Moré and Wild.
AT_START = {
    "rosenbrock 2": 24.2,
    "helical_valley 3 ×10": 10600.0,
    "powell_singular 4": 215.0,
    "freudenstein_roth 2 ×10": 1.545754e8,
    "kowalik_osborne 4": 5.313172e-3,
    "meyer 3": 1.693608e9,
    "watson 12": 73.67821,
    "chebyquad 11": 2.674060e-2,
    "osborne_two 11 ×10": 199.6847,
    "mancino 5 ×10": 6.873795e12,
    "heart_eight 8": 9.385672,
}


def test_there_are_53_problems():
    assert len(PROBLEMS) == len(_more_wild.problems()) == 53
    assert set(_more_wild.LEAST) <= set(PROBLEMS)


@pytest.mark.parametrize("name", AT_START)
def test_start_of_a_problem(name):
    problem = PROBLEMS[name]
    assert _more_wild.sum_of_squares(problem, problem.start) == pytest.approx(
        AT_START[name], rel=1e-6
    )


def test_problems_are_those_of_optimagic():
    module = pytest.importorskip("optimagic.benchmarking.more_wild")
    known = [
        value
        for name, value in module.MORE_WILD_PROBLEMS.items()
        if name != "brown_almost_linear_medium"
    ]
    rng = np.random.default_rng(0)
    for problem, other in zip(PROBLEMS.values(), known, strict=True):
        np.testing.assert_allclose(problem.start, other["start_x"], rtol=1e-6, err_msg=problem.name)
        x = problem.start + 0.1 * rng.normal(size=problem.start.shape)
        with jax.enable_x64(True):
            found = np.asarray(jax.jit(problem.residual)(x))
        expected = np.asarray(other["fun"](x))
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9, err_msg=problem.name)
        least = pytest.approx(other["solution_criterion"], rel=1e-5, abs=1e-12)
        assert problem.least == least, problem.name


def test_methods_solve_rosenbrock():
    problem = PROBLEMS["rosenbrock 2"]
    for method in (refinejax, scipy("lm"), scipy("trf", "jac")):
        with jax.enable_x64(True):
            found = method(problem.residual, problem.start, None, 100)
        np.testing.assert_allclose(found.params, [1, 1], rtol=1e-6)
        assert 0 < found.steps <= 100


def test_an_exception_of_scipy_is_no_solution():
    with jax.enable_x64(True):
        found = scipy("lm")(lambda x: jnp.log(x), np.array([-1.0]), None, 9)
    assert found.steps == 0
    assert found.params == [-1.0]


def test_box_holds_the_start_and_cuts_the_optimum_off():
    lower, upper = _standard.box_of(PROBLEMS["rosenbrock 2"])
    np.testing.assert_allclose(lower, [-3.4, 0.9], rtol=1e-6)
    np.testing.assert_allclose(upper, [-0.1, 1.2], rtol=1e-6)


def test_lens_in_numpy_is_that_in_jax():
    maps = small_lens.simulate(1, 0)
    turns, start = maps.turns[0], maps.starts[0].astype(float)
    unit = np.float32((start - small_lens.LOWER) / small_lens.WIDTH)
    expected = np.asarray(wrapped(unit, turns))
    slopes = np.asarray(jax.jit(jax.jacfwd(wrapped))(unit, turns)) / small_lens.WIDTH
    for dtype in ("float32", "float64"):
        lens = NumpyLens(dtype)
        error = (lens.residual(start, turns) - expected) / (2 * np.pi)
        assert np.max(np.abs(error - np.round(error))) < 1e-4
        np.testing.assert_allclose(lens.jacobian(start, turns), slopes, rtol=1e-3, atol=1e-4)


def test_image_is_the_phase_of_the_lens():
    maps = small_lens.simulate(3, 1)
    with jax.enable_x64(True):
        found = np.stack([small_lens.image(lens) for lens in maps.truth]) / (2 * np.pi)
    np.testing.assert_allclose(found, small_lens.exact(maps.truth), atol=1e-9)
    assert small_lens.solved(maps, maps.truth).all()
    assert not small_lens.solved(maps, maps.truth + 1).any()


def test_tuning_takes_the_cheapest_that_solves_most():
    def row(solved, cpu):
        return {"solved": solved, "cpu": cpu}, None

    rows = [row(0.90, 1.0), row(0.995, 3.0), row(1.0, 4.0)]
    assert least_squares._best(rows)["chosen"] == {"solved": 0.995, "cpu": 3.0}


def test_a_race_of_peers_can_be_written():
    def truth(maps, number):
        return maps.truth + number

    peers = [
        Candidate(least_squares.OURS, {}, truth, (0.0,), 1.0),
        Candidate("wrong", {}, truth, (1.0, 0.0), 0.5),
    ]
    rows = {row["peer"]: row for row in least_squares.speed("test", peers, True, 2)}
    assert rows[least_squares.OURS]["solved"]["mean"] == 1
    assert rows[least_squares.OURS]["cpu_ratio"]["mean"] == 1
    assert rows["wrong"]["solved"]["mean"] == 0
    assert rows["wrong"]["samples"] == 32
    assert [len(row["seeds"]) for row in rows.values()] == [2, 2]
    json.dumps(list(rows.values()), allow_nan=False)
