"""Laws 15 and 16: no unit matters, and no start without slope is called converged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import PROBLEMS, REFINERS

import refinejax as rj
from refinejax import Status, run_until
from refinejax._core import as_problem

TIMES = np.linspace(0, 1, 30)
UNITS = (2.0**-40, 2.0**-20, 2.0**20, 2.0**40)  # about 1e-12, 1e-6, 1e6, 1e12


class Rescaled(rj.Problem):
    """A problem with residuals times ``factor`` (the loss times its square), params times ``size``.

    Attributes:
        problem: in its own units.
        factor, size: powers of two, so that nothing is rounded.
    """

    problem: rj.Problem
    factor: jax.Array
    size: jax.Array

    def __call__(self, params):
        return self.factor * self.factor * self.problem(self._inside(params))

    def residual(self, params):
        found = self.problem.residual(self._inside(params))
        return None if found is None else jax.tree.map(lambda r: self.factor * r, found)

    def _inside(self, params):
        return jax.tree.map(lambda p: p / self.size, params)

    @property
    def bounds(self):
        found = self.problem.bounds
        return None if found is None else jax.tree.map(lambda b: b * self.size, found)


def rescaled_run(refiner, name, factor=1.0, size=1.0, steps=200):
    problem = PROBLEMS[name]
    objective = Rescaled(as_problem(problem.objective), jnp.float32(factor), jnp.float32(size))
    start = jax.tree.map(lambda p: jnp.asarray(p) * jnp.float32(size), problem.start)
    return run_until(refiner, objective, start, max_steps=steps)


FREE = ("lm", "lm-geodesic", "gauss-newton", "learned-damping", "lbfgs", "bfgs", "random", "cma")


def some_quick(names, quick):
    """Parameters of a test; those that are not quick are marked slow, as each compiles anew."""
    for name in names:
        yield pytest.param(name, marks=() if name in quick else pytest.mark.slow)


ROUNDED = ("learned-damping",)  # reads logarithms, which round
WHERE = {"lm": "valley", "lm-geodesic": "corner", "lbfgs": "valley", "bfgs": "rosenbrock"}


@pytest.mark.parametrize("name", [*some_quick(FREE, ("lm", "lbfgs", "bfgs", "random", "cma"))])
def test_15_the_unit_of_the_loss_does_not_matter(name):
    refiner, where = REFINERS[name].refiner, WHERE.get(name, "corner")
    plain = rescaled_run(refiner, where)
    for factor in UNITS:
        other = rescaled_run(refiner, where, factor)
        if (
            abs(np.log2(factor)) <= 20 and name not in ROUNDED
        ):  # the squares of small residuals stay normal numbers
            assert (other.status, other.steps) == (plain.status, plain.steps)
            jax.tree.map(np.testing.assert_array_equal, other.params, plain.params)
            np.testing.assert_array_equal(other.loss, plain.loss * np.float32(factor) ** 2)
        assert Status(int(other.status)).converged == Status(int(plain.status)).converged
        for a, b in zip(*map(jax.tree.leaves, (other.params, plain.params)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [*some_quick(("lm", "gauss-newton", "learned-damping"), ("lm",))])
def test_15_the_units_of_the_params_do_not_matter_to_least_squares(name):
    refiner = REFINERS[name].refiner
    plain = rescaled_run(refiner, "corner")
    for size in UNITS:
        other = rescaled_run(refiner, "corner", 1.0, size)
        assert (other.status, other.steps) == (plain.status, plain.steps)
        np.testing.assert_array_equal(other.params / np.float32(size), plain.params)


@pytest.mark.parametrize(
    "method", [*some_quick(("auto", "lbfgs", "adam", "cma_es"), ("auto", "lbfgs"))]
)
def test_15_refine_gives_the_same_answers_in_any_units(method):
    truth, start = np.float32([2.0, 3.0]), np.float32([1.0, 1.0])

    def model(params, units):
        a, b = params / units[0]
        return units[1] * a * jnp.exp(-b * jnp.asarray(TIMES, jnp.float32))

    def fit(size, factor):
        units = np.float32([size, factor])
        observed = np.asarray(factor * truth[0] * np.exp(-truth[1] * TIMES), np.float64)
        found = rj.refine(
            model, observed, start * np.float32(size), context=units, method=method, max_steps=500
        )
        return found.params / np.float32(size), int(found.steps), int(found.status)

    params, steps, status = fit(1.0, 1.0)
    np.testing.assert_allclose(params, truth, rtol=0.02)
    for size, factor in ((2.0**-40, 1.0), (2.0**40, 2.0**-60), (1.0, 2.0**60)):
        other = fit(size, factor)
        np.testing.assert_array_equal(other[0], params)
        assert other[1:] == (steps, status)


STEEP = {
    "lm": rj.LevenbergMarquardt(),
    "lbfgs": REFINERS["lbfgs"].refiner,
    "bfgs": REFINERS["bfgs"].refiner,
    "adam": REFINERS["adam"].refiner,
}


@pytest.mark.parametrize("name", STEEP)
def test_16_a_start_without_slope_is_not_converged(name):
    problem = rj.InverseProblem(lambda p: jnp.floor(p[0] * 10) + jnp.zeros(5), jnp.full(5, 9.0))
    found = run_until(STEEP[name], problem, jnp.array([0.55]), max_steps=50)
    assert found.status == Status.SINGULAR
    assert "effect" in Status.SINGULAR.explain()


@pytest.mark.parametrize("start", [1e-3, 1e-6, 1e-12])
def test_16_a_step_cut_short_is_not_the_end(start):
    times = jnp.asarray(TIMES, jnp.float32)
    problem = rj.InverseProblem(lambda p: p[0] * times, 1e3 * times)
    found = run_until(rj.LevenbergMarquardt(), problem, jnp.array([start]), max_steps=100)
    assert Status(int(found.status)).converged
    np.testing.assert_allclose(found.params, [1e3], rtol=1e-5)


@pytest.mark.parametrize("bounds", [(-1e20, 1e20), (-1e12, 1e12), (-3e38, 3e38)])
def test_16_bounds_that_mean_none_do_not_end_a_fit(bounds):
    for method in ("auto", "lbfgs"):
        found = rj.refine(line, LINE, np.float32([1, 1]), bounds=bounds, method=method)
        np.testing.assert_allclose(found.params, [0.3, 2.0], rtol=1e-3)


LINE = np.float32(0.3 + 2.0 * TIMES)


def line(params):
    return params[0] + params[1] * jnp.asarray(TIMES, jnp.float32)


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (0, "finite numbers above 0, got 0"),
        (np.nan, "finite numbers above 0, got nan"),
        ([1, 2, 3], r"shape \(3,\) does not fit params of shape \(2,\)"),
        ("large", "expected an array of numbers"),
        ({"a": 1}, "not a pytree like the params"),
    ],
)
def test_a_scale_that_is_none_is_refused(scale, said):
    with pytest.raises(ValueError, match=f"scale: .*{said}"):
        rj.refine(line, LINE, np.float32([1, 1]), scale=scale)


@pytest.mark.parametrize("sizes", [(1.0, 1e9), (5e8, 0.01), (5e8, 5e8)])
def test_15_a_start_of_0_says_nothing_and_the_slope_gives_the_scale(sizes):
    def line(params, sizes):
        return params[0] / sizes[0] + params[1] / sizes[1] * jnp.asarray(TIMES, jnp.float32)

    observed = np.float32([-1.3 - 1.5 * TIMES, 0.5 - 0.9 * TIMES])
    sizes = np.float32([sizes, sizes])
    found = rj.refine(line, observed, np.zeros((2, 2)), context=sizes, method="lbfgs")
    assert found.converged.all()
    np.testing.assert_allclose(found.params / sizes, [[-1.3, -1.5], [0.5, -0.9]], rtol=2e-3)


def test_16_a_population_far_from_zero_moves_by_its_own_scale():
    def model(params):
        return params[0] * np.exp(-params[1] * TIMES)

    observed = model([2e6, 3.0])
    found = rj.refine(model, observed, np.float32([1e6, 1.0]), differentiable=False)
    np.testing.assert_allclose(found.params, [2e6, 3.0], rtol=1e-3)


def test_16_a_spread_below_the_spacing_of_numbers_is_not_an_end():
    population = rj.Evolution("cma_es", std=0.1)
    found = run_until(population, lambda p: jnp.sum((p - 2e8) ** 2), jnp.full(2, 1e8), max_steps=50)
    assert not Status(int(found.status)).converged
    search = rj.RandomSearch(std=1e-3)
    found = run_until(search, lambda p: jnp.sum((p - 2e8) ** 2), jnp.full(2, 1e8), max_steps=50)
    assert not Status(int(found.status)).converged
