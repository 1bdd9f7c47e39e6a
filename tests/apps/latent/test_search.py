"""Search through trained models: against closed forms, SciPy and what the model itself says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from scipy.optimize import minimize

from refinejax import Evolution, Execution, Sequential, Status
from refinejax.apps.latent import (
    AtLeast,
    AtMost,
    Between,
    Curve,
    Ensemble,
    Equality,
    InClasses,
    Inequality,
    LatentModel,
    LogDensity,
    Mahalanobis,
    Match,
    Maximize,
    Minimize,
    MonteCarlo,
    Neighbors,
    NotInClasses,
    Search,
    TrustRegion,
    optimize_latent,
)
from refinejax.apps.latent.result import ranking
from refinejax.problems.transforms import Columns, Interval, Ordered, Positive, Simplex
from refinejax.refiners import BFGS

rng = np.random.default_rng(0)
WEIGHTS = rng.standard_normal((3, 4)).astype(np.float32)
SAMPLES = rng.standard_normal((6, 4)).astype(np.float32)
EIGHT = Execution(lanes=8)


class Curved(struct.PyTreeNode):
    """Heads of a nonlinear latent; counts how often it is traced."""

    weights: jax.Array
    traces: list = struct.field(pytree_node=False, default_factory=list)

    def __call__(self, z):
        self.traces.append(1)
        mixed = self.weights @ jnp.sin(z)
        return {"size": mixed[0], "pair": mixed[1:], "kind": jnp.concatenate([z[:2], -z[2:3]])}


def linear(z):
    return {"a": WEIGHTS[0] @ z, "b": WEIGHTS[1] @ z}


def search(heads, targets, initial=SAMPLES, **options):
    """Call `optimize_latent`; options of the model and of the search go into their groups."""
    options = {"restarts": 2, "execution": EIGHT, **options}
    model, how = (
        {name: options.pop(name) for name in list(options) if name in names(group)}
        for group in (LatentModel, Search)
    )
    model = LatentModel(heads, **model) if model else heads
    return optimize_latent(model, targets, initial, search=Search(**how), **options)


def changed(result, part, **values):
    """Return the result with other values in one of its parts."""
    return dataclasses.replace(
        result, **{part: dataclasses.replace(getattr(result, part), **values)}
    )


def names(group):
    return {field.name for field in dataclasses.fields(group)}


@pytest.fixture(scope="module")
def found():
    heads = Curved(jnp.asarray(WEIGHTS))
    targets = [Match("size", 0.5), Between("pair", -0.2, 0.4), InClasses("kind", 1, weight=0.1)]
    closeness = [TrustRegion(1.0, weight=0.1)]
    return search(heads, targets, bounds=(-2, 2), closeness=closeness, trajectory=True)


def by_scipy(start):
    """The same objective in NumPy, from the same start, by SciPy's L-BFGS-B."""

    def loss(x):
        y = WEIGHTS.astype(float) @ np.sin(x)
        pair = np.maximum(np.maximum(-0.2 - y[1:], y[1:] - 0.4), 0)
        logits = np.array([x[0], x[1], -x[2]])
        probability = np.exp(logits[1] - logits.max()) / np.sum(np.exp(logits - logits.max()))
        away = max(np.sqrt(np.mean((x - start) ** 2)) - 1.0, 0)
        return (y[0] - 0.5) ** 2 + np.mean(pair**2) - 0.1 * np.log(probability) + 0.1 * away**2

    begin = np.clip(start, -2, 2)
    return minimize(loss, begin, method="L-BFGS-B", bounds=[(-2, 2)] * 4, options={"ftol": 1e-12})


def test_the_best_start_is_as_good_as_scipy_with_bounds(found):
    for sample, loss in zip(SAMPLES, found.losses.total.min(1), strict=True):
        assert loss <= by_scipy(sample.astype(float)).fun + 1e-4


def test_shapes_and_names(found):
    assert found.optimized_input.shape == (6, 2, 4)
    assert found.optimized_target.shape == (6, 2, 4)
    assert found.columns == ("size", "pair[0]", "pair[1]", "kind: p")
    assert found.sample.score.shape == (6, 4)
    assert found.losses.targets.shape == (6, 2, 3)
    assert found.distances["trust_region"].shape == (6, 2)
    assert found.status.shape == (*found.best.shape, 2)
    assert found.input.shape == (6, 4)
    assert found.answers.prediction["pair"].shape == (6, 2, 2)
    assert "6 samples from 2 starts" in repr(found)


