"""Arrays of every kind are read right, or refused by name, at every entry."""

from decimal import Decimal

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

import refinejax as rj
from refinejax._gate import read_problem, read_tree

BIG = np.arange(6.0).reshape(2, 3).astype(">f8")


class Foreign:
    """As a DataFrame or a data set of h5py: no array, but one can be made of it."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array, dtype)


class Quantity(np.ndarray):
    """As one of astropy."""

    def to_value(self):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (BIG, np.arange(6.0).reshape(2, 3)),
        (np.arange(3, dtype=">i2"), np.arange(3)),
        (np.array([[1, 2.5], [3, 4]], object), [[1, 2.5], [3, 4]]),
        (np.array([np.float32(1), 2], object), [1, 2]),
        (np.array([Decimal("0.5"), 10**30], object), [0.5, 1e30]),
        (np.array([1j, 2], object), [1j, 2]),
        (np.ma.array([1.0, 2.0], mask=[False, True]), [1, np.nan]),
        (np.ma.array([1, 2], mask=[True, False]), [np.nan, 2]),
        (np.ma.array(BIG, mask=False), np.arange(6.0).reshape(2, 3)),
        ([np.ma.array([1.0, 2.0], mask=[True, False]), [3, 4]], [[np.nan, 2], [3, 4]]),
        ([1.0, np.ma.masked], [1, np.nan]),
        (Foreign([1, 2]), [1, 2]),
        (np.matrix([[1, 2]]), [[1, 2]]),
        (np.longdouble([1, 2]), [1, 2]),
        (jnp.bfloat16(1.5), 1.5),
        (np.asarray(jnp.bfloat16([1.5])), [1.5]),
        (2, 2),
        ([], []),
    ],
)
def test_arrays_of_one_meaning_are_read(value, expected):
    found = read_tree(value, "observations", missing=True)
    np.testing.assert_array_equal(np.asarray(found, np.asarray(expected).dtype), expected)
    assert found.dtype.isnative
    assert found.dtype.kind != "O"
    assert found.dtype.itemsize <= 16


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([[1, 2], [3]], "same length"),
        (np.array([[1, 2], [3]], object), r"list \[1, 2\] at \[0\]"),
        (np.array([1, None], object), r"None at \[1\].*NaN"),
        (["a", "b"], "dtype <U1"),
        ("ab", "str 'ab'"),
        (np.array(["2020-01-01"], "M8[s]"), "timedelta64"),
        (np.zeros(2, [("x", float)]), "fields as a dict"),
        (scipy.sparse.eye(3).tocsr(), "toarray"),
        (np.arange(2.0).view(Quantity), "unit"),
        (np.ma.array([1, 2], mask=[True, False]), "1 numbers are masked"),
        (len, "expected an array of numbers"),
    ],
)
def test_the_rest_is_refused_by_name(value, said):
    with pytest.raises(ValueError, match=rf"initial\['a'\]: .*{said}"):
        read_tree({"a": value}, "initial")


def test_plain_arrays_pass_as_they_are(tmp_path):
    mapped = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.float32, (3, 2))
    frozen = np.zeros(3)
    frozen.flags.writeable = False
    for array in (mapped, frozen, jnp.ones(2)):
        assert read_tree(array, "observations") is array
    problem = rj.InverseProblem(len, mapped, noise=2.0)
    assert read_problem(problem) is problem


def test_masks_and_lists_of_problems_are_read():
    problem = rj.InverseProblem(len, np.ma.masked_less([1.0, 2.0], 2), context=[1.0, 2.0])
    read = read_problem(problem)
    np.testing.assert_array_equal(read.observation, [np.nan, 2])
    np.testing.assert_array_equal(read.context, [1, 2])
    with pytest.raises(ValueError, match=r"problem\.context: 1 numbers are masked"):
        read_problem(problem.replace(context=np.ma.masked_less([1.0, 2.0], 2)))


# At the entries


def constant(params):
    return params[0] * jnp.ones(3)


OBSERVED = np.ma.array([[1.0, 2.0, 99.0], [4.0, 5.0, 6.0]], mask=[[0, 0, 1], [0, 0, 0]])
NATIVE = np.array([[1, 2, np.nan], [4, 5, 6]])
STARTS = np.zeros((2, 1), np.float32)
RANDOM = rj.RandomSearch(population_size=4)


def entries(observed, start):
    problem = rj.InverseProblem(constant, observed)
    one = rj.InverseProblem(constant, observed[0])
    execution = rj.Execution(lanes=2)
    yield rj.refine(
        constant, observed, start, method=RANDOM, max_steps=0, execution=execution
    ).loss[0]
    yield rj.run_batch(RANDOM, problem, start, max_steps=0, execution=execution).loss[0]
    (chunk,) = rj.run_stream(RANDOM, iter([(problem, start)]), max_steps=0, execution=execution)
    yield chunk.loss[0]
    yield rj.run_until(RANDOM, one, start[0], max_steps=0).loss


def test_every_entry_takes_masks_and_any_byte_order():
    for observed in (OBSERVED, NATIVE.astype(">f8"), NATIVE.astype(">f4")):
        for loss in entries(observed, STARTS.astype(">f4")):
            np.testing.assert_allclose(loss, 2.5)


def test_every_entry_refuses_masked_starts_by_name():
    masked = np.ma.array([[0.0], [0.0]], mask=[[True], [False]])
    problem = rj.InverseProblem(constant, NATIVE)
    for name, call in {
        "initial": lambda: rj.refine(constant, NATIVE, masked),
        "params": lambda: rj.run_batch(RANDOM, problem, masked, max_steps=0),
        "params: ": lambda: rj.run(RANDOM, problem, masked, num_steps=0),
    }.items():
        with pytest.raises(ValueError, match=f"{name}.* masked"):
            call()


@pytest.mark.parametrize("empty", [np.zeros((0, 3)), []])
def test_no_observations_are_refused(empty):
    with pytest.raises(ValueError, match="observations: empty"):
        rj.refine(constant, empty, STARTS)
