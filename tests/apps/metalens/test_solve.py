import jax
import numpy as np
import optax
import pytest

from refinejax import Gradient, Status
from refinejax.apps import metalens
from refinejax.apps.metalens.cascade.scale import OTHERS, WAVELENGTH
from refinejax.apps.metalens.notes import NOTE_SCALE, NOTE_START
from refinejax.physics.metalens.lens import LOWER, UPPER
from refinejax.physics.noise import PhaseNoise

LENGTH = WAVELENGTH
RANGE = np.array(UPPER) - np.array(LOWER)
ADAM = Gradient(optax.adam, {"learning_rate": 1e-3})


def rmse(maps, params):
    """Of the residual, by NumPy in float64 [rad]."""
    size = maps.shape[-1]
    x = np.linspace(-0.5, 0.5, size)
    xc, yc, side, wavelength, focal = np.asarray(params, float).T[:, :, None, None]
    r2 = (xc + side * x) ** 2 + (yc + side * x[:, None]) ** 2
    phase = 2 * np.pi / wavelength * (np.sqrt(r2 + focal**2) - focal)
    residual = np.angle(np.exp(1j * (phase - maps)))
    return np.sqrt(np.nanmean(residual**2, axis=(1, 2)))


@pytest.fixture(scope="module")
def made():
    return metalens.simulate(4, 16, error=1e-4)


@pytest.fixture(scope="module")
def refined(made):
    return metalens.invert(made["phase"], wavelength=made["wavelength"], initial=made["initial"])


def test_shapes(made, refined):
    shapes = {"params": (4, 5), "std": (4, 5), "at_bound": (4, 5)}
    shapes |= dict.fromkeys(("loss", "initial_loss", "steps", "status"), (4,))
    for name, shape in shapes.items():
        assert getattr(refined, name).shape == shape, name
    assert refined.params.dtype == refined.std.dtype == np.float32
    assert refined.at_bound.dtype == bool


def test_a_single_map_has_no_sample_axis(made):
    arguments = {"method": "random", "max_steps": 3}
    one = metalens.invert(
        made["phase"][0],
        wavelength=made["wavelength"][0],
        initial=made["initial"][0],
        **arguments,
    )
    assert (one.params.shape, one.std.shape, one.at_bound.shape) == ((5,), (5,), (5,))
    assert one.loss.shape == one.status.shape == one.steps.shape == ()
    alone = {name: array[:1] for name, array in made.items()}
    batch = metalens.invert(
        alone["phase"], wavelength=alone["wavelength"], initial=alone["initial"], **arguments
    )
    np.testing.assert_array_equal(batch.params[0], one.params)


def test_the_loss_is_the_square_of_the_residual(made, refined):
    np.testing.assert_allclose(
        np.sqrt(refined.loss), rmse(made["phase"], refined.params), atol=3e-3
    )
    np.testing.assert_allclose(
        metalens.residual_rmse(made["phase"], refined.params), np.sqrt(refined.loss), atol=1e-3
    )


def test_no_sample_is_worse_than_it_came_in(made, refined):
    before, after = rmse(made["phase"], made["initial"]), rmse(made["phase"], refined.params)
    assert np.all(after <= before + 1e-4)
    assert np.all(after[before > 0.1] < before[before > 0.1])  # and this start is near enough
    assert np.all(refined.loss <= refined.initial_loss)


def test_a_known_wavelength_is_not_moved(made, refined):
    np.testing.assert_array_equal(refined.params[:, LENGTH], made["wavelength"])
    np.testing.assert_array_equal(refined.std[:, LENGTH], 0)
    assert not refined.at_bound[:, LENGTH].any()
    assert NOTE_SCALE not in refined.notes


@pytest.mark.slow
def test_one_wavelength_for_all_and_outside_of_the_range(made):
    result = metalens.invert(made["phase"], wavelength=0.3, initial=made["initial"], max_steps=3)
    np.testing.assert_array_equal(result.params[:, LENGTH], np.float32(0.3))
    each = metalens.invert(
        made["phase"], wavelength=np.full(4, 0.3), initial=made["initial"], max_steps=3
    )
    np.testing.assert_array_equal(each.params, result.params)


def test_an_unknown_wavelength_leaves_only_ratios(made):
    result = metalens.invert(made["phase"], initial=made["initial"], method=ADAM, max_steps=20)
    assert NOTE_SCALE in result.notes
    assert "ratios" in NOTE_SCALE
    assert np.isnan(result.std).all()
    assert np.all(result.loss <= result.initial_loss)
    # Scaled by any number, the params explain the maps as well, to rounding in float32.
    scaled = metalens.residual_rmse(made["phase"], 1.1 * result.params)
    np.testing.assert_allclose(scaled, np.sqrt(result.loss), atol=5e-3)


