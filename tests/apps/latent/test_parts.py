"""The parts of target search: targets, closeness, transforms, choice, models of tables."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from sklearn.neighbors import NearestNeighbors

from refinejax import Execution, Status, cli
from refinejax.apps.latent import (
    AtLeast,
    AtMost,
    Between,
    Curve,
    InClasses,
    LogDensity,
    Mahalanobis,
    Match,
    Maximize,
    Minimize,
    Neighbors,
    NotInClasses,
    Search,
    TrustRegion,
    fit,
    optimize_latent,
    pareto_front,
)
from refinejax.apps.latent.choice import spread_out
from refinejax.apps.latent.fitting import task_loss
from refinejax.apps.latent.labels import read_labels
from refinejax.apps.latent.multitask import Task, build_multitask
from refinejax.apps.latent.result import ranking
from refinejax.apps.latent.shortcuts import as_targets, read_targets
from refinejax.apps.latent.tables import numbers_of, read_table
from refinejax.models import load_model, save_model
from refinejax.problems.transforms import Columns, Interval, Ordered, Positive, PowerOfTwo, Simplex
from refinejax.training import TrainingConfig

rng = np.random.default_rng(1)
ZERO = jnp.zeros(3)
Y = jnp.array([1.0, 2.0, 4.0])


@pytest.mark.parametrize(
    ("target", "loss", "wary"),
    [
        (Maximize("t", scale=2.0), -7 / 6, -4 / 6),
        (Minimize("t", scale=2.0), 7 / 6, 10 / 6),
        (Match("t", 2.0, scale=2.0), 5 / 12, 8 / 12),
        (Between("t", 1.5, 3.0, scale=1.0), (0.25 + 1) / 3, (1.5**2 + 0.5**2 + 2**2) / 3),
        (AtLeast("t", 1.5, scale=1.0), 0.25 / 3, (1.5**2 + 0.5**2) / 3),
        (AtMost("t", 3.0, scale=1.0), 1 / 3, 4 / 3),
        (Curve("t", jnp.array([1.0, jnp.nan, 2.0]), scale=1.0), 2.0, 3.0),
    ],
)
def test_losses_of_numbers_and_of_the_worse_end(target, loss, wary):
    np.testing.assert_allclose(target.loss(Y, ZERO), loss, rtol=1e-6)
    np.testing.assert_allclose(target.loss(Y, ZERO + 1), wary, rtol=1e-6)
    assert np.all(np.isfinite(jax.grad(target.loss)(Y, ZERO)))


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_class_losses_are_clean_where_a_softmax_is_not(scale):
    logits = scale * np.array([0.3, -1.0, 0.9, 0.1])
    mask = jnp.array([True, False, False, True])
    target = InClasses("t", (0, 3), mask=mask)
    ours = target.loss(target.quantity(jnp.asarray(logits, jnp.float32)), jnp.zeros(1))
    peak = logits.max()
    exact = np.logaddexp.reduce(logits - peak) - np.logaddexp.reduce((logits - peak)[[0, 3]])
    np.testing.assert_allclose(ours, exact, rtol=1e-5)
    surely = InClasses("t", 2, mask=jnp.array([False, False, True, False]))
    tiny = float(surely.loss(surely.quantity(jnp.array([0.0, 0.0, 30.0, 0.0])), jnp.zeros(1)))
    np.testing.assert_allclose(tiny, 3 * np.exp(-30.0), rtol=1e-4)  # 1 − p is below eps
    slope = jax.grad(lambda z: jnp.sum(target.quantity(z)))(jnp.asarray(logits, jnp.float32))
    assert np.all(np.isfinite(slope))
    assert not isinstance(target, NotInClasses)


def test_short_ways_to_say_it():
    said = {"a": "max", "b": 5.0, "c": (1.0, 2.0), "d": [1.0, 2.0, 3.0], "k": "red", "m": [0, 2]}
    found = as_targets(said, {"k": 3, "m": 3})
    kinds = [type(one) for one in found]
    assert kinds == [Maximize, Match, Between, Curve, InClasses, InClasses]
    assert found[4].classes == ("red",)
    assert found[5].classes == (0, 2)
    assert as_targets("min", {}, sizes={"a": 1}) == (Minimize("a"),)
    assert as_targets(2.0, {}, sizes={"a": 1}) == (Match("a", 2.0),)
    assert as_targets(Match("a", 2.0), {}) == (Match("a", 2.0),)
    with pytest.raises(ValueError, match="targets: 'min' is about one of a, b; say"):
        as_targets("min", {}, sizes={"a": 1, "b": 1})
    with pytest.raises(ValueError, match="'k' is a head of classes"):
        as_targets({"k": "max"}, {"k": 3})


def test_targets_from_a_table():
    tables = {
        "a": {"match": 5.0, "weight": 2.0},
        "b": [{"at_least": 1.0}, {"at_most": 3.0, "scale": 0.5}],
        "c": {"between": [0, 1]},
        "k": {"not_classes": ["red"], "probability": 0.9},
        "m": {"mode": "max"},
    }
    found = read_targets(tables)
    assert found[0] == Match("a", 5.0, weight=2.0)
    assert found[1:3] == (AtLeast("b", 1.0), AtMost("b", 3.0, scale=0.5))
    assert found[3] == Between("c", 0, 1)
    assert found[4].probability == 0.9
    assert found[5] == Maximize("m")
    for wrong, words in [
        ({"a": 5.0}, "targets.a: expected a table"),
        ({"a": {"weight": 5.0}}, "targets.a: expected one of match"),
        ({"a": {"match": 5.0, "wieght": 1.0}}, "targets.a: wieght"),
        ({"a": {"between": 5.0}}, "targets.a: between expects"),
    ]:
        with pytest.raises(ValueError, match=words):
            read_targets(wrong)


def test_distances_are_those_of_scipy_and_scikit_learn():
    data = rng.standard_normal((80, 3)) @ rng.standard_normal((3, 3)) + 1.0
    points = rng.standard_normal((5, 3))
    near = Mahalanobis.fit(data, shrinkage=0.0)
    inverse = np.linalg.inv(np.cov(data.T))
    for point in points:
        theirs = mahalanobis(point, data.mean(0), inverse) / np.sqrt(3)
        np.testing.assert_allclose(near.distance(jnp.asarray(point), ZERO), theirs, rtol=1e-3)
    inside = [near.distance(jnp.asarray(row), ZERO) <= near.limit for row in data]
    assert 0.92 <= np.mean(inside) <= 0.98
    neighbors = Neighbors.fit(data, k=4)
    theirs = NearestNeighbors(n_neighbors=4).fit(data / data.std(0))
    far = theirs.kneighbors(points / data.std(0))[0].mean(1) / np.sqrt(3)
    ours = [neighbors.distance(jnp.asarray(point), ZERO) for point in points]
    np.testing.assert_allclose(ours, far, rtol=1e-4)
    own = theirs.kneighbors()[0].mean(1) / np.sqrt(3)
    np.testing.assert_allclose(neighbors.limit, np.quantile(own, 0.95), rtol=1e-4)


def test_penalties_begin_at_the_limit_and_have_slopes_at_the_start():
    trust = TrustRegion(1.0, scale=2.0, weight=3.0)
    start = jnp.ones(3)
    np.testing.assert_allclose(trust.distance(start + 4.0, start), 2.0, rtol=1e-6)
    np.testing.assert_allclose(trust.penalty(jnp.asarray(2.0)), 3.0, rtol=1e-6)
    assert trust.penalty(jnp.asarray(0.9)) == 0
    slope = jax.grad(lambda x: trust.penalty(trust.distance(x, start)))(start)
    assert np.all(slope == 0)
    density = LogDensity(lambda x: -jnp.sum(x**2), limit=1.0)
    np.testing.assert_allclose(density.distance(Y, ZERO), 21.0)
    with pytest.raises(ValueError, match="row 1, column 2 is nan"):
        Mahalanobis.fit([[1, 2, 3], [1, 2, np.nan]])


def brute_force(losses):
    def beaten(i):
        return any(
            all(a <= b for a, b in zip(other, losses[i], strict=True))
            and tuple(other) != tuple(losses[i])
            for other in losses
        )

    return np.array([not beaten(i) for i in range(len(losses))])


def test_the_front_is_that_of_brute_force():
    for _ in range(20):
        losses = rng.integers(0, 5, (12, 3)).astype(float)
        np.testing.assert_array_equal(pareto_front(losses), brute_force(losses))
    losses[0] = np.nan
    assert not pareto_front(losses)[0]


def test_what_is_chosen_is_spread_out():
    points = np.array([[0, 0], [0.1, 0], [5, 0], [0, 3], [5, 0.1]], float)
    losses = np.array([0.1, 0.0, 0.3, 0.2, 0.2])
    np.testing.assert_array_equal(spread_out(points, losses, 3), [1, 4, 3])
    order = np.argsort(ranking(np.array([3.0, 1.0, np.nan, -2.0]), np.array([0, 0, 0, 0.5])))
    np.testing.assert_array_equal(order, [1, 0, 3, 2])


def test_transforms_keep_their_word_and_go_back():
    u = jnp.asarray(rng.normal(0, 3, (20, 5)), jnp.float32)
    for transform, allowed in [
        (Interval(-1.0, 2.0), lambda x: np.all((x >= -1) & (x <= 2))),
        (Positive(0.5), lambda x: np.all(x > 0)),
        (Ordered(), lambda x: np.all(np.diff(x) >= 0)),
        (Simplex.create(5), lambda x: np.all(x >= 0) and np.allclose(x.sum(-1), 1)),
        (PowerOfTwo.near([1, 3, 100, 0.1, np.inf]), lambda x: True),
    ]:
        x = jax.vmap(transform.forward)(u)
        assert allowed(np.asarray(x))
        inner = jax.vmap(transform.forward)(u / 3)
        again = jax.vmap(lambda x, t=transform: t.forward(t.inverse(x)))(inner)
        np.testing.assert_allclose(again, inner, rtol=2e-4, atol=2e-4)
        assert np.all(np.isfinite(jax.vmap(jax.jacrev(transform.forward))(100 * u)))


def test_a_simplex_with_locked_allowed_and_few_elements():
    made = Simplex.create(6, allowed=[0, 1, 2, 3], locked={0: 0.3, 5: 0.1}, most=4)
    x = jax.vmap(made.forward)(jnp.asarray(rng.normal(0, 2, (30, 6)), jnp.float32))
    np.testing.assert_allclose(x.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(x[:, [0, 5]], [[0.3, 0.1]] * 30, atol=1e-7)
    assert np.all(x[:, 4] == 0)
    assert np.all((x[:, 1:4] > 0).sum(1) == 2)
    there = jnp.array([0.3, 0.0, 0.2, 0.4, 0.0, 0.1])
    np.testing.assert_allclose(made.forward(made.inverse(there)), there, atol=1e-6)
    for options, words in [
        ({"locked": {0: 1.2}}, "locked"),
        ({"allowed": [9]}, "element 9"),
        ({"locked": {0: 0.5}, "most": 1}, "room for"),
        ({"allowed": [0], "locked": {0: 0.5}}, "nothing is unknown"),
    ]:
        with pytest.raises(ValueError, match=words):
            Simplex.create(6, **options)


def test_columns_transform_their_own():
    made = Columns.of(((0, 1), Positive()), ((3,), Interval(0.0, 1.0)))
    u = jnp.array([-5.0, 5.0, -7.0, 100.0])
    x = made.forward(u)
    assert x[0] > 0
    assert x[2] == -7
    assert x[3] <= 1
    np.testing.assert_allclose(made.forward(made.inverse(x)), x, atol=1e-3)
    with pytest.raises(ValueError, match="column 1"):
        Columns.of(((0, 1), Positive()), ((1,), Positive()))


TRAINING = TrainingConfig(steps=150, learning_rate=1e-2, validate_every=50)
NETWORK = {"latent": 3, "hidden": [16], "head": [8]}


def table(count=120):
    x = rng.standard_normal((count, 4))
    y = x[:, 0] - 0.5 * x[:, 1]
    kind = np.where(x[:, 2] > 0, "b", "a").astype(object)
    y[::7], kind[::5] = np.nan, ""
    return x, y, kind.astype(str)


@pytest.fixture(scope="module")
def fitted():
    x, y, kind = table()
    return fit(x, {"y": y, "kind": kind}, network=NETWORK, training=TRAINING, columns=list("pqrs"))


def test_a_model_learns_from_what_labels_there_are(fitted):
    x, y, kind = table()
    outputs = jax.jit(jax.vmap(fitted.model))(x.astype(np.float32))
    seen = ~np.isnan(y)
    assert np.corrcoef(outputs["y"][seen], y[seen])[0, 1] > 0.9
    named = np.array(["a", "b"])[np.argmax(outputs["kind"], 1)]
    assert np.mean(named[kind != ""] == kind[kind != ""]) > 0.9


def test_a_fit_that_a_time_limit_ends_goes_on_from_its_folder(tmp_path):
    x, y, kind = table()
    labels, options = {"y": y, "kind": kind}, {"network": NETWORK, "training": TRAINING}
    early = fit(x, labels, **options, checkpoint=tmp_path / "model", time_limit=0.0)
    assert early.trained.status is Status.TIME_LIMIT
    resumed = fit(x, labels, **options, checkpoint=tmp_path / "model")
    whole = fit(x, labels, **options)
    assert resumed.trained.step == whole.trained.step == TRAINING.steps
    for one, other in zip(
        jax.tree.leaves(resumed.model), jax.tree.leaves(whole.model), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="checkpoint"):
        fit(x, labels, **options, noise=0.1, checkpoint=tmp_path / "model")


def test_missing_labels_have_no_weight():
    model = build_multitask(
        {"columns": ["p"], "numbers": {"y": 1}, "classes": {"k": ["a", "b"]}}, jax.random.key(0)
    )
    outputs = jnp.array([1.0, 5.0, 3.0])
    loss = task_loss(Task("y"), outputs, jnp.array([[2.0], [jnp.nan], [5.0]]), model)
    np.testing.assert_allclose(loss, (1 + 4) / 2)
    logits = jnp.array([[0.0, 0.0], [9.0, 0.0]])
    loss = task_loss(Task("k", 2, ("a", "b")), logits, jnp.array([0, -1]), model)
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)
    nothing = task_loss(Task("k", 2, ("a", "b")), logits, jnp.array([-1, -1]), model)
    assert nothing == 0


@pytest.mark.slow
def test_search_knows_the_model(fitted, tmp_path):
    save_model(tmp_path / "m", fitted.model, architecture="multitask", config=fitted.config)
    model = load_model(tmp_path / "m").value
    x, _, _ = table(3)
    options = {
        "search": Search(restarts=2),
        "execution": Execution(lanes=8),
        "bounds": "data",
    }
    result = optimize_latent(model, {"y": 1.0, "kind": "b"}, x.astype(np.float32), **options)
    assert result.columns == ("y", "kind: p")
    low, high = np.asarray(model.lower), np.asarray(model.upper)
    assert np.all((result.optimized_input >= low) & (result.optimized_input <= high))
    np.testing.assert_allclose(result.target[:, 0], 1.0, atol=0.1)
    assert np.all(result.target[:, 1] > 0.8)
    again = jax.vmap(model)(result.input)
    np.testing.assert_allclose(again["y"], result.target[:, 0], rtol=1e-3, atol=1e-3)
    chosen = result.select(2)
    assert chosen.shape == (3, 2)
    np.testing.assert_array_equal(chosen[:, 0], result.best)
    for initial, words in [
        (np.zeros((1, 5)), "4 descriptors"),
        (np.full((1, 4), np.nan), r"descriptor 0 \(p\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            optimize_latent(model, {"y": 1.0}, initial)
    with pytest.raises(ValueError, match="'kind' is a head of classes"):
        optimize_latent(model, [Match("kind", 1.0)], x)
    with pytest.raises(ValueError, match="no class 'red': a, b"):
        optimize_latent(model, {"kind": "red"}, x)


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        ({"k": ["a"] * 5}, {}, "'k' has 1 class"),
        ({"y": np.full(5, np.nan)}, {}, "'y' is missing in every row"),
        ({"y": np.zeros(4)}, {}, "'y' has shape"),
        ({}, {}, "there is no task"),
        ({"y": np.zeros(5)}, {"columns": ["p"]}, "columns: expected 2"),
        ({"y": np.zeros(5)}, {"weights": {"z": 1.0}}, "weights: 'z'"),
        ({"y": np.zeros(5)}, {"network": {"latent": 0}}, "widths"),
        ({"y": np.zeros(5)}, {"network": {"numbers": {"z": 1}}}, "'z' is no task"),
        ({"y": [0.0, np.inf, 1.0, 1.0, 1.0]}, {}, "'y', row 1 is infinite"),
        ({"y": [None] * 5}, {}, "'y' is missing in every row"),
        ({"y": ["a", 1.0, "b", "a", "b"]}, {}, "'y' mixes numbers and text"),
        ({"k": [2020, 2021, 2020, 1, 1]}, {}, "'k' has 3 classes up to 2021, and 0 never occurs"),
        ({"k": np.full((5, 2), "a")}, {}, "'k': classes have shape"),
        ({"y": np.zeros(5)}, {"weights": {"y": -1.0}}, "weights: 'y': expected a number of 0"),
        ({"y": np.zeros(5)}, {"batch": 0}, "batch: expected 1"),
        ({"y": np.zeros(5)}, {"held_out": 2.0}, "held_out: expected a share"),
        ({"y": np.zeros(5)}, {"noise": -1.0}, "noise: expected 0"),
    ],
)
def test_tables_that_cannot_be_learned(labels, options, words):
    with pytest.raises(ValueError, match=words):
        fit(np.zeros((5, 2)), labels, **options)


class NotAvailable:
    """As the NA of pandas: equal to nothing, and not different either."""

    def __eq__(self, other):
        return self

    def __hash__(self):
        return 0

    def __bool__(self):
        raise TypeError


@pytest.mark.parametrize(
    ("values", "numbers", "classes"),
    [
        (["a", None, "b"], [0, -1, 1], ("a", "b")),
        (np.array(["a", np.nan, "b"], object), [0, -1, 1], ("a", "b")),
        (["b", float("nan"), "a"], [1, -1, 0], ("a", "b")),
        (np.array(["a", NotAvailable(), "b"], object), [0, -1, 1], ("a", "b")),
        (np.array(["a", "", "b"]), [0, -1, 1], ("a", "b")),
        ([1, None, 0], [1, -1, 0], ("0", "1")),
        (np.array([1, -1, 0]), [1, -1, 0], ("0", "1")),
        (np.array([True, False, True]), [1, 0, 1], ("0", "1")),
        ([True, None, False], [1, -1, 0], ("0", "1")),
        (list(np.array([True, False, True])), [1, 0, 1], ("0", "1")),
        ([jnp.float32(1), np.array(2.5), np.float64(3)], [[1], [2.5], [3]], ()),
        (np.array([1.5, None, 2.0], object), [[1.5], [np.nan], [2.0]], ()),
        ([[1.5, None], [2, 3], [None, 4]], [[1.5, np.nan], [2, 3], [np.nan, 4]], ()),
    ],
)
def test_what_is_missing_in_labels(values, numbers, classes):
    found, names = read_labels("k", values, 3)
    np.testing.assert_array_equal(found, numbers)
    assert names == classes


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Interval.create(1.0, -1.0), "interval: expected finite bounds"),
        (lambda: Interval.create([-np.inf], [1.0]), "interval: expected finite bounds"),
        (lambda: Simplex.create(3, locked={0: np.nan}), "locked: expected amounts"),
        (lambda: Simplex.create(3, total=0.0), "total: expected a sum above 0"),
        (lambda: Columns.of(((-1,), Positive())), "columns: expected numbers from 0"),
        (lambda: Neighbors.fit(np.zeros((5, 2)), k=0), "k: expected 1 neighbor"),
    ],
)
def test_parts_that_cannot_be(make, words):
    with pytest.raises(ValueError, match=words):
        make()


CONFIG = """\
[training]
steps = 60
learning_rate = 0.01
validate_every = 30