def test_what_is_reported_is_what_the_model_says(found):
    heads = Curved(jnp.asarray(WEIGHTS))
    outputs = jax.vmap(jax.vmap(heads))(found.optimized_input)
    p = jax.nn.softmax(outputs["kind"])[..., 1:2]
    again = np.concatenate([outputs["size"][..., None], outputs["pair"], p], -1)
    np.testing.assert_allclose(found.optimized_target, again, rtol=1e-4, atol=1e-5)
    outputs = jax.vmap(heads)(SAMPLES)
    np.testing.assert_allclose(found.sample.score[:, 0], outputs["size"], rtol=1e-4, atol=1e-5)
    away = np.sqrt(np.mean((found.optimized_input - SAMPLES[:, None]) ** 2, -1))
    np.testing.assert_allclose(found.distances["trust_region"], away, rtol=1e-4)
    assert np.all(found.answers.gap == 0)


def test_bounds_are_not_crossed_and_nothing_is_worse_than_its_start(found):
    assert np.all(np.abs(found.optimized_input) <= 2)
    assert np.all(found.losses.total <= found.losses.initial)
    assert np.all(found.status > 0)
    best = found.losses.roundtrip[np.arange(6), found.best]
    np.testing.assert_array_equal(best, found.losses.roundtrip.min(1))


def test_slack_says_which_candidates_are_good_enough_to_be_chosen_for_diversity(found):
    """Losses 0, 0.05, 0.2 … after a start at 1; the third candidate is the farthest away."""
    loss = np.tile([0.0, 0.05, 0.2, 5.0, 9.0], (len(found), 1))
    where = np.zeros((*loss.shape, found.optimized_input.shape[2]))
    where[..., 0] = [0, 1, 4, 50, 60]
    made = changed(found, "losses", roundtrip=loss, total=loss, violation=np.zeros_like(loss))
    made = changed(made, "sample", loss=np.ones(len(loss)))
    made = dataclasses.replace(made, optimized_input=where)
    np.testing.assert_array_equal(made.select(2, slack=0.1)[0], [0, 1])
    np.testing.assert_array_equal(made.select(2, slack=0.3)[0], [0, 2])
    np.testing.assert_array_equal(made.select(2, slack=0.0)[0], [0, 1])
    np.testing.assert_array_equal(made.select(2, slack=20.0)[0], [0, 4])
    np.testing.assert_array_equal(made.select(3, diverse=False, slack=20.0)[0], [0, 1, 2])


def test_the_trajectory_begins_at_the_start_and_ends_at_the_best(found):
    path = found.trajectory
    assert path.shape[:2] == (6, 2)
    assert path.shape[3] == 4
    inside = np.all(np.abs(SAMPLES) <= 2, axis=1)
    assert inside.any()
    # Start 0 is the sample itself, unperturbed.
    np.testing.assert_allclose(path[inside, 0, 0], found.sample.score[inside], rtol=1e-4)
    assert np.all(np.any(path[:, 1, 0] != path[:, 0, 0], axis=-1))
    # BFGS never goes up, so that the last iterate is the best.
    np.testing.assert_allclose(path[:, :, -1], found.optimized_target, atol=1e-3)


def test_linear_heads_have_known_optima():
    low, high = -1.0, 1.5
    result = search(linear, {"a": "max"}, SAMPLES[:2], bounds=(low, high))
    corner = np.where(WEIGHTS[0] > 0, high, low)
    np.testing.assert_array_equal(result.input, [corner, corner])
    result = search(linear, [Match("a", 2.0), Match("b", -1.0)], SAMPLES[:2], restarts=1)
    # Steps of BFGS with H₀ ∝ I stay in the span of the gradients: the nearest point to the start.
    A = WEIGHTS[:2].astype(float)
    shift = np.linalg.pinv(A) @ (np.array([[2.0], [-1.0]]) - A @ SAMPLES[:2].T)
    np.testing.assert_allclose(result.input, SAMPLES[:2] + shift.T, atol=2e-3)


def test_constraints_are_kept_as_by_slsqp():
    def loss(x):
        return float(np.sum((WEIGHTS[0] @ x - 4) ** 2) + 0.1 * np.sum((WEIGHTS[1] @ x) ** 2))

    targets = [Match("a", 4.0), Match("b", 0.0, weight=0.1)]
    constraints = [AtMost("b", -0.5), Inequality(disk), Equality(plane)]
    result = search(linear, targets, SAMPLES[:2], constraints=constraints)
    assert np.all(result.feasible)
    assert np.all(result.losses.violation <= 1e-3)
    theirs = minimize(
        loss,
        np.zeros(4),
        method="SLSQP",
        constraints=[
            {"type": "ineq", "fun": lambda x: -0.5 - WEIGHTS[1] @ x},
            {"type": "ineq", "fun": lambda x: 1 - np.sum(x**2)},
            {"type": "eq", "fun": lambda x: np.sum(x[:2]) - 0.3},
        ],
    )
    assert theirs.success
    np.testing.assert_allclose(result.losses.roundtrip[:, 0], theirs.fun, rtol=5e-3)
    np.testing.assert_allclose(result.input, [theirs.x, theirs.x], atol=2e-2)


