"""Comparisons: the numbers of a known log, intervals and p-values against SciPy, refusals."""

import dataclasses
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from children import PATIENCE
from logs import KNOWN, SEEDS, known, run
from scipy import stats

from refinejax import experiments as ex
from refinejax.experiments import RefusedError, Verdict, compare, intervals, tasks


def group(name="baseline", values=(1.0, 2.0, 4.0), **changes):
    return ex.Group(run(name, i, {"pro": v}, **changes) for i, v in enumerate(values))


def test_the_known_log_reproduces():
    baseline, e4, best = (ex.Group(known(name)) for name in KNOWN)
    found = compare(baseline, best, "pro", margin=1.0)
    assert found.pairs == SEEDS
    np.testing.assert_allclose(found.deltas, [1.9, 4.4, 2.7], atol=1e-12)
    np.testing.assert_allclose([found.mean, *found.interval], [3.0, -0.2, 6.2], atol=0.05)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.promote
    assert found.flips[:2] == (0.125, 0.25)
    assert found.bootstrap is None
    worse = compare(baseline, e4, "pro")
    np.testing.assert_allclose([worse.mean, *worse.interval], [-4.6, -9.4, 0.3], atol=0.05)
    assert worse.verdict is Verdict.INCONCLUSIVE
    assert not worse.promote
    assert compare(baseline, e4, "pro", margin=1.0).verdict is Verdict.REVERT
    lucky = compare(e4, best, "pro", margin=1.0)  # what the log's largest gain was
    assert lucky.mean > 7
    assert lucky.verdict is Verdict.KEEP


def test_the_text_says_what_three_seeds_cannot_show():
    baseline, _, best = (ex.Group(known(name)) for name in KNOWN)
    text = str(compare(baseline, best, "pro", margin=1.0, guards={"i_auroc": 0.5}))
    assert "[−0.2, +6.2]" in text
    assert "0.125 one-sided" in text
    assert "none can reach 0.05" in text
    assert "4 seeds would decide" in text
    assert "Guard i_auroc: held, mean +1.1" in text
    five = dict(enumerate(np.random.default_rng(0).normal(size=5).tolist()))
    assert "two-sided sign-flip p below 0.0625" in str(compare(dict.fromkeys(five, 0.0), five, "x"))


@pytest.mark.parametrize("n", [2, 3, 10, 40])
def test_interval_and_p_are_scipys(n):
    x, y = np.random.default_rng(n).normal(size=(2, n))
    found = compare(dict(enumerate(x)), dict(enumerate(y)), "x")
    truth = stats.ttest_rel(y, x)
    np.testing.assert_allclose(found.interval, truth.confidence_interval(0.95), rtol=1e-10)
    np.testing.assert_allclose(found.p, truth.pvalue, rtol=1e-10)
    mann = stats.mannwhitneyu(y, x).statistic / n**2
    np.testing.assert_allclose(found.better, mann, rtol=1e-12)
    flipped = compare(dict(enumerate(-x)), dict(enumerate(-y)), "x", direction="lower")
    assert flipped.deltas == found.deltas
    assert flipped.better == found.better


@pytest.mark.parametrize("d", [[1.9, 4.4, 2.7], [0.3, 0.1, -0.2], [1.0, -1.0, 2.0, 2.0, 0.0]])
def test_sign_flips_are_counted(d):
    sums = [np.dot(s, d) for s in itertools.product((1, -1), repeat=len(d))]
    seen = np.sum(d) - 1e-9
    found = ex.sign_flip(d)
    assert found.exact
    assert found.one_sided == np.mean(np.array(sums) >= seen)
    assert found.two_sided == np.mean(np.abs(sums) >= abs(seen) - 1e-9)


def test_sign_flips_beyond_sixteen_are_drawn():
    d = np.random.default_rng(3).normal(0.4, 1, 17)
    sums = np.zeros(1)
    for x in d:
        sums = np.concatenate([sums + x, sums - x])
    exact = np.mean(sums >= d.sum() - 1e-12)
    found = ex.sign_flip(d)
    assert not found.exact
    assert found.one_sided == pytest.approx(exact, abs=4 * np.sqrt(exact / intervals.DRAWS))
    assert found == ex.sign_flip(d)
    assert ex.sign_flip(np.ones(60)).one_sided == 1 / (intervals.DRAWS + 1)


