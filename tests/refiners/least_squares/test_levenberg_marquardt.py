from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import least_squares

from refinejax import (
    GaussNewton,
    InverseProblem,
    LevenbergMarquardt,
    ParameterSpace,
    Pointwise,
    Problem,
    Robust,
    Status,
    Stop,
    run,
    run_until,
)
from refinejax.problems import cauchy, huber, normal_equations
from refinejax.problems.normal import Normal, curvature

TIMES = np.linspace(0, 3, 25)
TRUTH = np.array([2.0, 1.5, 0.3])


def decay(params, times=TIMES):
    times = jnp.asarray(times, params.dtype)
    return params[0] * jnp.exp(-params[1] * times) + params[2]


def observed(seed=0, noise=0.05, outliers=0):
    rng = np.random.default_rng(seed)
    y = np.asarray(TRUTH[0] * np.exp(-TRUTH[1] * TIMES) + TRUTH[2])
    y = y + noise * rng.normal(size=y.shape)
    y[:: len(y) // outliers if outliers else len(y) + 1] += 3
    return y


def box(lower, upper):
    return ParameterSpace.create([f"p{i}" for i in range(len(lower))], lower, upper)


def both(refiner, problem, start, **scipy_options):
    """Params by a refiner and by SciPy, in float64."""
    start = jnp.asarray(start, jnp.float64)
    result = jax.device_get(run_until(refiner, problem, start, max_steps=300))
    inner = problem.problem if isinstance(problem, Robust) else problem
    residual = jax.jit(lambda x: jax.flatten_util.ravel_pytree(inner.residual(x))[0])
    slopes = jax.jit(jax.jacfwd(residual))
    options = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-13, **scipy_options}
    known = least_squares(
        lambda x: np.asarray(residual(x), float),
        np.asarray(start),
        jac=lambda x: np.asarray(slopes(x), float),
        **options,
    )
    return result, known


BOXES = {
    "inside": ([0, 0, -1], [5, 5, 2]),
    "face": ([0, 0, -1], [5, 1.2, 2]),
    "two faces": ([0, 0, 0.5], [1.8, 5, 2]),
    "corner": ([0, 2, 0.5], [1.0, 5, 2]),
    "one-sided": ([2.5, -np.inf, -np.inf], [np.inf, np.inf, np.inf]),
}


@pytest.mark.parametrize(
    "refiner", [LevenbergMarquardt(), pytest.param(GaussNewton(), marks=pytest.mark.slow)]
)
def test_bounds_as_scipy(refiner):
    with jax.enable_x64(True):
        for name, (lower, upper) in BOXES.items():
            space = box(lower, upper)
            problem = InverseProblem(decay, jnp.asarray(observed()), space=space)
            start = np.clip([1.0, 2.5, 0.8], lower, upper)
            result, known = both(refiner, problem, start, bounds=(lower, upper))
            assert Status(int(result.status)).converged, name
            np.testing.assert_allclose(result.params, known.x, atol=1e-6, err_msg=name)
            assert np.all((result.params >= lower) & (result.params <= upper))


SLOW = [pytest.param(f, f.__name__, marks=pytest.mark.slow) for f in (huber, cauchy)]


@pytest.mark.parametrize(("rho", "loss"), [("soft", "soft"), *SLOW])
def test_robust_losses_as_scipy(rho, loss):
    def soft(z):
        return 2 * (jnp.sqrt(1 + z) - 1)

    rho = soft if rho == "soft" else rho
    with jax.enable_x64(True):
        problem = InverseProblem(decay, jnp.asarray(observed(outliers=4)))
        robust = Robust(problem, rho, scale=0.1)
        name = {"soft": "soft_l1"}.get(loss, loss)
        start = np.array([1.0, 2.0, 0.5])
        result, known = both(LevenbergMarquardt(), robust, start, loss=name, f_scale=0.1)
        np.testing.assert_allclose(result.params, known.x, rtol=1e-5)
        np.testing.assert_allclose(result.loss, 2 * known.cost / 25, rtol=1e-9)