def disk(x):
    return jnp.sum(x**2) - 1


def plane(x):
    return jnp.sum(x[:2]) - 0.3


def test_constraints_that_cannot_be_kept_are_reported():
    result = search(
        linear, {"a": 0.0}, SAMPLES[:1], bounds=(-0.1, 0.1), constraints=[AtLeast("b", 5.0)]
    )
    most = 0.1 * np.sum(np.abs(WEIGHTS[1]))
    np.testing.assert_allclose(result.losses.violation[0], 5.0 - most, rtol=1e-3)
    assert not result.feasible.any()


def encode(x):
    return jnp.tanh(x)


def decode(z):
    return 1.2 * jnp.arctanh(jnp.clip(z, -0.99, 0.99)) - 0.1  # no inverse of the encoder


def test_what_counts_is_what_comes_back():
    targets = {"a": 1.0, "b": -0.3}
    options = {"encode": encode, "decode": decode, "bounds": (-2, 2)}
    result = search(linear, targets, SAMPLES[:3], **options)
    returned = jax.vmap(jax.vmap(linear))(jnp.tanh(result.optimized_input))
    np.testing.assert_allclose(result.optimized_target[..., 0], returned["a"], atol=1e-5)
    np.testing.assert_allclose(result.answers.roundtrip["b"], returned["b"], atol=1e-5)
    assert np.all(np.abs(result.optimized_input) <= 2)
    assert np.all(result.answers.gap > 1e-3)  # the latent itself is said to be something else
    np.testing.assert_allclose(
        result.answers.prediction["a"], result.answers.latent @ WEIGHTS[0], atol=1e-5
    )
    misaligned = np.mean((result.answers.latent - np.tanh(result.optimized_input)) ** 2, -1)
    cut = (decode(result.answers.latent) - result.optimized_input) / result.scale
    misaligned += np.mean(cut**2, -1)  # what the bounds have cut off
    np.testing.assert_allclose(
        result.losses.total - result.losses.roundtrip, 0.5 * misaligned, atol=1e-5
    )


class Wavy(struct.PyTreeNode):
    weights: jax.Array

    def __call__(self, z):
        return {"y": jnp.tanh(self.weights @ jnp.sin(2 * z))[0]}


WAVY = Wavy(jnp.asarray(WEIGHTS))


def test_the_answer_for_a_sample_is_the_same_in_any_company():
    many = np.random.default_rng(5).standard_normal((64, 4)).astype(np.float32)
    options = {"restarts": 3, "execution": Execution(lanes=16), "bounds": (-2, 2)}
    whole = search(WAVY, {"y": 0.7}, many, **options)
    numbers = np.array([41, 3, 17])
    some = search(WAVY, {"y": 0.7}, many[numbers], ids=numbers, **options)
    for i in (3, 41):
        alone = search(WAVY, {"y": 0.7}, many[i], ids=[i], **options)
        np.testing.assert_allclose(alone.optimized_input[0], whole.optimized_input[i], atol=1e-6)
        np.testing.assert_allclose(alone.losses.initial[0], whole.losses.initial[i], atol=1e-6)
        assert alone.best[0] == whole.best[i]
    np.testing.assert_allclose(some.optimized_input, whole.optimized_input[numbers], atol=1e-6)
    others = search(WAVY, {"y": 0.7}, many[3], ids=[4], **options)
    assert np.any(others.losses.initial[0, 1:] != whole.losses.initial[3, 1:])


def test_an_interrupted_search_goes_on_where_it_was(tmp_path):
    targets, held = {"a": 4.0}, [AtMost("b", -0.5), Inequality(disk), Equality(plane)]
    options = {"constraints": held, "restarts": 4}
    whole = search(linear, targets, **options)
    early = search(linear, targets, **options, checkpoint=tmp_path, time_limit=0.0)
    assert set(early.counts()) == {"TIME_LIMIT"}
    resumed = search(linear, targets, **options, checkpoint=tmp_path)
    again = search(linear, targets, **options, checkpoint=tmp_path)
    for result in (resumed, again):
        np.testing.assert_array_equal(result.optimized_input, whole.optimized_input)
        np.testing.assert_array_equal(result.steps, whole.steps)
    rounds = {path.name.split(".")[0] for path in tmp_path.glob("round*")}
    assert {"round 1", "round 2"} <= rounds
    with pytest.raises(ValueError, match="belongs to another job"):
        search(linear, {"a": 2.0}, **options, checkpoint=tmp_path)