def test_standard_errors_are_nan_for_a_fit_that_explains_nothing(made):
    known = made["wavelength"]
    result = metalens.invert(made["phase"], wavelength=known, method="lm", max_steps=0)
    poor = metalens.residual_rmse(made["phase"], result.params) >= 1
    assert poor.any()
    assert np.isnan(result.std[poor][:, OTHERS]).all()


@pytest.mark.slow
@pytest.mark.parametrize(("method", "known"), [("lbfgs", True), (ADAM, False)])
def test_bounds_hold(made, method, known):
    rng = np.random.default_rng(0)
    initial = made["truth"] + 0.3 * RANGE.astype(np.float32) * rng.normal(size=(4, 5))
    wavelength = made["wavelength"] if known else None
    result = metalens.invert(
        made["phase"], wavelength=wavelength, initial=initial, method=method, max_steps=20
    )
    low, high = np.float32(LOWER), np.float32(UPPER)
    assert np.all((result.params >= low) & (result.params <= high))
    touching = (result.params == low) | (result.params == high)
    np.testing.assert_array_equal(
        result.at_bound, touching & (np.arange(5) != LENGTH) | (touching & (not known))
    )


@pytest.mark.slow
def test_starts_are_moved_into_the_ranges(made):
    outside = np.tile(np.float32([900, -900, 0, 0.1, 500]), (4, 1))
    starts = metalens.starts(outside, None, made["phase"])
    np.testing.assert_array_equal(starts, np.tile(np.float32([500, -500, 1, 0.4, 100]), (4, 1)))
    result = metalens.invert(made["phase"], initial=outside, method="lm", max_steps=0)
    np.testing.assert_array_equal(result.params, starts)
    before = metalens.residual_rmse(made["phase"], starts)
    np.testing.assert_allclose(np.sqrt(result.initial_loss), before, rtol=1e-4)


def test_starts(made):
    maps, known = made["phase"], made["wavelength"]
    middle = (np.array(LOWER) + np.array(UPPER)) / 2
    np.testing.assert_allclose(metalens.starts(None, None, maps), np.tile(middle, (4, 1)))
    starts = metalens.starts(made["initial"], known, maps)
    np.testing.assert_array_equal(starts[:, LENGTH], known)
    others = OTHERS
    np.testing.assert_array_equal(starts[:, others], made["initial"][:, others])
    np.testing.assert_array_equal(metalens.starts(None, 0.3, maps)[:, LENGTH], np.float32(0.3))
    assert starts.dtype == np.float32


def test_without_a_start_the_result_says_so(made):
    known = made["wavelength"]
    result = metalens.invert(made["phase"], wavelength=known, method="lm", max_steps=0)
    assert result.notes == (NOTE_START,)
    notes = metalens.invert(made["phase"], wavelength=known, max_steps=0).notes
    assert NOTE_START not in notes


def test_wrapped_or_not_is_the_same(made, refined):
    """Turns added to pixels at random change nothing but the rounding."""
    turns = np.random.default_rng(0).integers(-3, 4, made["phase"].shape)
    maps = (made["phase"] + 2 * np.pi * turns).astype(np.float32)
    result = metalens.invert(maps, wavelength=made["wavelength"], initial=made["initial"])
    np.testing.assert_allclose(result.initial_loss, refined.initial_loss, rtol=1e-4)
    assert np.all(result.loss < 0.2 * result.initial_loss) == np.all(
        refined.loss < 0.2 * refined.initial_loss
    )


def test_missing_pixels_have_no_weight(made):
    maps = made["phase"].copy()
    maps[:, ::3, 1::2] = np.nan
    maps[3] = np.nan
    result = metalens.invert(maps, wavelength=made["wavelength"], initial=made["initial"])
    assert result.status[3] == Status.NONFINITE_START
    np.testing.assert_array_equal(result.params[3, OTHERS], made["initial"][3, OTHERS])
    assert np.isnan(result.std[3, OTHERS]).all()
    assert np.all(result.status[:3] > 0)
    np.testing.assert_allclose(
        np.sqrt(result.loss[:3]), rmse(maps[:3], result.params[:3]), atol=1e-3
    )


def test_bad_samples_do_not_lose_the_others(made, refined):
    maps, initial = made["phase"].copy(), made["initial"].copy()
    wavelength = made["wavelength"].copy()
    maps[0] = np.inf
    initial[1, 0] = np.nan
    wavelength[2] = np.nan
    result = metalens.invert(maps, wavelength=wavelength, initial=initial)
    np.testing.assert_array_equal(result.status[[0, 2]], Status.NONFINITE_START)
    assert metalens.residual_rmse(made["phase"], result.params)[1] < 2e-3  # needs no start
    np.testing.assert_allclose(result.params[3], refined.params[3])
    np.testing.assert_allclose(result.std[3], refined.std[3])
    assert np.isnan(result.std[[0, 2]][:, OTHERS]).all()


