import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import ADAM, LBFGS, PROBLEMS, Box
from flax import struct

from refinejax import (
    Gradient,
    InverseProblem,
    Problem,
    RandomSearch,
    Refiner,
    State,
    Status,
    Stop,
    run,
    run_batch,
    run_until,
)

START = np.array([2.0, -1.0], np.float32)
DTYPES = [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64]


def sphere(params):
    return jnp.sum(params**2)


def raised(params):
    """Its relative decrease reaches the precision while its gradient is still large."""
    return 1 + jnp.sum((params - 0.3) ** 2)


def cliff(params):
    """Finite everywhere, its gradient nowhere."""
    return jnp.sum(jnp.sqrt(0 * params) + params)


def edge(params):
    return jnp.sum(jnp.log(params))


def sgd(learning_rate):
    return Gradient(optax.sgd, {"learning_rate": learning_rate})


def never_but(**rules):
    return Stop.never().replace(**rules)


ENDS = {
    "CONVERGED_GRAD": (LBFGS, sphere, Stop()),
    "CONVERGED_LOSS": (LBFGS, raised, never_but(loss=None)),
    "CONVERGED_STEP": (RandomSearch(), raised, never_but(step=1e-3)),
    "TARGET_REACHED": (ADAM, sphere, Stop(target=1.0)),
    "STALLED": (sgd(1.0), sphere, Stop(patience=10)),  # jumps from x to −x
    "MAX_STEPS": (sgd(1e-4), sphere, Stop()),
    "NONFINITE_START": (ADAM, edge, Stop()),
    "NONFINITE": (ADAM, cliff, Stop()),
    "DIVERGED": (sgd(3.0), sphere, Stop()),
}
GOOD = {"CONVERGED_GRAD", "CONVERGED_LOSS", "CONVERGED_STEP", "TARGET_REACHED"}


@pytest.mark.parametrize("name", ENDS)
def test_every_end_has_its_status(name):
    refiner, objective, stop = ENDS[name]
    result = run_until(refiner, objective, START, max_steps=300, stop=stop)
    status = Status(int(result.status))
    assert status.name == name
    assert status.converged == (name in GOOD)
    assert int(result.steps) <= 300


def test_each_end_comes_where_it_should():
    stalled = run_until(sgd(1.0), sphere, START, max_steps=300, stop=Stop(patience=10))
    assert int(stalled.steps) == 10
    target = run_until(ADAM, sphere, START, max_steps=300, stop=Stop(target=1.0))
    assert float(target.loss) <= 1.0
    diverged = run_until(sgd(3.0), sphere, START, max_steps=300)
    np.testing.assert_array_equal(diverged.params, START)  # the best seen
    at_start = run_until(ADAM, edge, START, max_steps=300)
    assert int(at_start.steps) == 0
    optimal = run_until(ADAM, sphere, np.zeros(2, np.float32), max_steps=300)
    assert (int(optimal.status), int(optimal.steps)) == (Status.CONVERGED_GRAD, 0)


def test_nonfinite_keeps_the_best_point():
    for refiner in (ADAM, LBFGS, sgd(0.1)):
        result = run_until(refiner, cliff, START, max_steps=300)
        assert result.status == Status.NONFINITE
        np.testing.assert_array_equal(result.params, START)
        assert result.loss == result.initial_loss == 1


@pytest.mark.parametrize("status", Status)
def test_every_status_explains_itself(status):
    words = status.explain().split()
    assert len(words) > 4
    assert words[0][0].isupper()
    assert words[-1].endswith(".")


def test_negative_statuses_are_never_converged():
    assert not any(status.converged for status in Status if status < 0)
    assert {s.name for s in Status if s < 0} == {
        "NONFINITE_START",
        "NONFINITE",
        "SINGULAR",
        "DIVERGED",
    }


def test_never_takes_all_steps():
    start = np.zeros(2, np.float32)  # the optimum
    result = run_until(ADAM, sphere, start, max_steps=150, stop=Stop.never())
    assert (int(result.steps), int(result.status)) == (150, Status.MAX_STEPS)
    with_target = Stop.never(target=1.0)
    result = run_until(ADAM, sphere, START, max_steps=150, stop=with_target)
    assert result.status == Status.TARGET_REACHED


