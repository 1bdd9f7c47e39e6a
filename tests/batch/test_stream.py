"""Streams: chunk by chunk as all at once, lazily, in order."""

import itertools

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from jax.typing import ArrayLike

import refinejax as rj
from refinejax import Status
from refinejax.batch.lanes import cycle

ADAM = rj.Gradient(optax.adam, {"learning_rate": 0.1})
CHAIN = rj.Sequential(rj.RandomSearch(population_size=4), ADAM, steps=6)
STOP = rj.Stop(target=1e-4)


class Bowl(struct.PyTreeNode):
    """A paraboloid around the center of each sample."""

    center: ArrayLike
    steepness: ArrayLike = 1.0

    def __call__(self, params):
        return self.steepness * jnp.sum((params - self.center) ** 2)


def samples(count=23, seed=0):
    rng = np.random.default_rng(seed)
    center = rng.normal(size=(count, 2)).astype(np.float32)
    return center, center + 0.3 * rng.standard_cauchy((count, 2)).astype(np.float32)


def cut(sizes, *arrays):
    ends = np.cumsum(sizes)[:-1]
    return zip(*(np.split(array, ends) for array in arrays), strict=True)


def stream(chunks, refiner=ADAM, **options):
    options = {"max_steps": 150, "stop": STOP, "execution": rj.Execution(lanes=4)} | options
    return rj.run_stream(refiner, chunks, 7, **options)


def whole(refiner, center, start):
    return rj.run_batch(
        refiner, Bowl(center), start, 7, max_steps=150, stop=STOP, execution=rj.Execution(lanes=4)
    )


def joined(results, name):
    return np.concatenate([getattr(result, name) for result in results])


@pytest.mark.parametrize("refiner", [ADAM, CHAIN], ids=["adam", "sequential"])
@pytest.mark.parametrize("sizes", [(1, 9, 2, 11), (23,), (1,) * 23])
def test_chunks_of_any_size_give_what_the_whole_batch_gives(sizes, refiner):
    center, start = samples()
    chunks = ((Bowl(c), p) for c, p in cut(sizes, center, start))
    results, expected = list(stream(chunks, refiner)), whole(refiner, center, start)
    assert [len(result) for result in results] == list(sizes)
    for name in ("steps", "status"):
        np.testing.assert_array_equal(joined(results, name), getattr(expected, name))
    for name in ("params", "loss", "initial_loss"):
        got, want = joined(results, name), getattr(expected, name)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_chunks_come_back_in_order_though_the_first_takes_longest():
    center = np.zeros((6, 2), np.float32)
    start = center + np.float32([9, 0.1, 5, 0.1, 0.1, 0.1])[:, None]
    chunks = [(Bowl(c), p) for c, p in cut((1,) * 6, center, start)]
    results = list(stream(chunks))
    assert results[0].steps[0] > results[1].steps[0]
    np.testing.assert_allclose(joined(results, "initial_loss"), 2 * start[:, 0] ** 2, rtol=1e-5)


def endless(taken):
    for seed in itertools.count():
        center, start = samples(3, seed)
        taken.append(seed)
        yield Bowl(center), start


def test_an_endless_stream_is_read_no_further_ahead_than_the_lanes_need():
    taken = []
    results = list(itertools.islice(stream(endless(taken), stop=rj.Stop.never(), max_steps=9), 5))
    assert len(results) == 5
    assert 5 <= len(taken) <= 5 + 4  # lanes for 4 samples, and a group or two waiting


def test_nothing_is_read_before_the_first_result_is_asked_for():
    taken = []
    stream(endless(taken))
    assert taken == []


def test_an_empty_stream_gives_nothing():
    assert list(stream([])) == []


def test_each_chunk_has_its_own_statuses_and_a_bad_one_harms_no_other():
    center, start = samples(6)
    center[3] = np.nan
    results = list(stream((Bowl(c), p) for c, p in cut((2, 2, 2), center, start)))
    assert results[1].status.tolist()[1] == Status.NONFINITE_START
    assert all(joined(results, "status")[[0, 1, 2, 4, 5]] == Status.TARGET_REACHED)