def test_the_answer_is_the_same_on_several_threads():
    samples = np.random.default_rng(6).standard_normal((12, 4)).astype(np.float32)
    one, two = (
        search(linear, {"a": 1.0, "b": "max"}, samples, execution=Execution(lanes=8, threads=n))
        for n in (1, 3)
    )
    np.testing.assert_array_equal(two.optimized_input, one.optimized_input)
    np.testing.assert_array_equal(two.steps, one.steps)


@pytest.mark.slow
def test_draws_of_a_population_do_not_depend_on_company_either():
    method = Evolution("cma_es", population_size=8, std=0.3)
    options = {"method": method, "restarts": 2, "max_steps": 12, "bounds": (-2, 2)}
    whole = search(WAVY, {"y": 0.7}, SAMPLES, **options)
    alone = search(WAVY, {"y": 0.7}, SAMPLES[4], ids=[4], **options)
    np.testing.assert_allclose(alone.optimized_input[0], whole.optimized_input[4], atol=1e-5)
    assert np.all(whole.losses.total <= whole.losses.initial)


def test_new_numbers_data_and_keys_do_not_trace_again():
    heads = Curved(jnp.asarray(WEIGHTS))
    kind = [Match("size", 0.1), AtLeast("pair", 0.0)]
    search(heads, kind, SAMPLES, bounds=(-3, 3), key=0)
    heads.traces.clear()
    other = heads.replace(weights=2 * heads.weights)
    kind = [Match("size", np.linspace(0, 1, 5), weight=3.0), AtLeast("pair", [0.2, 0.3])]
    more = {"restarts": 3, "std": 0.1, "alignment": 0.2, "caution": 2.0, "key": 7}
    result = search(other, kind, SAMPLES[:5] + 1, bounds=(-2, 3), max_steps=50, **more)
    # What is traced is shapes alone, in the checks: nothing is compiled.
    assert result.losses.total.shape == (5, 3)
    assert len(heads.traces) <= 3
    np.testing.assert_allclose(result.target[:, 0], np.linspace(0, 1, 5), atol=0.1)


def cliff(z):
    return {"y": jnp.where(z[0] > 90, jnp.nan, jnp.sum(z))}


def test_a_sample_of_nan_does_not_touch_the_others():
    starts = np.array([[0, 0], [99, 0], [1, 1]], np.float32)
    result = search(cliff, {"y": 3.0}, starts)
    clean = search(cliff, {"y": 3.0}, starts[[0, 2]], ids=[0, 2])
    assert np.all(result.status[1] == int(Status.NONFINITE_START))
    np.testing.assert_array_equal(result.optimized_input[[0, 2]], clean.optimized_input)
    assert np.all(result.status[[0, 2]] > 0)
    assert len(result.select(2)) == 3