[task]
table = "TABLE"
numbers = ["y"]
classes = ["kind"]

[network]
latent = 3
hidden = [16]
head = [8]
"""
TARGETS = """\
[targets.y]
match = 0.5
[targets.kind]
classes = ["b"]
[constraints.y]
at_most = 2.0
[search]
restarts = 3
mahalanobis = 0.5
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latent")
    x, y, kind = table()
    lines = ["p,q,r,s,y,kind"]
    for row, number, name in zip(x, y, kind, strict=True):
        lines.append(",".join([*map(str, row), "" if np.isnan(number) else str(number), name]))
    (folder / "table.csv").write_text("\n".join(lines))
    (folder / "start.csv").write_text("s,p,q,r\n1,0,0,0\n0,1,0,0\n")
    (folder / "config.toml").write_text(CONFIG.replace("TABLE", str(folder / "table.csv")))
    (folder / "targets.toml").write_text(TARGETS)
    command = ["train", "multitask", "--config", str(folder / "config.toml")]
    assert cli.main([*command, "--output", str(folder / "out")]) == 0
    return folder


def command(folder, *more, targets="targets.toml", start="start.csv"):
    paths = ["--targets", str(folder / targets), "--start", str(folder / start)]
    out = ["--output", str(folder / "found.csv")]
    return cli.main(["latent", str(folder / "out" / "model"), *paths, *out, *more])


