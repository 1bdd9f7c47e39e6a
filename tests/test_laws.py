"""The laws of the design, for every refiner and every problem (`cases.py`).

Compiling takes the time, so that `make test` divides the pairs in three (`make test-slow` runs all
laws for all pairs): law 1 is checked for every pair, by tracing alone; on `Case.brief`, one problem
for every refiner, the laws of which one compiled `run_until` can tell; on `Case.quick`, for at
least one refiner of each family, all.
"""

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import PROBLEMS, REFINERS
from programs import drop_if_many

from refinejax import Status, Stop, run, run_until
from refinejax._checks import as_key
from refinejax._core import as_problem, bounds_of
from refinejax._run import _run_until
from refinejax._trees import project

NUM_STEPS = 8  # of short runs


def pairs(quick):
    """Every pair, as parameters of tests; those are marked slow for which ``quick`` is false."""
    for refiner, case in REFINERS.items():
        for problem in PROBLEMS:
            if problem not in case.skip:
                marks = () if quick(case, problem) else pytest.mark.slow
                yield pytest.param((refiner, problem), id=f"{refiner}-{problem}", marks=marks)


def brief(law):
    """Mark a law that a compiled `run_until` can tell: `make test` checks it for every refiner."""
    law.brief = True
    return law


def pytest_generate_tests(metafunc):
    """Give each law its pairs."""
    if "pair" in metafunc.fixturenames:
        told = by_one_program if hasattr(metafunc.function, "brief") else by_several
        metafunc.parametrize("pair", [*pairs(told)], indirect=True, scope="module")


def by_several(case, problem):
    return problem in case.quick


def by_one_program(case, problem):
    return problem in (*case.quick, case.brief)


def record(state):
    return state.params, state.loss


@jax.jit
def init(refiner, objective, params, key):
    return refiner.init(objective, params, key)


@jax.jit
def step(refiner, objective, state, key):
    return refiner.step(objective, state, key)


class Pair:
    """A refiner, a problem, and what several laws look at; each compiled and run once."""

    def __init__(self, refiner, problem):
        self.case, self.problem = REFINERS[refiner], PROBLEMS[problem]
        self.refiner = self.case.refiner
        self.objective = as_problem(self.problem.objective)
        self.start = jax.tree.map(jnp.asarray, self.problem.start)
        self.space = getattr(self.problem.objective, "space", None)
        self.bounds = bounds_of(self.problem.objective)
        self.tolerance = 1e-6 * float(self.loss(self.start))

    def loss(self, params):
        return self.objective(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params))

    def run(self, key=0):
        return run(
            self.refiner, self.objective, self.start, key, num_steps=NUM_STEPS, record=record
        )

    def until(self, start=None, key=0, max_steps=NUM_STEPS, stop=None, **changes):
        refiner = changes.get("refiner", self.refiner)
        objective = changes.get("objective", self.objective)
        start = self.start if start is None else start
        return run_until(refiner, objective, start, key, max_steps=max_steps, stop=stop)

    @functools.cached_property
    def short(self):
        return self.run()

    @functools.cached_property
    def full(self):
        return self.until(max_steps=self.case.steps, stop=self.problem.stop)

    @functools.cached_property
    def lanes(self):
        """Three starts, of which the second is NaN."""
        starts = [self.start, jax.tree.map(lambda x: x * jnp.nan, self.start), nudge(self.start)]
        batch = jax.vmap(lambda start, key: self.until(start, key))(stack(starts), keys(3))
        return starts, batch

    @functools.cached_property
    def states(self):
        """The states of an uninterrupted run by hand."""
        states = [init(self.refiner, self.objective, self.start, jax.random.key(1))]
        for k in keys(4):
            states.append(step(self.refiner, self.objective, states[-1], k))
        return states


@pytest.fixture(scope="module")
def pair(request):
    yield Pair(*request.param)
    drop_if_many()  # as after each module: all pairs together are too many


def keys(n):
    return jax.random.split(jax.random.key(7), n)


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def lane(batch, index):
    return jax.tree.map(lambda leaf: leaf[index], batch)


def nudge(params):
    return jax.tree.map(lambda x: x + 0.01, params)


def raw(tree):
    """The leaves as NumPy arrays, keys as their data."""
    return [np.asarray(data(leaf)) for leaf in jax.tree.leaves(tree)]


def data(leaf):
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def is_key(leaf):
    return jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key)


def owned(array):
    """In memory of JAX's own: on an array of NumPy's, aligned otherwise, XLA rounds otherwise."""
    return jnp.array(array, copy=True)