def test_restarts_of_a_simplex_stay_on_it():
    start = np.full((2, 4), 0.25, np.float32)
    transform = Simplex.create(4, locked={0: 0.2}, most=3)
    result = search(linear, {"a": "max"}, start, transform=transform, restarts=4, std=2.0)
    x = result.optimized_input
    np.testing.assert_allclose(x.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(x[..., 0], 0.2, atol=1e-7)
    assert np.all(x >= 0)
    assert np.all((x > 0).sum(-1) <= 3)
    best = 0.2 * WEIGHTS[0, 0] + 0.8 * WEIGHTS[0, 1:].max()
    np.testing.assert_allclose(result.target[:, 0], best, atol=2e-2)


def shaky(z, key):
    return {"y": z[0] + z[1] + (1.0 + 3.0 * z[1]) * jax.random.normal(key, ())}


def test_pessimism_prefers_what_all_members_agree_on():
    heads = MonteCarlo.create(shaky, 8)
    bold = search(heads, {"y": "max"}, np.zeros((1, 2)), bounds=(0, 1), caution=0.0)
    wary = search(heads, {"y": "max"}, np.zeros((1, 2)), bounds=(0, 1), caution=2.0)
    draws = jax.vmap(lambda k: jax.random.normal(k, ()))(jax.random.wrap_key_data(heads.data))
    mean, std = np.mean(np.asarray(draws)), np.std(np.asarray(draws))
    assert 1 + 3 * mean - 2 * 3 * std < 0 < 1 + 3 * mean
    np.testing.assert_array_equal(bold.input[0], [1, 1])
    np.testing.assert_array_equal(wary.input[0], [1, 0])
    np.testing.assert_allclose(bold.answers.std[0, 0], 4 * std, rtol=1e-4)
    np.testing.assert_allclose(wary.losses.total[0, 0], -(1.0 + mean - 2 * std), rtol=1e-4)


@pytest.mark.slow
def test_an_ensemble_of_one_model_twice_is_that_model():
    alone = search(WAVY, {"y": 0.3}, SAMPLES[:2])
    twice = search(Ensemble.stack([WAVY, WAVY]), {"y": 0.3}, SAMPLES[:2])
    np.testing.assert_allclose(twice.optimized_input, alone.optimized_input, atol=1e-4)
    assert np.all(twice.answers.std == 0)


def opposed(z):
    return {"f": jnp.sum((z - 1) ** 2), "g": jnp.sum((z + 1) ** 2)}


def test_tradeoffs_spread_along_the_front():
    targets = [Minimize("f"), Minimize("g")]
    result = search(opposed, targets, np.zeros((1, 2)), restarts=16, tradeoffs=True)
    x = result.optimized_input[0]
    np.testing.assert_allclose(x[:, 0], x[:, 1], atol=1e-3)  # the front is the segment between
    assert np.ptp(x[:, 0]) > 0.8
    assert result.pareto().all()
    np.testing.assert_allclose(x[0], 0, atol=1e-3)
    np.testing.assert_allclose(result.losses.targets[0, :, 0], np.sum((x - 1) ** 2, -1), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["adam", "lbfgs", "cma_es", Sequential(Evolution("cma_es"), BFGS(), steps=20)]
)
def test_any_refiner(method):
    options = {"constraints": [AtLeast("b", 0.0)], "bounds": (-2, 2), "method": method}
    result = search(linear, {"a": 1.0}, SAMPLES[:2], max_steps=100, **options)
    np.testing.assert_allclose(result.target[:, 0], 1, atol=0.05)
    assert np.all(result.losses.violation[np.arange(2), result.best] <= 1e-2)


WIDER = Mahalanobis.fit(np.random.default_rng(3).standard_normal((20, 5)))


class Plain:
    """A transform that is no pytree."""

    def forward(self, u):
        return u

    inverse = forward


class Nowhere(struct.PyTreeNode):
    """A transform that knows no number."""

    def forward(self, u):
        return u

    def inverse(self, x):
        return jnp.log(x - 1)


HEADS = {"a": lambda z: z[0], "v": lambda z: z[:3], "k": lambda z: z[:3], "one": lambda z: z[:1]}


@pytest.mark.parametrize(
    ("targets", "options", "words"),
    [
        ({"b": 1.0}, {}, "no task 'b'"),
        ([Match("aa", 1.0)], {}, "did you mean 'a'"),
        ([Match("v", [1.0, 2.0])], {}, "'v' gives 3 numbers"),
        ([Curve("v", np.full(3, np.nan))], {}, "'v': the curve is NaN"),
        ([Match("a", np.nan)], {}, "'a': value is NaN"),
        ([Between("a", 2.0, 1.0)], {}, "'a': low 2.0 is above high 1.0"),
        ([AtLeast("a", 2.0), AtMost("a", 1.0)], {}, "'a' has contradictory ranges"),
        (
            [Maximize("a")],
            {"constraints": [Between("a", 2.0, 3.0), AtMost("a", 1.0)]},
            "'a' has contradictory ranges",
        ),
        ([InClasses("k", 1), NotInClasses("k", 1)], {}, "'k' has contradictory classes"),
        ([InClasses("k", 3)], {}, "'k' has classes 0 to 2"),
        ([InClasses("k", "red")], {}, "'k' has no class 'red'"),
        ([InClasses("k", (0, 1, 2))], {}, "nothing to search for"),
        ([InClasses("one", 0)], {}, "'one' gives 1 logit"),
        ([Match("a", 2.0)], {"ranges": {"a": (0, 1)}}, "'a' cannot reach the target"),
        ([AtLeast("a", 2.0)], {"ranges": {"a": (0, 1)}}, "'a' cannot reach the target"),
        ([Match("a", 2.0, weight=-1.0)], {}, "'a': expected a weight"),
        ([Match("a", 2.0, scale=0.0)], {}, "'a': expected a scale"),
        ([InClasses("k", 0, probability=1.5)], {}, "'k': expected a probability"),
        ([Maximize("a")], {"constraints": [Maximize("a")]}, "'a' has no limit"),
        (None, {}, "targets: expected"),
        ("max", {}, "targets: 'max' is about one of a, k, one, v; say {name: 'max'}"),
        ({"a": 1.0}, {"initial": np.full((2, 4), np.nan)}, "sample 0, descriptor 0 is nan"),
        ({"a": 1.0}, {"initial": np.zeros((2, 3, 1))}, "initial: expected samples"),
        ({"a": 1.0}, {"bounds": (1.0, -1.0)}, "bounds: descriptor 0"),
        ({"a": 1.0}, {"bounds": "data"}, "bounds: expected"),
        ({"a": 1.0}, {"bounds": np.array(3.0)}, "bounds: expected"),
        ({"a": 1.0}, {"over": "latent"}, "over: a search over the latent needs decode"),
        ({"a": 1.0}, {"method": "simplex"}, "method: expected one of auto, bfgs"),
        ({"a": 1.0}, {"method": "lm"}, "no sum of squares"),
        ({"a": 1.0}, {"restarts": 0}, "restarts: expected 1"),
        ({"a": 1.0}, {"ids": [1]}, "ids: expected 2"),
        ({"a": 1.0}, {"scale": [1.0, 2.0]}, "scale: expected one number or 4"),
        ({"a": 1.0}, {"closeness": [1]}, "closeness: expected"),
        ({"a": 1.0}, {"constraints": [1]}, "constraints: expected"),
        ({"a": 1.0}, {"alignment": -1}, "alignment: expected"),
        ({"a": 1.0}, {"encode": 3}, "encode: expected a function"),
        ({"a": 1.0}, {"decode": lambda z: z[:2]}, "decode: expected an input"),
        ({"a": 1.0}, {"transform": Simplex.create(4), "bounds": (0, 1)}, "transform: it says"),
        ({"a": 1.0}, {"transform": Simplex.create(3)}, "transform: it does not take 4"),
        ({"a": 1.0}, {"transform": Columns.of(((9,), Positive()))}, "columns: there are 0 to 3"),
        ({"a": 1.0}, {"transform": 3}, "transform: expected one with forward"),
        ({"a": 1.0}, {"transform": Plain()}, "transform: Plain is no pytree"),
        ({"a": 1.0}, {"transform": Nowhere()}, "transform: it turns sample 0, descriptor 0"),
        ({"a": 1.0}, {"scales": {"zz": 2.0}}, "scales: the model has no task 'zz'"),
        ({"a": 1.0}, {"ranges": {"zz": (0, 1)}}, "ranges: the model has no task 'zz'"),
        ({"a": 1.0}, {"ranges": {"a": 3}}, "ranges: 'a': expected (least, greatest)"),
        ({"a": 1.0}, {"ranges": {"a": (2, 0)}}, "ranges: 'a': expected the least below"),
        ({"a": 1.0}, {"classes": {"k": 4}}, "classes: 'k' has 4 classes"),
        ({"a": 1.0}, {"classes": {"k": ["x"]}}, "classes: 'k': expected two or more"),
        ({"a": "most"}, {}, "targets: 'a': expected a value, (low, high), 'max' or 'min'"),
        ({"k": 1}, {}, "'k' gives 3 numbers, and 1 may be a class"),
        ({"k": [1]}, {}, "'k' gives 3 numbers, the curve has shape (1,)"),
        ([Match("a", np.inf)], {}, "targets: 'a': expected a finite value"),
        ([Match("a", 1.0, weight=np.inf)], {}, "'a': expected a finite weight"),
        ({"a": 1.0}, {"constraints": AtMost("zz", 1.0)}, "constraints: the model has no task 'zz'"),
        ({"a": 1.0}, {"std": np.nan}, "std: expected"),
        ({"a": 1.0}, {"std": [1.0, 2.0]}, "std: expected"),
        ({"a": 1.0}, {"std": "x"}, "std: expected"),
        ({"a": 1.0}, {"scale": 0.0}, "scale: expected finite numbers above 0"),
        ({"a": 1.0}, {"execution": 8}, "execution: expected options"),
        ({"a": 1.0}, {"time_limit": -1.0}, "time_limit: expected seconds"),
        ({"a": 1.0}, {"initial": np.zeros((2, 4), complex)}, "initial: expected real"),
        ({"a": 1.0}, {"initial": np.zeros((0, 4))}, "initial: expected samples"),
        ({"a": 1.0}, {"closeness": WIDER}, "closeness: Mahalanobis of the input does not take 4"),
        ({"a": 1.0}, {"closeness": TrustRegion(np.nan)}, "the limit is NaN"),
        ({"a": 1.0}, {"closeness": TrustRegion(1.0, weight=-1.0)}, "expected a weight of 0"),
        (
            {"a": 1.0},
            {"constraints": Inequality(lambda x: x[:2] @ np.ones(3))},
            "constraints: Inequality does not take 4",
        ),
    ],
)
def test_what_cannot_be_is_named(targets, options, words):
    options = {"initial": np.zeros((2, 4)), **options}
    with pytest.raises(ValueError) as caught:
        search(HEADS, targets, **options)
    assert words in str(caught.value)


def test_one_head_needs_no_name():
    result = search({"y": HEADS["a"]}, "max", np.zeros((1, 4)), bounds=(-1, 1))
    assert result.target[0, 0] == 1
    result = search({"y": HEADS["a"]}, 0.5, np.zeros((1, 4)))
    np.testing.assert_allclose(result.target, 0.5, atol=1e-3)


def test_closeness_as_a_constraint():
    data = np.random.default_rng(2).standard_normal((50, 4))
    near = Mahalanobis.fit(data)
    result = search(linear, {"a": "max"}, np.zeros((1, 4)), constraints=[near])
    assert result.feasible.all()
    far = near.distance(jnp.asarray(result.input[0]), None)
    np.testing.assert_allclose(far, near.limit, rtol=1e-2)


def test_heads_as_they_should_not_be_given():
    one = Ensemble(jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), Curved(jnp.asarray(WEIGHTS))))
    with pytest.raises(ValueError, match=r"heads\['y'\]: Ensemble goes around all heads"):
        search({"y": one}, {"y": 1.0})
    with pytest.raises(ValueError, match="heads: expected outputs by name, a mapping, got Shape"):
        search(lambda z: z[0], {"y": 1.0})


