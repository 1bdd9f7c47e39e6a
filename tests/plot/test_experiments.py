"""Figures of experiments."""

import io

import numpy as np
import pytest
from logs import arm, plan
from matplotlib.image import imread

from refinejax import experiments as ex
from refinejax import plot


def comparison(shift=3.0, direction="higher"):
    old = {1: 80.0, 2: 81.0, 3: 82.5}
    new = {seed: x + shift + 0.1 * seed for seed, x in old.items()}
    return ex.compare(old, new, "price in $", margin=1.0, direction=direction)


def picture(figure):
    return imread(io.BytesIO(plot.png(figure, 40)))


def test_deltas_shows_each_pair_and_the_interval():
    same = ex.compare({1: 0.0, 2: 1.0}, {1: 1.0, 2: 2.0}, "x")
    found = {"good": comparison(), "bad": comparison(-3.0), "flat": same}
    figure = plot.deltas(found)
    lines = [line.get_xydata() for line in figure.axes[0].lines]
    for row, one in enumerate(found.values()):
        drawn = np.concatenate([line for line in lines if np.all(np.abs(line[:, 1] - row) < 0.3)])
        assert set(one.deltas) | {one.mean} <= set(drawn[:, 0])
        assert set(one.interval) <= set(drawn[:, 0]) or one is same
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["good: KEEP", "bad: REVERT", "flat: INCONCLUSIVE"]
    assert picture(figure).std() > 0.01
    with pytest.raises(ValueError, match="one or more"):
        plot.deltas({})


def test_seed_scatter_links_the_pairs():
    up, down = (plot.seed_scatter(comparison(direction=d)) for d in ("higher", "lower"))
    lines = [line.get_ydata() for line in up.axes[0].lines[:3]]
    np.testing.assert_allclose(lines, [[80, 83.1], [81, 84.2], [82.5, 85.8]])
    assert [text.get_text() for text in up.axes[0].texts] == ["1", "2", "3"]
    assert up.axes[0].lines[0].get_color() != down.axes[0].lines[0].get_color()
    assert picture(up).std() > 0.01


def test_profiles_are_the_shares_of_runs_above_a_score():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4))

    def scores(values):
        return {f"t{i}": dict(enumerate(row)) for i, row in enumerate(values.tolist())}

    arms = {"old $": scores(x), "new": scores(x + 1)}
    for direction, better in (("higher", np.greater), ("lower", np.less)):
        figure = plot.profiles(arms, direction)
        for line, values in zip(figure.axes[0].lines, (x, x + 1), strict=True):
            scores_at, shares = line.get_xydata().T
            assert shares[0] == 1
            assert shares[-1] == 0
            truth = [np.mean(better(values, score)) for score in scores_at]
            np.testing.assert_allclose(shares, truth)
        assert len(figure.axes[0].collections) == 2  # the bands
        assert picture(figure).std() > 0.01
    with pytest.raises(ValueError, match="one or more"):
        plot.profiles({})
    with pytest.raises(ValueError, match="direction: expected 'higher' or 'lower', got 'up'"):
        plot.profiles(arms, "up")


def test_progress_follows_what_is_kept(tmp_path):
    log = ex.Log(tmp_path / "log.jsonl")
    with pytest.raises(ValueError, match="no experiment was judged"):
        plot.progress(log.read())
    base = {1: 80.0, 2: 81.0, 3: 82.5}
    log.add(*arm("baseline", base))
    for name, shift in (("worse", -3), ("new", 3), ("other", 0)):
        log.add(*arm(name, {seed: x + shift + 0.1 * seed for seed, x in base.items()}))
        log.add(plan(log, name, candidate=name))
        ex.decide(log, name)
    figure = plot.progress(log.read())
    steps = figure.axes[0].lines[-1].get_ydata()
    start, kept = np.mean(list(base.values())), np.mean(list(base.values())) + 3.2
    np.testing.assert_allclose(steps, [start, start, kept, kept])
    assert picture(figure).std() > 0.01
