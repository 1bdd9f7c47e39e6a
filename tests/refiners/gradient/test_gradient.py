from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from scipy.optimize import minimize

from refinejax import Gradient, Problem, Status, Stop, run, run_until
from refinejax.refiners import BFGS

START = np.array([-1.2, 1.0], np.float32)


def rosenbrock(params):
    return jnp.sum((1 - params[:-1]) ** 2 + 100 * (params[1:] - params[:-1] ** 2) ** 2)


def sphere(params):
    return jnp.sum(params**2)


class Bounded(Problem):
    """A function of params in a box, and its data."""

    function: Any = struct.field(pytree_node=False)
    bounds: Any
    data: Any = ()

    def __call__(self, params):
        return self.function(params, *self.data)


def by_hand(optimizer, objective, params, steps):
    """The loop of optax's documentation."""
    from_search = optax.value_and_grad_from_state(objective)
    searches = hasattr(optimizer.init(params)[-1], "value")

    def step(carry, _):
        params, state = carry
        if searches:
            value, grad = from_search(params, state=state)
        else:
            value, grad = jax.value_and_grad(objective)(params)
        updates, state = optax.with_extra_args_support(optimizer).update(
            grad, state, params, value=value, grad=grad, value_fn=objective
        )
        return (optax.apply_updates(params, updates), state), value

    start = (params, optimizer.init(params))
    (params, _), losses = jax.jit(lambda s: jax.lax.scan(step, s, length=steps))(start)
    return params, losses


LIKE_OPTAX = {
    "sgd": (Gradient(optax.sgd, {"learning_rate": 1e-3}), optax.sgd(1e-3)),
    "adam": (Gradient(optax.adam, {"learning_rate": 0.02}), optax.adam(0.02)),
    "lbfgs": (Gradient(optax.lbfgs), optax.lbfgs()),
    "schedule": (
        Gradient(optax.adam, {"learning_rate": optax.cosine_decay_schedule(0.1, 25)}),
        optax.adam(optax.cosine_decay_schedule(0.1, 25)),
    ),
    "backtracking": (
        Gradient(
            lambda learning_rate: optax.chain(
                optax.sgd(learning_rate),
                optax.scale_by_backtracking_linesearch(40, store_grad=True),
            ),
            {"learning_rate": 1.0},
        ),
        optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(40, store_grad=True)),
    ),
}


@pytest.mark.parametrize("name", LIKE_OPTAX)
def test_equals_a_plain_optax_loop(name):
    refiner, optimizer = LIKE_OPTAX[name]
    with jax.enable_x64(True):
        start = jnp.asarray(START, jnp.float64)
        params, losses = by_hand(optimizer, rosenbrock, start, 25)
        result = run(refiner, rosenbrock, start, num_steps=25)
        # The same operations; the compiler may fuse them otherwise, by an ulp.
        np.testing.assert_allclose(result.trace[:-1], losses, rtol=1e-11)
        np.testing.assert_allclose(result.state.params, params, rtol=1e-11)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_equals_a_plain_optax_loop_bit_for_bit_where_nothing_is_fused(name):
    refiner, optimizer = LIKE_OPTAX[name]
    params, memory = jnp.asarray(START), optimizer.init(START)
    state = refiner.init(rosenbrock, jnp.asarray(START), jax.random.key(0))
    for _ in range(5):
        loss, grad = jax.value_and_grad(rosenbrock)(params)
        np.testing.assert_array_equal(state.loss, loss)
        np.testing.assert_array_equal(state.params, params)
        updates, memory = optimizer.update(grad, memory, params)
        params = optax.apply_updates(params, updates)
        state = refiner.step(rosenbrock, state, jax.random.key(0))


def exponential(params, times, observed):
    return jnp.sum((params[0] * jnp.exp(-params[1] * times) - observed) ** 2)


def bowl(params, matrix, center):
    return 0.5 * (params - center) @ matrix @ (params - center)


def random_bowl(n, condition, seed):
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    matrix = basis @ np.diag(np.geomspace(1, condition, n)) @ basis.T
    return (matrix, rng.normal(size=n))


def _exponential():
    times = np.linspace(0, 3, 20)
    observed = 2 * np.exp(-1.5 * times) + 0.1 * np.cos(7 * times)
    return (times, observed)


BOXES = {
    "inside": (rosenbrock, (), [-1.2, 1.0], [-2, -2], [2, 2]),
    "on a face": (rosenbrock, (), [-1.2, 1.0], [-2, -2], [0.8, 2]),
    "in a corner": (rosenbrock, (), [0.0, 0.0], [-1, -1], [0.5, 0.1]),
    "begins in a corner": (rosenbrock, (), [-2.0, -2.0], [-2, -2], [2, 0.5]),
    "one-sided": (rosenbrock, (), [2.0, 2.0, 2.0], [1.5, -np.inf, -np.inf], [np.inf] * 3),
    "exponential": (exponential, _exponential(), [1.0, 0.1], [0, 0], [1.8, 5]),
    "10-D": (bowl, random_bowl(10, 10, 0), [0.0] * 10, [-0.5] * 10, [0.5] * 10),
    "10-D, all pressing": (bowl, random_bowl(10, 30, 1), [0.1] * 10, [0.0] * 10, [np.inf] * 10),
    "20-D, condition 1000": (bowl, random_bowl(20, 1e3, 2), [0.0] * 20, [-0.4] * 20, [0.4] * 20),
}