@pytest.mark.parametrize("dtype", [">f4", "<f2", "<f8", "longdouble"])
def test_maps_of_any_floating_dtype(made, refined, dtype):
    maps = made["phase"].astype(dtype)
    result = metalens.invert(maps, wavelength=made["wavelength"], initial=made["initial"])
    assert result.params.dtype == np.float32
    atol = 2e-3 if dtype == "<f2" else 1e-6
    np.testing.assert_allclose(result.initial_loss, refined.initial_loss, atol=atol)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"phase": np.zeros((4, 16, 15))}, r"phase: .*\(B, N, N\).*\(4, 16, 15\)"),
        ({"phase": np.zeros((4, 1, 1))}, "phase: .*N ≥ 2"),
        ({"phase": np.zeros(16)}, "phase: "),
        ({"phase": np.zeros((0, 16, 16))}, "phase: empty batch"),
        ({"phase": np.zeros((4, 16, 16), int)}, "phase: .*int64.*convert"),
        ({"phase": np.zeros((4, 16, 16), complex)}, "phase: .*complex"),
        ({"initial": np.zeros((3, 5))}, r"initial: expected shape \(4, 5\).*\(3, 5\)"),
        ({"initial": np.zeros((4, 4))}, "initial: expected shape"),
        ({"initial": np.full((4, 5), "a")}, "initial: expected real numbers"),
        ({"wavelength": np.full(3, 0.5)}, r"wavelength: .*\(4,\).*\(3,\)"),
        ({"wavelength": 550.0}, "wavelength: expected µm.*nm / 1000"),
        ({"wavelength": -0.5}, "wavelength: expected numbers above 0"),
        ({"wavelength": 0.0}, "wavelength: expected numbers above 0"),
        ({"wavelength": np.nan}, "wavelength: expected numbers above 0"),
        ({"wavelength": "red"}, "wavelength: expected real numbers"),
        ({"method": "nope"}, "method: expected one of auto, .*'nope'"),
        ({"max_steps": -1}, "max_steps: "),
        ({"key": "a"}, "key: expected a seed .*'a'"),
        ({"key": 0.5}, "key: expected a seed .*0.5"),
        ({"stop": 1e-3}, r"stop: expected rules, such as Stop\(loss=1e-3\).*0.001"),
        ({"time_limit": "a"}, "time_limit: expected seconds.*'a'"),
        ({"time_limit": -1.0}, "time_limit: expected seconds.*-1.0"),
        ({"lines": (0.5, 0.6)}, "lines: .*both"),
        ({"wavelength": None, "lines": (0.5, -0.6)}, "lines: expected numbers above 0"),
        ({"wavelength": None, "lines": (405, 532)}, "lines: expected µm.*nm / 1000"),
        ({"wavelength": None, "lines": ()}, "lines: expected wavelengths"),
        ({"wavelength": None, "lines": "laser"}, "lines: expected real numbers"),
        ({"wavelength": None, "lines": (0.5, 0.6), "method": "lm"}, "lines: only the cascade"),
    ],
)
def test_bad_arguments_are_named(made, change, words):
    arguments = {"phase": made["phase"], "initial": made["initial"], "wavelength": 0.5} | change
    with pytest.raises(ValueError, match=words):
        metalens.invert(arguments.pop("phase"), **arguments)


def test_predict(made):
    for maps, params in zip(made["phase"], made["truth"], strict=True):
        predicted = metalens.predict(params, 16)
        assert np.all((predicted >= -np.float32(np.pi)) & (predicted < np.float32(np.pi)))
        np.testing.assert_allclose(np.angle(np.exp(1j * (predicted - maps))), 0, atol=5e-3)


@pytest.mark.parametrize(("method", "known"), [("auto", True), (ADAM, False)])
def test_convergence(made, known, method):
    wavelength = made["wavelength"] if known else None
    result = metalens.invert(
        made["phase"],
        wavelength=wavelength,
        initial=made["initial"],
        method=method,
        max_steps=15,
        trace=4,
    )
    assert result.trace.shape == (4, 16 if method is ADAM else 3)
    trace = np.sqrt(result.trace)
    assert np.all(np.diff(trace, axis=1) <= 0)
    starts = metalens.starts(made["initial"], wavelength, made["phase"])
    first = metalens.residual_rmse(made["phase"], starts)
    np.testing.assert_allclose(trace[:, 0], first, rtol=1e-4, atol=1e-5)
    assert np.any(trace[:, -1] < trace[:, 0])
    np.testing.assert_allclose(trace[:, -1], np.sqrt(result.loss), rtol=1e-6)
    plain = metalens.invert(
        made["phase"],
        wavelength=wavelength,
        initial=made["initial"],
        method=method,
        max_steps=15,
    )
    np.testing.assert_array_equal(plain.params, result.params)
    assert plain.trace is None


