"""BFGS against the formula of its inventors, and against SciPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from refinejax import Status, run, run_until
from refinejax.refiners import BFGS


def rosenbrock(x):
    return jnp.sum((1 - x[:-1]) ** 2 + 100 * (x[1:] - x[:-1] ** 2) ** 2)


def logistic(x):
    rows = jnp.sin(jnp.arange(40.0)[:, None] * (1 + jnp.arange(6.0)))
    signs = jnp.where(jnp.cos(3 * jnp.arange(40.0)) > 0, 1, -1)
    return jnp.mean(jnp.log1p(jnp.exp(-signs * (rows @ x)))) + 0.01 * jnp.sum(x**2)


def plateau(x):
    """Flat far away from its least value, at (3, 0)."""
    return -jnp.exp(-((x[0] - 3) ** 2) / 8 - x[1] ** 2 / 8)


FUNCTIONS = {
    "rosenbrock 2": (rosenbrock, [-1.2, 1.0]),
    "rosenbrock 10": (rosenbrock, [0.0] * 10),
    "logistic": (logistic, [1.0, -1.0, 2.0, 0.5, 0.0, -3.0]),
}


def seen(state):
    return state.params, state.memory.grad, state.memory.inverse, state.memory.fresh


@pytest.mark.parametrize("name", FUNCTIONS)
def test_matrix_is_that_of_the_product_formula(name):
    function, start = FUNCTIONS[name]
    with jax.enable_x64(True):
        begun = jnp.asarray(start, jnp.float64)
        trace = run(BFGS(), function, begun, num_steps=40, record=seen).trace
        x, g, H, fresh = (np.asarray(part) for part in trace)
    taken = np.any(x[1:] != x[:-1], axis=1)
    assert taken.sum() > 10
    damped = 0
    for k in np.flatnonzero(taken):
        s, y = x[k + 1] - x[k], g[k + 1] - g[k]
        expected = np.linalg.solve(H[k], s)
        if s @ y < (0 if fresh[k] else 0.1 * s @ expected):  # eq. 18.15: its B is H⁻¹
            share = 0.9 * s @ expected / (s @ expected - s @ y)
            y = share * y + (1 - share) * expected
            damped += 1
        rho, unit = 1 / (s @ y), np.eye(len(s))
        before = unit * (s @ y) / (y @ y) if fresh[k] else H[k]  # Nocedal and Wright, eq. 6.20
        left = unit - rho * np.outer(s, y)
        wanted = left @ before @ left.T + rho * np.outer(s, s)  # their eq. 6.17
        np.testing.assert_allclose(H[k + 1], wanted, rtol=1e-9, atol=1e-9 * np.abs(wanted).max())
        np.testing.assert_allclose(H[k + 1] @ y, s, rtol=1e-6, atol=1e-9)
        assert np.linalg.eigvalsh(H[k + 1])[0] > 0
    assert damped < taken.sum() / 3


@pytest.mark.parametrize("name", FUNCTIONS)
def test_finds_what_scipy_finds_with_about_as_many_gradients(name):
    function, start = FUNCTIONS[name]
    with jax.enable_x64(True):
        begun = jnp.asarray(start, jnp.float64)
        result = jax.device_get(run_until(BFGS(), function, begun, max_steps=400))
        both = jax.jit(jax.value_and_grad(function))
        known = minimize(
            lambda x: [np.asarray(v, float) for v in both(x)], start, jac=True, method="BFGS"
        )
    assert Status(int(result.status)).converged
    np.testing.assert_allclose(result.params, known.x, atol=1e-4)
    assert int(result.steps) <= 1.5 * known.nfev + 10


def lengths(refiner, start, steps):
    begun = jnp.asarray(start, jnp.float32)
    trace = run(refiner, plateau, begun, num_steps=steps, record=lambda s: s.params).trace
    return np.linalg.norm(np.diff(np.asarray(trace), axis=0), axis=1)


def test_no_step_is_longer_than_the_longest():
    start = [-4.0, 2.0]
    free = lengths(BFGS(first=1e-3), start, 30)
    assert free.max() > 1
    np.testing.assert_allclose(free[1:3] / free[:2], 10, rtol=0.1)  # down a plateau ever faster
    short = lengths(BFGS(longest=0.5), start, 60)
    assert short.max() <= 0.5 * (1 + 1e-6)
    assert np.sum(short > 0.499) > 3
    end = run_until(BFGS(longest=0.5), plateau, jnp.asarray(start), max_steps=200)
    np.testing.assert_allclose(end.params, [3, 0], atol=1e-3)


@pytest.mark.slow
def test_longest_can_be_learned():
    start = jnp.array([-4.0, 2.0])

    def loss(longest):
        return run(BFGS(longest=longest), plateau, start, num_steps=3).loss

    slope = jax.grad(loss)(jnp.float32(0.5))
    step = 1e-2
    wanted = (loss(0.5 + step) - loss(0.5 - step)) / (2 * step)
    np.testing.assert_allclose(slope, wanted, rtol=2e-2)
    assert float(jax.grad(loss)(jnp.float32(1e6))) == 0
