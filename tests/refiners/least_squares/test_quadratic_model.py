"""What Levenberg–Marquardt keeps its quadratic model in, and small linear algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import lsq_linear

from refinejax import (
    InverseProblem,
    LevenbergMarquardt,
    ParameterSpace,
    Pointwise,
    Robust,
    Status,
    Stop,
    run_until,
)
from refinejax.problems import normal_equations
from refinejax.refiners.least_squares.linear_algebra import (
    cholesky_upper,
    dot,
    invert_upper,
    minimize_within,
    solve,
)
from refinejax.refiners.least_squares.quadratic_model import first_model, model_along


def positive(n, seed=0):
    a = np.random.default_rng(seed).normal(size=(n, n))
    return a @ a.T + np.eye(n)


@pytest.mark.parametrize("n", [1, 4, 12])
def test_dense_as_numpy(n):
    with jax.enable_x64(True):
        matrix, right = positive(n), np.arange(1.0, n + 1)
        upper = cholesky_upper(jnp.asarray(matrix))
        np.testing.assert_allclose(upper, np.linalg.cholesky(matrix).T, atol=1e-12)
        np.testing.assert_allclose(invert_upper(upper) @ upper, np.eye(n), atol=1e-12)
        found = solve(jnp.asarray(matrix), jnp.asarray(right))
        np.testing.assert_allclose(found, np.linalg.solve(matrix, right), rtol=1e-10)
        np.testing.assert_allclose(dot(jnp.asarray(matrix), jnp.asarray(right)), matrix @ right)
        np.testing.assert_allclose(dot(jnp.asarray(right), jnp.asarray(matrix)), right @ matrix)
        np.testing.assert_allclose(dot(jnp.asarray(matrix), jnp.asarray(matrix)), matrix @ matrix)


@pytest.mark.parametrize("n", [1, 3, 12])
def test_a_quadratic_in_a_box_is_minimized(n):
    """Against SciPy's BVLS, from any entries held at first, also where many bounds are active."""
    rng = np.random.default_rng(n)
    minimizer = jax.jit(minimize_within)
    active = []
    with jax.enable_x64(True):
        for seed in range(40):
            factor = rng.normal(size=(2 * n, n)) @ np.diag(10.0 ** rng.uniform(-1.5, 1.5, n))
            low, high = -rng.uniform(0, 0.3, n), rng.uniform(0, 0.3, n)
            low[rng.random(n) < 0.2] = 0
            aim = rng.normal(size=2 * n) * 10.0 ** rng.uniform(-1, 1)
            best = lsq_linear(factor, aim, (low, np.maximum(high, low + 1e-9)), method="bvls").x
            held = (low == 0) & (rng.random(n) < 0.5)
            found = minimizer(factor.T @ factor, -factor.T @ aim, low, high, held)
            np.testing.assert_allclose(found, best, atol=1e-7, err_msg=str(seed))
            active.append(np.mean((found == low) | (found == high)))
    assert 0.2 < np.mean(active) < 0.9


def test_a_quadratic_in_a_box_never_rises():
    """What is clipped of an active set can be worse than nothing: 200 boxes around 0."""
    rng = np.random.default_rng(1)

    @jax.jit
    def minimizer(matrix, gradient, low, high):
        held = (low == 0) & (gradient > 0)
        return minimize_within(matrix, gradient, low, high, held)

    for seed in range(200):
        a = rng.normal(size=(3, 3)) * [1, 1, 30]
        matrix, gradient = jnp.asarray(a.T @ a + 1e-3 * np.eye(3), "float32"), rng.normal(size=3)
        gradient = jnp.asarray(gradient, "float32")
        low, high = -rng.uniform(0, 0.5, 3), rng.uniform(0, 0.5, 3)
        low[seed % 3] *= seed % 2
        low, high = low.astype("float32"), high.astype("float32")
        step = minimizer(matrix, gradient, low, high)
        assert np.all((step >= low - 1e-7) & (step <= high + 1e-7))
        assert gradient @ step + 0.5 * step @ matrix @ step < 0


def waves(params, times):
    return params[0] * jnp.sin(params[1] * times) + params[2]