def test_simulate(made):
    assert {name: array.shape for name, array in made.items()} == {
        "phase": (4, 16, 16),
        "truth": (4, 5),
        "wavelength": (4,),
        "initial": (4, 5),
    }
    assert all(array.dtype == np.float32 for array in made.values())
    np.testing.assert_array_equal(made["wavelength"], made["truth"][:, LENGTH])
    assert np.all(rmse(made["phase"], made["truth"]) < 5e-3)
    assert "initial" not in metalens.simulate(4, 16)


def test_simulate_is_reproducible_by_key(made):
    for key in (0, jax.random.key(0)):
        again = metalens.simulate(4, 16, error=1e-4, key=key)
        for name, array in made.items():
            np.testing.assert_array_equal(again[name], array)
    other = metalens.simulate(4, 16, error=1e-4, key=1)
    assert not np.any(other["truth"] == made["truth"])
    near = metalens.simulate(4, 16, error=1e-3, key=0)  # the lenses stay as the error changes
    np.testing.assert_array_equal(near["truth"], made["truth"])
    np.testing.assert_array_equal(near["phase"], made["phase"])


def test_simulate_draws_lenses_and_errors_as_it_says():
    error = 0.01
    made = metalens.simulate(4000, 2, error=error, key=2)
    truth, initial = made["truth"], made["initial"]
    assert np.all((truth >= np.float32(LOWER)) & (truth <= np.float32(UPPER)))
    assert np.all((initial >= np.float32(LOWER)) & (initial <= np.float32(UPPER)))
    share = (truth - np.array(LOWER)) / RANGE
    np.testing.assert_allclose(share.mean(axis=0), 0.5, atol=0.02)  # 4 standard errors
    np.testing.assert_allclose(share.std(axis=0), 12**-0.5, atol=0.01)
    inside = np.all((share > 5 * error) & (share < 1 - 5 * error), axis=1)  # nothing is clipped
    errors = (initial - truth)[inside] / RANGE / error
    assert inside.sum() > 2000
    np.testing.assert_allclose(errors.std(axis=0), 1, atol=0.06)
    np.testing.assert_allclose(errors.mean(axis=0), 0, atol=0.08)
    np.testing.assert_allclose((errors**4).mean(axis=0), 3, atol=0.8)  # Gaussian
    correlation = np.corrcoef(errors.T) - np.eye(5)
    assert np.max(np.abs(correlation)) < 0.08


def test_simulate_with_noise(made):
    noise = PhaseNoise.only("grain", "dead").replace(dead_density=0.5, dead_value=np.nan)
    noisy = metalens.simulate(4, 16, noise=noise, error=1e-4)
    np.testing.assert_array_equal(noisy["truth"], made["truth"])
    np.testing.assert_array_equal(noisy["initial"], made["initial"])
    np.testing.assert_allclose(rmse(noisy["phase"], noisy["truth"]), 0.2, atol=0.06)
    assert 0.4 < np.isnan(noisy["phase"]).mean() < 0.6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"count": 0}, "count: expected 1 or more, got 0"),
        ({"size": 1}, "size must be at least 2"),
        ({"error": -0.1}, "error: .*-0.1"),
        ({"error": np.nan}, "error: .*nan"),
        ({"error": np.inf}, "error: .*inf"),
    ],
)
def test_simulate_names_bad_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        metalens.simulate(**{"count": 4, "size": 16} | arguments)


@pytest.mark.slow
def test_a_population_begins_on_few_pixels_and_ends_on_all():
    made = metalens.simulate(8, 32, error=0.003, key=4)
    result = metalens.invert(
        made["phase"],
        wavelength=made["wavelength"],
        initial=made["initial"],
        method="cma_es",
        uncertainty=False,
    )
    assert "16 × 16 pixels; then lm on all" in result.method
    assert np.all(result.loss <= result.initial_loss)
    assert np.mean(metalens.residual_rmse(made["phase"], result.params) < 0.05) >= 0.75
    np.testing.assert_array_equal(result.params[:, WAVELENGTH], made["wavelength"])
    stopped = metalens.invert(
        made["phase"],
        wavelength=made["wavelength"],
        initial=made["initial"],
        method="cma_es",
        time_limit=0.0,
        uncertainty=False,
    )
    assert np.all(stopped.status == Status.TIME_LIMIT)
    assert np.all(np.isfinite(stopped.loss))