def test_from_a_table_to_an_answer_on_the_command_line(trained, capsys):
    assert command(trained, "--select", "2", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["samples"] == 2
    assert said["starts"] == 3
    found = read_table(trained / "found.csv")
    columns = ["sample", "start", "p", "q", "r", "s", "y", "kind: p", "loss", "violation", "status"]
    assert list(found) == columns
    assert found["sample"] == ["0", "0", "1", "1"]
    model = load_model(trained / "out" / "model").value
    x = numbers_of(found, model.columns, "found").astype(np.float32)
    outputs = jax.vmap(model)(x)
    np.testing.assert_allclose(outputs["y"], np.array(found["y"], float), rtol=1e-3, atol=1e-3)
    assert command(trained) == 0
    assert "written" in capsys.readouterr().out


@pytest.mark.slow
def test_how_the_search_is_executed_is_said_on_the_command_line(trained, capsys, monkeypatch):
    given = []

    def search(*args, **options):
        given.append(options)
        return optimize_latent(*args, **options)

    monkeypatch.setattr("refinejax.apps.latent.command.optimize_latent", search)
    assert command(trained, "--json") == 0
    alone = read_table(trained / "found.csv")
    kept = trained / "kept"
    options = ["--lanes", "4", "--threads", "1", "--time-limit", "1000", "--checkpoint", str(kept)]
    assert command(trained, *options, "--progress") == 0
    assert "/" in capsys.readouterr().err  # samples done / all of them
    assert given[1]["execution"] == Execution(lanes=4, threads=1)
    assert given[1]["time_limit"] == 1000
    with_lanes = read_table(trained / "found.csv")
    losses = (np.array(table["loss"], float) for table in (with_lanes, alone))
    np.testing.assert_allclose(*losses, rtol=1e-3, atol=1e-5)
    assert any(kept.rglob("*"))
    assert command(trained, *options) == 0
    assert read_table(trained / "found.csv") == with_lanes
    assert command(trained, *options, "--seed", "9") == 2  # the folder is another search's
    assert "checkpoint" in capsys.readouterr().err
    assert command(trained, "--threads", "2", "--memory-limit", "1GB") == 2
    assert "threads: expected 1 or None" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("targets", "[targets.z]\nmatch = 1.0\n", "no task 'z'"),
        ("targets", "[target.y]\nmatch = 1.0\n", "unknown [target]"),
        ("targets", "[targets.y]\nmatch = 1.0\n[search]\nbounds = 'x'\n", "search.bounds"),
        ("targets", "[targets.y\n", "is not TOML"),
        ("targets", "targets = 5\n", "targets: expected a table"),
        ("targets", "search = 5\n[targets.y]\nmatch = 1.0\n", "search: expected a table"),
        ("targets", "[targets.y]\nmode = 5\n", "mode: expected one of max, min"),
        ("targets", "[targets.y]\nmatch = true\n", "match = True is not understood"),
        ("start", "p,q,r\n1,2,3\n", "no column 's'"),
        ("start", "p,q,r,s\n1,2,x,3\n", "'x' is no number"),
        ("start", "p,q,r,s\n1,2,,3\n", "descriptor 2 (r) is nan"),
        ("start", "p,q,r,s\n1,2,3\n", "line 2 has 3 entries"),
    ],
)
def test_wrong_files_are_named(trained, capsys, name, text, words):
    (trained / "wrong").write_text(text)
    assert command(trained, **{name: "wrong"}) == 2
    assert words in capsys.readouterr().err
