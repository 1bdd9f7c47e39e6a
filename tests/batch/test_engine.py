"""The batch engine gives every sample the answer it would get alone (law 13)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

import refinejax as rj
from refinejax import Status
from refinejax.batch.lanes import cycle
from refinejax.refiners import Geometric

TIMES = np.linspace(0, 1, 6, dtype=np.float32)
STOP = rj.Stop(target=1e-5)
STEPS = 250
KEY = 3
COUNT = 33

ADAM = rj.Gradient(optax.adam, {"learning_rate": 5e-2})
SGD = rj.Gradient(optax.sgd, {"learning_rate": 0.1})
RANDOM = rj.RandomSearch(population_size=4)
REFINERS = {
    "adam": ADAM,
    "lbfgs": rj.Gradient(optax.lbfgs),
    "random": RANDOM,
    "restarts": rj.Restarts(SGD, n=2),
    "screened": rj.Restarts(SGD, n=6, keep=2, screen=1),
    "continuation": rj.Continuation(SGD, Geometric("observation", 1.2), num_stages=3, steps=7),
    "sequential": rj.Sequential(RANDOM, SGD, steps=7),
}


def decay(params):
    return params[0] * jnp.exp(-params[1] * TIMES)


def samples(count=COUNT, seed=0):
    """Observations of decays, and starts whose errors have a heavy tail."""
    rng = np.random.default_rng(seed)
    truth = np.stack([rng.uniform(1, 2, count), rng.uniform(0.5, 3, count)], 1)
    start = truth * (1 + 0.2 * rng.standard_cauchy((count, 2)))
    observed = truth[:, :1] * np.exp(-truth[:, 1:] * TIMES)
    return observed.astype(np.float32), start.astype(np.float32)


def batch(refiner, observed, start, *, lanes=3, memory_limit=None, **options):
    options = {"max_steps": STEPS, "stop": STOP, "key": KEY} | options
    key = options.pop("key")
    problem = rj.InverseProblem(decay, observed)
    return rj.run_batch(
        refiner,
        problem,
        start,
        key,
        execution=rj.Execution(lanes, memory_limit=memory_limit),
        **options,
    )


def alone(refiner, observed, start, i, key=KEY):
    key = jax.random.fold_in(jax.random.key(key), i)
    problem = rj.InverseProblem(decay, observed[i])
    return rj.run_until(refiner, problem, start[i], key, max_steps=STEPS, stop=STOP)


@functools.cache
def one_by_one(name):
    observed, start = samples()
    results = [alone(REFINERS[name], observed, start, i) for i in range(COUNT)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *[r.replace(state=0) for r in results])


def assert_equal(result, expected, rows=slice(None)):
    np.testing.assert_array_equal(result.steps, expected.steps[rows])
    np.testing.assert_array_equal(result.status, expected.status[rows])
    for name in ("params", "loss", "initial_loss"):
        got, want = getattr(result, name), getattr(expected, name)[rows]
        np.testing.assert_allclose(got, want, rtol=3e-4, atol=1e-6, err_msg=name)


# Law 13: as one by one

SLOW = ("screened", "continuation")  # to compile


def cases_of_lanes():
    """Every number of lanes is a program: of one refiner several are quick, of the others one."""
    for name in REFINERS:
        for lanes in (1, 3, 8, 64):
            quick = name not in SLOW and (lanes == 3 or (lanes == 64 and name == "adam"))
            yield pytest.param(name, lanes, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("name", "lanes"), [*cases_of_lanes()])
def test_every_sample_ends_as_it_would_alone_for_any_number_of_lanes(name, lanes):
    result = batch(REFINERS[name], *samples(), lanes=lanes)
    assert_equal(result, one_by_one(name))


def test_the_samples_above_have_a_heavy_tail_of_steps_and_several_statuses():
    steps, status = one_by_one("adam").steps, one_by_one("adam").status
    assert steps.max() > 4 * np.median(steps)
    assert len(np.unique(status)) > 1


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in REFINERS],
)
def test_no_batch_size_recompiles_and_an_answer_does_not_depend_on_it(name):
    observed, start = samples()
    batch(REFINERS[name], observed, start)  # a program that the tests above share
    compiled = cycle._cache_size()
    for count in (1, 7):
        result = batch(REFINERS[name], observed[:count], start[:count])
        assert len(result) == count
        assert result.params.shape == (count, 2)
        assert_equal(result, one_by_one(name), slice(count))
    assert cycle._cache_size() == compiled


def test_new_data_keys_numbers_rules_and_limits_do_not_recompile():
    observed, start = samples()
    batch(ADAM, observed, start)
    compiled = cycle._cache_size()
    faster = rj.Gradient(optax.adam, {"learning_rate": 0.2})
    results = [
        batch(faster, observed, start),
        batch(ADAM, *samples(seed=1)),
        batch(ADAM, observed, start, key=9),
        batch(ADAM, observed, start, key=jax.random.key(9)),
        batch(ADAM, observed, start, stop=rj.Stop(target=1e-3, patience=20)),
        batch(ADAM, observed, start, max_steps=12),
    ]
    assert cycle._cache_size() == compiled
    assert results[0].steps.sum() != results[1].steps.sum()
    assert results[-1].steps.max() == 12


def test_the_key_of_a_sample_is_folded_from_its_number():
    observed, start = samples()
    twins = batch(RANDOM, np.repeat(observed[:1], 5, 0), np.repeat(start[:1], 5, 0))
    for i in range(5):
        single = alone(RANDOM, np.repeat(observed[:1], 5, 0), np.repeat(start[:1], 5, 0), i)
        np.testing.assert_allclose(twins.params[i], single.params, rtol=1e-5)
    assert len(np.unique(twins.loss)) == 5


def test_another_key_gives_other_draws_and_the_same_key_the_same_bits():
    observed, start = samples()
    first, again, other = (batch(RANDOM, observed, start, key=key) for key in (1, 1, 2))
    np.testing.assert_array_equal(first.params, again.params)
    assert np.any(first.params != other.params)


def test_results_are_in_input_order():
    observed, start = samples()
    order = np.random.default_rng(5).permutation(COUNT)
    straight, shuffled = batch(ADAM, observed, start), batch(ADAM, observed[order], start[order])
    np.testing.assert_array_equal(shuffled.steps, straight.steps[order])
    np.testing.assert_allclose(shuffled.params, straight.params[order], rtol=1e-5)


# Sequential, which the engine takes apart


def sequential_pair(refiner, objective, start, stop, max_steps):
    """Steps, status and loss by the engine and by `run_until`, for every sample."""
    start = np.asarray(start, np.float32)
    result = rj.run_batch(
        refiner, objective, start, max_steps=max_steps, stop=stop, execution=rj.Execution(lanes=4)
    )
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(np.arange(len(start)))
    singles = [
        rj.run_until(refiner, objective, p, k, max_steps=max_steps, stop=stop)
        for p, k in zip(start, keys, strict=True)
    ]
    left = [(int(n), Status(int(s))) for n, s in zip(result.steps, result.status, strict=True)]
    right = [(int(r.steps), Status(int(r.status))) for r in singles]
    np.testing.assert_allclose(result.loss, [r.loss for r in singles], rtol=1e-4, atol=1e-10)
    return left, right


def bowl(params):
    return jnp.sum(jnp.array([1.0, 3.0]) * (params - 1) ** 2)


NEAR_AND_FAR = [[1, 1], [1.001, 1], [1.1, 0.9], [3, -2], [40, 1], [-900, 70]]
CHAIN = rj.Sequential(SGD, rj.Gradient(optax.sgd, {"learning_rate": 0.05}), SGD, steps=(5, 20))


@pytest.mark.parametrize("max_steps", [0, 1, 5, 6, 25, 26, 400])
def test_a_chain_of_three_ends_as_step_by_step_wherever_the_limit_falls(max_steps):
    left, right = sequential_pair(CHAIN, bowl, NEAR_AND_FAR[2:], rj.Stop(), max_steps)
    assert left == right


@pytest.mark.parametrize("max_steps", [1, 5, 400])
def test_a_chain_whose_middle_stage_ends_at_its_start_ends_as_step_by_step(max_steps):
    left, right = sequential_pair(CHAIN, bowl, NEAR_AND_FAR[:2], rj.Stop(), max_steps)
    assert left == right


@pytest.mark.parametrize("target", [1e-3, 1e2])
def test_a_chain_stops_at_the_target_in_whatever_stage(target):
    left, right = sequential_pair(CHAIN, bowl, NEAR_AND_FAR, rj.Stop(target=target), 400)
    assert left == right
    assert {status for _, status in left} == {Status.TARGET_REACHED}


def test_a_chain_whose_stages_have_their_own_rules_ends_as_step_by_step():
    chain = CHAIN.replace(stop=rj.Stop(target=1e-1, gradient=1e-2))
    left, right = sequential_pair(chain, bowl, NEAR_AND_FAR, rj.Stop(patience=7), 400)
    assert left == right


def test_a_last_stage_that_diverges_is_judged_against_the_start_of_the_whole():
    wild = rj.Gradient(optax.sgd, {"learning_rate": 0.8})
    chain = rj.Sequential(SGD, wild, steps=5)
    left, right = sequential_pair(chain, bowl, NEAR_AND_FAR[2:], rj.Stop(), 400)
    assert left == right
    assert Status.DIVERGED in {status for _, status in left}


@pytest.mark.slow
def test_a_last_stage_that_has_nothing_to_gain_ends_as_step_by_step():
    chain = rj.Sequential(ADAM, rj.Gradient(optax.lbfgs), steps=120)
    left, right = sequential_pair(chain, bowl, NEAR_AND_FAR[:4], rj.Stop(gradient=-1.0), 400)
    assert left == right


def test_a_chain_keeps_the_loss_of_the_very_start():
    result = rj.run_batch(
        CHAIN, bowl, np.float32(NEAR_AND_FAR), max_steps=400, execution=rj.Execution(lanes=4)
    )
    expected = [float(bowl(np.float32(p))) for p in NEAR_AND_FAR]
    np.testing.assert_allclose(result.initial_loss, expected, rtol=1e-5)


# One bad sample harms no other


def spoiled(where):
    observed, start = samples()
    (observed if where == "observation" else start)[4] = np.nan
    return observed, start


@pytest.mark.parametrize("where", ["observation", "start"])
@pytest.mark.parametrize("name", ["adam", "random", "sequential"])
def test_a_sample_of_nan_harms_no_neighbor(name, where):
    result = batch(REFINERS[name], *spoiled(where))
    others = np.arange(COUNT) != 4
    assert result.status[4] == Status.NONFINITE_START
    np.testing.assert_array_equal(result.params[4], spoiled(where)[1][4])
    clean = batch(REFINERS[name], *samples())
    np.testing.assert_array_equal(result.params[others], clean.params[others])
    np.testing.assert_array_equal(result.loss[others], clean.loss[others])
    np.testing.assert_array_equal(result.status[others], clean.status[others])


def test_a_sample_whose_loss_turns_nan_on_the_way_returns_its_best_point():
    def edge(params):
        return jnp.where(params < 0.5, jnp.nan, params)

    start = np.float32([0.4, 0.6, 1.0])
    result = rj.run_batch(SGD, edge, start, max_steps=400, execution=rj.Execution(lanes=2))
    assert result.status[0] == Status.NONFINITE_START
    assert not result.converged.any()
    np.testing.assert_allclose(result.loss[1:], 0.5, atol=1e-4)


def test_a_sample_with_nothing_but_nan_around_it_stays_where_it_was():
    def island(params):
        return jnp.where(params == 1, 1e6 * params, jnp.nan)

    result = rj.run_batch(
        SGD, island, np.float32([1.0, 2.0]), max_steps=400, execution=rj.Execution(lanes=2)
    )
    assert result.status.tolist() == [Status.NONFINITE, Status.NONFINITE_START]
    assert result.params.tolist() == [1.0, 2.0]


def test_no_sample_is_worse_than_it_came_in():
    observed, start = samples()
    hot = rj.Gradient(optax.adam, {"learning_rate": 3.0})
    result = batch(hot, observed, start)
    assert np.all(result.loss <= result.initial_loss)
    again = jax.vmap(lambda y, p: rj.InverseProblem(decay, y)(p))(observed, result.params)
    np.testing.assert_allclose(result.loss, again, rtol=1e-4)


# Statuses


def status_of(start, stop, max_steps=60, refiner=SGD):
    result = rj.run_batch(
        refiner,
        bowl,
        np.float32(start),
        max_steps=max_steps,
        stop=stop,
        execution=rj.Execution(lanes=4),
    )
    return [Status(int(value)) for value in result.status]


def test_each_status_is_given_where_it_belongs():
    never = rj.Stop.never()
    wild = rj.Gradient(optax.sgd, {"learning_rate": 0.8})
    stuck = rj.Gradient(optax.sgd, {"learning_rate": 0.0})
    assert status_of([[1, 1]], rj.Stop()) == [Status.CONVERGED_GRAD]
    assert status_of([[3, 1]], never) == [Status.MAX_STEPS]
    assert status_of([[3, 1]], rj.Stop(), 0) == [Status.MAX_STEPS]
    assert status_of([[3, 1]], never.replace(target=1.0)) == [Status.TARGET_REACHED]
    assert status_of([[np.nan, 1]], rj.Stop()) == [Status.NONFINITE_START]
    assert status_of([[3, 1]], rj.Stop(), 400, stuck) == [Status.STALLED]
    assert status_of([[3, 3]], rj.Stop(), 400, wild) == [Status.DIVERGED]


def test_a_time_limit_of_nothing_returns_everything_unfinished_but_whole():
    start = np.float32(np.ones((40, 2)) * 3)
    result = rj.run_batch(
        SGD,
        bowl,
        start,
        max_steps=10**8,
        stop=rj.Stop.never(),
        execution=rj.Execution(lanes=4),
        time_limit=0.0,
    )
    assert set(result.status.tolist()) == {int(Status.TIME_LIMIT)}
    begun = ~np.isnan(result.initial_loss)
    assert 0 < begun.sum() <= 4 + 1
    assert np.all(result.loss[begun] <= result.initial_loss[begun])
    np.testing.assert_array_equal(result.params[~begun], start[~begun])
    assert np.all(result.steps[~begun] == 0)


def test_a_limit_beyond_32_bits_is_no_limit():
    assert status_of([[3, 1]], rj.Stop(), max_steps=10**12) == [Status.CONVERGED_GRAD]


# Bounds


def bounded(lower, upper):
    observed, start = samples()
    space = rj.ParameterSpace.create(("height", "rate"), lower, upper)
    problem = rj.InverseProblem(decay, observed, space=space)
    result = rj.run_batch(
        ADAM, problem, start, max_steps=STEPS, stop=STOP, execution=rj.Execution(lanes=8)
    )
    return result, *(np.asarray(bound) for bound in space.bounds)


def test_no_result_lies_outside_its_bounds_and_at_bound_says_where_one_is_active():
    result, lower, upper = bounded([1.2, 0.7], [1.7, 2.5])
    assert np.all((result.params >= lower) & (result.params <= upper))
    expected = (result.params == lower) | (result.params == upper)
    np.testing.assert_array_equal(result.at_bound, expected)
    assert expected.any()
    assert not expected.all()


def test_infinite_bounds_are_never_active():
    result, *_ = bounded([-np.inf, 0.7], [np.inf, np.inf])
    assert not result.at_bound[:, 0].any()
    assert np.all(result.params[:, 1] >= np.float32(0.7))


def test_without_bounds_there_is_no_at_bound():
    assert batch(ADAM, *samples()).at_bound is None


# Pytrees of params; what belongs to a sample and what to all


class Line(struct.PyTreeNode):
    """Mean squared error of slope·x + offset; data and weight may be shared or not."""

    y: Any
    weight: Any = 1.0

    def __call__(self, params):
        predicted = params["slope"] * TIMES + params["offsets"]["at_0"]
        return jnp.mean(self.weight * (predicted - self.y) ** 2)


def lines(count=6):
    rng = np.random.default_rng(0)
    slope, offset = rng.normal(size=(2, count)).astype(np.float32)
    return slope, offset, slope[:, None] * TIMES + offset[:, None]


def zeros(count=6):
    return {"slope": np.zeros(count, np.float32), "offsets": {"at_0": np.zeros(count, np.float32)}}


DESCENT = rj.Gradient(optax.sgd, {"learning_rate": 0.5})
fit_lines = functools.partial(rj.run_batch, DESCENT, max_steps=400, execution=rj.Execution(lanes=4))


def test_params_may_be_any_pytree():
    slope, offset, y = lines()
    result = fit_lines(Line(y), zeros())
    assert jax.tree.structure(result.params) == jax.tree.structure(zeros())
    np.testing.assert_allclose(result.params["slope"], slope, atol=5e-3)
    np.testing.assert_allclose(result.params["offsets"]["at_0"], offset, atol=5e-3)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(result.params))


def test_single_numbers_are_shared_and_arrays_are_not_unless_told():
    _, _, y = lines()
    shared = fit_lines(Line(y, 2.0), zeros(), max_steps=0)
    own = fit_lines(Line(y, np.float32([1, 2, 3, 4, 5, 6])), zeros(), max_steps=0)
    np.testing.assert_allclose(own.loss / shared.loss, np.arange(1, 7) / 2, rtol=1e-5)


def test_axes_says_what_all_samples_share():
    _, _, y = lines()
    pixel_weights = np.float32([1, 0, 0, 0, 0, 0])
    result = fit_lines(Line(y, pixel_weights), zeros(), max_steps=0, axes=Line(0, None))
    np.testing.assert_allclose(result.loss, y[:, 0] ** 2 / 6, rtol=1e-5)


def test_one_observation_may_be_shared_by_many_starts():
    slope, _, y = lines()
    result = fit_lines(Line(y[0]), zeros(3), axes=Line(None, None))
    np.testing.assert_allclose(result.params["slope"], slope[[0, 0, 0]], atol=5e-3)


def test_a_plain_function_serves_as_a_problem():
    result = rj.run_batch(
        SGD, bowl, np.float32(NEAR_AND_FAR), max_steps=400, execution=rj.Execution(lanes=4)
    )
    np.testing.assert_allclose(result.params, 1, atol=1e-3)


def test_float64_arrays_are_taken_as_they_come_with_x64_off():
    assert not jax.config.jax_enable_x64
    observed, start = samples()
    single = batch(ADAM, observed, start)
    double = batch(ADAM, observed.astype(float), start.astype(float))
    assert double.params.dtype == np.float32
    np.testing.assert_array_equal(double.params, single.params)


def test_dtype_follows_the_params_with_x64_on():
    with jax.enable_x64(True):
        result = rj.run_batch(
            SGD, bowl, np.array([[3.0, 1.0]]), max_steps=400, execution=rj.Execution(lanes=1)
        )
    assert result.params.dtype == result.loss.dtype == np.float64
    np.testing.assert_allclose(result.params, 1, atol=1e-9)


# Bad arguments


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observed": np.ones((5, 6), np.float32)}, r"problem\.observation.*axis of 33.*\(5, 6\)"),
        ({"start": np.ones((0, 2), np.float32)}, "params: empty"),
        ({"start": {}}, "params: expected arrays"),
        ({"start": np.float32(1)}, "params: .*axis"),
        ({"start": np.ones((33, 2), int)}, "params: .*int"),
        ({"start": {"a": np.ones((33, 2), int)}}, r"params\['a'\]: .*int"),
        ({"start": {"a": np.ones(33), "b": np.ones(32)}}, r"params: .*\['b'\].*32"),
        ({"start": np.ones((33, 2), complex)}, "params: .*complex"),
        ({"max_steps": -1}, "max_steps: .*-1"),
        ({"max_steps": 2.5}, r"max_steps: .*2\.5"),
        ({"lanes": 0}, "lanes: .*0"),
        ({"lanes": -3}, "lanes: .*-3"),
        ({"lanes": 2.5}, r"lanes: .*2\.5"),
        ({"axes": {"a": 0}}, "axes: not a prefix"),
        ({"axes": 1}, "axes: expected 0"),
        ({"memory_limit": "much"}, "memory_limit: .*much"),
    ],
)
def test_a_bad_argument_is_named(change, message):
    observed, start = samples()
    arguments = {"refiner": ADAM, "observed": observed, "start": start} | change
    with pytest.raises(ValueError, match=message):
        batch(**arguments)


def test_a_problem_that_cannot_be_called_is_refused():
    with pytest.raises(ValueError, match=r"objective: .*float"):
        rj.run_batch(ADAM, 3.0, np.ones((2, 2)), max_steps=3)


# Files larger than memory


class Watched(np.memmap):
    """A mapped file that notes how many rows each look at it takes."""

    rows: list

    def __getitem__(self, index):
        taken = super().__getitem__(index)
        if hasattr(self, "rows"):
            self.rows.append(np.shape(np.atleast_2d(taken))[0])
        return np.asarray(taken)

    def __array__(self, *args, **kwargs):
        raise AssertionError("the whole file was read at once")


@pytest.fixture
def mapped(tmp_path):
    observed, _ = samples()
    observed.tofile(tmp_path / "observed")
    file = Watched(tmp_path / "observed", np.float32, "r", shape=observed.shape)
    file.rows = []
    return file


def test_a_mapped_file_is_read_a_few_rows_at_a_time(mapped):
    _, start = samples()
    result = batch(ADAM, mapped, start)
    assert_equal(result, one_by_one("adam"))
    assert sum(mapped.rows) == COUNT
    assert max(mapped.rows) <= 3


def test_progress_is_drawn_on_stderr_and_stdout_stays_clean(capfd):
    batch(ADAM, *samples(), progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "33/33" in err
    batch(ADAM, *samples())
    assert capfd.readouterr().err == ""
