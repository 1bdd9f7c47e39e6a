"""How often a comparison errs: false claims, coverage, power, against simulation and theory."""

import numpy as np
import pytest
from scipy import special, stats

from refinejax import experiments as ex
from refinejax.experiments import looks, sample_size

COUNT = 200_000
SD = 1.65  # of deltas between seeds, pooled over the known log


def simulated(n, effect=0.0, sd=SD, draw=None, level=0.95, count=COUNT):
    """Means and interval ends of many comparisons, in one array operation each."""
    rng = np.random.default_rng(n)
    d = effect + sd * (rng.normal(size=(count, n)) if draw is None else draw(rng, (count, n)))
    half = stats.t.ppf(0.5 + level / 2, n - 1) * d.std(axis=1, ddof=1) / np.sqrt(n)
    mean = d.mean(axis=1)
    return mean, mean - half, mean + half


def within(rate, truth):
    """Within four standard errors of a simulation."""
    return abs(rate - truth) < 4 * np.sqrt(truth * (1 - truth) / COUNT)


def test_the_simulation_is_what_compare_does():
    mean, low, high = simulated(3, effect=1.0, count=50)
    rows = 1.0 + SD * np.random.default_rng(3).normal(size=(50, 3))
    for i, row in enumerate(rows.tolist()):
        found = ex.compare(dict.fromkeys(range(3), 0.0), dict(enumerate(row)), "x", margin=0.5)
        np.testing.assert_allclose([found.mean, *found.interval], [mean[i], low[i], high[i]])
        kept, undone = low[i] > 0 and mean[i] >= 0.5, high[i] < 0.5
        expected = "KEEP" if kept else "REVERT" if undone else "INCONCLUSIVE"
        assert str(found.verdict) == expected


@pytest.mark.parametrize("n", [3, 5, 10])
def test_false_keep_without_effect(n):
    _, low, _ = simulated(n)
    assert within(np.mean(low > 0), 0.025)


def test_the_rule_of_one_point_keeps_luck():
    mean, low, _ = simulated(3)
    assert np.mean(mean > 1) == pytest.approx(0.15, abs=0.005)
    assert np.mean((mean > 1) & (low > 0)) < 0.025


@pytest.mark.parametrize("n", [3, 5, 10])
def test_coverage(n):
    _, low, high = simulated(n, effect=0.7)
    assert within(np.mean((low < 0.7) & (high > 0.7)), 0.95)


def test_coverage_where_deltas_are_not_normal():
    def uniform(rng, shape):
        return rng.uniform(-(3**0.5), 3**0.5, shape)

    _, low, high = simulated(10, draw=uniform)
    assert 0.93 < np.mean((low < 0) & (high > 0)) < 0.97


def test_a_percentile_bootstrap_of_three_covers_too_little():
    """Why there is none below ten: over all 27 resamples of 3."""
    picks = np.stack(np.meshgrid(*[range(3)] * 3), -1).reshape(27, 3)
    d = np.random.default_rng(0).normal(size=(20_000, 3))
    low, high = np.quantile(d[:, picks].mean(axis=2), [0.025, 0.975], axis=1, method="inverted_cdf")
    assert np.mean((low < 0) & (high > 0)) == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize(("n", "effect", "margin"), [(3, 3.0, 1.0), (5, 2.0, 0.0), (10, 1.5, 1.2)])
def test_power_is_that_of_theory(n, effect, margin):
    mean, low, _ = simulated(n, effect)
    rate = np.mean((low > 0) & (mean >= margin))
    assert within(rate, ex.power(effect, SD, n, margin=margin))


@pytest.mark.parametrize("n", [2, 3, 10, 1000])
def test_power_without_margin_is_of_the_noncentral_t(n):
    for effect in (0.0, 0.3, 1.0):
        truth = special.nctdtr(n - 1, effect * n**0.5, special.stdtrit(n - 1, 0.975))
        assert ex.power(effect, 1.0, n) == pytest.approx(1 - truth, abs=1e-10)


