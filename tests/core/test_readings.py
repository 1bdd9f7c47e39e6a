"""What can be read in one way is taken, what can be read in two is refused; so with bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import refinejax as rj
from refinejax._arguments import Arrays, ForwardModel
from refinejax._boxes import as_space
from refinejax._readings import SampleReading, read_samples

TIMES = np.linspace(0, 2, 5, dtype=np.float32)
SEEN = np.ones((3, 5), np.float32)


def line(params):
    return params[0] + params[1] * TIMES


def moved(params, times):
    return params[0] + params[1] * times


def batch_first(params):
    return params.reshape(params.shape[0], -1) @ jnp.stack([jnp.ones(5), TIMES])


def read(forward, observations, initial, context=None, batched=None):
    model = ForwardModel(forward, differentiable=True, vectorized=False)
    return read_samples(model, Arrays.read(observations, initial, context), batched)


# One start, one context for all


@pytest.mark.parametrize(
    ("forward", "initial", "context", "shared"),
    [
        (line, np.ones((3, 2)), None, ()),
        (line, np.ones(2), None, ("initial",)),
        (moved, np.ones((3, 2)), SEEN, ()),
        (moved, np.ones((3, 2)), TIMES, ("context",)),
        (moved, np.ones(2), TIMES, ("initial", "context")),
    ],
)
def test_one_start_and_one_context_may_be_meant_for_all(forward, initial, context, shared):
    for batched in (None, True):
        assert read(forward, SEEN, initial, context, batched) == SampleReading(False, shared)


def test_one_start_for_all_gives_as_many_answers():
    observed = np.float32([[1], [2], [3]]) + TIMES
    result = rj.refine(line, observed, np.float32([1, 2]), method="lm")
    np.testing.assert_allclose(result.params, [[1, 1], [2, 1], [3, 1]], atol=1e-4)


def test_what_fits_no_reading_is_refused():
    with pytest.raises(ValueError, match=r"forward: does not fit.*\(3,\)"):
        read(lambda params: line(params)[:4], SEEN, np.ones(3))


# A model of the whole batch


def test_a_model_that_takes_all_samples_at_once_is_no_single_sample():
    with pytest.raises(ValueError, match=r"batched: .* look like 3 samples .*batched=False"):
        read(batch_first, SEEN, np.ones((3, 2)))
    assert read(batch_first, SEEN, np.ones((3, 2)), batched=False).single
    assert read(batch_first, SEEN[:1], np.ones((1, 2))).single
    assert read(line, SEEN[0], np.ones(2)).single
    assert read(lambda p: p * p, SEEN[0, :2], np.ones(2), batched=False).single


def test_a_model_of_all_samples_with_params_by_name_is_no_single_sample_either():
    params = {"a": np.ones(3), "b": np.ones(3)}
    with pytest.raises(ValueError, match=r"batched: .* look like 3 samples"):
        read(lambda p: p["a"][:, None] + p["b"][:, None] * TIMES, SEEN, params)


# Bounds

FIRST = np.zeros(2, np.float32)


def ends(bounds, first=FIRST):
    space = as_space(bounds, first)
    return jax.tree.map(lambda x: np.asarray(x).tolist(), space.bounds)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (([0, 1], [3, 4]), ([0, 1], [3, 4])),
        ((np.array([0, 1]), np.array([3, 4])), ([0, 1], [3, 4])),
        ([np.array([0, 1]), np.array([3, 4])], ([0, 1], [3, 4])),
        (scipy.optimize.Bounds([0, 1], [3, 4]), ([0, 1], [3, 4])),
        ((0, 3), ([0, 0], [3, 3])),
        ((0, [3, 4]), ([0, 0], [3, 4])),
        ((None, 3), ([-np.inf] * 2, [3, 3])),
        (([0, None], [None, 4]), ([0, -np.inf], [np.inf, 4])),
        ([(0, 5), (1, 2)], ([0, 1], [5, 2])),  # as (lower, upper) they would cross
        ([(0, 0), (3, 3)], ([0, 0], [3, 3])),  # as pairs nothing would vary
        (([0.25, 0], [0.25, 5]), ([0.25, 0], [0.25, 5])),  # fixed by equal bounds
        ((-1e300, 1e300), ([-np.inf] * 2, [np.inf] * 2)),
    ],
)
def test_bounds_of_two_params(bounds, expected):
    assert ends(bounds) == expected


@pytest.mark.parametrize(
    "bounds",
    [[(0, 3), (1, 4)], ((0, 3), (1, 4)), [[0, 3], [1, 4]], np.array([[0, 3], [1, 4]])],
)
def test_two_pairs_for_two_params_are_refused(bounds):
    with pytest.raises(ValueError, match=r"bounds: .*two ways.*lower bounds.*\(low, high\) for"):
        as_space(bounds, FIRST)


def test_pairs_are_taken_where_they_have_one_meaning():
    pairs = ([0, 1, -np.inf], [3, 4, 5])
    assert ends([(0, 3), (1, 4), (None, 5)], np.zeros(3, np.float32)) == pairs
    assert ends(np.array([(0, 3), (1, 4), (-np.inf, 5)]), np.zeros(3, np.float32)) == pairs
    assert ends([(0, 3)], np.zeros(1, np.float32)) == ([0], [3])
    named = {"a": np.float32(0), "b": np.float32(0)}
    assert ends({"a": (0, 3), "b": (None, 4)}, named) == (
        {"a": 0, "b": -np.inf},
        {"a": 3, "b": 4},
    )
    assert ends(({"a": 0, "b": None}, {"a": 3, "b": 4}), named)[0] == {"a": 0, "b": -np.inf}
    assert ends(((0, 1), (3, 4)), (np.float32(0), np.float32(0))) == ((0, 1), (3, 4))


@pytest.mark.parametrize(
    ("bounds", "first", "said"),
    [
        (({"a": 0}, {"a": 5}), {"a": FIRST, "c": FIRST}, r"lower .*lacks \['c'\]"),
        (({"a": 0, "d": 1}, {"a": 5}), {"a": FIRST}, r"no param \['d'\]"),
        ({"a": (0, 1)}, {"a": FIRST, "c": FIRST}, r"a pair for each of \['a', 'c'\]"),
        (([0, np.nan], [1, 1]), FIRST, "lower nan is not below upper 1.0"),
        (([0, 2], [1, 1]), FIRST, r"lower 2.0 is not below upper 1.0"),
        (([0, 0, 0], [1, 1, 1]), FIRST, r"shape \(3,\) does not fit params of shape \(2,\)"),
        ((1, 2, 3), FIRST, "expected .lower, upper."),
        (7, FIRST, "bounds"),
        (([1.7e9 - 10, 0], [1.7e9 + 10, 5]), FIRST, "one number in float32.*enable_x64"),
        (([0.1, 0], [0.1 + 1e-10, 5]), FIRST, "one number in float32"),
        (("low", "high"), FIRST, "bounds"),
    ],
)
def test_other_bounds_are_refused_by_name(bounds, first, said):
    with pytest.raises(ValueError, match=said):
        as_space(bounds, first)


def test_a_param_has_a_name_of_its_own():
    with pytest.raises(ValueError, match="names: 'k' is there twice"):
        rj.ParameterSpace.create(("k", "k"), [0, 0], [1, 1])


# Noise


def test_noise_of_as_many_pixels_as_samples_is_refused():
    problem = rj.InverseProblem(line, SEEN[:, :3], noise=np.float32([1, 2, 3]))
    with pytest.raises(ValueError, match=r"noise: .*samples or pixels"):
        rj.run_batch(rj.LevenbergMarquardt(), problem, np.ones((3, 2)), max_steps=1)


# float64 that is cut to float32


def offset(params):
    return 1e8 + params[0] * jnp.exp(-params[1] * TIMES)


def test_a_note_says_where_rounding_matters():
    observed = 1e8 + 2 * np.exp(-3.0 * TIMES.astype(float))
    problem = rj.InverseProblem(offset, observed[None], noise=np.asarray(1.0))  # one program
    starts = np.ones((1, 2))
    random = rj.RandomSearch(population_size=4)
    refined = rj.refine(offset, observed, starts[0], method=random, max_steps=2)
    batch = rj.run_batch(random, problem, starts, max_steps=2)
    (chunk,) = rj.run_stream(random, iter([(problem, starts)]), max_steps=2)
    for result, name in ((refined, "observations"), (batch, "problem.obs"), (chunk, "problem.obs")):
        (note,) = result.notes
        assert note.startswith(name)
        assert "float32" in note
        assert "enable_x64" in note