def test_bca_is_scipys():
    d = np.random.default_rng(5).lognormal(size=30)
    truth = stats.bootstrap(
        (d,), np.mean, n_resamples=9_999, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    found = ex.bca_interval(d)
    assert found is not None
    np.testing.assert_allclose(found, truth, rtol=0.02)
    percentile = np.quantile(intervals.resampled_means(d, np.random.default_rng(0)), [0.025, 0.975])
    assert found[1] > percentile[1]  # skew is what it corrects
    assert ex.bca_interval(d[:9]) is None


def test_ties_count_half():
    assert ex.probability_better([1, 2], [2, 3]) == (0.5 + 1 + 1 + 1) / 4
    found = compare({1: 0.0, 2: 1.0, 3: 2.0}, {1: 0.0, 2: 2.0, 3: 5.0}, "x")
    assert (found.ups, found.ties) == (2, 1)


def test_pairs_may_be_many_instances():
    rng = np.random.default_rng(0)
    x = rng.normal(size=30_000)
    y = x + 0.02 + rng.normal(size=x.shape)
    old, new = ({f"image {i}": v for i, v in enumerate(a.tolist())} for a in (x, y))
    found = compare(old, new, "score")
    np.testing.assert_allclose(found.interval, stats.ttest_rel(y, x).confidence_interval(0.95))
    np.testing.assert_allclose(found.bootstrap, found.interval, atol=0.002)
    assert found.flips.two_sided == pytest.approx(found.p, abs=0.005)
    assert found.better == pytest.approx(stats.mannwhitneyu(y, x).statistic / len(x) ** 2)
    assert "fresh pairs" in str(found)
    with pytest.raises(RefusedError, match="image 10 and 29989 more"):
        compare(old, {"image 0": 1.0, "a": 0.0, "b": 1.0} | dict.fromkeys("cd", 0.0), "score")


def test_verdicts():
    def verdict(deltas, **options):
        pairs = range(len(deltas))
        return compare(dict.fromkeys(pairs, 0.0), dict(zip(pairs, deltas)), "x", **options).verdict

    assert verdict([2.0, 2.1, 1.9], margin=1.0) is Verdict.KEEP
    assert verdict([2.0, 2.1, 1.9], margin=2.05) is Verdict.INCONCLUSIVE  # too small, perhaps
    assert verdict([2.0, 2.1, 1.9], margin=3.0) is Verdict.REVERT
    assert verdict([-2.0, -2.1, -1.9]) is Verdict.REVERT
    assert verdict([2.0, -1.0, 1.0]) is Verdict.INCONCLUSIVE
    assert verdict([-2.0, -2.1, -1.9], direction="lower") is Verdict.KEEP


def test_guards():
    def judged(guard, **options):
        runs = zip([1.0, 1.1, 0.9], guard, strict=True)
        old = ex.Group(run("a", i, {"x": 0.0, "g": 0.0}) for i in range(3))
        new = ex.Group(run("b", i, {"x": x, "g": g}) for i, (x, g) in enumerate(runs))
        found = compare(old, new, "x", guards={"g": 0.5}, **options)
        return found.guards[0].state, found.verdict

    assert judged([-0.4, -0.5, -0.4]) == ("held", Verdict.KEEP)
    assert judged([-1.0, -1.1, -0.9]) == ("broken", Verdict.REVERT)
    assert judged([-3.0, 2.0, -1.0]) == ("in doubt", Verdict.INCONCLUSIVE)
    assert judged([1.0, 1.1, 0.9], lower=["g"]) == ("broken", Verdict.REVERT)


def test_equal_deltas_decide_nothing():
    found = compare({1: 0.1, 2: 0.2, 3: 0.3}, {1: 0.2, 2: 0.3, 3: 0.4}, "x")
    assert found.sd == 0.0  # but for rounding
    assert found.verdict is Verdict.INCONCLUSIVE
    assert not found.promote
    assert found.p == 1.0
    assert "all deltas are equal" in found.warnings[0]
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["interval"] == [None, None]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data": "d1"}, "same data"),
        ({"metric_version": "2"}, "same version"),
        ({"budget": {"steps": 200}}, "same budget"),
    ],
)
def test_unlike_arms_are_refused(change, says):
    with pytest.raises(RefusedError, match=says):
        compare(group(), group("new", (2.0, 3.0, 4.0), **change), "pro")


