"""Convergence measured from traces: against closed forms, coverage of standard errors, a figure."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from refinejax import Gradient, run
from refinejax.diagnostics import convergence_rates
from refinejax.plot import png, rates

STEPS = np.arange(61)


def noisy(count, correlation, seed=0):
    """Losses that fall by 0.1 a step in logarithms, with AR(1) deviations of 0.2."""
    rng = np.random.default_rng(seed)
    off = np.zeros((count, len(STEPS)))
    off[:, 0] = rng.normal(size=count)
    for t in STEPS[1:]:
        fresh = np.sqrt(1 - correlation**2) * rng.normal(size=count)
        off[:, t] = correlation * off[:, t - 1] + fresh
    return np.exp(-0.1 * STEPS + 0.2 * off)


def test_the_rate_of_gradient_descent_is_that_of_theory():
    """On ½λx² each step multiplies the loss by (1 − ηλ)²."""
    refiner = Gradient(optax.sgd, {"learning_rate": 0.1})
    curvatures = (0.5, 1.0, 3.0)
    traces = np.array(
        [
            run(
                refiner,
                jax.tree_util.Partial(lambda k, x: k / 2 * jnp.sum(x**2), jnp.float32(k)),
                jnp.ones(2),
                num_steps=40,
                record=lambda state: state.loss,
            ).trace
            for k in curvatures
        ]
    )
    found = convergence_rates(traces, target=0.5)
    expected = [-2 * np.log(1 - 0.1 * k) for k in curvatures]
    np.testing.assert_allclose(found.rate, expected, rtol=1e-4)
    np.testing.assert_array_equal(found.steps_to_target, np.ceil(np.log(2) / np.array(expected)))
    np.testing.assert_allclose(found.efficiency, 41 / 80, rtol=1e-3)
    assert np.all(found.stability == 1)
    assert np.all(found.setback == 1)
    assert not np.any(found.diverged)


@pytest.mark.parametrize(("correlation", "low", "high"), [(0.0, 0.85, 1.15), (0.6, 0.85, 1.35)])
def test_standard_errors_cover(correlation, low, high):
    found = convergence_rates(noisy(600, correlation))
    deviations = (found.rate - 0.1) / found.rate_error
    assert abs(np.mean(found.rate) - 0.1) < 0.002
    assert low < np.std(deviations) < high


def test_what_happens_after_settling_does_not_count():
    settled = np.exp(-0.3 * STEPS) + 1e-4
    assert abs(convergence_rates(settled[None]).rate[0] - 0.3) < 0.06
    known = convergence_rates(settled[None], floor=1e-4)
    np.testing.assert_allclose(known.rate, 0.3, rtol=1e-6)


def test_setbacks_divergence_and_ends():
    rows = np.array(
        [
            [1.0, 0.5, 1.5, 0.2, 0.1, np.nan],  # ended
            [1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
            [1.0, 0.5, np.inf, 0.5, 0.25, 0.1],
            [1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        ]
    )
    found = convergence_rates(rows, target=0.3)
    np.testing.assert_array_equal(found.diverged, [False, True, False, False])
    np.testing.assert_allclose(found.setback, [3, 32, np.inf, 1])
    np.testing.assert_allclose(found.stability, [3 / 4, 0, 4 / 5, 1])
    np.testing.assert_array_equal(found.steps_to_target, [3, np.inf, 4, np.inf])
    np.testing.assert_allclose(found.rate[1], -np.log(2))
    np.testing.assert_allclose(found.rate[3], 0, atol=1e-12)
    assert np.isnan(found.efficiency[3])
    assert "1 diverged" in found.summary()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"traces: expected shape \(samples, steps \+ 1\)"):
        convergence_rates(np.ones(5))
    with pytest.raises(ValueError, match="floor: expected less than every loss at the start"):
        convergence_rates(np.ones((2, 5)), floor=1.0)
    with pytest.raises(ValueError, match="traces: expected finite losses at the start"):
        convergence_rates(np.array([[np.inf, 1.0, 0.5]]))
    with pytest.raises(ValueError, match=r"traces: expected shape \(3, steps \+ 1\)"):
        rates(np.ones((2, 5)), convergence_rates(noisy(3, 0.0)))


def test_the_figure_shows_the_rate():
    traces = noisy(100, 0.3)
    figure = rates(traces, convergence_rates(traces))
    left, right = figure.axes
    line = left.lines[-1]
    assert "rate 0.09" in line.get_label() or "rate 0.10" in line.get_label()
    heights = line.get_ydata()
    np.testing.assert_allclose(
        np.log(heights[0] / heights[-1]), 0.1 * (len(heights) - 1), rtol=0.03
    )
    middles = right.containers[0].lines[0].get_ydata()
    assert len(middles) == 60
    assert np.all(np.diff(middles) >= 0)
    assert png(figure, dpi=50).startswith(b"\x89PNG")