def shapes(tree):
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.asarray(leaf).dtype), tree)


def assert_same_bits(a, b):
    for x, y in zip(raw(a), raw(b), strict=True):
        np.testing.assert_array_equal(x, y)


def assert_close(a, b, rtol=1e-4, atol=1e-5):
    for x, y in zip(raw(a), raw(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


@pytest.mark.parametrize("names", [*pairs(lambda case, problem: True)])
def test_1_by_tracing_step_returns_the_structure_shapes_and_dtypes_of_init(names):
    pair = Pair(*names)
    first = jax.eval_shape(pair.refiner.init, pair.objective, pair.start, jax.random.key(0))
    second = jax.eval_shape(pair.refiner.step, pair.objective, first, jax.random.key(0))
    assert abstract(first.params) == abstract(pair.start)
    assert first.loss.shape == ()
    assert jax.tree.structure(second) == jax.tree.structure(first)
    assert abstract(second) == abstract(first)


def abstract(tree):
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


def test_1_step_returns_the_structure_shapes_and_dtypes_of_init(pair):
    first, *others = pair.states
    assert jax.tree.map(jnp.shape, first.params) == jax.tree.map(jnp.shape, pair.start)
    assert first.loss.shape == ()
    for state in others:
        assert jax.tree.structure(state) == jax.tree.structure(first)
        assert shapes(state) == shapes(first)


def test_2_the_loss_of_every_state_is_the_objective_there(pair):
    params, losses = pair.short.trace
    expected = jax.vmap(pair.objective)(params)
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=pair.tolerance)


@brief
def test_2_the_losses_of_a_result_are_the_objective_there(pair):
    decode = pair.objective.coordinates().decode  # states are in the coordinates of refinement
    for result in (pair.until(), pair.full):
        for params, loss in (
            (result.params, result.loss),
            (decode(result.state.params), result.state.loss),
        ):
            there = pair.loss(params)
            np.testing.assert_allclose(loss, there, rtol=1e-4, atol=pair.tolerance)


def test_3_the_result_is_the_best_of_the_trace_and_not_above_the_start(pair):
    params, losses = pair.short.trace
    best = int(np.argmin(losses))
    assert losses.shape == (NUM_STEPS + 1,)
    assert pair.short.loss == losses[best]
    assert_same_bits(pair.short.params, lane(params, best))
    assert pair.short.loss <= pair.short.initial_loss


@brief
def test_3_the_result_is_not_above_the_start(pair):
    assert pair.full.loss <= pair.full.initial_loss
    assert pair.full.loss <= pair.full.state.loss


def test_4_vmap_equals_a_loop(pair):
    starts, batch = pair.lanes
    for index in (0, 2):
        alone, together = pair.until(starts[index], keys(3)[index]), lane(batch, index)
        np.testing.assert_allclose(together.loss, alone.loss, rtol=1e-3, atol=10 * pair.tolerance)
        assert_close(together.params, alone.params, 1e-3, 1e-3)


def test_5_jit_equals_no_jit(pair):
    with jax.disable_jit():
        state = pair.refiner.step(pair.objective, pair.states[0], keys(4)[0])
    assert shapes(state) == shapes(pair.states[1])
    assert_close(state.params, pair.states[1].params)
    np.testing.assert_allclose(state.loss, pair.states[1].loss, rtol=1e-4, atol=10 * pair.tolerance)


@brief
def test_6_new_starts_keys_numbers_data_and_limits_do_not_compile(pair):
    pair.until()
    before = _run_until._cache_size()
    pair.until(nudge(pair.start), key=jax.random.key(5), max_steps=3)
    pair.until(stop=Stop(gradient=1e-3, patience=7, target=0.01))
    pair.until(refiner=jax.tree.map(lambda x: 0.9 * x if is_float(x) else x, pair.refiner))
    if pair.problem.data is not None:
        new = getattr(pair.objective, pair.problem.data) + 0.01
        pair.until(objective=pair.objective.replace(**{pair.problem.data: new}))
    assert _run_until._cache_size() == before


def is_float(leaf):
    return isinstance(leaf, float)


def test_7_the_same_key_gives_the_same_bits(pair):
    assert_same_bits(pair.run(key=3), pair.run(key=jax.random.key(3)))


@brief
def test_7_the_same_key_gives_the_same_bits_where_a_run_stops_early(pair):
    assert_same_bits(pair.until(key=3), pair.until(key=jax.random.key(3)))


def test_8_a_nan_lane_ends_alone(pair):
    _, batch = pair.lanes
    bad = lane(batch, 1)
    assert bad.status == Status.NONFINITE_START
    assert bad.steps == 0
    assert np.isnan(bad.loss)
    others = np.array([0, 2])
    assert np.all(batch.loss[others] < batch.initial_loss[others])


def test_8_a_nan_lane_does_not_touch_its_neighbors(pair):
    starts, batch = pair.lanes
    sane = jax.vmap(lambda start, key: pair.until(start, key))(
        stack([starts[0], starts[0], starts[2]]), keys(3)
    )
    for index in (0, 2):
        assert_same_bits(lane(batch, index), lane(sane, index))


def test_10_save_load_and_go_on_reproduces_the_uninterrupted_run(pair):
    middle = pair.states[2]
    file = io.BytesIO()
    np.savez(file, *raw(middle))
    file.seek(0)
    with np.load(file) as saved:
        arrays = [saved[f"arr_{i}"] for i in range(len(saved.files))]
    leaves, structure = jax.tree.flatten(middle)
    restored = [
        jax.random.wrap_key_data(a) if is_key(leaf) else owned(a)
        for a, leaf in zip(arrays, leaves, strict=True)
    ]
    state, uninterrupted = jax.tree.unflatten(structure, restored), middle
    for k in keys(4)[2:]:
        state = step(pair.refiner, pair.objective, state, k)
        uninterrupted = step(pair.refiner, pair.objective, uninterrupted, k)
    assert_same_bits(state, uninterrupted)
    assert_close(state, pair.states[-1])


@brief
def test_12_the_known_optimum_is_reached(pair):
    least, start = float(pair.loss(pair.problem.optimum)), float(pair.loss(pair.start))
    assert float(pair.full.loss) - least <= pair.case.tolerance * (start - least)
    assert Status(int(pair.full.status)) > 0
    found, known, begin = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])
        for params in (pair.full.params, pair.problem.optimum, pair.start)
    )
    distance = np.max(np.abs(begin - known))
    np.testing.assert_allclose(found, known, rtol=0, atol=0.1 * distance + 1e-3)