def test_seeds_must_match():
    old, new = group(values=(1.0, 2.0, 4.0)), group("new", (2.0, 3.5))
    with pytest.raises(RefusedError, match="the baseline alone has 2"):
        compare(old, new, "pro")
    found = compare(old, new, "pro", unmatched="drop")
    assert found.pairs == (0, 1)
    assert "the baseline alone has 2" in found.warnings[0]
    with pytest.raises(RefusedError, match="one seed against a mean"):
        compare(old, group("new", (3.0,)), "pro", unmatched="drop")
    with pytest.raises(ValueError, match="2 pairs or more, got 1"):
        compare(group(values=(1.0,)), group("new", (3.0,)), "pro")
    with pytest.raises(RefusedError, match="is the baseline"):
        compare(old, old, "pro")


def test_a_run_that_failed_is_not_passed_over():
    bad = run("new", 2, {"pro": 0.0}, status="diverged")
    new = ex.Group([*group("new", (2.0, 3.5)).runs, bad])
    with pytest.raises(RefusedError, match="seed 2 of new diverged"):
        compare(group(), new, "pro")
    warnings = compare(group(), new, "pro", unmatched="drop").warnings
    assert any("seed 2 of new diverged" in text for text in warnings)


def test_warnings_of_groups():
    old, new = group(initial="same"), group("new", (1.0, 2.0, 4.0), initial="")
    texts = compare(old, new, "pro", others=[old, new]).warnings
    assert sum("begin from the same initial params" in text for text in texts) == 1
    assert sum("bit by bit" in text for text in texts) == 1
    third = group("third", (2.0, 3.0, 6.0))
    texts = compare(old, third, "pro", others=[old, third, group("twin", (2.0, 3.0, 6.0))]).warnings
    assert any("(twin) bit by bit" in text for text in texts)


def test_looks_widen_the_interval():
    values = [{i: float(v) for i, v in enumerate(row)} for row in ([0] * 6, [3, 4, 5, 3, 4, 6])]
    once, planned = compare(*values, "x"), compare(*values, "x", looks=(3, 6, 10))
    assert planned.interval[0] < once.interval[0]
    assert planned.p > once.p
    with pytest.raises(RefusedError, match="run 1 more"):
        compare(*values, "x", looks=(3, 7))
    with pytest.raises(RefusedError, match="are over"):
        compare(*values, "x", looks=(3, 5))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"margin": -1.0}, "margin: expected a finite number of 0 or more"),
        ({"direction": "up"}, "direction: expected 'higher' or 'lower'"),
        ({"level": 95}, "level: expected a probability"),
        ({"looks": (6, 3)}, "looks: expected numbers of seeds"),
        ({"unmatched": "keep"}, "unmatched: expected"),
        ({"guards": {"g": 1.0}}, "guards: need groups"),
        ({"spending": "all", "looks": (2, 3)}, "spending: expected"),
    ],
)
def test_wrong_arguments(options, says):
    with pytest.raises(ValueError, match=says):
        compare({1: 0.0, 2: 1.0}, {1: 1.0, 2: 3.0}, "x", **options)


def test_interquartile_mean_is_scipys_where_quartiles_cut_nothing():
    x = np.random.default_rng(0).normal(size=(4, 5))
    assert ex.interquartile_mean(x) == pytest.approx(stats.trim_mean(x.ravel(), 0.25), rel=1e-12)
    assert ex.interquartile_mean([1.0, 2.0, 6.0]) == pytest.approx((0.25 * 1 + 2 + 0.25 * 6) / 1.5)
    assert ex.interquartile_mean(np.full(7, 3.0)) == pytest.approx(3.0)