def test_chunks_may_be_lists_of_float64():
    center, start = samples(4)
    (result,) = stream([(Bowl(center.astype(float)), start.astype(float))])
    np.testing.assert_array_equal(result.status, Status.TARGET_REACHED)
    assert result.params.dtype == np.float32


def test_chunks_of_other_sizes_do_not_recompile():
    list(stream([(Bowl(samples(4)[0]), samples(4)[1])]))
    compiled = cycle._cache_size()
    list(stream((Bowl(samples(n)[0]), samples(n)[1]) for n in (1, 2, 13)))
    assert cycle._cache_size() == compiled


def odd_chunks():
    center, start = samples(2)
    wide, wide_start = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)
    good = (Bowl(center), start)
    return {
        "structure of params": [good, (Bowl(center), {"a": start})],
        "another problem": [good, (rj.InverseProblem(jnp.sin, center), start)],
        "shape": [good, (Bowl(wide), wide_start)],
        "what is shared": [good, (Bowl(center, 2.0), start)],
        "a new function each": [
            (rj.InverseProblem(lambda p, k=k: k * p, center), start) for k in (1.0, 2.0)
        ],
    }


@pytest.mark.parametrize("name", list(odd_chunks()))
def test_a_chunk_unlike_the_first_is_refused(name):
    with pytest.raises(ValueError, match=r"chunks: .*differs from the first.*same functions"):
        list(stream(odd_chunks()[name]))


def test_an_empty_chunk_is_refused():
    with pytest.raises(ValueError, match="empty"):
        list(stream([(Bowl(np.zeros((0, 2))), np.zeros((0, 2)))]))


@pytest.mark.parametrize("change", [{"max_steps": -1}, {"execution": 0}])
def test_a_bad_argument_is_named(change):
    center, start = samples(2)
    with pytest.raises(ValueError, match=next(iter(change))):
        list(stream([(Bowl(center), start)], **change))


# Resume, time limit


def test_an_interrupted_stream_goes_on_where_it_was(tmp_path):
    center, start = samples()
    sizes = (4, 9, 2, 8)

    def chunks():
        return ((Bowl(c), p) for c, p in cut(sizes, center, start))

    expected = list(stream(chunks()))
    interrupted = stream(chunks(), checkpoint=tmp_path)
    assert len(list(itertools.islice(interrupted, 2))) == 2
    interrupted.close()
    resumed = list(stream(chunks(), checkpoint=tmp_path))
    again = list(stream(chunks(), checkpoint=tmp_path))
    for name in ("params", "loss", "initial_loss", "steps", "status"):
        np.testing.assert_array_equal(joined(resumed, name), joined(expected, name))
        np.testing.assert_array_equal(joined(again, name), joined(expected, name))
    with pytest.raises(ValueError, match="belongs to another job"):
        list(stream(((Bowl(c + 1), p) for c, p in cut(sizes, center, start)), checkpoint=tmp_path))


def test_finished_chunks_are_read_one_by_one(tmp_path):
    taken = []
    list(itertools.islice(stream(endless(taken), checkpoint=tmp_path), 6))
    taken.clear()
    results = stream(endless(taken), checkpoint=tmp_path)
    for count in range(1, 5):
        next(results)
        assert len(taken) == count
    results.close()


def test_a_time_limit_ends_a_stream_with_what_was_read():
    taken = []
    results = list(stream(endless(taken), stop=rj.Stop.never(), max_steps=10**8, time_limit=0.0))
    assert len(results) == len(taken) < 10
    assert set(joined(results, "status")) == {Status.TIME_LIMIT}


def test_threads_share_a_stream():
    center, start = samples()
    chunks = ((Bowl(c), p) for c, p in cut((5, 18), center, start))
    results = list(stream(chunks, execution=rj.Execution(lanes=4, threads=3)))
    expected = whole(ADAM, center, start)
    np.testing.assert_array_equal(joined(results, "steps"), expected.steps)
    np.testing.assert_allclose(joined(results, "params"), expected.params, rtol=1e-4, atol=1e-6)