@pytest.mark.parametrize("kind", ["image", "pointwise", "robust", "prior", "space"])
def test_along_a_basis(kind):
    """Directly formed along a triangle, and turned afterwards: the same, for every problem."""
    with jax.enable_x64(True):
        times, x = jnp.linspace(0, 3, 30), jnp.array([1.0, 2.0, 0.5])
        y = jnp.cos(times)
        problem = InverseProblem(waves, y, context=times)
        if kind == "pointwise":
            problem = InverseProblem(Pointwise(waves, (times,)), y)
        if kind == "robust":
            problem = Robust(problem, scale=0.3)
        if kind == "prior":
            problem = problem.replace(prior=jax.tree_util.Partial(lambda p: jnp.sum(p**4)))
        if kind == "space":
            space = ParameterSpace.create("abc", [-300.0, -3, 0], [300.0, 3, 1e-3])
            problem = problem.replace(space=space).coordinates().objective
        basis = jnp.triu(jnp.asarray(np.random.default_rng(0).normal(size=(3, 3))))
        plain, along = normal_equations(problem, x), normal_equations(problem, x, basis)
        for a, b in zip(jax.tree.leaves(plain.along(basis)), jax.tree.leaves(along), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9)


def powers(params, x):
    return sum(params[k] * x**k for k in range(4))


def test_float32_keeps_what_normal_equations_lose():
    """A cubic on [1, 1.2]: the condition of J is 2e5, that of JᵀJ beyond float32."""
    x = np.linspace(1, 1.2, 200)
    truth = np.array([1.0, -2.0, 3.0, 0.5])
    y = jnp.asarray(powers(truth, x), "float32")
    problem = InverseProblem(powers, y, context=jnp.asarray(x, "float32"))
    start = jnp.asarray(truth + np.array([0.3, -0.2, 0.1, 0.2]), "float32")
    result = run_until(LevenbergMarquardt(), problem, start, max_steps=200, stop=Stop(gradient=-1))
    assert Status(int(result.status)).converged
    assert np.sqrt(result.loss) < 1e-6  # a rounding of y
    plain = normal_equations(problem, start).matrix
    assert np.linalg.cond(np.asarray(plain, float)) > 1e7


def test_the_model_becomes_round():
    with jax.enable_x64(True):
        x = jnp.linspace(1, 1.2, 50)
        problem = InverseProblem(powers, x**4, context=x)
        params = jnp.ones(4)
        loss, first = first_model(problem, params)
        _, second = model_along(problem, params, cholesky_upper(first.matrix) @ first.triangle)
        np.testing.assert_allclose(second.matrix, np.eye(4), atol=1e-4)
        known = normal_equations(problem, params)
        gradient, matrix = second.plain()
        np.testing.assert_allclose(loss, known.loss)
        np.testing.assert_allclose(gradient, known.gradient, rtol=1e-8)
        np.testing.assert_allclose(matrix, known.matrix, rtol=1e-8)
        np.testing.assert_allclose(
            second.at(loss).scaling, np.sqrt(np.diagonal(known.matrix)), rtol=1e-8
        )


def rosenbrock(x):
    return jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def test_a_step_that_promises_nothing_is_no_convergence():
    """Projected onto this box, the first active set raises the model."""
    with jax.enable_x64(True):
        space = ParameterSpace.create("ab", [-3.4, 0.9], [-0.1, 1.2])
        problem = InverseProblem(rosenbrock, jnp.zeros(2), space=space)
        start = jnp.array([-1.2, 1.0])
        result = run_until(LevenbergMarquardt(), problem, start, max_steps=100)
        assert Status(int(result.status)).converged
        np.testing.assert_allclose(result.params[1], 0.9)
        # at x₁ = 0.9 the loss is (100(0.9 − t²)² + (1 − t)²)/2: the root of its derivative
        roots = np.roots([400, 0, 2 - 400 * 0.9, -2])
        np.testing.assert_allclose(result.params[0], roots.real.min(), rtol=1e-6)


def test_a_step_may_pass_through_zero():
    """From 1 to −1 in all params: the first step, as long as the params, ends in 0."""
    matrix = jnp.eye(9) - 2 / 45
    matrix = jnp.concatenate([matrix, jnp.full((36, 9), -2 / 45)])
    with jax.enable_x64(True):
        problem = InverseProblem(lambda x: matrix @ x - 1, jnp.zeros(45))
        result = run_until(LevenbergMarquardt(), problem, jnp.ones(9), max_steps=100)
        np.testing.assert_allclose(result.params, -1, rtol=1e-4)
        np.testing.assert_allclose(45 * result.loss, 36, rtol=1e-6)


def test_a_start_beside_a_cliff():
    """The first steps overflow; λ must not run so far back that float32 sees no decrease."""
    times = jnp.arange(0, 320, 10.0)
    y = 0.4 - 1.5 * jnp.exp(-times / 50)
    problem = InverseProblem(lambda p: p[0] + p[1] * jnp.exp(-p[2] * times), y)
    start = jnp.array([50.0, -100.0, -0.1])
    result = run_until(LevenbergMarquardt(), problem, start, max_steps=500)
    assert Status(int(result.status)).converged
    assert result.loss < 1e-3 * result.initial_loss
