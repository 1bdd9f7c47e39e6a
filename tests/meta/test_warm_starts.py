"""Warm starts: shares of neighbors, held-out choice, ragged shapes, and never worse than cold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsRegressor

from refinejax import Status
from refinejax._deadline import Deadline
from refinejax.meta import WarmStarts, fit_warm_starts
from refinejax.meta.warm_starts import choose

RNG = np.random.default_rng(0)


def family(count, related, rng):
    """Tasks ‖x − c‖² whose solutions c follow features (or do not), and cold starts at zero."""
    features = rng.normal(size=(count, 2))
    turn = np.array([[1.0, 2.0, -1.0], [0.5, -1.0, 0.3]])
    centers = features @ turn if related else rng.normal(size=(count, 3))
    return features, centers + 0.05 * rng.normal(size=centers.shape)


def fitted(features, centers, **options):
    def judge(start, i):
        return jnp.sum((start - centers[i]) ** 2)

    return fit_warm_starts(features, list(centers), list(np.zeros_like(centers)), judge, **options)


def test_starts_are_the_distance_weighted_mean_of_neighbors():
    features, centers = family(40, True, RNG)
    warm = fitted(features, centers, weights=(1.0,), neighbors=4)
    theirs = KNeighborsRegressor(4, weights="distance").fit(features / features.std(0), centers)
    asked = RNG.normal(size=(6, 2))
    expected = theirs.predict(asked / features.std(0))
    found = jax.vmap(lambda f: warm(f, jnp.zeros(3)))(jnp.asarray(asked))
    assert warm.weight == 1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(warm(features[7], jnp.zeros(3)), centers[7], rtol=1e-4)


def test_held_out_tasks_do_not_see_their_own_solutions():
    """With the own solution any weight 1 would leave no loss at all."""
    features, centers = family(30, True, RNG)
    theirs = KNeighborsRegressor(5, weights="distance")
    losses = []
    for i in range(30):
        others = np.arange(30) != i
        theirs.fit(features[others] / features.std(0), centers[others])
        start = theirs.predict(features[i : i + 1] / features.std(0))[0]
        losses.append(np.sum(centers[i] ** 2) - np.sum((start - centers[i]) ** 2))
    warm = fitted(features, centers, weights=(1.0,))
    np.testing.assert_allclose(warm.gain, np.mean(losses), rtol=1e-4)
    np.testing.assert_allclose(warm.gain_error, np.std(losses, ddof=1) / np.sqrt(30), rtol=1e-4)


def test_related_tasks_gain_and_unrelated_ones_stay_cold():
    on_average = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        features, centers = family(90, seed % 2 == 0, rng)
        warm = fitted(features[:40], centers[:40])
        starts = np.array([warm(f, jnp.zeros(3)) for f in features[40:]])
        cold = np.sum(centers[40:] ** 2, axis=1)
        gains = cold - np.sum((starts - centers[40:]) ** 2, axis=1)
        on_average.append(gains.mean() / cold.mean())
        assert (warm.weight > 0) == (seed % 2 == 0)
    assert np.min(on_average[::2]) > 0.8
    assert np.min(on_average[1::2]) >= 0


def test_transfer_that_pays_in_part_gets_a_weight_between():
    rng = np.random.default_rng(3)
    features = rng.normal(size=(60, 2))
    centers = features @ np.ones((2, 3)) + 1.2 * rng.normal(size=(60, 3))
    assert 0 < fitted(features, centers, neighbors=2).weight < 1


def test_a_weight_that_loses_a_task_is_not_taken_and_a_lost_task_says_nothing():
    weights = np.array([0.0, 0.5, 1.0])
    losses = np.array([[1.0, 0.5, 0.1]] * 5 + [[1.0, 0.4, 0.1], [1.0, 0.5, np.nan]])
    weight, gain, error = choose(weights, losses)
    assert weight == 0.5
    gains = [0.5] * 5 + [0.6, 0.5]
    np.testing.assert_allclose([gain, error], [np.mean(gains), np.std(gains, ddof=1) / 7**0.5])
    lost = np.vstack([losses, [[np.nan, 9.0, 9.0]]])
    assert choose(weights, lost) == (weight, gain, error)
    noisy = np.array([[1.0, 0.1, 3.0], [1.0, 1.7, 3.0], [1.0, 0.2, 3.0], [1.0, 1.6, 3.0]] * 2)
    assert choose(weights, noisy)[:2] == (0.0, 0.0)
    assert choose(weights, losses[:5])[0] == 0.0  # five signs can be alike by chance


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("count", [3, 6, 10, 40])
def test_transfer_that_does_not_pay_is_made_as_seldom_as_the_level_says(count, alike):
    rng, weights, trials = np.random.default_rng(count), np.linspace(0, 1, 5), 600
    made = 0
    for _ in range(trials):
        if alike:
            gains = rng.normal(size=(count, 1)) * weights
        else:
            gains = rng.standard_t(3, size=(count, 5)) * (weights > 0)
        made += choose(weights, 10 - gains, 0.05)[0] > 0
    assert made / trials <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)


def test_other_sizes_lend_what_they_share():
    """Task i has i + 2 numbers in one leaf, which continue a line; another leaf is a matrix."""
    features = np.arange(8.0)[:, None]
    solutions = [
        {"line": np.arange(i + 2) * 1.0, "table": np.full((2, i % 3 + 1), 5.0)} for i in range(8)
    ]
    cold = [{k: np.zeros_like(v) - 1 for k, v in s.items()} for s in solutions]

    def judge(start, i):
        return float(np.sum((start["line"] - solutions[i]["line"]) ** 2))

    warm = fit_warm_starts(features, solutions, cold, judge, neighbors=2)
    assert isinstance(warm, WarmStarts)
    assert warm.weight == 1
    start = warm(np.array([2.5]), {"line": -jnp.ones(8), "table": -jnp.ones((2, 4))})
    np.testing.assert_allclose(start["line"], [0, 1, 2, 3, 4, -1, -1, -1])
    np.testing.assert_allclose(start["table"][:, :3], 5.0)
    np.testing.assert_allclose(start["table"][:, 3], -1.0)


def test_bad_input_is_named():
    features, centers = family(5, True, RNG)
    with pytest.raises(ValueError, match=r"neighbors: expected 1 to n − 1 .* got 5 of 5"):
        fitted(features, centers, neighbors=5)
    with pytest.raises(ValueError, match="features: expected finite"):
        fitted(features * np.nan, centers, neighbors=2)
    with pytest.raises(ValueError, match=r"features: expected shape \(n, d\)"):
        fitted(features[:4], centers, neighbors=2)
    warm = fitted(features, centers, neighbors=2)
    with pytest.raises(ValueError, match=r"features: expected shape \(2,\)"):
        warm(np.zeros(3), jnp.zeros(3))
    with pytest.raises(ValueError, match="cold: expected params like the solutions"):
        warm(np.zeros(2), {"x": jnp.zeros(3)})
    mixed = [np.zeros(3), np.zeros((3, 1)), *centers[2:]]
    with pytest.raises(ValueError, match=r"solutions\[1\]: expected a leaf with 1 axes"):
        fit_warm_starts(features, mixed, list(centers), lambda x, i: 0.0, neighbors=2)


def test_a_time_limit_chooses_by_the_tasks_that_were_held_out(monkeypatch):
    features, centers = family(40, True, RNG)
    status, asked = Deadline.status, []

    def after_twenty(self):
        asked.append(1)
        return status(self) if len(asked) <= 20 else Status.TIME_LIMIT

    monkeypatch.setattr(Deadline, "status", after_twenty)
    warm = fitted(features, centers, weights=(1.0,))
    assert warm.weight == 1
    assert len(warm.features) == 40
    losses = []
    for i in range(20):
        moved = _alone(features, centers, i)
        losses.append(np.sum(centers[i] ** 2) - np.sum((moved - centers[i]) ** 2))
    np.testing.assert_allclose(warm.gain, np.mean(losses), rtol=1e-4)


def _alone(features, centers, i):
    others = np.arange(len(features)) != i
    theirs = KNeighborsRegressor(5, weights="distance").fit(
        features[others] / features.std(0), centers[others]
    )
    return theirs.predict(features[i : i + 1] / features.std(0))[0]


def test_where_the_time_is_up_at_once_starts_stay_cold_and_progress_is_drawn(capfd):
    features, centers = family(8, True, RNG)
    warm = fitted(features, centers, time_limit=0.0, progress=True)
    assert warm.weight == 0
    assert "holding out" in capfd.readouterr().err
    with pytest.raises(ValueError, match="time_limit: expected seconds"):
        fitted(features, centers, time_limit="1h")
