"""What a problem is by default, and what is wrapped into one."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

import refinejax as rj
from refinejax._core import Status, as_problem
from refinejax._problem import FunctionProblem
from refinejax.problems import Normal, normal_equations

START = np.array([1.0, -2.0], np.float32)


def sphere(params):
    return jnp.sum(params**2)


class Shifted(struct.PyTreeNode):
    """A callable pytree that is no problem."""

    center: jax.Array

    def __call__(self, params):
        return jnp.sum((params - self.center) ** 2)


class Line(rj.Problem):
    """Two residuals, and nothing else."""

    target: jax.Array

    def residual(self, params):
        return params - self.target

    def __call__(self, params):
        return jnp.mean(self.residual(params) ** 2)


def test_only_the_call_is_required():
    problem = Line(jnp.array([1.0, 2.0]))
    assert problem.bounds is None
    assert problem.reorder is False
    assert problem.key_ids == ()
    assert problem.normal(START) is None
    assert problem.curvature(START) is None
    assert problem.draw(jax.random.key(0)) is problem
    space = problem.coordinates()
    assert space.objective is problem
    assert space.decode(space.encode(START)) is START
    assert problem.batch_axes() == Line(0)
    assert problem.map_problem(lambda p: p.replace(target=-p.target)).target[0] == -1
    with pytest.raises(TypeError, match="abstract"):
        rj.Problem()  # pyright: ignore


@pytest.mark.parametrize(
    "function", [sphere, lambda p: jnp.sum(p**2), jax.tree_util.Partial(sphere)]
)
def test_a_function_is_wrapped_once(function):
    problem = as_problem(function)
    assert isinstance(problem, FunctionProblem)
    assert as_problem(problem) is problem
    assert not jax.tree.leaves(problem)
    assert problem(START) == 5
    assert problem.residual(START) is None
    for refiner in (rj.RandomSearch(), rj.Gradient(optax.sgd, {"learning_rate": 0.3})):
        assert rj.run(refiner, function, START, num_steps=3).loss < 5
        state = refiner.init(function, START, jax.random.key(0))
        assert refiner.step(function, state, jax.random.key(1)).loss <= 5


def test_a_callable_pytree_keeps_its_data_and_its_samples():
    center = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)
    random = rj.RandomSearch(std=0.3)
    batch = rj.run_batch(random, Shifted(jnp.asarray(center)), center + 1, max_steps=200)
    np.testing.assert_allclose(batch.params, center, atol=1e-2)
    shared = rj.run_batch(
        random, Shifted(jnp.asarray(center[0])), center, max_steps=200, axes=Shifted(None)
    )
    np.testing.assert_allclose(shared.params, np.tile(center[0], (3, 1)), atol=1e-2)
    # what a schedule or a coarse problem is made from is what the user wrote
    changed = as_problem(Shifted(jnp.ones(2))).map_problem(lambda p: p.replace(center=p.center * 2))
    assert changed(jnp.full(2, 2.0)) == 0


@pytest.mark.parametrize("name", ["residual", "bounds", "normal", "batch_axes"])
def test_what_looks_like_a_problem_must_derive_from_it(name):
    kind = type("Duck", (), {"__call__": lambda self, params: sphere(params), name: None})
    with pytest.raises(ValueError, match=f"Duck has '{name}'.*refinejax.Problem"):
        rj.run(rj.RandomSearch(), kind(), START, num_steps=1)


def test_least_squares_says_what_lacks_a_residual():
    for objective in (sphere, Shifted(jnp.ones(2))):
        with pytest.raises(ValueError, match=r"objective: \w+ has no residual"):
            rj.run(rj.LevenbergMarquardt(), objective, START, num_steps=1)


class Own(rj.Problem):
    """A problem that gives its matrix alone."""

    def __call__(self, params):
        return jnp.sum(params**2)

    def normal(self, params, basis=None):
        model = Normal(self(params), 2 * params, 2 * jnp.eye(params.size))
        return model if basis is None else model.along(basis)


def test_a_matrix_is_used_where_there_are_no_products():
    many = jnp.ones(5)
    result = rj.run_until(rj.LevenbergMarquardt(largest=2), Own(), many, max_steps=20)
    assert result.state.memory.model is not None
    np.testing.assert_allclose(result.params, 0, atol=1e-5)
    model = normal_equations(Own(), many, 3 * jnp.eye(5))
    np.testing.assert_allclose(model.matrix, 18 * np.eye(5))


@pytest.mark.parametrize("offset", [0.0, -1.0, -1e-9, 1.0, -1e3])
def test_divergence_is_about_losses_of_any_sign(offset):
    """The loss minus the best, relative to the larger of first and best: −1 is as good as 1."""

    def hill(params):
        return jnp.sum(jnp.exp(params) - 1) + offset

    ascent = rj.Gradient(optax.sgd, {"learning_rate": -0.1})
    stop = rj.Stop.never().replace(divergence=10.0)
    result = rj.run_until(ascent, hill, np.full(1, 0.1, np.float32), max_steps=12, stop=stop)
    losses = rj.run(ascent, hill, np.full(1, 0.1, np.float32), num_steps=12).trace
    first = float(losses[0])
    beyond = np.flatnonzero((losses - losses.min()) > 10 * abs(first))
    expected = Status.DIVERGED if len(beyond) else Status.MAX_STEPS
    assert result.status == expected
    assert result.steps == (beyond[0] if len(beyond) else 12)


def test_a_start_at_a_loss_of_zero_does_not_diverge():
    def bowl(params):
        return jnp.sum(params**2 * jnp.sign(params - 1.0))

    sgd = rj.Gradient(optax.sgd, {"learning_rate": 0.1, "momentum": 0.9})
    stop = rj.Stop.never().replace(divergence=2.0)
    result = rj.run_until(sgd, lambda p: bowl(p) * 0, START, max_steps=4, stop=stop)
    assert result.status == Status.MAX_STEPS


def test_the_refiner_of_the_page_on_extending_works():
    page = pathlib.Path(__file__).parents[2] / "docs" / "extend" / "refiner.md"
    code = re.search(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    assert code is not None
    names: dict = {}
    exec(code.group(1), names)
    result = rj.run_until(names["Descent"](), sphere, START, max_steps=500)
    assert result.loss < 1e-5
    assert result.evaluations == result.derivative_evaluations == result.steps + 1
    space = rj.ParameterSpace.create(("a", "b"), [0.5, -3.0], [2.0, 3.0])
    bounded = rj.InverseProblem(lambda p: p, jnp.zeros(2), space=space)
    found = rj.run(names["Descent"](0.02), bounded, START, num_steps=400)
    np.testing.assert_allclose(found.params, [0.5, 0], atol=1e-3)
