"""Predictors of lenses and the task they are trained on."""

import functools
import json
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import refinejax
from refinejax.apps.metalens.architecture import build_predictor
from refinejax.apps.metalens.cascade.scale import REFERENCE
from refinejax.apps.metalens.losses import physics_consistency
from refinejax.apps.metalens.prediction import (
    KINDS,
    kind_of,
    lens_space,
    predict_lens,
    sample_lenses,
    targets,
    to_lens,
)
from refinejax.apps.metalens.train import PredictorTask
from refinejax.networks.losses import gaussian_nll
from refinejax.networks.predictor import Moments, mixture
from refinejax.physics import metalens
from refinejax.physics.metalens.lens import LOWER, NAMES, UPPER
from refinejax.physics.phase import wrapped_difference

SIZE, INDEX = 12, NAMES.index("wavelength")
NETWORK = {"widths": [4], "groups": 2, "hidden": 4}
SMALL = {
    "wavelength": "ratios",
    "size": SIZE,
    "batch": 3,
    "validation": 4,
    "block": 6,
    "noise": ["grain"],
}


@functools.cache
def task(**more):
    return PredictorTask.of({**SMALL, **more}, NETWORK)


@functools.cache
def first(**more):
    return jax.jit(lambda task: task.init(jax.random.key(0)))(task(**more))


simulate = jax.jit(lambda task, key: task.simulate(key))
step = jax.jit(lambda task, weights, step, key: task.loss_and_grad(weights, (), step, key))
moments_of = jax.jit(lambda weights, phase: weights.moments(phase))
validate = jax.jit(lambda task, weights, key: task.validate(weights, key))


predict = jax.jit(predict_lens)
draw = jax.jit(sample_lenses, static_argnums=3)


def lenses(count, seed=0):
    return np.random.default_rng(seed).uniform(LOWER, UPPER, (count, 5)).astype("float32")


@pytest.mark.parametrize("kind", KINDS)
def test_lenses_within_the_ranges_have_targets_within_the_space_and_come_back(kind):
    space = lens_space(kind)
    for lens in lenses(100):
        target = targets(kind, jnp.asarray(lens))
        assert space.contains(target)
        np.testing.assert_allclose(to_lens(kind, target, lens[INDEX]), lens, rtol=1e-5)


def test_the_bounds_of_ratios_are_those_of_the_ranges():
    low, high = lens_space("ratios").bounds
    np.testing.assert_allclose(high, [500 / 0.4, 500 / 0.4, 40 / 0.4, 100 / 0.4], rtol=1e-5)
    np.testing.assert_allclose(low, [-500 / 0.4, -500 / 0.4, 1 / 0.7, 10 / 0.7], rtol=1e-5)


def test_a_prediction_of_the_wavelength_is_scaled_to_the_one_that_is_known():
    lens = jnp.asarray(lenses(1)[0])
    scaled = to_lens("predicted", lens, 1.1 * lens[INDEX])
    np.testing.assert_allclose(scaled, 1.1 * lens, rtol=1e-6)
    np.testing.assert_array_equal(to_lens("predicted", lens, None), lens)


@pytest.mark.parametrize(
    "kind", ["ratios", *(pytest.param(k, marks=pytest.mark.slow) for k in ("known", "predicted"))]
)
def test_lenses_that_are_predicted_or_drawn_are_within_the_ranges(kind):
    weights, image = first(wavelength=kind), jnp.zeros((SIZE, SIZE))
    assert kind_of(weights) == kind
    low, high = np.array(LOWER, "float32"), np.array(UPPER, "float32")
    for length in (0.5, 0.725):  # the second is a laser line beyond the range
        lens, std = predict(weights, image, length)
        drawn = draw(weights, jax.random.key(0), image, 8, length)
        both = np.delete(np.concatenate([drawn, lens[None]]), INDEX, axis=1)
        assert np.all((both >= np.delete(low, INDEX)) & (both <= np.delete(high, INDEX)))
        np.testing.assert_array_equal(np.append(drawn[:, INDEX], lens[INDEX]), np.float32(length))
        assert std[INDEX] == 0
        assert np.all(np.delete(std, INDEX) > 0)
        assert len(np.unique(drawn[:, 0])) == 8