QUASI_NEWTON = {"lbfgs": Gradient(optax.lbfgs), "bfgs": BFGS()}
QUICK = ("on a face", "exponential", "10-D, all pressing")  # for L-BFGS; the others for BFGS


def in_boxes():
    """Every box is quick for one of them: each is a program."""
    for name in BOXES:
        for kind, refiner in QUASI_NEWTON.items():
            marks = () if (name in QUICK) == (kind == "lbfgs") else pytest.mark.slow
            yield pytest.param(name, refiner, id=f"{name}-{kind}", marks=marks)


@pytest.mark.parametrize(("name", "refiner"), [*in_boxes()])
def test_quasi_newton_methods_with_bounds_find_what_scipy_finds(name, refiner):
    function, data, start, lower, upper = BOXES[name]
    with jax.enable_x64(True):
        data = tuple(jnp.asarray(d) for d in data)
        bounds = (jnp.asarray(lower, jnp.float64), jnp.asarray(upper, jnp.float64))
        objective = Bounded(function, bounds, data)
        result = run_until(refiner, objective, jnp.asarray(start, jnp.float64), max_steps=300)
        result = jax.device_get(result)
        both = jax.jit(jax.value_and_grad(objective))
        known = minimize(
            lambda x: [np.asarray(v, float) for v in both(x)],
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(lower, upper, strict=True)),
            options={"ftol": 1e-16, "gtol": 1e-10, "maxiter": 1000},
        )
    assert Status(int(result.status)).converged
    drop = float(result.initial_loss) - known.fun
    assert float(result.loss) <= known.fun + 1e-9 * drop + 1e-14
    np.testing.assert_allclose(result.params, known.x, atol=2e-5)
    assert np.all((result.params >= np.array(lower)) & (result.params <= np.array(upper)))


@pytest.mark.parametrize(
    "refiner",
    [Gradient(optax.sgd, {"learning_rate": 0.1}), Gradient(optax.adam, {"learning_rate": 0.02})],
    ids=["sgd", "adam"],
)
def test_first_order_optimizers_with_bounds_find_the_projected_optimum(refiner):
    center = jnp.array([2.0, -0.3, -4.0])
    objective = Bounded(
        lambda params, center: jnp.sum((params - center) ** 2), (-1.0, 1.0), (center,)
    )
    result = run_until(refiner, objective, jnp.zeros(3), max_steps=3000)
    assert result.status == Status.CONVERGED_GRAD
    np.testing.assert_allclose(result.params, [1, -0.3, -1], atol=1e-3)


class Counter:
    """An objective that notes the points at which it is evaluated."""

    def __init__(self, function):
        self.function, self.points = function, []

    def __call__(self, params):
        jax.debug.callback(lambda p: self.points.append(tuple(np.asarray(p))), params)
        return self.function(params)

    def after(self, call):
        self.points.clear()
        jax.block_until_ready(call())
        jax.effects_barrier()
        return self.points


def test_adam_evaluates_once_a_step_and_once_at_the_start():
    counter = Counter(rosenbrock)
    refiner = Gradient(optax.adam, {"learning_rate": 0.02})
    points = counter.after(lambda: run(refiner, counter, START, num_steps=20))
    assert len(points) == 21
    points = counter.after(lambda: run_until(refiner, counter, START, max_steps=20))
    assert len(points) == 21


def test_lbfgs_evaluates_no_point_twice():
    counter = Counter(rosenbrock)
    points = counter.after(lambda: run(Gradient(optax.lbfgs), counter, START, num_steps=15))
    assert len(points) >= 16
    assert len(set(points)) == len(points)
    by_hand_counter = Counter(rosenbrock)
    others = by_hand_counter.after(lambda: by_hand(optax.lbfgs(), by_hand_counter, START, 15))
    assert len(points) <= len(others)


def barrier(params):
    """Least at (0.1, 0); NaN where the first param is negative."""
    return params[0] - 0.1 * jnp.log(params[0]) + params[1] ** 2


@pytest.mark.parametrize(
    "refiner",
    [
        Gradient(optax.sgd, {"learning_rate": 0.05}),
        Gradient(optax.adam, {"learning_rate": 0.5}),
        Gradient(optax.lbfgs),
    ],
    ids=["sgd", "adam", "lbfgs"],
)
def test_recovers_from_steps_into_nan(refiner):
    start = np.array([0.3, 0.2], np.float32)
    with jax.debug_nans(False):
        result = run_until(refiner, barrier, start, max_steps=3000, stop=Stop(patience=1000))
    np.testing.assert_allclose(result.params, [0.1, 0], atol=5e-3)
    assert Status(int(result.status)) > 0


