"""Figures of errors and of residuals."""

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from scipy.stats import chi2

from refinejax import plot
from refinejax.diagnostics import Covariance
from refinejax.plot.fit import correlogram


def make(std=(1.0, 2.0, 3.0), rho=0.5):
    std = np.asarray(std, float)
    correlation = np.where(np.eye(len(std)) > 0, 1, rho)
    matrix = correlation * std[:, None] * std
    params = np.arange(1.0, 1 + len(std))
    finite = np.isfinite(std)
    arrays = (params, matrix, finite, ~finite, np.asarray(30.0), 0 * params)
    more = {"variance": np.ones(1), "rounded": np.zeros(1, bool)}
    return Covariance(tuple("abc"[: len(std)]), *(x[None] for x in arrays), "white", **more)


def test_corner_draws_ellipses_that_hold_what_they_say():
    covariance = make()
    figure: Any = plot.corner(covariance, truth=[1.1, 2.0, 2.5])
    axes = np.array(figure.axes).reshape(3, 3)
    center, matrix = covariance.params[0, :2], covariance.matrix[0, :2, :2]
    for line, level in zip(axes[1, 0].lines[:2], (0.68, 0.95), strict=True):
        points = np.stack(line.get_data()) - center[:, None]
        distance = np.einsum("ik,ij,jk->k", points, np.linalg.inv(matrix), points)
        np.testing.assert_allclose(distance, chi2.ppf(level, 2), rtol=1e-6)
    assert axes[1, 0].texts[0].get_text() == "ρ 0.50"
    assert axes[0, 0].get_title() == "1.0 ± 1.0"
    assert [axes[2, i].get_xlabel() for i in range(3)] == ["a", "b", "c"]
    assert [axes[i, 0].get_ylabel() for i in range(1, 3)] == ["b", "c"]
    assert 1.1 in axes[2, 0].lines[-2].get_xdata()
    single = plot.corner(covariance.squeeze(), truth=[1.1, 2.0, 2.5])
    assert plot.png(single, 40) == plot.png(figure, 40)
    assert imread(io.BytesIO(plot.png(figure, 40))).std() > 0.01


def test_corner_leaves_out_what_is_not_known():
    figure: Any = plot.corner(make(std=(1.0, np.nan, 0.0)))
    assert len(figure.axes) == 1
    assert "left out: b, c" in figure.get_suptitle()
    with pytest.raises(ValueError, match="no param"):
        plot.corner(make(std=(np.nan,)))


@pytest.mark.parametrize("shape", [(40, 30), (200,)])
def test_residuals_of_images_and_signals(shape):
    values = np.random.default_rng(0).normal(size=shape)
    values.flat[3] = np.nan
    figure: Any = plot.residuals(values, "Sample $3")
    assert "Sample $3" in figure.get_suptitle()
    assert imread(io.BytesIO(plot.png(figure, 40))).std() > 0.01
    plot.png(plot.residuals(np.zeros(shape)), 40)


def test_residuals_refuse_what_they_cannot_draw():
    with pytest.raises(ValueError, match="shape"):
        plot.residuals(np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="two finite"):
        plot.residuals(np.full((2, 2), np.nan))


def test_the_correlogram_is_that_of_pairs_counted_one_by_one():
    values = np.random.default_rng(1).normal(size=(7, 5))
    values[2, 3] = np.nan
    lag, correlation, pairs = correlogram(values)
    centered = values - np.nanmean(values)
    places = [p for p in np.ndindex(values.shape) if np.isfinite(values[p])]
    for distance in (1, 2, 3):
        products = [
            centered[p] * centered[q]
            for i, p in enumerate(places)
            for q in places[:i]
            if np.rint(np.hypot(p[0] - q[0], p[1] - q[1])) == distance
        ]
        assert pairs[distance] == len(products)
        expected = np.mean(products) / np.nanvar(values)
        np.testing.assert_allclose(correlation[distance], expected, rtol=1e-9)
    assert lag[-1] == 3
    assert correlation[0] == 1