def test_the_spread_of_draws_is_the_standard_deviation_in_micrometers():
    weights, image = first(), jnp.zeros((SIZE, SIZE))
    sharp = jax.tree.map(jnp.zeros_like, weights)
    bias = sharp.network.weights["head"]["last"]["bias"].at[:, 4:].set(-5.0)
    sharp.network.weights["head"]["last"]["bias"] = bias
    lens, std = predict(sharp, image, 0.6)
    drawn = draw(sharp, jax.random.key(0), image, 4000, 0.6)
    inner = np.array([0, 1, 2, 4])
    np.testing.assert_allclose(np.mean(drawn, 0)[inner], lens[inner], atol=0.1 * std.max())
    np.testing.assert_allclose(np.std(drawn, 0)[inner], std[inner], rtol=0.06)


def test_a_wavelength_that_is_not_known():
    image = jnp.zeros((SIZE, SIZE))
    lens, std = predict(first(wavelength="predicted"), image)
    assert LOWER[INDEX] <= lens[INDEX] <= UPPER[INDEX]
    assert std[INDEX] > 0
    for kind in ("ratios", "known"):
        found = [predict(first(wavelength=kind), image, length)[0] for length in (None, REFERENCE)]
        np.testing.assert_array_equal(found[0], found[1])
        assert found[0][INDEX] == np.float32(REFERENCE)


def test_a_predictor_of_something_else_is_refused():
    weights = first()
    other = weights.replace(box=weights.box._replace(names=("a", "b", "c", "d")))
    with pytest.raises(ValueError, match=r"predictor: expected one of lenses .* got one of a, b"):
        kind_of(other)


def test_maps_are_those_of_lenses_drawn_from_the_ranges():
    plain = task(noise=())
    sample = simulate(plain, jax.random.key(0))
    off = wrapped_difference(metalens.phase(sample.lens, SIZE), sample.phase)
    np.testing.assert_allclose(off, 0, atol=4e-3)
    many = jax.jit(jax.vmap(plain.simulate))(jax.random.split(jax.random.key(1), 500)).lens
    unit = (np.asarray(many) - LOWER) / (np.array(UPPER) - LOWER)
    assert np.all((unit >= 0) & (unit <= 1))
    np.testing.assert_allclose(unit.mean(0), 0.5, atol=0.06)
    np.testing.assert_allclose(unit.std(0), 12**-0.5, atol=0.03)


@pytest.mark.slow
def test_the_level_of_noise_varies_from_map_to_map():
    def noise(sample):
        return jnp.std(jnp.angle(jnp.exp(1j * (sample.phase - metalens.phase(sample.lens, SIZE)))))

    made, keys = task(), jax.random.split(jax.random.key(0), 200)
    stds = np.asarray(jax.jit(jax.vmap(lambda key: noise(made.simulate(key))))(keys))
    assert stds.min() < 0.03
    assert 0.17 < stds.max() < 0.25
    assert stds.mean() == pytest.approx(0.1, abs=0.01)


LATER = {"physics": "phase", "physics_weight": 0.1, "ramp": (10, 20)}


