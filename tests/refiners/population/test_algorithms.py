"""Algorithms of evosax where ours stand in for them: what their papers say, by NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refinejax import Stop, run, run_until
from refinejax.refiners import Evolution
from refinejax.refiners.population.strategies import NAMES, build

FROM_MEAN = [name for name in NAMES if build(name, 10, 8, None, (), None).starts_from_mean]
QUICK = ("ASEBO",)


@functools.cache
def begun(name, size, n):
    """A strategy and its first state."""
    strategy = build(name, size, n, None, (), None)
    numbers, rates = strategy.settle({})
    return strategy, numbers, strategy.begin(numbers, rates, jax.random.key(0), jnp.float32)


def told(name, size, n, seed=1):
    """A strategy's numbers, its state after a generation, z in the order of losses, weights."""
    strategy, numbers, state = begun(name, size, n)
    x, state = strategy.ask(jax.random.key(seed), state, numbers)
    losses = jnp.sum((x - 1) ** 2, axis=1)
    after = strategy.tell(jax.random.key(2), x, losses, state, numbers)
    z = np.asarray(state.z)[np.argsort(losses)]
    return numbers, after, z, np.asarray(numbers.weights)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in FROM_MEAN]
)
def test_std_is_that_of_the_first_generation(name):
    """At its widest candidate; CR-FM-NES is N(0, I + vvᵀ) with a random v of length 1."""
    strategy, numbers, _ = begun(name, 10, 8)

    def draw(key):
        first, second = jax.random.split(key)
        state = strategy.begin(numbers, strategy.rates, first, jnp.float32)
        return strategy.ask(second, state, numbers)[0]

    z = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(1), 2000))
    np.testing.assert_allclose(np.mean(z, axis=(0, 1)), 0, atol=0.06)
    np.testing.assert_allclose(np.max(np.std(z, axis=0)), 1, atol=0.12)


def test_ma_es_gives_the_largest_weights_to_the_best():
    numbers, after, z, weights = told("MA_ES", 8, 3)
    path = np.asarray(after.p_std)
    np.testing.assert_allclose(
        path, np.sqrt(numbers.c_std * (2 - numbers.c_std) * numbers.mu_eff) * weights @ z, rtol=1e-4
    )
    eye = np.eye(3)
    one = numbers.c_1 / 2 * (np.outer(path, path) - eye)
    many = numbers.c_mu / 2 * (np.einsum("i,ij,ik->jk", weights, z, z) - eye)
    np.testing.assert_allclose(after.M, eye + one + many, rtol=1e-4, atol=1e-6)


def test_lm_ma_es_has_shares_for_rates_and_the_largest_weights_for_the_best():
    numbers, after, z, weights = told("LM_MA_ES", 8, 3)
    rates = np.minimum(8 / 4.0 ** np.arange(7) / 3, 1)
    np.testing.assert_allclose(numbers.c_c, rates, rtol=1e-6)
    long = np.sqrt(numbers.mu_eff * rates * (2 - rates))[:, None] * (weights @ z)
    np.testing.assert_allclose(after.M, long, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_the_spread_of_rm_es_grows_on_a_slope_and_falls_at_the_bottom():
    def last_std(objective):
        return run(Evolution("Rm_ES", std=0.1), objective, jnp.zeros(3), 1, num_steps=40).state

    slope = last_std(lambda x: jnp.sum(x)).memory.strategy_state
    bowl = last_std(lambda x: jnp.sum(x**2)).memory.strategy_state
    assert slope.std > 3
    assert bowl.std < 0.3


@pytest.mark.slow
def test_xnes_turns_to_a_slanted_valley():
    """Condition 10⁴ at an angle: what scales the axes alone is left far behind."""
    turn = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0], jnp.float32)

    def valley(x):
        return jnp.sum(10.0 ** jnp.linspace(0, 4, 4) * (turn @ x) ** 2)

    ends = [
        run_until(
            Evolution(name, std=0.5, population_size=12),
            valley,
            jnp.ones(4),
            max_steps=600,
            stop=Stop(target=1e-6),
        )
        for name in ("xNES", "SNES")
    ]
    assert ends[0].loss <= 1e-6 < 1e-4 < ends[1].loss


def drawn(name, **changes):
    """Candidates of a large population after changes to the first state."""
    strategy, numbers, state = begun(name, 2000, 2)
    return np.asarray(strategy.ask(jax.random.key(3), state.replace(**changes), numbers)[0])


@pytest.mark.slow
def test_iamalgam_draws_from_its_covariance_times_its_multiplier():
    C = jnp.array([[4.0, 1.0], [1.0, 0.5]]) * 1e-4
    full = drawn("iAMaLGaM_Full", C=C, std=jnp.float32(3**0.5))
    np.testing.assert_allclose(np.cov(full.T), 3 * C, rtol=0.15)
    flat = drawn("iAMaLGaM_Univariate", C=jnp.diagonal(C), std=jnp.float32(3**0.5))
    np.testing.assert_allclose(np.cov(flat.T), np.diag([12e-4, 1.5e-4]), rtol=0.15, atol=5e-5)


@pytest.mark.parametrize("far", [False, True])
def test_the_multiplier_grows_where_what_is_better_is_far_and_not_without_end(far):
    strategy, numbers, state = begun("iAMaLGaM_Full", 2000, 2)
    algorithm = strategy.algorithm
    C = jnp.array([[4.0, 1.0], [1.0, 0.5]])
    away = np.linalg.cholesky(C) @ np.array([2.0, -1.0])
    elites = jnp.stack([away, 3 * away, 100 * away])
    better = jnp.array([True, True, False])
    ratio = algorithm.standard_deviation_ratio(better, elites, C, jnp.zeros(2))
    np.testing.assert_allclose(ratio, 4, rtol=1e-5)  # ((1 + 3)/2)·max |(2, −1)|
    wide = jnp.float32(9 if far else 25)  # 4/3 standard deviations off, or 4/5
    grown, _ = algorithm.adaptive_variance_scaling(
        jnp.bool_(True), ratio, wide, jnp.int32(0), numbers
    )
    np.testing.assert_allclose(grown, wide / 0.9 if far else wide, rtol=1e-5)
    assert state.c_mult == 1


def test_the_radii_of_gradientless_descent_span_a_thousand():
    strategy, numbers, state = begun("GradientlessDescent", 6, 2)
    z = jax.vmap(lambda key: strategy.ask(key, state, numbers)[0])(
        jax.random.split(jax.random.key(0), 2000)
    )
    radii = np.std(z, axis=(0, 2))
    np.testing.assert_allclose(radii, 1e-3 + (1 - 1e-3) * 1e-3 ** (np.arange(6) / 5), rtol=0.06)


def test_gesmr_has_groups_of_one_size():
    assert begun_groups(21) == 4
    assert begun_groups(101) == 10
    with pytest.raises(ValueError, match=r"population_size: GESMR_GA cannot have 20 .*divisors"):
        Evolution("gesmr_ga", population_size=20)
    assert Evolution("gesmr_ga").size(2) == 21


def begun_groups(size):
    return build("GESMR_GA", size, 2, None, (), None).algorithm.num_groups
