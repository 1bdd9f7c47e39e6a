import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from refinejax.apps.metalens import figures
from refinejax.physics import metalens

SIZE = 24


@pytest.fixture(scope="module")
def pair():
    """A noisy map with missing pixels, and the map of a lens near by."""
    lens = jnp.array([60.0, -40.0, 12.0, 0.55, 40.0])
    rng = np.random.default_rng(0)
    observed = np.array(metalens.wrapped_phase(lens, SIZE)) + 0.2 * rng.normal(size=(SIZE, SIZE))
    observed = np.angle(np.exp(1j * observed)).astype(np.float32)
    observed[3:6, 10:14] = np.nan
    return observed, np.asarray(metalens.wrapped_phase(lens * 1.0001, SIZE))


def test_maps_show_the_data_on_one_scale(pair):
    observed, predicted = pair
    figure: Any = figures.maps(observed, predicted, title="Sample 0")
    images = [ax.images[0] for ax in figure.axes if ax.images]
    assert len(images) == 3
    difference = np.angle(np.exp(1j * (predicted.astype(float) - observed)))
    for image, expected in zip(images, (observed, predicted, difference), strict=True):
        np.testing.assert_allclose(image.get_array().filled(np.nan), expected, atol=2e-6)
        assert image.get_clim() == (-math.pi, math.pi)
        assert image.get_cmap() == images[0].get_cmap()
    ends = images[0].get_cmap()([0.0, 1.0])
    np.testing.assert_allclose(ends[0], ends[1], atol=0.02)  # cyclic
    rmse = np.sqrt(np.nanmean(difference**2))
    assert figure.get_suptitle().endswith(f"residual RMSE {rmse:#.3g} rad")


def test_missing_pixels_are_gray_and_said_to_be(pair):
    observed, predicted = pair
    for first, second, label in (
        (observed, predicted, "missing"),
        (observed, np.full((SIZE, SIZE), np.nan), "not finite"),
        (predicted, predicted, None),
    ):
        figure: Any = figures.maps(first, second)
        labels = [tick.get_text() for ax in all_axes(figure) for tick in ax.get_yticklabels()]
        found = {"missing", "not finite"} & set(labels)
        assert found == ({label} if label else set())
    color = figures.maps(observed, predicted).axes[0].images[0].get_cmap().get_bad()
    assert np.ptp(color[:3]) < 0.1


def all_axes(figure):
    return [child for ax in figure.axes for child in (ax, *ax.child_axes)]


def test_a_prediction_that_is_not_finite_has_no_rmse(pair):
    figure: Any = figures.maps(pair[0], np.full((SIZE, SIZE), np.nan))
    assert figure.get_suptitle() == "residual RMSE —"


def test_residual_is_the_wrapped_difference():
    observed, predicted = np.array([3.0, -3.0, 0.5, np.nan]), np.array([-3.0, 3.0, 0.2, 1.0])
    step = 2 * math.pi - 6
    expected = [step, -step, -0.3, np.nan]
    np.testing.assert_allclose(figures.residual(observed, predicted), expected, atol=1e-6)
    with pytest.raises(ValueError, match="predicted: shape"):
        figures.residual(observed, predicted[:3])