@pytest.mark.parametrize("members", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_step_is_the_mean_over_members_maps_and_params(members):
    made, weights = task(members=members, beta=0.3, **LATER), first(members=members)
    key = jax.random.key(5)
    loss, grad, memory, metrics = step(made, weights, 7, key)
    terms = []
    for one in jax.random.split(key, 3):
        sample = simulate(made, one)
        mean, log_variance = moments_of(weights, sample.phase)
        target = weights.space.to_unit(targets("ratios", sample.lens))
        terms += [gaussian_nll(m, s, target, 0.3) for m, s in zip(mean, log_variance, strict=True)]
    np.testing.assert_allclose(loss, np.mean(terms), rtol=1e-5)
    assert metrics["data"] == loss
    assert memory == ()
    assert jax.tree.structure(grad) == jax.tree.structure(weights)
    again = step(made, weights, 7, key)
    np.testing.assert_array_equal(loss, again[0])
    assert step(made, weights, 7, jax.random.key(6))[0] != loss


@pytest.mark.slow
def test_the_physics_comes_in_with_the_curriculum():
    made, weights, key = task(**LATER), first(), jax.random.key(0)
    data, before = (step(made, weights, at, key) for at in (0, 10))
    half, full, after = (step(made, weights, at, key) for at in (15, 20, 900))
    assert data[0] == before[0] == data[3]["data"]
    assert before[3]["curriculum"] == 0
    samples = [simulate(made, one) for one in jax.random.split(key, 3)]
    known = np.mean(
        [
            physics_consistency(
                metalens.phase(ratios(weights, s.phase) * s.lens[INDEX], SIZE), s.phase
            )
            for s in samples
        ]
    )
    np.testing.assert_allclose(half[0], data[0] + 0.05 * known, rtol=1e-4)
    np.testing.assert_allclose(full[0], data[0] + 0.1 * known, rtol=1e-4)
    np.testing.assert_array_equal(after[0], full[0])


def ratios(weights, phase):
    """The lens at a wavelength of 1, with the ratios that are predicted."""
    mean = moments_of(weights, phase).mean[0]
    return jnp.insert(weights.space.from_unit(mean), INDEX, 1.0)


def predicted(lens, log_variance=-2.0):
    """Weights and moments with which the predictor of all five says this lens."""
    weights = first(wavelength="predicted")
    mean = (jnp.asarray(lens) - weights.space.lower) / (weights.space.upper - weights.space.lower)
    return weights, Moments(mean, jnp.full(5, log_variance))


@pytest.mark.parametrize("loss", ["mse", "uncertainty", "nll"])
def test_what_a_map_does_not_determine_costs_only_by_the_wavelength(loss):
    """A multiple of the truth is as right as the truth, but for its wavelength."""
    made = task(wavelength="predicted", loss=loss, beta=0.0)
    truth = jnp.array([200.0, -100.0, 20.0, 0.5, 50.0])
    losses = {}
    for factor in (1.0, 1.2):
        weights, moments = predicted(factor * truth)
        # as uncertain as the truth, once scaled
        wider = jnp.full(5, 2 * np.log(factor)).at[INDEX].set(0)
        moments = moments._replace(log_variance=moments.log_variance + wider)
        losses[factor] = made.error(weights, moments, truth, 0.0)
    squared = (0.1 / (UPPER[INDEX] - LOWER[INDEX])) ** 2 / 5
    share = 0.5 * np.exp(2.0) + (loss == "mse")
    np.testing.assert_allclose(losses[1.2] - losses[1.0], share * squared, rtol=1e-4)


@pytest.mark.slow
def test_squared_errors_do_not_teach_the_network_variances():
    made = task(loss="mse")
    weights = first(loss="mse")
    grad = step(made, weights, 0, jax.random.key(0))[1]
    one = jax.jit(
        jax.grad(
            lambda w, s: jnp.mean(
                (w.moments(s.phase).mean - w.space.to_unit(targets("ratios", s.lens))) ** 2
            )
        )
    )
    samples = [simulate(made, key) for key in jax.random.split(jax.random.key(0), 3)]
    known = jax.tree.map(lambda *g: sum(g) / 3, *[one(weights, s).network for s in samples])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), grad.network, known
    )
    assert np.all(grad.log_variance != 0)


@pytest.mark.slow
def test_validation_says_how_far_predictions_are_off():
    made, weights, key = task(members=2), first(members=2), jax.random.key(3)
    found = validate(made, weights, key)
    errors, rmse, scores, losses = [], [], [], []
    for one in jax.random.split(key, 4):
        sample = simulate(made, one)
        lens, std = predict(weights, sample.phase, sample.lens[INDEX])
        whole = mixture(moments_of(weights, sample.phase))
        target = weights.space.to_unit(targets("ratios", sample.lens))
        losses.append(gaussian_nll(whole.mean, whole.log_variance, target))
        errors.append(np.abs(lens - sample.lens) / (np.array(UPPER) - LOWER) * 100)
        scores.append(np.delete((lens - sample.lens) / std, INDEX) ** 2)
        seen = metalens.phase(lens, SIZE) - sample.phase
        rmse.append(np.sqrt(np.mean(np.angle(np.exp(1j * seen)) ** 2)))
    for i, name in enumerate(NAMES):
        if i != INDEX:
            np.testing.assert_allclose(found[f"mae_{name}"], np.mean(errors, 0)[i], rtol=1e-4)
    assert "mae_wavelength" not in found
    np.testing.assert_allclose(found["loss"], np.mean(losses), rtol=1e-4)
    np.testing.assert_allclose(found["rmse"], np.mean(rmse), rtol=1e-3)
    np.testing.assert_allclose(found["calibration"], np.mean(scores), rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "loss"), [("known", "nll"), ("ratios", "mse"), ("predicted", "uncertainty")]
)
def test_every_kind_learns_by_every_loss(kind, loss):
    sizes = {"batch": 32, "validation": 256}
    made = task(wavelength=kind, loss=loss, physics_weight=0.02, ramp=(0, 20), **sizes)
    weights = first(wavelength=kind, loss=loss)

    @jax.jit
    def descend(weights):
        def body(weights, at):
            found, grad, _, _ = made.loss_and_grad(
                weights, (), at, jax.random.fold_in(jax.random.key(1), at)
            )
            return jax.tree.map(
                lambda w, g: w - 0.02 * g / jnp.maximum(optax.tree.norm(grad), 1), weights, grad
            ), found

        return jax.lax.scan(body, weights, jnp.arange(150))

    after, losses = descend(weights)
    assert np.all(np.isfinite(losses))
    before = validate(made, weights, jax.random.key(0))["loss"]
    assert validate(made, after, jax.random.key(0))["loss"] < before