def lossy(z):
    """A decoder that knows nothing of the last two descriptors."""
    return jnp.concatenate([z, jnp.zeros(2, z.dtype)])


def first_two(x):
    return x[:2]


def all_of_it(z):
    return {"a": jnp.sum(z)}


def test_an_answer_worse_than_the_sample_itself_is_said():
    samples = np.array([[1.0, 1.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0]], np.float32)

    def encode(x):
        return 0.5 * jnp.tanh(x[:2])

    result = search(all_of_it, {"a": 2.0}, samples, encode=encode, decode=lossy, restarts=1)
    score = (0.5 * np.tanh(samples[:, :2]).sum(1) - 2.0) ** 2
    np.testing.assert_allclose(result.sample.loss, score, rtol=1e-5)
    np.testing.assert_array_equal(
        result.improved, result.losses.roundtrip[[0, 1], result.best] < score
    )
    broken = changed(result, "losses", violation=np.full((2, 1), 0.5))
    broken = changed(broken, "sample", violation=np.array([0.5, 0.6]))
    np.testing.assert_array_equal(broken.improved, [False, True])
    slight = changed(
        result, "sample", loss=result.losses.roundtrip[:, 0], violation=np.full(2, 1e-4)
    )
    assert not slight.improved.any()
    worse = changed(result, "sample", loss=np.zeros(2))
    assert not worse.improved.any()
    assert "no better than the sample itself: 2 samples" in worse.summary()


