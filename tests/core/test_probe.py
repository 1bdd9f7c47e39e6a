"""The fits from other starts, by which `refine` looks for more optima."""

import numpy as np

import refinejax as rj

T = np.linspace(0, 1, 5, dtype=np.float32)


def line(params):
    return params[0] + params[1] * T


def test_fits_from_other_starts_are_counted():
    arguments = line, line(np.float32([0.3, 0.5])), np.float32([0.1, 0.1])
    bounds = ([-1.0, -1.0], [1.0, 1.0])
    alone = rj.refine(*arguments, bounds=bounds, method=rj.LevenbergMarquardt())
    probed = rj.refine(*arguments, bounds=bounds)
    assert probed.steps == alone.steps
    assert np.all(probed.counted() >= 2 * alone.counted())  # two other starts of the sample