def test_tasks():
    rng = np.random.default_rng(1)
    level = np.array([10.0, 50.0, 90.0, 70.0])[:, None]  # far apart, which the strata take out
    x = level + rng.normal(size=(4, 5))

    def arm(values):
        return {f"t{i}": dict(enumerate(row)) for i, row in enumerate(values.tolist())}

    found = ex.compare_tasks(arm(x), arm(x + 3))
    assert found.delta == pytest.approx(3)
    assert found.interval == pytest.approx((3, 3))  # both arms are drawn at once
    assert found.means == pytest.approx(dict.fromkeys(arm(x), 3))
    y = x + 0.5 + rng.normal(size=x.shape)
    found = ex.compare_tasks(arm(x), arm(y), direction="lower")
    assert found.delta == pytest.approx(ex.interquartile_mean(x) - ex.interquartile_mean(y))
    assert found.interval[0] < found.delta < found.interval[1]
    wins = [np.mean(b[:, None] < a) for a, b in zip(x, y, strict=True)]
    assert found.better == pytest.approx(np.mean(wins))
    with pytest.raises(ValueError, match="direction: expected"):
        ex.compare_tasks(arm(x), arm(y), direction="up")
    with pytest.raises(RefusedError, match="same tasks"):
        ex.compare_tasks(arm(x), arm(y[:3]))
    short = arm(y)
    del short["t2"][4]
    with pytest.raises(RefusedError, match="'t2' of the candidate"):
        ex.compare_tasks(arm(x), short)


def test_the_stratified_bootstrap_is_that_of_the_definition():
    x = np.array([[1.0, 2.0], [5.0, 9.0]])
    draws = [np.array(p).reshape(2, 2) for p in itertools.product((0, 1), repeat=4)]
    every = [ex.interquartile_mean(np.take_along_axis(x, p, axis=1)) for p in draws]
    truth = np.quantile(every, [0.025, 0.975], method="inverted_cdf")
    np.testing.assert_allclose(ex.stratified_interval(x), truth)


def test_performance_profile():
    x = np.random.default_rng(0).integers(0, 5, (3, 4)).astype(float)
    levels = [-1, 0, 1.5, 4, 5]
    np.testing.assert_array_equal(
        ex.performance_profile(x, levels), [np.mean(x > t) for t in levels]
    )


def test_profile_interval_is_that_of_the_definition():
    x = np.array([[1.0, 2.0], [5.0, 9.0]])
    draws = [np.array(p).reshape(2, 2) for p in itertools.product((0, 1), repeat=4)]
    every = np.stack([np.take_along_axis(x, p, axis=1).ravel() for p in draws])
    levels = [0.5, 1.5, 5.0, 9.0]
    shares = np.stack([np.mean(every > level, axis=1) for level in levels])
    for level in (0.95, 0.6):
        ends = [0.5 - level / 2, 0.5 + level / 2]
        truth = np.quantile(shares, ends, axis=1, method="inverted_cdf")
        np.testing.assert_allclose(ex.profile_interval(x, levels, level), truth)
    with pytest.raises(ValueError, match="2 seeds or more"):
        ex.profile_interval(x[:, :1], levels)


def test_metrics_of_tasks():
    metrics = {"cable/pro": 2.0, "pro": 3.0}
    two = ex.Group(run("a", s, {"bottle/pro": 1.0 + s, **metrics}) for s in (1, 2))
    assert two.tasks("pro") == {"bottle": {1: 2.0, 2: 3.0}, "cable": {1: 2.0, 2: 2.0}}
    with pytest.raises(ValueError, match="task/auroc"):
        two.tasks("auroc")


@pytest.mark.parametrize("n", [5, 9])
def test_rank_agreement_is_scipys(n):
    rng = np.random.default_rng(n)
    a, b = rng.integers(0, 6, (2, n)).astype(float)
    names = [f"c{i}" for i in range(n)]
    found = ex.rank_agreement(dict(zip(names, a)), dict(zip(names, b)))
    assert found.tau == pytest.approx(stats.kendalltau(a, b).statistic)
    order = np.arange(float(n))
    other = rng.permutation(order)
    untied = ex.rank_agreement(dict(zip(names, order)), dict(zip(names, other)))
    truth = stats.kendalltau(order, other, alternative="greater", method="exact")
    assert untied.p == pytest.approx(truth.pvalue, abs=0 if n < 9 else 0.015, rel=1e-9)


def test_what_the_short_phase_costs():
    short = {"a": 1.0, "b": 3.0, "c": 2.0}
    found = ex.rank_agreement(short, {"a": 5.0, "b": 6.0, "c": 8.0, "d": 9.0})
    assert found.candidates == ("a", "b", "c")
    assert not found.same_best
    assert found.regret == 2.0
    lower = ex.rank_agreement(short, {"a": 5.0, "b": 6.0, "c": 8.0}, "lower")
    assert lower.same_best
    assert np.isnan(ex.rank_agreement(short, dict.fromkeys(short, 1.0)).tau)
    with pytest.raises(ValueError, match="3 or more"):
        ex.rank_agreement(short, {"a": 1.0})


