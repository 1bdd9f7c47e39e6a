"""Evolution: the strategies of evosax with bounds, ends and restarts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from evosax.algorithms import CMA_ES
from flax import struct

from refinejax import (
    Execution,
    Gradient,
    Problem,
    Restarts,
    Status,
    Stop,
    run,
    run_batch,
    run_until,
)
from refinejax.refiners import BIPOP, IPOP, Evolution, Halting, Memetic
from refinejax.refiners.population.bound_transform import BoundTransform
from refinejax.refiners.population.generations import rank
from refinejax.refiners.population.ranks import Order
from refinejax.refiners.population.regrowth import CMAParameters, RegrowthPlan
from refinejax.refiners.population.strategies import build, default_size

CMA = Evolution("cma_es", std=0.5)


def strategies(names, quick):
    """Parameters of a test; those that are not quick are marked slow, as each compiles anew."""
    marks = [() if name in quick else pytest.mark.slow for name in names]
    return [pytest.param(name, marks=mark) for name, mark in zip(names, marks, strict=True)]


def sphere(x):
    return jnp.sum(x**2)


def ellipsoid(x):
    return jnp.sum(10.0 ** jnp.arange(3) * x**2)


class Bowl(Problem):
    """|x − center|², in a box."""

    center: jax.Array
    lower: float = -1.0
    upper: float = 1.0

    @property
    def bounds(self):
        return self.lower, self.upper

    def __call__(self, x):
        return jnp.sum((x - self.center) ** 2)


@jax.jit
def step(refiner, objective, state, key):
    return refiner.step(jax.tree_util.Partial(objective), state, key)


def keys(n, seed=3):
    return jax.random.split(jax.random.key(seed), n)


def test_the_trajectory_is_that_of_evosax_alone():
    with jax.enable_x64(True):
        start = jnp.array([0.5, -1.0, 2.0])
        algorithm = CMA_ES(8, start)
        numbers = CMAParameters(8, 3)(8, algorithm.default_params).replace(std_init=0.5)
        theirs = algorithm.init(jax.random.key(0), start, numbers)
        refiner = Evolution("CMA_ES", population_size=8, std=0.5)
        state = refiner.init(ellipsoid, start, jax.random.key(0))
        for key in keys(20):
            ask, tell, _ = jax.random.split(key, 3)
            x, theirs = algorithm.ask(ask, theirs, numbers)
            theirs, _ = algorithm.tell(tell, x, jax.vmap(ellipsoid)(x), theirs, numbers)
            state = step(refiner, jax.tree_util.Partial(ellipsoid), state, key)
        ours = state.memory
        mean = ours.center + ours.width * ours.strategy_state.mean
        np.testing.assert_allclose(mean, theirs.mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(0.5 * ours.strategy_state.std, theirs.std, rtol=1e-4)
        np.testing.assert_allclose(ours.strategy_state.C, theirs.C, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("n", [1, 5, 20])
def test_the_parameters_of_cma_es_for_any_size_are_those_of_evosax(n):
    """But for c_mu, to which evosax does not add the ¼ of the tutorial's second edition."""
    with jax.enable_x64(True):
        base = CMA_ES(40, jnp.zeros(n)).default_params
        sizes = jax.jit(CMAParameters(40, n))
        for size in (4, 7, 8, 13, 40):
            known = CMA_ES(size, jnp.zeros(n)).default_params
            ours = sizes(size, base)
            for name in ("mu_eff", "c_std", "d_std", "c_c", "c_1", "chi_n"):
                np.testing.assert_allclose(
                    getattr(ours, name), getattr(known, name), rtol=1e-6, err_msg=name
                )
            np.testing.assert_allclose(
                ours.weights[: size // 2], known.weights[: size // 2], rtol=1e-6
            )
            assert np.all(ours.weights[size:] == 0)


def test_the_parameters_of_cma_es_are_those_of_pycma():
    """Printed by pycma 4.5 for n = 20, λ = 12; its c_σ has n + μ + 3 where the tutorial has 5."""
    with jax.enable_x64(True):
        base = CMA_ES(12, jnp.zeros(20)).default_params
        ours = jax.tree.map(np.asarray, CMAParameters(12, 20)(12, base))
    np.testing.assert_allclose(ours.mu_eff, 3.729458934303067, rtol=1e-9)
    np.testing.assert_allclose(ours.c_1, 0.004372354435160246, rtol=1e-9)
    np.testing.assert_allclose(ours.c_mu, 0.009216561776274352, rtol=1e-9)
    np.testing.assert_allclose(ours.weights[[0, 5]], [0.4024029428, 0.01720770577], rtol=1e-8)
    np.testing.assert_allclose(ours.weights[[6, 11]], [-0.0501871364, -0.4152044226], rtol=1e-8)


def box(lower=-1.0, upper=3.0):
    return BoundTransform.of((lower, upper), jnp.zeros(2), jnp.ones(2))


def test_the_box_is_left_alone_inside_and_touched_with_slope_0():
    inside = jnp.array([-0.8, 2.8])
    np.testing.assert_array_equal(box().enter(inside), inside)
    touch = jnp.array([-1.2, 3.2])
    np.testing.assert_allclose(box().enter(touch), [-1, 3], atol=1e-6)
    slope = jax.jacfwd(box().enter)(touch)
    np.testing.assert_allclose(slope, np.zeros((2, 2)), atol=1e-5)


def test_all_points_are_mapped_into_the_box_continuously():
    y = jnp.linspace(-40, 40, 20_001)[:, None] * jnp.ones(2)
    x = box().enter(y)
    assert np.all((x >= -1) & (x <= 3))
    assert np.max(np.abs(np.diff(x[:, 0]))) < 80 / 20_000 * 1.05


@pytest.mark.parametrize("ends", [(-1.0, 3.0), (-np.inf, 3.0), (-1.0, np.inf), (-np.inf, np.inf)])
def test_to_leave_the_box_is_the_inverse_of_entering(ends):
    x = jnp.array([[-1.0, 3.0], [-0.99, 2.9], [0.0, 1.0]])
    again = box(*ends).enter(jax.vmap(box(*ends).leave)(x))
    np.testing.assert_allclose(again, x, atol=1e-6)


@pytest.mark.parametrize("center", [[0.3, -0.2], [1.5, 0.1], [2.0, -3.0]])
def test_optima_inside_on_a_face_and_in_a_corner_are_found(center):
    objective = Bowl(jnp.array(center))
    result = run_until(CMA, objective, jnp.array([-0.5, 0.5]), max_steps=300)
    np.testing.assert_allclose(result.params, np.clip(center, -1, 1), atol=1e-3)
    assert np.all(np.abs(result.params) <= 1)


@pytest.mark.slow
def test_bounds_cost_nothing_where_they_are_not_met():
    start = jnp.array([0.1, -0.1])
    refiner = Evolution("cma_es", std=0.05)
    free = run(refiner, lambda x: jnp.sum((x - 0.2) ** 2), start, 5, num_steps=40)
    bound = run(refiner, Bowl(jnp.full(2, 0.2)), start, 5, num_steps=40)
    np.testing.assert_allclose(bound.trace, free.trace, rtol=1e-3, atol=1e-9)


def test_it_ends_where_the_loss_or_the_params_no_longer_change():
    result = run_until(CMA, lambda x: 1 + sphere(x), jnp.array([1.0, -2.0]), max_steps=2000)
    assert result.status == Status.CONVERGED_LOSS
    result = run_until(CMA, lambda x: sphere(x - 3), jnp.array([1.0, -2.0]), max_steps=2000)
    assert Status(int(result.status)).converged
    np.testing.assert_allclose(result.params, 3, atol=1e-3)


def test_float32_comes_to_an_end_and_never_to_nan():
    result = run(CMA, sphere, jnp.array([1.0, -2.0]), num_steps=1500)
    assert np.all(np.isfinite(result.trace))
    assert np.isfinite(result.loss)
    assert Status(int(result.status)).converged
    assert all(
        np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(result.state.memory.strategy_state)
    )


def test_a_flat_loss_ends_it():
    result = run_until(CMA, lambda x: jnp.sum(0 * x) + 1, jnp.zeros(2), max_steps=500)
    assert result.status == Status.STALLED
    assert result.steps <= 3


def test_a_slope_without_end_diverges():
    result = run_until(CMA, lambda x: -jnp.sum(x), jnp.zeros(2), max_steps=500)
    assert result.status == Status.DIVERGED


def test_a_condition_beyond_the_dtype_is_singular():
    with jax.enable_x64(True):
        result = run_until(
            Evolution("cma_es", std=0.5, halting=Halting(tolconditioncov=1e6)),
            lambda x: x[0] ** 2 + 1e10 * x[1] ** 2,
            jnp.array([1.0, 1.0]),
            max_steps=2000,
        )
    assert result.status == Status.SINGULAR


def test_the_target_ends_it_and_a_negative_tolerance_does_not():
    result = run_until(CMA, sphere, jnp.ones(2), max_steps=500, stop=Stop(target=1e-3))
    assert result.status == Status.TARGET_REACHED
    never = Halting(*[-1.0] * 6)
    flat = run_until(
        Evolution("cma_es", halting=never), lambda x: jnp.sum(0 * x), jnp.zeros(2), max_steps=150
    )
    assert flat.status == Status.MAX_STEPS


def trace_plans(refiner, objective, start, steps):
    def plan(state):
        return state.memory.plan

    return run(refiner, objective, start, 1, num_steps=steps, record=plan).trace


@pytest.mark.slow
def test_ipop_doubles_the_population_at_each_restart_and_then_ends():
    refiner = Evolution("cma_es", population_size=6, regrow=IPOP(3))
    objective = lambda x: jnp.sum(jnp.floor(jnp.abs(x)))  # noqa: E731
    plans = trace_plans(refiner, objective, jnp.zeros(2), 60)
    assert list(dict.fromkeys(np.asarray(plans.size).tolist())) == [6, 12, 24, 48]
    end = run_until(refiner, objective, jnp.zeros(2), 1, max_steps=500)
    assert end.status == Status.STALLED
    assert end.steps < 60


@pytest.mark.slow
def test_bipop_gives_small_and_large_runs_the_same_budget():
    refiner = Evolution("cma_es", population_size=6, regrow=BIPOP(5))
    plans = trace_plans(refiner, lambda x: jnp.sum(jnp.sin(9 * x) + 0.1 * x**2), jnp.ones(2), 3000)
    small, runs = np.asarray(plans.small), np.asarray(plans.runs)
    first = np.concatenate([[True], np.diff(runs) > 0])
    sizes = np.asarray(plans.size)[first]
    assert np.all(np.asarray(plans.share)[~small] == 1)
    assert np.all(np.asarray(plans.share)[small] <= 1)
    large = sizes[~small[first]]
    np.testing.assert_array_equal(large, 6 * 2 ** np.arange(len(large)))
    assert small.any()
    limits = np.asarray(plans.last_large)[first & small]
    np.testing.assert_array_equal(np.asarray(plans.limit)[first & small], limits // 2)
    spent = np.asarray(plans.spent)[first & small]
    assert np.all(spent[:, 1] < spent[:, 0])


@pytest.mark.slow
def test_restarts_find_what_one_run_misses():
    def rastrigin(x):
        return jnp.sum(x**2 - 10 * jnp.cos(2 * jnp.pi * x) + 10)

    box_rastrigin = Wide(rastrigin)
    start, stop = jnp.full(3, 3.2), Stop(target=1e-3)
    once = [run_until(CMA, box_rastrigin, start, k, max_steps=2000, stop=stop) for k in range(3)]
    refiner = Evolution("cma_es", std=1.0, regrow=IPOP(5))
    often = [run_until(refiner, box_rastrigin, start, k, max_steps=9000, stop=stop) for k in (0, 1)]
    assert min(float(r.loss) for r in once) > 0.5
    assert all(r.status == Status.TARGET_REACHED for r in often)


class Wide(Problem):
    function: object = struct.field(pytree_node=False)

    @property
    def bounds(self):
        return -5.0, 5.0

    def __call__(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    "refiner",
    [
        CMA,
        pytest.param(Evolution("de", std=0.5), marks=pytest.mark.slow),
        pytest.param(Evolution("cma_es", std=0.5, regrow=IPOP(1)), marks=pytest.mark.slow),
    ],
)
def test_half_a_space_of_nan_is_avoided(refiner):
    def half(x):
        return jnp.where(x[0] > 0, sphere(x - 1), jnp.nan)

    result = run_until(refiner, half, jnp.array([0.1, 0.0]), max_steps=200)
    np.testing.assert_allclose(result.params, 1, atol=1e-2)


def test_a_generation_of_nan_shrinks_around_the_best_point():
    def island(x):
        return jnp.where(sphere(x - 1) < 0.02**2, sphere(x - 1), jnp.nan)

    result = run_until(CMA, island, jnp.array([1.01, 1.0]), max_steps=300)
    assert result.loss < 1e-8
    assert result.status > 0


@pytest.mark.parametrize("strategy", strategies(("cma_es", "ga"), ("cma_es",)))
def test_nothing_but_nan_ends_with_the_start(strategy):
    def alone(x):
        return jnp.where(jnp.all(x == 1), 0.5, jnp.nan)

    refiner = Evolution(strategy, std=0.5)
    result = run_until(refiner, alone, jnp.ones(2), max_steps=300)
    assert result.status == Status.NONFINITE
    assert result.loss == 0.5
    np.testing.assert_array_equal(result.params, 1)


ODD = ("cma_es", "sep_cma_es", "de", "ga", "pso", "snes", "xnes")


@pytest.mark.parametrize("strategy", strategies(ODD, ("cma_es",)))
def test_one_param_and_an_odd_population(strategy):
    refiner = Evolution(strategy, population_size=7, std=0.5)
    result = run_until(refiner, lambda x: (x - 2) ** 2, 0.5, max_steps=400)
    np.testing.assert_allclose(result.params, 2, atol=0.05)


def test_a_std_for_each_param_and_a_pytree():
    start = {"a": jnp.zeros(2), "b": jnp.float32(0)}
    std = {"a": jnp.array([1.0, 0.1]), "b": 10.0}
    refiner = Evolution("cma_es", std=std)
    state = refiner.init(lambda p: sphere(p["a"]) + p["b"] ** 2, start, jax.random.key(0))
    np.testing.assert_allclose(state.memory.width, [1, 0.1, 10])


@pytest.mark.parametrize("strategy", strategies(("CMA_ES", "Open_ES", "PSO", "ga"), ("ga",)))
def test_one_of_each_kind_lowers_the_loss_within_bounds(strategy):
    """All are among the refiners of the laws."""
    objective = Bowl(jnp.array([1.5, 0.1, -0.2]))
    start = jnp.array([-0.5, 0.5, 0.9])
    refiner = Evolution(strategy, std=0.3)
    record = lambda state: (state.params, state.loss)  # noqa: E731
    result = run(refiner, objective, start, 2, num_steps=60, record=record)
    params, losses = result.trace
    np.testing.assert_allclose(losses, jax.vmap(objective)(params), rtol=1e-5)
    assert np.all(np.diff(losses) <= 0)
    assert result.loss == losses[-1] < 0.7 * result.initial_loss
    assert np.all(np.abs(params) <= 1)
    assert all(leaf.dtype != np.float64 for leaf in jax.tree.leaves(result))


@pytest.mark.parametrize("strategy", strategies(("cma_es", "de", "ga", "pso"), ()))
def test_the_same_sample_alone_and_in_a_batch(strategy):
    """To 1 %: shapes round otherwise, and comparisons of nearly equal losses turn out otherwise.

    A quick one of CMA-ES is among the tests of law 13.
    """
    centers = jnp.asarray(np.random.default_rng(0).uniform(-0.5, 0.5, (5, 2)), jnp.float32)
    starts = centers + 0.3
    refiner = Evolution(strategy, population_size=8, std=0.2)
    batch = run_batch(
        refiner,
        Bowls(centers),
        starts,
        7,
        max_steps=15,
        stop=Stop.never(),
        execution=Execution(lanes=2),
    )
    for i in range(5):
        key = jax.random.fold_in(jax.random.key(7), i)
        alone = run_until(
            refiner, Bowls(centers[i]), starts[i], key, max_steps=15, stop=Stop.never()
        )
        np.testing.assert_allclose(batch.params[i], alone.params, rtol=1e-2, atol=1e-3)


class Bowls(Problem):
    center: jax.Array

    def __call__(self, x):
        return jnp.sum((x - self.center) ** 2)

    def batch_axes(self):
        return Bowls(0)


@pytest.mark.slow
def test_keys_are_used_once():
    with jax.debug_key_reuse(True):
        for refiner in (Evolution("ga"), Evolution("cma_es", regrow=BIPOP(2))):
            jax.block_until_ready(run(refiner, ellipsoid, jnp.ones(3), 1, num_steps=3))


def test_new_numbers_do_not_compile_and_building_twice_does_not_either():
    from refinejax._run import _run_until

    def go(**numbers):
        refiner = Evolution("de", population_size=9, **numbers)
        run_until(refiner, sphere, jnp.ones(2), max_steps=2)

    go(std=0.1, hyper={"crossover_rate": 0.5})
    before = _run_until._cache_size()
    go(std=0.7, hyper={"crossover_rate": 0.8})
    assert _run_until._cache_size() == before


def test_an_optimizer_with_its_numbers():
    slow = Evolution("open_es", optimizer=optax_sgd, hyper={"learning_rate": 1e-6})
    quick = slow.replace(hyper={"learning_rate": 1.0})
    start = jnp.full(2, 2.0)
    means = [
        np.asarray(run(r, sphere, start, 1, num_steps=30).state.memory.strategy_state.mean)
        for r in (slow, quick)
    ]
    assert np.all(np.abs(means[0]) < 1e-3)
    assert np.linalg.norm(means[1]) > 1


def optax_sgd(learning_rate):
    return optax.sgd(learning_rate)


def test_elites_alone_have_children():
    def begin(state):
        return state.memory.strategy_state

    refiner = Evolution("ga", population_size=10, elite_ratio=0.1, hyper={"crossover_rate": 0.0})
    state = refiner.init(sphere, jnp.ones(3), jax.random.key(0))
    strategy = build("ga", 10, 3, None, ("crossover_rate",), 0.1)
    numbers, _ = strategy.settle({"crossover_rate": 0.0})
    inner = begin(state).replace(std=jnp.float32(0))
    z, _ = strategy.ask(jax.random.key(1), inner, numbers)
    best = inner.population[np.argmin(inner.fitness)]
    np.testing.assert_array_equal(z, np.broadcast_to(best, z.shape))


def test_crossover_mixes_two_parents():
    strategy = build("ga", 50, 4, None, ("crossover_rate",), 0.04)
    numbers, rates = strategy.settle({"crossover_rate": 0.5})
    z = jnp.concatenate([jnp.zeros((1, 4)), jnp.ones((49, 4))])
    losses = jnp.arange(50.0)
    state = strategy.found(numbers, rates, jax.random.key(0), z, losses)
    children, _ = strategy.ask(jax.random.key(1), state.replace(std=jnp.float32(0)), numbers)
    assert set(np.unique(children)) == {0.0, 1.0}
    assert len(np.unique(children, axis=0)) > 4


def test_default_sizes():
    assert default_size("cma_es", 5) == 8
    assert default_size("open_es", 3) == 8
    assert default_size("de", 5) == 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "cmaes2"}, "strategy: expected one of .*did you mean"),
        ({"strategy": 3}, "strategy: expected one of"),
        ({"population_size": 0}, "population_size: expected 1 or more"),
        ({"std": 0.0}, "std: expected standard deviations above 0"),
        ({"std": np.array([1.0, np.nan])}, "std: expected standard deviations above 0"),
        ({"strategy": "open_es", "population_size": 5}, "population_size: Open_ES cannot have 5"),
        ({"strategy": "de", "population_size": 2}, "population_size: DifferentialEvolution"),
        ({"hyper": {"nothing": 1.0}}, "hyper: .*nothing.* it has"),
        ({"optimizer": optax_sgd}, "optimizer: .* has none"),
        ({"strategy": "ga", "elite_ratio": 2.0}, "elite_ratio: expected a share"),
        ({"strategy": "de", "regrow": IPOP()}, "regrow: only CMA-ES"),
    ],
)
def test_errors_name_the_argument(options, message):
    with pytest.raises(ValueError, match=message):
        Evolution(**options)