@pytest.mark.slow
def test_selection_is_diverse_where_a_constraint_costs_loss():
    samples = np.full((1, 4), 0.2, np.float32)
    heads = {"a": HEADS["a"]}
    hold = AtLeast("a", 0.5)
    result = search(heads, {"a": "min"}, samples, restarts=6, constraints=hold, std=1.0)
    assert result.feasible.all()
    assert result.sample.violation[0] == pytest.approx(0.3)
    by_loss, apart = result.select(2, diverse=False)[0], result.select(2, slack=0.5)[0]
    x = result.optimized_input[0]
    far = np.linalg.norm(x[by_loss[0]] - x, axis=1)
    assert far[apart[1]] == far.max()
    assert result.improved.all()


def test_ranks_do_not_lose_violations_beside_large_losses():
    loss, broken = np.full(4, 1e9, np.float32), np.array([0.5, 0.2, 0.01, np.nan], np.float32)
    np.testing.assert_array_equal(ranking(loss, broken), [2, 1, 0, np.inf])
    two = np.stack([loss, loss]), np.stack([broken, np.zeros(4)])
    np.testing.assert_array_equal(ranking(*two)[1], [0, 1, 2, 3])


def test_columns_say_what_they_are_about():
    samples = np.full((2, 4), 0.2, np.float32)
    targets = [InClasses("k", 0), NotInClasses("k", (1, 2)), Match("a", 1.0)]
    options = {"classes": {"k": np.array(["x", "y", "z"])}, "max_steps": 2, "restarts": 1}
    held = [AtMost("v", 5.0)]
    result = search(HEADS, targets, samples, constraints=held, **options)
    columns = ("k: p(x)", "k: p(not y, z)", "a", "v[0]", "v[1]", "v[2]")
    assert result.columns == columns
    x = result.optimized_input[:, 0]
    softmax = np.exp(x[:, :3]) / np.exp(x[:, :3]).sum(1, keepdims=True)
    expected = np.column_stack([softmax[:, 0], softmax[:, 0], x[:, 0], x[:, :3]])
    np.testing.assert_allclose(result.optimized_target[:, 0], expected, rtol=1e-5)


@pytest.mark.slow
def test_a_class_may_be_given_by_name_or_by_number():
    samples = np.full((2, 4), 0.2, np.float32)
    options = {"classes": {"k": np.array(["x", "y", "z"])}, "max_steps": 2, "restarts": 1}
    one = search(HEADS, {"k": "y"}, samples, **options)
    assert one.columns == ("k: p",)
    np.testing.assert_array_equal(
        one.target, search(HEADS, [InClasses("k", np.array([1]))], samples, **options).target
    )