def test_detectable_effect_and_seeds():
    assert ex.power(ex.detectable_effect(2.0, 5), 2.0, 5) == pytest.approx(0.8, abs=1e-9)
    assert ex.detectable_effect(0.0, 5) == 0.0
    for mean, margin in ((1.0, 0.0), (0.6, 0.5), (0.2, 0.5), (-0.3, 0.0)):
        n = ex.seeds_to_decide(mean, 1.0, margin=margin)
        sides = [
            ex.power(mean, 1.0, k, margin=margin)
            if mean >= margin
            else ex.power(margin - mean, 1.0, k)
            for k in (n - 1, n)
        ]
        assert sides[0] < 0.8 <= sides[1]
    assert ex.seeds_to_decide(0.5, 1.0, margin=0.5) is None  # at the margin, none will
    assert ex.seeds_to_decide(0.0, 1.0) is None
    assert ex.seeds_to_decide(1.0, 0.0) is None
    assert ex.seeds_to_decide(1e-4, 1.0) is None
    with pytest.raises(ValueError, match="n ≥ 2"):
        sample_size.power(1.0, 1.0, 1)


def test_bounds_are_those_of_the_literature():
    """Lan and DeMets (1983), five looks, two-sided 5 %, as tabled in Jennison and Turnbull."""
    tables = {
        "pocock": [2.438, 2.427, 2.410, 2.397, 2.386],
        "obrien_fleming": [4.877, 3.357, 2.680, 2.290, 2.031],
    }
    for spending, bounds in tables.items():
        levels = ex.look_levels((20, 40, 60, 80, 100), 0.95, spending)
        z = [-special.ndtri((1 - level) / 2) for level in levels.values()]
        np.testing.assert_allclose(z, bounds, atol=1e-3)
    assert ex.look_levels((7,)) == pytest.approx({7: 0.95})


@pytest.mark.parametrize("spending", ["pocock", "obrien_fleming"])
def test_looking_often_spends_no_more(spending):
    d = np.random.default_rng(0).normal(size=(COUNT, 10))
    kept, naive, two_sided = (np.zeros(COUNT, bool) for _ in range(3))
    for n, level in ex.look_levels((3, 6, 10), 0.95, spending).items():
        t = d[:, :n].mean(axis=1) * np.sqrt(n) / d[:, :n].std(axis=1, ddof=1)
        bound = stats.t.ppf(0.5 + level / 2, n - 1)
        kept |= t > bound
        two_sided |= np.abs(t) > bound
        naive |= t > stats.t.ppf(0.975, n - 1)
    assert kept.mean() < 0.03
    assert two_sided.mean() < 0.057  # 5 % in large samples
    assert naive.mean() > 0.045  # what looking until it fits would keep


def test_repeated_p():
    assert looks.repeated_p(0.03, 5, ()) == 0.03
    for n, level in ex.look_levels((3, 6, 10)).items():
        assert looks.repeated_p(1 - level, n, (3, 6, 10)) == pytest.approx(0.05, abs=1e-6)
    with pytest.raises(ValueError, match=r"n: expected one of the looks \[3, 6\], got 4"):
        looks.repeated_p(0.03, 4, (3, 6))


def test_holm():
    found = ex.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.9})
    assert found == pytest.approx({"a": 0.04, "c": 0.09, "b": 0.09, "d": 0.9})
    assert list(found) == ["a", "b", "c", "d"]
    assert ex.holm({}) == {}
    rng = np.random.default_rng(0)
    trials = [min(ex.holm(dict(enumerate(p))).values()) for p in rng.uniform(size=(4000, 8))]
    assert np.mean(np.array(trials) <= 0.05) == pytest.approx(0.05, abs=0.012)


@pytest.mark.slow
def test_coverage_of_the_bootstraps():
    rng = np.random.default_rng(0)
    hits = []
    for i in range(1500):
        low, high = ex.bca_interval(rng.normal(size=10), seed=i)
        hits.append(low < 0 < high)
    assert 0.87 < np.mean(hits) < 0.95  # of 10 it is still a little narrow
    hits = []
    for i in range(400):
        low, high = ex.stratified_interval(rng.normal(size=(10, 10)), seed=i)
        hits.append(low < 0 < high)
    assert 0.88 < np.mean(hits) < 0.98
