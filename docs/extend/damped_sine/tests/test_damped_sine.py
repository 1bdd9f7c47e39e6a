"""The forward model against mathematics, the fit against the truth, the report against the fit."""

import jax
import numpy as np
import pytest
from damped_sine.application import APPLICATION
from damped_sine.problem import SPACE, damped_sine, fit, guess, predict, rmse, simulate
from damped_sine.report import half_lives, write

NOISE = 0.05


@pytest.fixture(scope="module")
def made():
    return simulate(40, NOISE, seed=1)


@pytest.fixture(scope="module")
def result(made):
    return fit(made["times"], made["signals"], NOISE)


def test_the_forward_model_has_the_period_the_decay_and_the_slope_that_its_params_say():
    height, decay, frequency = params = np.array([1.5, 0.4, 1.25])
    times = np.linspace(0, 3, 301)
    y = predict(times, params[None])[0]
    period = round(100 / frequency)
    np.testing.assert_allclose(y[period:], y[:-period] * np.exp(-decay / frequency), atol=1e-5)
    np.testing.assert_allclose(y[0], 0, atol=1e-6)
    slope = jax.jvp(lambda t: damped_sine(params, t), (0.0,), (1.0,))[1]
    assert slope == pytest.approx(height * 2 * np.pi * frequency, rel=1e-5)


def test_fits_are_as_good_as_the_noise_and_as_sure_as_they_say(made, result):
    assert result.converged.all()
    after = rmse(made["times"], made["signals"], result.params)
    np.testing.assert_allclose(np.sqrt(np.mean(after**2)), NOISE, rtol=0.05)
    pull = (result.params - made["truth"]) / result.std
    assert np.abs(pull).max() < 5
    assert 0.8 < np.std(pull) < 1.2


def test_starts_are_near(made):
    start = guess(made["times"], made["signals"])
    frequency = SPACE.names.index("frequency")
    assert np.abs(start - made["truth"])[:, frequency].max() < 0.2  # 1 / (5 s)


def test_the_report_shows_the_fit(made, result, tmp_path):
    page = write(tmp_path, made, guess(made["times"], made["signals"]), result)
    text = page.read_text()
    for words in ("Damped sines", "Half-lives", "residual RMSE after [V]", "frequency", "Hz"):
        assert words in text
    assert (tmp_path / "worst.png").read_bytes().startswith(b"\x89PNG")


def test_half_lives(result):
    section = half_lives(result)
    median = np.median(np.log(2) / result.params[:, 1])
    assert f"<td>{median:.4g}</td>" in section.parts[1]


def test_names():
    assert set(APPLICATION.commands) == {"damped-sine", "simulate damped-sine"}
    assert damped_sine(np.array([1.0, 0.0, 1.0]), np.array([0.25])) == pytest.approx(1.0)
