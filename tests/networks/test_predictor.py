"""Predictors: bounds, uncertainty, ensembles, starts."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import struct

from refinejax.apps.metalens.architecture import build_predictor
from refinejax.networks import Predictor
from refinejax.networks.predictor import Moments, OutputSpace, mixture

SIZE = 12
CONFIG = {
    "size": SIZE,
    "names": ["a", "b"],
    "lower": [-1.0, 10.0],
    "upper": [3.0, 20.0],
    "units": ["µm", ""],
    "block": 6,
    "network": {"widths": [4], "groups": 2, "hidden": 4},
}


class Told(struct.PyTreeNode):
    """A network that says what it is told, whatever it sees."""

    outputs: jax.Array

    def __call__(self, seen, context):
        return self.outputs if context is None else self.outputs * context[0]


def told(mean, log_variance):
    """A predictor of these moments, shape (members, 2) in unit coordinates."""
    prior = np.log(1 / 12)
    outputs = jnp.concatenate([mean - 0.5, log_variance - prior], -1)
    box = OutputSpace(("a", "b"), (-1.0, 10.0), (3.0, 20.0), ("µm", ""))
    return Predictor(Told(outputs), None, jnp.ravel, box)


@functools.cache
def builder(**more):
    return jax.jit(lambda key: build_predictor({**CONFIG, **more}, key))


def build(seed=0, **more):
    return builder(**more)(jax.random.key(seed))


def phase(seed=0):
    return jax.random.uniform(jax.random.key(seed), (SIZE, SIZE), minval=-3, maxval=3)


moments_of = jax.jit(lambda predictor, seen: predictor.moments(seen))
predict = jax.jit(lambda predictor, *args: predictor.predict(*args))
sample = jax.jit(lambda p, key, *args, n: p.sample(key, args[0], n, *args[1:]), static_argnames="n")

MEAN = jnp.array([[0.2, 0.9], [0.4, 0.5], [0.3, 0.7]])
LOG_VARIANCE = jnp.log(jnp.array([[0.01, 0.04], [0.02, 0.01], [0.03, 0.02]]))


def test_a_mixture_has_the_moments_of_its_draws():
    found = mixture(Moments(MEAN, LOG_VARIANCE))
    mean, variance = np.asarray(MEAN, float), np.exp(np.asarray(LOG_VARIANCE, float))
    known = (variance + mean**2).mean(0) - mean.mean(0) ** 2
    np.testing.assert_allclose(found.mean, mean.mean(0), rtol=1e-6)
    np.testing.assert_allclose(np.exp(found.log_variance), known, rtol=1e-5)
    one = mixture(Moments(MEAN[:1], LOG_VARIANCE[:1]))
    np.testing.assert_allclose(one.log_variance, LOG_VARIANCE[0], rtol=1e-6)


def test_predictions_are_in_units_of_the_params():
    predictor = told(MEAN, LOG_VARIANCE)
    found, whole = predict(predictor, jnp.zeros(3)), mixture(moments_of(predictor, jnp.zeros(3)))
    width = np.array([4.0, 10.0])
    np.testing.assert_allclose(found.params, np.array([-1, 10]) + width * whole.mean, rtol=1e-6)
    np.testing.assert_allclose(found.std, width * np.exp(whole.log_variance / 2), rtol=1e-6)
    np.testing.assert_allclose(moments_of(predictor, jnp.zeros(3)).mean, MEAN, atol=1e-7)
    # what a network says of the variance is bounded smoothly, which changes little here
    np.testing.assert_allclose(
        moments_of(predictor, jnp.zeros(3)).log_variance, LOG_VARIANCE, atol=0.06
    )


def test_no_prediction_lies_outside_the_bounds_and_no_variance_is_absurd():
    wild = told(jnp.array([[-5.0, 7.0]]), jnp.array([[-100.0, 100.0]]))
    found = predict(wild, jnp.zeros(3))
    np.testing.assert_array_equal(found.params, [-1, 20])
    np.testing.assert_allclose(found.std / np.array([4.0, 10.0]), [1e-4, 1], rtol=1e-3)
    drawn = sample(wild, jax.random.key(0), jnp.zeros(3), n=50)
    assert jax.vmap(wild.space.contains)(drawn).all()
    # the loss still has a gradient there, which a clipped or squeezed mean would not
    assert jax.grad(lambda p: p.moments(jnp.zeros(3)).mean[0, 0])(wild).network.outputs[0, 0] == 1


def test_starts_are_draws_from_the_truncated_mixture():
    predictor = told(jnp.array([[0.0, 0.9], [0.3, 0.4]]), jnp.log(jnp.full((2, 2), 0.04)))
    drawn = sample(predictor, jax.random.key(1), jnp.zeros(3), n=4000)
    assert drawn.shape == (4000, 2)
    unit = np.asarray(predictor.space.to_unit(drawn))
    moments = moments_of(predictor, jnp.zeros(3))
    for param in range(2):
        mean, std = moments.mean[:, param], np.exp(moments.log_variance[:, param] / 2)
        halves = [
            scipy.stats.truncnorm(-m / s, (1 - m) / s, m, s) for m, s in zip(mean, std, strict=True)
        ]
        test = scipy.stats.kstest(
            unit[:, param], lambda x, h=halves: (h[0].cdf(x) + h[1].cdf(x)) / 2
        )
        assert test.pvalue > 1e-3
    assert not np.any((unit == 0) | (unit == 1))  # none piles up on a bound


def test_starts_stay_within_narrower_bounds_too():
    predictor = told(MEAN, LOG_VARIANCE)
    low, high = jnp.array([0.0, 18.0]), jnp.array([0.5, 30.0])
    drawn = predictor.sample(jax.random.key(0), jnp.zeros(3), 500, None, (low, high))
    unit = np.asarray((drawn - low) / (jnp.array([0.5, 20.0]) - low))
    assert np.all((unit >= 0) & (unit <= 1))
    assert np.all(unit.min(0) < 0.05)
    assert np.all(unit.max(0) > 0.95)
    assert len(np.unique(unit[:, 0])) > 450


def test_members_take_turns_and_keys_decide():
    sharp = told(MEAN, jnp.full((3, 2), -20.0))
    near = lambda drawn: np.argmin(  # noqa: E731
        np.abs(np.asarray(sharp.space.to_unit(drawn))[:, None, 0] - MEAN[None, :, 0]), axis=1
    )
    firsts = set()
    for seed in range(8):
        turns = near(sample(sharp, jax.random.key(seed), jnp.zeros(3), n=7))
        np.testing.assert_array_equal(turns, (turns[0] + np.arange(7)) % 3)
        firsts.add(int(turns[0]))
    assert firsts == {0, 1, 2}
    again = [sample(sharp, jax.random.key(s), jnp.zeros(3), n=7) for s in (0, 0, 1)]
    np.testing.assert_array_equal(again[0], again[1])
    assert np.any(again[0] != again[2])


@pytest.mark.slow
def test_a_built_ensemble_is_its_members():
    trio, image = build(members=3), phase()
    assert trio.members == 3
    whole = moments_of(trio, image)
    assert whole.mean.shape == (3, 2)
    assert len(np.unique(whole.mean[:, 0])) == 3
    second = jax.tree.map(lambda w: w[1:2], trio)
    np.testing.assert_allclose(moments_of(second, image).mean, whole.mean[1:2], atol=1e-6)


def test_a_batch_is_a_loop():
    predictor = build()
    images = jnp.stack([phase(), phase(1)])
    together = jax.jit(jax.vmap(lambda image: predictor.predict(image)))(images)
    for i, image in enumerate(images):
        alone = predict(predictor, image)
        np.testing.assert_allclose(together.params[i], alone.params, rtol=1e-5)
        np.testing.assert_allclose(together.std[i], alone.std, rtol=1e-5)
    half = jax.eval_shape(predict, predictor, images[0].astype(jnp.bfloat16))
    assert half.params.dtype == half.std.dtype == jnp.float32


def test_before_training_it_says_about_the_middle_and_the_spread_of_the_bounds():
    found = predict(build(), phase())
    np.testing.assert_allclose(found.params, [1, 15], atol=1)
    np.testing.assert_allclose(found.std, np.array([4, 10]) / 12**0.5, rtol=0.3)


def test_log_variances_that_are_the_same_for_all_observations():
    predictor = build(heteroscedastic=False)
    assert predictor.log_variance.shape == (1, 2)
    wider = predictor.replace(log_variance=predictor.log_variance + 1)
    images = [phase(), phase(1)]
    said = [[moments_of(p, image) for image in images] for p in (predictor, wider)]
    np.testing.assert_array_equal(said[0][0].log_variance, said[0][1].log_variance)
    assert np.any(said[0][0].mean != said[0][1].mean)
    assert np.all(said[1][0].log_variance > said[0][0].log_variance)


def test_all_leaves_are_learned_and_the_rest_is_static():
    a, b = build(0), build(1)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(a))
    plain = json.loads(json.dumps(CONFIG))
    remade = jax.eval_shape(lambda key: build_predictor(plain, key), jax.random.key(0))
    assert jax.tree.structure(remade) == jax.tree.structure(a)


def test_a_context_goes_to_the_network():
    predictor = told(MEAN, LOG_VARIANCE)
    a, b = (predict(predictor, jnp.zeros(3), jnp.array([x])).params for x in (1.0, 2.0))
    assert np.all(a != b)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"sizes": 3}, "predictor.sizes: no such key"),
        ({"members": 0}, "members: expected 1 or more, got 0"),
        ({"context": -1}, "context: expected 0 or more, got -1"),
        ({"lower": [5.0, 10.0]}, "bounds of a: lower 5.0 is not below upper 3.0"),
        ({"lower": [5.0]}, "lower: expected shape"),
        ({"features": ["slope"]}, "features: expected some of"),
        ({"block": 7}, "block: expected 2 blocks or more"),
        ({"network": {"architecture": "vit"}}, "architecture: expected one of resnet, unet, got"),
        ({"network": {"outputs": 3}}, "network: outputs follow from the predictor's other keys"),
        ({"network": {"modes": 9}}, "modes: expected 1 to 1"),
    ],
)
def test_configs_that_do_not_fit_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        build_predictor({**CONFIG, **more}, jax.random.key(0))