def line(params):
    return jnp.stack([jnp.sum(params), 2 * jnp.sum(params)])


def test_what_the_data_do_not_determine():
    """Two params of which only the sum is determined."""
    problem = InverseProblem(line, jnp.array([3.0, 6.0]))
    start = jnp.array([0.5, 1.0])
    result = run_until(LevenbergMarquardt(), problem, start, max_steps=50)
    assert Status(int(result.status)).converged
    np.testing.assert_allclose(jnp.sum(result.params), 3, rtol=1e-5)
    np.testing.assert_allclose(result.params[1] - result.params[0], 0.5, atol=1e-3)
    stuck = run_until(GaussNewton(), problem, start, max_steps=50)
    assert stuck.status == Status.SINGULAR
    np.testing.assert_array_equal(stuck.params, start)


def test_a_param_that_nothing_depends_on_stays():
    problem = InverseProblem(lambda p: p[0] * jnp.arange(1.0, 4), 2 * jnp.arange(1.0, 4))
    result = run_until(LevenbergMarquardt(), problem, jnp.array([1.0, 7.0]), max_steps=50)
    np.testing.assert_allclose(result.params, [2, 7], rtol=1e-5)
    grad = jax.jit(jax.grad(lambda s: run(LevenbergMarquardt(), problem, s, num_steps=2).loss))
    assert np.all(np.isfinite(grad(jnp.array([1.0, 7.0]))))


@pytest.mark.parametrize(
    ("forward", "observation", "start", "known"),
    [
        (lambda p: p**2, [4.0], [1.0], [2.0]),  # n = m = 1
        (lambda p: jnp.stack([p[0] * p[1], p[0] - p[1]]), [6.0, 1.0], [1.0, 1.0], [3.0, 2.0]),
        (lambda p: 1e6 * (p - 3), [0.0], [1.0], [3.0]),  # huge residual
        (lambda p: p**3, [0.0], [1.0], [0.0]),  # J vanishes at the optimum
    ],
    ids=["n = 1", "m = n", "huge", "flat"],
)
def test_small_and_square(forward, observation, start, known):
    problem = InverseProblem(forward, jnp.asarray(observation))
    result = run_until(LevenbergMarquardt(), problem, jnp.asarray(start), max_steps=200)
    assert Status(int(result.status)) > 0
    np.testing.assert_allclose(result.params, known, rtol=1e-4, atol=0.1)


def test_fewer_data_than_params():
    problem = InverseProblem(lambda p: jnp.stack([p[0] * p[1], p[1] + p[2]]), jnp.array([2.0, 3.0]))
    result = run_until(LevenbergMarquardt(), problem, jnp.array([1.0, 1.0, 1.0]), max_steps=50)
    assert result.loss < 1e-10


@pytest.mark.slow
def test_missing_pixels_and_a_prior():
    y = np.asarray(observed(), np.float32)
    y[[3, 4, 11]] = np.nan
    seen = ~np.isnan(y)
    start = jnp.array([1.0, 2.0, 0.5])

    def prior(params):
        return 0.1 * jnp.sum((params - 1) ** 2)

    results = [
        run_until(LevenbergMarquardt(), problem, start, max_steps=50)
        for problem in (
            InverseProblem(decay, jnp.asarray(y), prior=prior),
            InverseProblem(lambda p: decay(p, TIMES[seen]), jnp.asarray(y[seen]), prior=prior),
        )
    ]
    np.testing.assert_allclose(results[0].params, results[1].params, rtol=1e-4)
    slope = jax.grad(InverseProblem(decay, jnp.asarray(y), prior=prior))(results[0].params)
    np.testing.assert_allclose(slope, 0, atol=1e-3)