def test_a_step_into_nan_is_refused_and_the_next_is_half_as_long():
    objective = Bounded(lambda p, wall: jnp.where(p[0] < wall, jnp.nan, p[0]), None, (0.0,))
    refiner = Gradient(optax.sgd, {"learning_rate": 1.0})
    result = run(refiner, objective, jnp.array([0.9]), num_steps=4, record=lambda s: s.params[0])
    # 0.9 − 1 is refused, 0.9 − ½ is taken, then the length grows back: 0.4 − 1 is refused.
    np.testing.assert_allclose(result.trace[:4], [0.9, 0.9, 0.4, 0.4], rtol=1e-6)
    np.testing.assert_array_equal(np.isfinite(result.state.loss), True)


@pytest.mark.parametrize(
    "refiner",
    [Gradient(optax.sgd, {"learning_rate": 0.1}), Gradient(optax.lbfgs)],
    ids=["sgd", "lbfgs"],
)
def test_a_gradient_that_is_always_nan_ends_as_nonfinite(refiner):
    def objective(params):
        return jnp.sum(jnp.sqrt(0 * params) + params**2)

    result = run_until(refiner, objective, START, max_steps=200)
    assert result.status == Status.NONFINITE
    np.testing.assert_array_equal(result.params, START)
    assert int(result.steps) < 100
    assert run(refiner, objective, START, num_steps=60).status == Status.NONFINITE


def test_a_loss_without_lower_bound_ends_with_a_finite_point():
    result = run_until(
        Gradient(optax.sgd, {"learning_rate": 1.0}),
        lambda params: -jnp.sum(jnp.exp(params)),
        START,
        max_steps=500,
        stop=Stop(divergence=-1),
    )
    assert np.isfinite(result.loss)
    assert np.all(np.isfinite(result.params))


def test_arguments_are_sorted_into_numbers_and_options():
    lbfgs = Gradient(optax.lbfgs, {"memory_size": 5, "scale_init_precond": True})
    assert lbfgs.options == (("memory_size", 5), ("scale_init_precond", True))
    assert jax.tree.leaves(lbfgs) == []
    adam = Gradient(optax.adam, {"learning_rate": 0.1, "b1": jnp.float32(0.8), "nesterov": True})
    assert adam.options == (("nesterov", True),)
    assert sorted(map(float, jax.tree.leaves(adam))) == pytest.approx([0.1, 0.8])


def test_refiners_with_the_same_options_are_the_same_to_the_compiler():
    a, b = (Gradient(optax.adam, {"learning_rate": rate, "b1": 0.8}) for rate in (0.1, 0.2))
    assert jax.tree.structure(a) == jax.tree.structure(b)
    c = Gradient(optax.adam, {"b1": 0.8, "learning_rate": 0.1})
    assert jax.tree.structure(a) == jax.tree.structure(c)


def stretched(params):
    return jnp.sum(jnp.geomspace(1, 1e3, 6) * params**2)


@pytest.mark.slow
def test_the_memory_size_takes_effect():
    runs = [
        run(Gradient(optax.lbfgs, {"memory_size": size}), stretched, np.ones(6), num_steps=20).loss
        for size in (1, 10)
    ]
    assert runs[1] < 0.1 * runs[0]


def test_a_sweep_by_vmap_equals_one_by_one():
    rates = jnp.array([1e-3, 1e-2, 1e-1])

    def final(rate):
        refiner = Gradient(optax.adam, {"learning_rate": rate})
        return run(refiner, rosenbrock, START, num_steps=15).trace

    together = jax.vmap(final)(rates)
    np.testing.assert_allclose(together, [final(rate) for rate in rates], rtol=2e-4)
    refiners = jax.vmap(lambda rate: Gradient(optax.adam, {"learning_rate": rate}))(rates)
    swept = jax.vmap(lambda r: run(r, rosenbrock, START, num_steps=15).trace)(refiners)
    np.testing.assert_allclose(swept, together, rtol=1e-6)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="learning_rat"):
        Gradient(optax.adam, {"learning_rat": 0.1})
    with pytest.raises(ValueError, match="learning_rate"):
        Gradient(optax.adam)
    with pytest.raises(ValueError, match="factory"):
        Gradient(optax.adam(0.1))
    with pytest.raises(ValueError, match="factory"):
        Gradient("adam", {"learning_rate": 0.1})


def test_the_optimality_is_the_free_gradient_relative_to_the_loss():
    objective = Bounded(sphere, (jnp.array([1.0, -1.0]), jnp.array([2.0, 1.0])))
    refiner = Gradient(optax.adam, {"learning_rate": 0.1})
    state = refiner.init(objective, jnp.array([1.0, 0.01]), jax.random.key(0))
    unit = sphere(state.params) / 1  # the loss over the largest param
    np.testing.assert_allclose(refiner.optimality(objective, state), 0.02 / unit, rtol=1e-5)
    free = refiner.init(sphere, jnp.array([1.0, 0.01]), jax.random.key(0))
    np.testing.assert_allclose(refiner.optimality(sphere, free), 2 / unit, rtol=1e-6)
