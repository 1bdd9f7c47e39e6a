"""A param whose bounds are equal is fixed: every refiner leaves it there, and moves the others."""

import jax.numpy as jnp
import numpy as np
import pytest
from cases import REFINERS

import refinejax as rj

POINTS = np.linspace(-1, 1, 4, dtype=np.float32)
FIXED = np.float32(0.3)  # no multiple of a power of two, so that any rounding shows
SPACE = rj.ParameterSpace.create(("offset", "slope"), [0.3, -np.inf], [0.3, 2.0])


def line(params):
    return params[0] + params[1] * POINTS


PROBLEM = rj.InverseProblem(line, jnp.asarray(0.5 + 0.8 * POINTS), space=SPACE)
START = np.float32([0.7, 0.1])  # outside: it is moved onto the bounds
QUICK = ("lm", "lbfgs", "random", "cma", "de")


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in REFINERS],
)
def test_equal_bounds_hold_a_param_exactly(name):
    result = rj.run(REFINERS[name].refiner, PROBLEM, START, num_steps=30)
    assert result.params[0] == FIXED
    assert np.all(np.isfinite(result.trace))
    assert result.loss < 0.9 * result.initial_loss
    assert SPACE.contains(result.params)


def test_the_others_reach_their_optimum():
    bounds = ([0.3, -np.inf], [0.3, 2.0])
    result = rj.refine(line, np.asarray(PROBLEM.observation), START, bounds=bounds, method="lm")
    np.testing.assert_allclose(result.params, [FIXED, 0.8], rtol=3e-4)
    assert result.converged
    held = rj.refine(line, np.ones(4), START, bounds=([0.3, 1], [0.3, 1]), method="lm")
    np.testing.assert_array_equal(held.params, [FIXED, 1])


def test_units_of_a_fixed_param_are_finite():
    np.testing.assert_array_equal(SPACE.scale, [1, 1])
    whole = rj.ParameterSpace.create(("a", "b"), [0.3, 0], [0.3, 2])
    np.testing.assert_array_equal(whole.to_unit(jnp.float32([0.3, 1])), [0, 0.5])
    np.testing.assert_array_equal(whole.from_unit(jnp.float32([0.7, 0.5])), [FIXED, 1])
