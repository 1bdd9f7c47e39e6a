"""What is given wrong is named in one line, with the remedy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import refinejax as rj
from refinejax.batch.sizing import lanes_within
from refinejax.refiners import BFGS, Memetic

TIMES = np.linspace(0, 1, 5, dtype=np.float32)
LM = rj.LevenbergMarquardt()


def decay(params):
    return params[0] * jnp.exp(-params[1] * TIMES)


PROBLEM = rj.InverseProblem(decay, np.ones((1, 5), np.float32))
START = np.ones((1, 2), np.float32)


def doors(refiner, key=None, problem=PROBLEM):
    yield lambda: rj.run_batch(refiner, problem, START, key, max_steps=9)
    yield lambda: list(rj.run_stream(refiner, iter([(problem, START)]), key, max_steps=9))
    yield lambda: rj.run(refiner, problem, START[0], key, num_steps=9)
    yield lambda: rj.run_until(refiner, problem, START[0], key, max_steps=9)


@pytest.mark.parametrize(
    ("refiner", "said"),
    [
        ("lm", r"refiner: expected a Refiner.*'lm'"),
        (optax.adam(1e-2), r"refiner: .*Gradient\(optax.adam"),
        (rj.LevenbergMarquardt, "refiner: .*the class LevenbergMarquardt"),
        (rj.Restarts("lm"), r"refiner\.refiner: .*'lm'"),
        (rj.Restarts(rj.Continuation(None, lambda o, t: o)), r"refiner\.refiner\.refiner: .*None"),
        (Memetic(rj.Evolution(), "lbfgs"), r"refiner\.local: .*'lbfgs'"),
        (rj.RandomSearch(std=-1), "std: RandomSearch expected a number above 0, got -1"),
        (rj.RandomSearch(std=np.nan), "std: .*nan"),
        (rj.LevenbergMarquardt(damping=-1.0), "damping: .*-1"),
        (rj.LevenbergMarquardt(damping="much"), "damping: .*'much'"),
        (rj.GaussNewton(share=0), "share: .*0"),
        (BFGS(first=-1.0), "first: .*-1"),
        (rj.Sequential(rj.RandomSearch(std=0.0), LM), "std: RandomSearch"),
    ],
)
def test_every_door_names_what_is_no_refiner_or_a_wrong_number(refiner, said):
    for door in doors(refiner):
        with pytest.raises(ValueError, match=said):
            door()
    with pytest.raises(ValueError, match=said):
        lanes_within("1GB", refiner, PROBLEM, START)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: rj.Gradient(optax.adam, 1e-2), r"numbers: .*learning_rate"),
        (lambda: rj.Gradient(optax.adam(1e-2)), "factory: "),
        (lambda: rj.Restarts(LM, n=2.5), "n: expected 1 or more starts, a whole number, got 2.5"),
        (lambda: rj.Restarts(LM, std=np.array([1.0, -1.0])), "std: .*-1"),
        (lambda: rj.Restarts(LM, n=4, keep=1.5), "keep: .*1.5"),
        (lambda: rj.RandomSearch(population_size=2.5), "population_size: .*2.5"),
        (lambda: rj.Evolution(population_size=2.5), "population_size: .*2.5"),
        (lambda: rj.Continuation(LM, decay, num_stages=2.5), "num_stages: .*2.5"),
        (lambda: Memetic(rj.Evolution(), LM, best=1.5), "best: .*1.5"),
    ],
)
def test_what_cannot_be_built_is_refused_at_once(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_settings_may_be_traced_and_pytrees_of_anything():
    refiner = rj.RandomSearch(std=0.5)
    axes = jax.tree.map(lambda _: 0, refiner)
    many = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), jax.tree.map(jnp.asarray, refiner))
    one = jax.vmap(lambda r: rj.run(r, jnp.sum, jnp.ones(2), num_steps=1).loss, in_axes=(axes,))
    assert one(many).shape == (2,)


@pytest.mark.parametrize("keys", [jax.random.split(jax.random.key(0), 2), np.zeros((3, 2), "u4")])
def test_a_batch_of_keys_is_refused(keys):
    for door in doors(rj.RandomSearch(), keys):
        with pytest.raises(ValueError, match=r"key: expected a single PRNG key, got \(\d,\)"):
            door()


def test_a_prior_of_two_numbers_is_refused():
    def prior(params):
        return (params - 2) ** 2

    with pytest.raises(ValueError, match=r"prior: .*a number.*jnp.sum"):
        rj.refine(decay, PROBLEM.observation, START, prior=prior)
    with pytest.raises(ValueError, match=r"prior: .*a number.*jnp.sum"):
        rj.run_batch(LM, PROBLEM.replace(prior=prior), START, max_steps=1)
    with pytest.raises(ValueError, match="prior: expected a function"):
        rj.refine(decay, PROBLEM.observation, START, prior=3)


def test_inside_a_transformation_the_functions_for_one_sample_are_named():
    observed = PROBLEM.observation

    def refined(observation, start=START):
        return rj.refine(decay, observation, start).params

    def batched(start):
        return rj.run_batch(LM, PROBLEM, start, max_steps=1).loss

    starts = jnp.asarray(START)
    for call in (
        lambda: jax.jit(refined)(observed),
        lambda: jax.jit(lambda: refined(observed))(),
        lambda: jax.vmap(refined)(observed[None]),
        lambda: jax.grad(lambda start: jnp.sum(refined(observed, start)))(starts),
        lambda: jax.grad(lambda start: jnp.sum(batched(start)))(starts),
        lambda: jax.jit(batched)(starts),
    ):
        with pytest.raises(ValueError, match=r"inside jit, vmap or grad.*run .*run_until"):
            call()


@pytest.mark.parametrize("door", range(4))
def test_functions_that_leave_jax_are_told_the_way_at_every_door(door):
    def model(params):
        return np.interp(params[0], TIMES, TIMES) * TIMES

    call = list(doors(rj.RandomSearch(), problem=PROBLEM.replace(forward=model)))[door]
    with pytest.raises(ValueError, match=r"objective: the forward model.*differentiable=False"):
        call()


def test_a_loss_of_several_numbers_is_refused_at_every_door():
    for call in doors(rj.RandomSearch(), problem=lambda params: 2 * params):
        with pytest.raises(ValueError, match="objective: expected a scalar loss"):
            call()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batched": 3}, "batched: expected True or False or None, got 3"),
        ({"differentiable": "no"}, "differentiable: expected True or False, got 'no'"),
        ({"stop": rj.Stop(loss="x")}, "stop: expected a number as loss, got 'x'"),
        ({"stop": rj.Stop(patience=2.5)}, "stop: expected a whole number as patience"),
        ({"stop": rj.Stop(step=np.nan)}, "stop: expected a number as step, got nan"),
        ({"initial": START + 0j}, "initial: expected real numbers"),
        ({"initial": None}, "initial: empty"),
        ({"noise": "much"}, "noise: expected an array of numbers"),
    ],
)
def test_bad_arguments_of_refine_are_named(change, said):
    arguments = {"observations": PROBLEM.observation, "initial": START, **change}
    with pytest.raises(ValueError, match=said):
        rj.refine(decay, **arguments)


def test_chunks_that_are_no_pairs_and_noise_of_no_size_are_named():
    for chunks in ([(PROBLEM, START, 1)], [PROBLEM], 3):
        with pytest.raises(ValueError, match=r"chunks: expected .*pairs \(problem, params\)"):
            list(rj.run_stream(LM, chunks, max_steps=1))
    with pytest.raises(ValueError, match=r"noise: .*above 0, got -1"):
        rj.run_batch(LM, PROBLEM.replace(noise=-1), START, max_steps=1)


@pytest.mark.parametrize(
    "model",
    [
        lambda params: np.interp(params[0], TIMES, TIMES) + 0 * TIMES,
        lambda params: float(params[0]) * TIMES,
        lambda params: TIMES if params[0] > 0 else -TIMES,
        lambda params: TIMES[int(params[0]) :],
    ],
)
def test_a_model_in_numpy_is_told_the_way(model):
    with pytest.raises(ValueError, match=r"forward: .*differentiable=False") as caught:
        rj.refine(model, PROBLEM.observation, START)
    assert "\n" not in str(caught.value)