def test_doublings_below_0_are_refused():
    with pytest.raises(ValueError, match="doublings: expected 0 or more"):
        IPOP(-1)
    assert RegrowthPlan.first(8, jnp.float32).size == 8


@pytest.mark.slow
def test_it_goes_into_restarts():
    refiner = Restarts(Evolution("cma_es", std=0.3), n=2, std=0.5)
    result = run_until(refiner, sphere, jnp.ones(2), max_steps=200, stop=Stop(target=1e-4))
    assert result.status == Status.TARGET_REACHED


@pytest.mark.slow
def test_a_memetic_population_finds_what_its_pupils_alone_do_not_and_sooner_than_alone():
    def waves(x):
        return jnp.sum(x**2 - 10 * jnp.cos(2 * jnp.pi * x) + 10)

    local = Gradient(optax.lbfgs)
    population = Evolution("ga", population_size=24, std=1.0)
    start, stop = jnp.full(2, 2.3), Stop(target=1e-4)
    ends = [
        run_until(refiner, waves, start, 0, max_steps=200, stop=stop)
        for refiner in (local, population, Memetic(population, local))
    ]
    assert ends[0].loss > 1
    assert ends[2].status == Status.TARGET_REACHED
    assert ends[2].steps < ends[1].steps


@pytest.mark.slow
def test_guests_are_told_and_come_no_farther_than_candidates():
    state = CMA.init(sphere, jnp.ones(2), jax.random.key(0))
    far = jnp.array([[1e3, 1e3]])
    come = [
        CMA.generation(sphere, state, jax.random.key(1), (far, jnp.bool_(yes)))[1]
        for yes in (True, False)
    ]
    np.testing.assert_array_equal(come[0][:-1], come[1][:-1])
    distance = np.linalg.norm((come[0][-1] - 1) / 0.5)
    np.testing.assert_allclose(distance, 2**0.5 + 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"best": 0}, "best: expected 1 or more"),
        ({"evolution": CMA.replace(regrow=IPOP())}, "evolution: expected a population of one size"),
    ],
)
def test_memetic_complains(options, message):
    with pytest.raises(ValueError, match=message):
        Memetic(**{"evolution": CMA, "local": Gradient(optax.lbfgs), **options})


@pytest.mark.parametrize("count", [5, 200])
def test_ranks_and_order_statistics_are_those_of_a_sort(count):
    losses = np.random.default_rng(0).integers(0, 9, count).astype(np.float32)
    losses[-1] = np.inf
    order = Order(jnp.asarray(losses))
    np.testing.assert_array_equal(order.ranks(), scipy.stats.rankdata(losses) - 1)
    found = [float(order.at(i)) for i in range(count)]
    np.testing.assert_array_equal(found, np.sort(losses))


@pytest.mark.parametrize("losses", [[3.0, np.nan, np.inf, np.nan], [2.0, 5.0, np.nan, 3.0]])
def test_a_loss_that_is_not_finite_ranks_behind_all_that_are(losses):
    losses = np.array(losses, np.float32)
    ranked, usable = rank(jnp.asarray(losses))
    finite = np.isfinite(losses)
    assert usable
    assert np.all(np.isfinite(ranked))
    np.testing.assert_array_equal(ranked[finite], losses[finite])
    assert np.min(ranked[~finite]) > np.max(losses[finite]) * (1 + 1e-5)
