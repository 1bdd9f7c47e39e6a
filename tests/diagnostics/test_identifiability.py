"""What the data do not determine, found and put into words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import refinejax as rj
from refinejax import InverseProblem, ParameterSpace, Robust
from refinejax.apps import metalens as app
from refinejax.diagnostics import identifiability
from refinejax.physics import metalens

X = np.linspace(0.0, 4.0, 30)


def ask(model, params, dtype=np.float32, names=(), **options):
    """Identifiability of a model at params, one sample or several."""
    params = np.atleast_2d(np.asarray(params, dtype))
    with jax.enable_x64(dtype is np.float64):
        observations = np.zeros((len(params), *jax.eval_shape(model, params[0]).shape), dtype)
        size = params.shape[1]
        space = ParameterSpace.create(names, [-1e9] * size, [1e9] * size) if names else None
        problem = InverseProblem(model, observations, space=space)
        return identifiability(problem, params, **options)


def waves(params):
    """Independent columns, of which a test may use as many as it has params."""
    orders = jnp.arange(1, params.shape[0] + 1)[:, None]
    return jnp.cos(0.7 * orders * X.astype(params.dtype)) * params[:, None]


# Numbers


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_singular_values_are_those_of_numpy(dtype):
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(20, 4)) * np.array([1, 1e-3, 1e4, 1])
    found = ask(lambda p: jnp.asarray(columns, p.dtype) @ p, np.zeros((2, 4)), dtype)
    scaled = columns / np.linalg.norm(columns, axis=0)
    expected = np.linalg.svd(scaled, compute_uv=False)
    np.testing.assert_allclose(found.singular_values, np.tile(expected, (2, 1)), rtol=1e-5)
    np.testing.assert_allclose(found.condition, expected[0] / expected[-1], rtol=1e-5)
    np.testing.assert_allclose(found.scale, np.tile(1 / np.linalg.norm(columns, axis=0), (2, 1)))
    np.testing.assert_array_equal(found.rank, 4)
    assert found.complete.all()
    assert found.explain() == ()
    assert found.directions().shape == (0, 4)
    assert "2 determined in full" in repr(found)


def test_the_answer_does_not_depend_on_units():
    factor = np.float32([1e12, 1e-20, 1.0])
    plain = ask(lambda p: waves(p).sum(axis=0), np.ones(3))
    scaled = ask(lambda p: waves(p * factor).sum(axis=0), 1 / factor)
    np.testing.assert_allclose(scaled.singular_values, plain.singular_values, rtol=1e-5)


# Words


def test_the_scale_of_the_five_params_of_a_lens_is_found_and_named():
    made = app.simulate(64, 16, key=5)
    sentence = (
        "xc, yc, S, wavelength, focal_length scale together: only their ratios are determined"
    )
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype is np.float64):
            problem = InverseProblem(
                lambda p: metalens.phase(p, 16),
                made["phase"].astype(dtype),
                difference=rj.wrapped_difference,
                space=app.space(),
            )
            truth = made["truth"].astype(dtype)
            found = identifiability(problem, truth)
            known = identifiability(problem, truth, fixed=["wavelength"])
        assert not found.complete.any()
        assert all(found.explain(i)[0] == sentence for i in range(64))
        assert f"64 samples: {sentence}" in repr(found)
        # far off axis, other directions too come close, for float32 too close
        assert np.mean(found.rank == 4) >= (1.0 if dtype is np.float64 else 0.9)
        clear = int(np.argmax(found.singular_values[:, 3]))
        direction = found.directions(clear)[0] / truth[clear]
        np.testing.assert_allclose(direction / direction[0], 1, rtol=2e-3)
        assert known.names == ("xc", "yc", "S", "focal_length")
        assert np.mean(known.complete) >= (1.0 if dtype is np.float64 else 0.9)


def test_a_param_without_effect_is_named():
    found = ask(lambda p: waves(p[:2]).sum(axis=0), [1, 2, 3], names=("a", "b", "c"))
    assert found.explain() == ("c has no effect",)
    assert found.rank == 2
    assert np.isinf(found.condition)


def test_some_of_the_params_that_scale_together_are_named():
    def model(p):
        return p[0] * jnp.exp(-p[1] / p[2] * X.astype(p.dtype))

    found = ask(model, [2.0, 0.5, 3.0], names=("height", "rate", "unit"))
    (text,) = found.explain()
    assert text == "rate, unit scale together: only their ratios are determined"


def test_a_combination_is_named_with_its_moves():
    found = ask(lambda p: (p[0] + 0.3 * p[1]) * jnp.asarray(X, p.dtype), [1.0, 5.0], names="ab")
    (text,) = found.explain()
    assert text.startswith("only a combination of a, b is determined: moving ")
    assert "a by 1 and b by −3.33" in text or "a by −0.3 and b by 1," in text
    product = ask(lambda p: p[0] * p[1] * jnp.asarray(X, p.dtype), [2.0, 8.0], names="ab")
    (text,) = product.explain()
    assert "a by 1 and b by −4" in text or "a by −0.25 and b by 1," in text


def test_several_directions_are_told_apart():
    def model(p):  # a/b, c − d, e; f has no effect
        x = jnp.asarray(X, p.dtype)
        return p[0] / p[1] * x + (p[2] - p[3]) * x**2 + p[4]

    found = ask(model, [2.0, 3.0, 5.0, 5.0, 1.0, 1.0], names="abcdef")
    assert found.rank == 3
    texts = found.explain()
    assert len(texts) == 3
    assert texts[0] == "f has no effect"
    assert sum("a, b scale together" in t for t in texts) == 1
    assert sum("combination of c, d" in t or "c, d scale together" in t for t in texts) == 1


def test_params_of_a_tree_are_named_by_their_place():
    def model(params):
        return params["height"] * jnp.asarray(X, jnp.float32) + 0 * params["shape"][0, 1]

    params = {"height": np.ones(1, np.float32), "shape": np.ones((1, 1, 2), np.float32)}
    problem = InverseProblem(model, np.zeros((1, len(X)), np.float32))
    found = identifiability(problem, params)
    assert found.names == ("height", "shape[0,0]", "shape[0,1]")
    assert found.explain() == ("shape[0,0] has no effect", "shape[0,1] has no effect")


# Edges


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_param_and_fewer_pixels_than_params(dtype):
    one = ask(lambda p: p * jnp.asarray(X, p.dtype), [2.0], dtype)
    assert one.rank == 1
    assert one.condition == 1
    none = ask(lambda p: 0 * p * jnp.asarray(X, p.dtype), [2.0], dtype)
    assert none.rank == 0
    assert none.explain() == ("params[0] has no effect",)
    short = ask(lambda p: waves(p).sum(axis=0)[:2], [1.0, 2.0, 3.0, 4.0], dtype)
    assert short.rank == 2
    assert short.singular_values.shape == (1, 4)
    assert short.directions().shape == (2, 4)
    jacobian = np.asarray(jax.jacfwd(lambda p: waves(p).sum(axis=0)[:2])(jnp.ones(4)))
    np.testing.assert_allclose(jacobian @ short.directions().T, 0, atol=1e-5)
    assert len(short.explain()) == 2


def test_missing_pixels_determine_nothing_and_a_nan_stays_with_its_sample():
    params = np.ones((4, 2), np.float32)
    observations = np.zeros((4, len(X)), np.float32)
    observations[1, 1:] = np.nan
    observations[2] = np.nan
    params[3, 0] = np.nan
    model = lambda p: waves(p**2).sum(axis=0)  # noqa: E731
    found = identifiability(InverseProblem(model, observations), params)
    np.testing.assert_array_equal(found.rank, [2, 1, 0, 0])
    assert np.isnan(found.singular_values[3]).all()
    assert found.explain(3) == ("the derivative of the prediction is not finite",)
    assert found.explain(2) == ("params[0] has no effect", "params[1] has no effect")
    assert found.explain(0) == ()
    assert "1 determined in full" in found.summary()


def test_prior_and_robust_loss_do_not_change_what_the_data_tell():
    def model(p):
        return (p[0] + p[1]) * jnp.asarray(X, p.dtype)

    observations = np.zeros((1, len(X)), np.float32)
    params = np.ones((1, 2), np.float32)
    plain = InverseProblem(model, observations)
    for problem in (plain.replace(prior=lambda p: jnp.sum(p**2)), Robust(plain)):
        found = identifiability(problem, params)
        assert found.rank == 1
        np.testing.assert_array_equal(
            found.singular_values, identifiability(plain, params).singular_values
        )


def test_bad_arguments_say_what_was_expected():
    with pytest.raises(ValueError, match="residual"):
        identifiability(lambda p: jnp.sum(p), np.ones((1, 2)))
    with pytest.raises(ValueError, match="fixed: 'c' is none of a, b"):
        ask(lambda p: waves(p).sum(axis=0), [1.0, 2.0], names="ab", fixed=["c"])


def test_a_summary_counts_what_it_says():
    found = ask(lambda p: p[0] / p[1] * jnp.asarray(X, p.dtype), np.ones((1500, 2)))
    assert "1000 of 1000 described: params[0], params[1] scale together" in found.summary()
    assert len(found) == 1500