def test_bounded_heads_count_misses_in_units_of_their_range():
    samples = np.zeros((1, 4), np.float32)
    ranges = {"a": (0.0, 1000.0)}
    result = search(HEADS, {"a": 10.0}, samples, ranges=ranges, restarts=1, max_steps=1)
    assert result.sample.loss[0] == pytest.approx(1e-4)
    result = search(HEADS, {"a": 10.0}, samples, ranges=ranges, scales={"a": 5.0}, restarts=1)
    assert result.sample.loss[0] == pytest.approx(4.0)


def log_normal(x):
    return -jnp.sum((x / jnp.array([1.0, 2.0, 3.0, 4.0])) ** 2) / 2


@pytest.mark.slow
def test_closeness_has_the_optima_of_closed_forms():
    start, w = np.zeros((1, 4), np.float32), WEIGHTS[0].astype(float)
    # max w·x within |x|/√4 ≤ 1: 2|w|; within x·x/(2 s²) ≤ 2: 2 √Σ(w s)²
    options = {"method": "bfgs", "max_steps": 200}
    ball = search(linear, {"a": "max"}, start, constraints=TrustRegion(1.0), **options)
    np.testing.assert_allclose(ball.target[0, 0], 2 * np.linalg.norm(w), rtol=2e-3)
    density = LogDensity(log_normal, limit=2.0)
    egg = search(linear, {"a": "max"}, start, constraints=[density], **options)
    np.testing.assert_allclose(egg.target[0, 0], 2 * np.linalg.norm(w * [1, 2, 3, 4]), rtol=2e-3)
    # the penalty k·max(0, r − 1)², r = |x|/2, balances 2|w|: r = 1 + |w|/k
    soft = search(linear, {"a": "max"}, start, closeness=TrustRegion(1.0, weight=5.0), **options)
    np.testing.assert_allclose(
        soft.distances["trust_region"][0, soft.best], 1 + np.linalg.norm(w) / 5, rtol=2e-3
    )
    data = np.random.default_rng(4).standard_normal((60, 4))
    near = Neighbors.fit(data, k=3)
    found = search(linear, {"a": "max"}, start, constraints=[near], **options)
    assert found.feasible.all()
    nearest = np.sort(np.linalg.norm((data - found.input[0]) / data.std(0), axis=1))[:3] / 2
    assert nearest.mean() <= near.limit + 2e-3


@pytest.mark.slow
def test_closeness_in_the_latent():
    start = np.zeros((1, 4), np.float32)
    near = TrustRegion(0.5, space="latent")
    result = search(all_of_it, {"a": "max"}, start, encode=first_two, constraints=[near])
    # mean(z²) ≤ 1/4 lets z₁ + z₂ be 1
    np.testing.assert_allclose(result.target[0, 0], 1.0, rtol=2e-3)


def test_a_space_that_is_none_is_refused():
    with pytest.raises(ValueError, match="space: expected one of input, latent"):
        TrustRegion(0.5, space="somewhere")


@pytest.mark.parametrize(
    ("transform", "holds"),
    [
        pytest.param(Positive(), lambda x: np.all(x > 0), marks=pytest.mark.slow),
        pytest.param(Ordered(), lambda x: np.all(np.diff(x) > 0), marks=pytest.mark.slow),
        pytest.param(
            Interval(-0.5, 0.5), lambda x: np.all(np.abs(x) <= 0.5), marks=pytest.mark.slow
        ),
        (Columns.of(((1, 2), Positive())), lambda x: np.all(x[..., 1:3] > 0)),
    ],
)
def test_a_transform_holds_in_a_search(transform, holds):
    start = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)
    result = search(linear, {"a": 5.0}, start, transform=transform, restarts=3, max_steps=20)
    assert holds(result.optimized_input)
    assert np.all(result.losses.roundtrip <= result.losses.initial)


def test_samples_of_other_types():
    options = {"max_steps": 5, "restarts": 1}
    floats = search(linear, {"a": 1.0}, np.ones((2, 4), np.float32), **options)
    for dtype in (np.int32, np.float64, bool):
        other = search(linear, {"a": 1.0}, np.ones((2, 4), dtype), **options)
        np.testing.assert_allclose(other.optimized_input, floats.optimized_input, rtol=1e-5)
    with pytest.raises(ValueError, match="k: expected 1 to 1"):
        floats.select(2)
    ended = search(linear, {"a": 1.0}, np.ones((2, 4)), time_limit=0.0, **options)
    assert set(ended.counts()) == {"TIME_LIMIT"}
