"""Evaluations that results report, against calls that the host counts.

A model counts its own evaluations through ``jax.debug.callback``, and in the rule of its derivative
those that are differentiated.
"""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import refinejax as rj
from refinejax.learned import DampingConfig
from refinejax.refiners import BFGS, BIPOP, Memetic

COUNTS = collections.Counter()
START = np.array([0.8, 1.2], np.float32)
TIMES = np.linspace(0, 4, 16, dtype=np.float32)


def note(name, params):
    jax.debug.callback(lambda _: COUNTS.update([name]), params[0])  # once for each lane


def curve(params):
    return params[0] * jnp.exp(-params[1] * TIMES)


@jax.custom_jvp
def counted(params):
    note("values", params)
    return curve(params)


@counted.defjvp
def _(primals, tangents):
    note("values", primals[0])
    note("derivatives", primals[0])
    return jax.jvp(curve, primals, tangents)


OBSERVATION = jnp.asarray(1.3 * np.exp(-0.7 * TIMES))
PROBLEM = rj.InverseProblem(counted, OBSERVATION)
SPACE = rj.ParameterSpace.create(("a", "b"), [0.0, 0.0], [2.0, 2.0])
BOXED = rj.InverseProblem(counted, OBSERVATION, space=SPACE)
ADAM = rj.Gradient(optax.adam, {"learning_rate": 0.05})
LBFGS = rj.Gradient(optax.lbfgs)


def backtracking(store_grad):
    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=8, store_grad=store_grad)
    return optax.chain(optax.sgd(1.0), search)


REFINERS = {
    "adam": ADAM,
    "lbfgs": LBFGS,
    "backtracking": rj.Gradient(backtracking, {"store_grad": False}),
    "backtracking-stored": rj.Gradient(backtracking, {"store_grad": True}),
    "bfgs": BFGS(),
    "lm": rj.LevenbergMarquardt(),
    "gauss-newton": rj.GaussNewton(share=0.3),
    "learned-damping": DampingConfig()(jax.random.key(0)),
    "random": rj.RandomSearch(),
    "cma": rj.Evolution("cma_es"),
    "de": rj.Evolution("de"),
    "bipop": rj.Evolution("cma_es", population_size=6, regrow=BIPOP(1)),
}


def counted_run(refiner, problem, num_steps=6):
    """Run, and compare what is reported with what was called."""
    program = jax.jit(lambda start: rj.run(refiner, problem, start, 1, num_steps=num_steps))
    program(START)  # what is evaluated while tracing does not count
    jax.effects_barrier()
    COUNTS.clear()
    result = program(START)
    jax.block_until_ready(result)
    jax.effects_barrier()
    return result


QUICK_IN_A_BOX = ("lbfgs", "lm", "random", "cma")
QUICK_ANYWHERE = (
    *("adam", "backtracking", "backtracking-stored", "bfgs", "gauss-newton", "learned-damping"),
)


def problems():
    """Every refiner on both problems; one of them is quick, but for costly populations."""
    for name in REFINERS:
        free = () if name in QUICK_ANYWHERE else pytest.mark.slow
        boxed = () if name in QUICK_IN_A_BOX else pytest.mark.slow
        yield pytest.param(name, PROBLEM, id=f"{name}-free", marks=free)
        yield pytest.param(name, BOXED, id=f"{name}-boxed", marks=boxed)


@pytest.mark.parametrize(("name", "problem"), [*problems()])
def test_evaluations_are_those_of_the_model(name, problem):
    result = counted_run(REFINERS[name], problem)
    assert int(result.evaluations) == COUNTS["values"]
    assert int(result.derivative_evaluations) == COUNTS["derivatives"]
    assert result.evaluations > result.steps
    if name == "lbfgs":
        assert result.derivative_evaluations > result.steps


RANKED = rj.Restarts(ADAM, n=9, keep=3)


def test_the_starts_that_are_only_ranked_count():
    result = counted_run(RANKED, PROBLEM)
    assert int(result.evaluations) == COUNTS["values"] == 8 + 3 * 7
    assert int(result.derivative_evaluations) == COUNTS["derivatives"] == 3 * 7


@pytest.mark.slow
def test_the_steps_of_a_screening_count():
    some = counted_run(RANKED.replace(screen=2), PROBLEM)
    assert int(some.evaluations) == COUNTS["values"] == 8 * 3 + 3 * 7


def test_chains_count_all_their_stages():
    chain = rj.Sequential(rj.RandomSearch(population_size=5), LBFGS, steps=3, stop=rj.Stop.never())
    result = counted_run(chain, PROBLEM, num_steps=7)
    assert int(result.evaluations) == COUNTS["values"] > 1 + 3 * 5
    assert int(result.derivative_evaluations) == COUNTS["derivatives"]


@pytest.mark.slow
def test_continuations_count_the_problem_itself_too():
    # another stage begins anew, and all but the last evaluate the problem itself beside their own
    eased = rj.Continuation(ADAM, lambda problem, t: problem, 3, 2, rj.Stop.never())
    result = counted_run(eased, PROBLEM, num_steps=6)
    assert int(result.evaluations) == COUNTS["values"] == (3 + 6) + (1 + 4)
    assert int(result.derivative_evaluations) == COUNTS["derivatives"] == 3 + 6


@pytest.mark.slow
def test_a_memetic_population_counts_what_it_uses():
    refiner = Memetic(rj.Evolution("cma_es", population_size=6), ADAM, best=2, period=3)
    result = counted_run(refiner, PROBLEM, num_steps=6)
    # every step starts local refinements, and keeps them at the third: others do not count
    assert int(result.evaluations) == (1 + 6 * 6) + 2 * (1 + 6 + 2)
    assert int(result.derivative_evaluations) == 2 * (1 + 6 + 2)
    assert COUNTS["values"] == int(result.evaluations) + 2 * (6 - 2)


def test_a_lane_that_has_ended_evaluates_nothing():
    stop = rj.Stop(gradient=1e-2)
    long, short = (
        rj.run_until(ADAM, PROBLEM, start, max_steps=50, stop=stop)
        for start in (START, np.array([1.3, 0.7], np.float32))
    )
    assert short.evaluations == short.steps + 1 < long.evaluations == long.steps + 1
    both = rj.Restarts(ADAM, n=2, std=1e-3, stop=stop)
    result = rj.run_until(both, PROBLEM, np.array([1.3, 0.7], np.float32), max_steps=50)
    assert result.evaluations <= 2 * (result.steps + 1)


@pytest.mark.parametrize("lanes", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_batch_counts_as_its_samples_do(lanes):
    chain = rj.Sequential(ADAM, LBFGS, steps=5)
    starts = START + np.linspace(0, 0.3, 4, dtype=np.float32)[:, None]
    batch = rj.InverseProblem(curve, np.tile(np.asarray(OBSERVATION), (4, 1)))
    single = rj.InverseProblem(curve, OBSERVATION)
    result = rj.run_batch(
        chain, batch, starts, 0, max_steps=40, execution=rj.Execution(lanes=lanes)
    )
    key = jax.random.key(0)
    for i in range(4):
        one = rj.run_until(chain, single, starts[i], jax.random.fold_in(key, i), max_steps=40)
        assert abs(int(one.steps) - result.steps[i]) <= 1
        if one.steps == result.steps[i]:
            assert abs(int(one.evaluations) - result.evaluations[i]) <= 2
    assert np.all(result.evaluations >= result.derivative_evaluations)
    assert np.all(result.derivative_evaluations >= result.steps)