def test_no_steps_return_the_start():
    for result in (
        run(ADAM, sphere, START, num_steps=0),
        run_until(ADAM, sphere, START, max_steps=0),
    ):
        np.testing.assert_array_equal(result.params, START)
        assert (int(result.steps), int(result.status)) == (0, Status.MAX_STEPS)
        assert result.loss == result.initial_loss == 5


def test_the_trace_is_the_loss_at_the_start_and_after_each_step():
    result = run(sgd(0.25), sphere, START, num_steps=6)
    np.testing.assert_allclose(result.trace, 5 * 0.25 ** np.arange(7.0), rtol=1e-6)
    assert (int(result.steps), int(result.status)) == (6, Status.MAX_STEPS)


def test_record_sees_params_in_their_own_units():
    problem = PROBLEMS["decay"]
    result = run(
        ADAM,
        problem.objective,
        problem.start,
        num_steps=4,
        record=lambda state: {"params": state.params, "two": (state.loss, state.loss)},
    )
    assert result.trace["params"].shape == (5, 2)
    np.testing.assert_array_equal(result.trace["params"][0], problem.start)
    np.testing.assert_array_equal(result.trace["two"][0], result.trace["two"][1])


def test_run_and_run_until_take_the_same_steps():
    for refiner in (ADAM, RandomSearch()):
        fixed = run(refiner, raised, START, 3, num_steps=20)
        free = run_until(refiner, raised, START, 3, max_steps=20, stop=Stop.never())
        np.testing.assert_allclose(fixed.params, free.params, rtol=1e-6)
        np.testing.assert_allclose(fixed.loss, free.loss, rtol=1e-6)


def test_the_tolerance_on_the_gradient_holds_where_it_stops():
    result = run_until(ADAM, sphere, START, max_steps=5000, stop=never_but(gradient=1e-2))
    assert result.status == Status.CONVERGED_GRAD
    largest = np.max(np.abs(jax.grad(sphere)(START)))
    assert np.max(np.abs(jax.grad(sphere)(result.state.params))) <= 1e-2 * largest


@pytest.mark.parametrize("driver", ["run", "until"])
def test_bad_arguments_are_named(driver):
    def call(objective=sphere, params=START, steps=3):
        if driver == "run":
            return run(ADAM, objective, params, num_steps=steps)
        return run_until(ADAM, objective, params, max_steps=steps)

    count = {"run": "num_steps", "until": "max_steps"}[driver]
    for bad in (-1, 2.5, True, "3"):
        with pytest.raises(ValueError, match=count):
            call(steps=bad)
    for empty in ({}, (), None, []):
        with pytest.raises(ValueError, match=r"params.*empty"):
            call(params=empty)
    with pytest.raises(ValueError, match=r"params\['b'\].*int"):
        call(params={"a": START, "b": np.arange(3)})
    with pytest.raises(ValueError, match=r"params.*complex"):
        call(params=np.array([1j]))
    with pytest.raises(ValueError, match=r"objective.*float"):
        call(objective=3.0)


def test_an_objective_that_is_no_scalar_is_named():
    for refiner in (ADAM, RandomSearch()):
        with pytest.raises(ValueError, match="objective"):
            run(refiner, lambda params: params**2, START, num_steps=2)


def test_what_is_no_refiner_is_named():
    for other in (optax.adam(0.1), optax.adam, Gradient):
        with pytest.raises(ValueError, match="refiner"):
            run(other, sphere, START, num_steps=2)
        with pytest.raises(ValueError, match="refiner"):
            run_until(other, sphere, START, max_steps=2)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("refiner", [ADAM, LBFGS, RandomSearch()], ids=["adam", "lbfgs", "random"])
def test_the_dtype_is_kept(refiner, dtype):
    with jax.enable_x64(True):
        start = jnp.asarray([2.0, -1.0], dtype)
        result = run_until(refiner, sphere, start, max_steps=20)
    assert result.params.dtype == dtype
    assert result.loss.dtype == result.initial_loss.dtype == dtype
    assert result.loss < result.initial_loss


@pytest.mark.parametrize("refiner", [ADAM, LBFGS, RandomSearch()], ids=["adam", "lbfgs", "random"])
def test_params_less_precise_than_the_loss_keep_their_dtype(refiner):
    data = jnp.asarray([0.3, 0.4], jnp.float32)
    start = jnp.asarray([2.0, -1.0], jnp.bfloat16)
    result = run_until(refiner, lambda params: jnp.sum((params - data) ** 2), start, max_steps=20)
    assert (result.params.dtype, result.loss.dtype) == (jnp.bfloat16, jnp.float32)
    assert result.loss < result.initial_loss