def test_hashes():
    assert ex.hash_config({"a": 1, "b": [2]}) == ex.hash_config({"b": (2,), "a": 1})
    assert ex.hash_config({"a": 1}) != ex.hash_config({"a": 2})
    x = np.arange(6.0)
    assert ex.hash_arrays({"w": x}) == ex.hash_arrays({"w": x.copy()})
    different = [{"w": x}, {"w": x + 1e-16 * (x == 0)}, {"v": x}, {"w": x.reshape(2, 3)}, x, [x]]
    assert len({ex.hash_arrays(item) for item in [*different, x.astype(np.float32)]}) == 7
    with pytest.raises(ValueError, match="config: expected what JSON can hold"):
        ex.hash_config({"a": float("nan")})
    with pytest.raises(ValueError, match=r"arrays\['w'\]: expected an array of numbers"):
        ex.hash_arrays({"w": object()})


def test_hashes_of_files_and_code(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    both = ex.hash_files(tmp_path / "a", tmp_path / "b")
    assert both != ex.hash_files(tmp_path / "b", tmp_path / "a")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    with pytest.raises(ValueError, match="no git revision"):
        ex.code_revision(tmp_path)
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    clean = ex.code_revision(tmp_path)
    assert len(clean) == 12
    (tmp_path / "a").write_bytes(b"3")
    assert ex.code_revision(tmp_path).startswith(clean + "+")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": 1.5}, "seed: expected an integer"),
        ({"metrics": {"pro": float("nan")}}, r"metrics\['pro'\]: expected a finite number"),
        ({"metrics": {"pro": np.float32(1)}}, r"metrics\['pro'\]"),
        ({"status": "fine"}, "status: expected one of done"),
        ({"data": ""}, "data: expected a text"),
        ({"config": {"seed": 1}}, "config: holds 'seed'"),
        ({"config": {"f": len}}, "config: expected what JSON can hold"),
        ({"seconds": -1.0}, "seconds: expected a finite number of 0 or more"),
    ],
)
def test_wrong_runs(changes, says):
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(run(), **changes)


def test_a_group_is_one_config():
    with pytest.raises(ValueError, match="they differ in config"):
        ex.Group([*known("baseline"), *known("E4")])
    with pytest.raises(ValueError, match=r"seeds \[42\] are there more than once"):
        ex.Group(known("E4") + known("E4")[:1])
    with pytest.raises(ValueError, match="needs at least one"):
        ex.Group([])
    with pytest.raises(ValueError, match="has no 'auroc'; it has i_auroc, p_auroc, pro"):
        ex.Group(known("E4")).values("auroc")


def test_no_jax_is_imported():
    code = "import sys, refinejax.experiments.detection; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)


def test_all_seeds_in_one_program():
    import jax

    traced = []

    def train(key):
        traced.append(1)
        start, data = jax.random.uniform(key, (2, 3))

        def step(_, w):
            return w - 0.1 * data * (data @ w - 1)

        return {"initial": start, "trained": jax.lax.fori_loop(0, 20, step, start)}

    seeds = (42, 123, 7, 8)
    found, few = ex.train_seeds(train, seeds), ex.train_seeds(train, seeds, at_once=2)
    count = len(traced)
    ex.train_seeds(train, (1, 2, 3, 4))
    assert len(traced) == count
    alone = jax.jit(train)
    for seed in seeds:
        truth = alone(jax.random.key(seed))
        for one in (found[seed], few[seed]):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, truth)
    assert len({ex.hash_arrays(found[seed]["initial"]) for seed in seeds}) == 4
    with pytest.raises(ValueError, match="each once"):
        ex.train_seeds(train, (1, 1))
    with pytest.raises(ValueError, match="at_once: expected 1"):
        ex.train_seeds(train, (1,), at_once=0)


def test_bootstrap_of_tasks_is_reproducible():
    x = np.random.default_rng(0).normal(size=(3, 4))
    assert ex.stratified_interval(x) == ex.stratified_interval(x)
    with pytest.raises(ValueError, match=r"\(tasks, seeds\)"):
        tasks.stratified_interval(x[0])