@pytest.mark.slow
def test_pytrees_and_complex_residuals():
    def wave(params):
        return params["a"] * jnp.exp(1j * params["phase"]) * jnp.arange(1.0, 4)

    truth = {"a": jnp.array(1.5), "phase": jnp.array([0.4, -0.2, 0.1])}
    start = {"a": jnp.array(1.0), "phase": jnp.zeros(3)}
    for refiner in (LevenbergMarquardt(acceleration=True), GaussNewton()):
        result = run_until(refiner, InverseProblem(wave, wave(truth)), start, max_steps=50)
        np.testing.assert_allclose(result.params["a"], 1.5, rtol=1e-5)
        np.testing.assert_allclose(result.params["phase"], truth["phase"], atol=1e-5)


@pytest.mark.slow
def test_pointwise_is_the_same():
    y, start = jnp.asarray(observed(), jnp.float32), jnp.array([1.0, 2.0, 0.5])
    image = InverseProblem(decay, y)
    pointwise = InverseProblem(Pointwise(decay, (jnp.asarray(TIMES, jnp.float32),)), y)
    a, b = (run(LevenbergMarquardt(), p, start, num_steps=10) for p in (image, pointwise))
    np.testing.assert_allclose(a.params, b.params, rtol=1e-5)
    for leaf, other in zip(*map(jax.tree.leaves, (image.normal(start), pointwise.normal(start)))):
        np.testing.assert_allclose(leaf, other, rtol=1e-4, atol=1e-5)


class Own(Problem):
    """½(x − c)ᵀA(x − c), by its own normal equations."""

    center: Any
    matrix: Any

    def __call__(self, params):
        return 0.5 * (params - self.center) @ self.matrix @ (params - self.center)

    def normal(self, params, basis=None):
        model = Normal(self(params), self.matrix @ (params - self.center), self.matrix)
        return model if basis is None else model.along(basis)


def test_an_objective_with_its_own_normal_equations():
    objective = Own(jnp.array([1.0, -2.0]), jnp.array([[2.0, 0.5], [0.5, 1.0]]))
    result = run_until(GaussNewton(), objective, jnp.ones(2), max_steps=10)
    np.testing.assert_allclose(result.params, [1, -2], rtol=1e-5)
    assert result.steps <= 3


@pytest.mark.parametrize("refiner", [LevenbergMarquardt(), GaussNewton()], ids=["lm", "gn"])
def test_without_a_residual_it_says_so(refiner):
    with pytest.raises(ValueError, match=r"objective: .* has no residual"):
        run_until(refiner, lambda p: jnp.sum(p**2), jnp.ones(2), max_steps=3)


def test_another_damping_does_not_compile():
    problem, traces = InverseProblem(decay, jnp.asarray(observed(), jnp.float32)), []

    @jax.jit
    def fit(refiner):
        traces.append(1)
        return run(refiner, problem, jnp.array([1.0, 2.0, 0.5]), num_steps=3).loss

    losses = [fit(LevenbergMarquardt(damping)) for damping in (1e-3, 1.0, 100.0)]
    assert len(traces) == 1
    assert losses[0] < losses[1] < losses[2]


def test_nan_around_the_start_is_left_by_smaller_steps():
    problem = InverseProblem(lambda p: jnp.sqrt(p) * jnp.arange(1.0, 4), 0.1 * jnp.arange(1.0, 4))
    result = run_until(LevenbergMarquardt(), problem, jnp.array([4.0]), max_steps=100)
    np.testing.assert_allclose(result.params, 0.01, rtol=1e-3)


def test_nothing_but_nan_ends_as_nonfinite():
    problem = InverseProblem(lambda p: jnp.sqrt(p * 0) * 1.0 + p, jnp.zeros(2))
    for refiner in (LevenbergMarquardt(), GaussNewton()):
        result = run_until(refiner, problem, jnp.ones(2), max_steps=100)
        assert Status(int(result.status)) < 0
        np.testing.assert_array_equal(result.params, 1)


def valley(params):
    x, y = params
    return jnp.stack([1 - x, 100 * (y - x**3)])