@brief
def test_14_no_result_lies_outside_the_bounds(pair):
    outside = pair.until(jax.tree.map(lambda x: x - 100, pair.start))
    assert_inside(pair, [pair.full.params, outside.params, outside.state.params])


def test_14_no_point_lies_outside_the_bounds(pair):
    assert_inside(pair, [lane(pair.short.trace[0], i) for i in range(NUM_STEPS + 1)])


def assert_inside(pair, points):
    if pair.bounds is None:
        pytest.skip("no bounds")
    for point in points:
        assert_same_bits(project(point, pair.bounds), point)


def double(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)


def directions(tree, seed=0):
    """A random direction in each leaf; none where the leaf is NaN (nothing depends on it)."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: jnp.where(jnp.isnan(x), 0, jnp.asarray(rng.normal(size=x.shape))), tree
    )


def test_11_gradients_through_run_equal_finite_differences(pair):
    if not pair.case.differentiable:
        pytest.skip("the refiner is not differentiable")
    with jax.enable_x64(True):
        refiner = double(pair.refiner)
        objective, start = double(pair.objective), double(pair.start)

        def final(refiner, objective, start):
            return run(refiner, objective, start, as_key(2), num_steps=3).loss

        arguments = (refiner, objective, start)
        both = jax.jit(jax.value_and_grad(final, argnums=(0, 1, 2)))  # compiled once
        gradients = both(*arguments)[1]
        for index, argument in enumerate(arguments):
            direction = directions(argument)
            assert_derivative(
                lambda *at: both(*at)[0], arguments, index, gradients[index], direction
            )


def assert_derivative(function, arguments, index, gradient, direction, width=1e-6):
    """Compare a directional derivative with a central difference."""
    assert all(np.all(np.isfinite(leaf)) for leaf in raw(gradient))
    products = jax.tree.map(lambda g, d: jnp.sum(g * d), gradient, direction)
    slope = sum(jax.tree.leaves(products), start=0.0)

    def at(t):
        moved = jax.tree.map(lambda x, d: x + t * d, arguments[index], direction)
        return function(*arguments[:index], moved, *arguments[index + 1 :])

    difference = (at(width) - at(-width)) / (2 * width)
    np.testing.assert_allclose(slope, difference, rtol=1e-5, atol=1e-8)