@pytest.mark.slow
def test_it_learns_where_lenses_are():
    made = PredictorTask.of(
        {"size": 32, "batch": 64, "validation": 128, "block": 8, "levels": [0, 0.2]},
        {"widths": [16], "hidden": 64},
    )
    weights = made.init(jax.random.key(0))
    rule = optax.adam(2e-3)

    @jax.jit
    def train(weights):
        def body(carry, at):
            weights, state = carry
            _, grad, _, _ = made.loss_and_grad(
                weights, (), at, jax.random.fold_in(jax.random.key(1), at)
            )
            updates, state = rule.update(grad, state)
            return (jax.tree.map(jnp.add, weights, updates), state), None

        return jax.lax.scan(body, (weights, rule.init(weights)), jnp.arange(400))[0][0]

    before, after = (validate(made, w, jax.random.key(9)) for w in (weights, train(weights)))
    assert 22 < before["mae_xc"] < 28  # as the middle of the range
    assert after["mae_xc"] < 0.8 * before["mae_xc"]
    assert after["mae_S"] < 0.6 * before["mae_S"]
    assert 0.7 < after["calibration"] < 1.5


def test_the_architecture_makes_the_same_predictor():
    plain = json.loads(json.dumps(task().config))
    made = jax.eval_shape(lambda key: build_predictor(plain, key), jax.random.key(0))
    assert jax.tree.structure(made) == jax.tree.structure(first())


def test_numbers_are_leaves_and_sizes_static():
    assert jax.tree.structure(task()) == jax.tree.structure(task(beta=0.1, levels=(0.0, 0.3)))
    assert jax.tree.structure(task()) != jax.tree.structure(task(batch=4))
    hash(jax.tree.structure(task()))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"sizes": 3}, "task.sizes: no such key; did you mean size"),
        ({"batch": 0}, "batch: expected 1 or more, got 0"),
        ({"wavelength": "guessed"}, "wavelength: expected one of known, ratios, predicted"),
        ({"loss": "mae"}, "loss: expected one of nll, uncertainty, mse, got 'mae'"),
        ({"physics": "rays"}, "physics: expected one of slopes, phase, got 'rays'"),
        ({"beta": 2.0}, "beta: expected 0 to 1, got 2.0"),
        ({"physics_weight": -1.0}, "physics_weight: expected 0 or more"),
        ({"levels": [0.5, 0.1]}, "levels: expected two numbers 0 ≤ low ≤ high"),
        ({"levels": [0.5]}, r"task\.levels: expected a list of 2 float"),
        ({"noise": ["snow"]}, "components: unknown 'snow'"),
        ({"grain": "snow"}, "grain_kind: unknown 'snow'"),
        ({"features": ["slope"]}, "features: expected some of"),
    ],
)
def test_tables_that_do_not_fit_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        PredictorTask.of({**SMALL, **more}, NETWORK)


def test_networks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"network\.width: no such key; did you mean widths"):
        PredictorTask.of(SMALL, {**NETWORK, "width": 3})


@pytest.mark.parametrize("name", ["metalens_predictor", "metalens_predictor_128_gpu"])
def test_the_configurations_that_come_with_the_package(name):
    path = Path(refinejax.__file__).parent / "apps/metalens/configs" / f"{name}.toml"
    tables = tomllib.loads(path.read_text())
    assert set(tables) == {"training", "task", "network"}
    made = PredictorTask.of(tables["task"], tables["network"])
    weights = jax.eval_shape(made.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(weights)) > 1000