def test_plain_python_numbers_will_do():
    result = run_until(LBFGS, lambda params: (params["x"] - 3.0) ** 2, {"x": 1.0}, max_steps=20)
    np.testing.assert_allclose(result.params["x"], 3, rtol=1e-5)


def test_seeds_old_keys_and_typed_keys_are_the_same():
    def at(key):
        return run(RandomSearch(), sphere, START, key, num_steps=3).params

    expected = at(jax.random.key(5))
    for key in (5, np.int64(5), jnp.int32(5), jax.random.PRNGKey(5), np.asarray([0, 5], np.uint32)):
        np.testing.assert_array_equal(at(key), expected)
    np.testing.assert_array_equal(at(None), at(0))
    assert not np.array_equal(at(0), expected)


def test_a_new_learning_rate_or_a_new_refiner_of_a_kind_does_not_trace_again():
    traces = 0

    def counted(params):
        nonlocal traces
        traces += 1
        return sphere(params)

    def go(learning_rate):
        refiner = Gradient(optax.adam, {"learning_rate": learning_rate})
        run(refiner, counted, START, num_steps=3)
        run_until(refiner, counted, START, max_steps=3)

    go(0.1)
    first = traces
    assert first > 0
    go(0.2)
    assert traces == first


def test_new_data_of_a_problem_do_not_trace_again():
    traces = 0

    def forward(params):
        nonlocal traces
        traces += 1
        return params

    for seed in range(3):
        observation = jax.random.normal(jax.random.key(seed), (2,))
        run_until(ADAM, InverseProblem(forward, observation), START, seed, max_steps=3 + seed)
        if seed == 0:
            first = traces
    assert traces == first


class Ball(Problem):
    """A problem without data, with bounds as a class attribute."""

    bounds = (np.float32(-1), np.float32(0.5))

    def __call__(self, params):
        return jnp.sum((params - 2) ** 2)


def test_bounds_of_a_class_are_kept():
    for refiner in (ADAM, RandomSearch()):
        result = run_until(refiner, Ball(), START, max_steps=200)
        np.testing.assert_allclose(result.params, 0.5)


def test_a_start_outside_the_bounds_begins_at_the_bounds():
    box = Box(jnp.array([1.0, -2.0, 0.0]))
    result = run(ADAM, box, np.array([-9.0, 9.0], np.float32), num_steps=0)
    np.testing.assert_array_equal(result.params, [-1, 2])
    assert result.initial_loss == box(jnp.array([-1.0, 2.0]))


def test_an_infinite_start_is_told():
    result = run(ADAM, edge, np.zeros(2, np.float32), num_steps=3)
    assert result.status == Status.NONFINITE_START


class Lowering(Refiner):
    """Knows nothing but how to go down: the defaults of `Refiner` must do."""

    def init(self, objective, params, key):
        return State(params, objective(params), ())

    def step(self, objective, state, key):
        params = 0.5 * state.params
        return state.replace(params=params, loss=objective(params))


def test_a_refiner_of_two_methods_suffices():
    result = run_until(Lowering(), sphere, START, max_steps=5)
    assert (int(result.steps), int(result.status)) == (5, Status.MAX_STEPS)
    np.testing.assert_allclose(result.params, START / 32)


def numbered(number):
    """An objective of a class of its own, alike to all the others."""

    class Numbered(struct.PyTreeNode):
        scale: float = 1.0

        def __call__(self, params):
            return self.scale * number + jnp.sum(0 * params)

    return Numbered()


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["run", "run_until", "run_batch"])
def test_classes_that_are_alike_are_not_taken_for_one_another(driver):
    for number in range(1, 20 if driver == "run_batch" else 60):
        if driver == "run_batch":
            problem = numbered(number)
            axes = problem.replace(scale=None)
            found = run_batch(RandomSearch(), problem, np.ones((2, 1)), max_steps=0, axes=axes)
            assert np.all(found.loss == number)
            continue
        options = {"num_steps": 0} if driver == "run" else {"max_steps": 0}
        function = {"run": run, "run_until": run_until}[driver]
        assert function(RandomSearch(), numbered(number), jnp.ones(1), **options).loss == number