def test_the_acceleration_is_that_of_the_paper():
    """Eq. 15: (M + λD) a = −2c Jᵀ r″(v, v), and the step v + a/2."""
    start = jnp.array([0.9, 0.7])
    problem = InverseProblem(valley, jnp.zeros(2))
    slopes = jax.jacfwd(valley)(start)
    matrix, rest = slopes.T @ slopes, slopes.T @ valley(start)
    damping = 10.0
    damped = matrix + damping * jnp.diag(jnp.diag(matrix))
    velocity = -jnp.linalg.solve(damped, rest)
    second = jnp.einsum("kij,i,j->k", jax.jacfwd(jax.jacfwd(valley))(start), velocity, velocity)
    turn = -jnp.linalg.solve(damped, slopes.T @ second)
    refiner = LevenbergMarquardt(damping, acceleration=True)
    after = run(refiner, problem, start, num_steps=1).state
    np.testing.assert_allclose(after.params - start, velocity + turn / 2, rtol=1e-3)


@pytest.mark.slow
def test_the_acceleration_helps_in_a_curved_valley():
    steps = []
    for acceleration in (False, True):
        refiner = LevenbergMarquardt(acceleration=acceleration)
        problem = InverseProblem(valley, jnp.zeros(2))
        result = run_until(
            refiner, problem, jnp.array([-1.5, 1.0]), max_steps=500, stop=Stop.never(target=1e-8)
        )
        assert result.status == Status.TARGET_REACHED
        steps.append(int(result.steps))
    assert steps[1] < 0.7 * steps[0]


def wide(params):
    """150 params, 40 pixels: a blur of exp."""
    kernel = jnp.exp(-0.5 * ((jnp.arange(150) / 3.75)[None] - jnp.arange(40)[:, None]) ** 2 / 4)
    return kernel.astype(params.dtype) @ jnp.exp(params)


def wide_problem():
    rng = np.random.default_rng(0)
    y = wide(jnp.asarray(rng.normal(size=150) * 0.3, jnp.float32))
    lower, upper = np.full(150, -0.3), np.full(150, 2.0)
    space = ParameterSpace.create([f"p{i}" for i in range(150)], lower, upper)
    return InverseProblem(wide, y, noise=0.1, space=space, prior=lambda p: 0.05 * jnp.sum(p**2))


@pytest.mark.parametrize("robust", [False, True])
def test_products_equal_the_matrix(robust):
    problem = wide_problem()
    objective = (Robust(problem) if robust else problem).coordinates().objective
    rng = np.random.default_rng(1)
    point, v = (jnp.asarray(rng.normal(size=150) * 0.2, jnp.float32) for _ in range(2))
    expected = jax.jit(lambda x: normal_equations(objective, x).matrix @ v)(point)
    found = jax.jit(lambda x: curvature(objective, x)(v))(point)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.max(np.abs(expected)))


@pytest.mark.slow
def test_many_params_without_a_matrix_as_with_one():
    problem, start = wide_problem(), jnp.full(150, 0.1)
    free = run_until(LevenbergMarquardt(), problem, start, max_steps=100)
    dense = run_until(LevenbergMarquardt(largest=150), problem, start, max_steps=100)
    assert free.state.memory.model is None
    assert Status(int(free.status)).converged
    np.testing.assert_allclose(free.loss, dense.loss, rtol=1e-3)
    np.testing.assert_allclose(free.params, dense.params, atol=0.02)


def test_many_params_make_no_square_array():
    objective, start = wide_problem().replace(space=None), jnp.full(150, 0.1)
    key = jax.random.key(0)

    def arrays(refiner):
        def step(start):
            state = refiner.init(objective, start, key)
            return refiner.step(objective, state, key).loss

        return str(jax.make_jaxpr(step)(start))

    assert "[150,150]" not in arrays(LevenbergMarquardt())
    assert "[150,150]" in arrays(LevenbergMarquardt(largest=150))


def test_gauss_newton_halves_where_the_full_step_is_too_long():
    problem = InverseProblem(jnp.arctan, jnp.zeros(1))
    result = run(
        GaussNewton(), problem, jnp.array([3.0]), num_steps=12, record=lambda s: s.memory.share
    )
    assert np.min(result.trace) < 0.5
    np.testing.assert_allclose(result.params, 0, atol=1e-5)
