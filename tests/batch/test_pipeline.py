"""Several stages over one batch: one folder, one deadline, one bar."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from jax.typing import ArrayLike

import refinejax as rj
from refinejax import Status
from refinejax.batch.pipeline import BatchJob, Pipeline

COUNT = 12
SGD = rj.Gradient(optax.sgd, {"learning_rate": 0.05})
ADAM = rj.Gradient(optax.adam, {"learning_rate": 0.1})


class Bowl(struct.PyTreeNode):
    """|x − c|², and a bump that the coarse one does not have."""

    center: ArrayLike
    bump: ArrayLike = 0.0

    def __call__(self, params):
        off = params - self.center
        return jnp.sum(off**2) + self.bump * jnp.sum(jnp.sin(5 * off) ** 2)


class Watched(np.ndarray):
    """Rows that are counted as they are read."""

    def __getitem__(self, index):
        if isinstance(index, slice) and hasattr(self, "taken"):
            rows = np.asarray(self)[index]
            self.taken.append(len(rows))
            return rows
        return np.asarray(self)[index]


def watched():
    view = CENTER.view(Watched)
    view.taken = []
    return view


CENTER = np.random.default_rng(0).normal(size=(COUNT, 2)).astype(np.float32)


def two_stages(folder=None, coarse=None, fine=None, bump=0.3, identity=(), **options):
    """Run two stages, the second from where the first has ended."""
    start = np.zeros((COUNT, 2), np.float32)
    first = BatchJob(SGD, Bowl(CENTER if coarse is None else coarse), start, 5, key=1)
    execution = rj.Execution(lanes=4, threads=1)
    with Pipeline(execution, checkpoint=folder, identity=identity, **options) as pipeline:
        rough = pipeline.run(first, "coarse")
        problem = Bowl(CENTER if fine is None else fine, np.full(COUNT, bump, np.float32))
        second = BatchJob(ADAM, problem, rough.params, 40, key=1)
        return rough, pipeline.run(second, "fine"), pipeline


def assert_same(one, other):
    for name in ("params", "loss", "initial_loss", "steps", "status"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def test_stages_are_those_of_run_batch_one_after_another():
    rough, fine, _ = two_stages()
    start = np.zeros((COUNT, 2), np.float32)
    lanes = rj.Execution(lanes=4, threads=1)
    first = rj.run_batch(SGD, Bowl(CENTER), start, 1, max_steps=5, execution=lanes)
    assert_same(rough, first)
    problem = Bowl(CENTER, np.full(COUNT, 0.3, np.float32))
    assert_same(fine, rj.run_batch(ADAM, problem, first.params, 1, max_steps=40, execution=lanes))


def test_a_finished_stage_is_read_and_not_computed_again(tmp_path):
    whole = two_stages(tmp_path)
    assert len(list(tmp_path.glob("job.json"))) == 1
    assert {path.name.split(".")[0] for path in tmp_path.glob("*part-*")} == {"coarse", "fine"}
    coarse, fine = watched(), watched()
    again = two_stages(tmp_path, coarse, fine)
    assert coarse.taken == fine.taken == []
    for one, other in zip(again[:2], whole[:2], strict=True):
        assert_same(one, other)


def test_a_run_that_ended_in_its_first_stage_goes_on(tmp_path):
    rough, fine, pipeline = two_stages(tmp_path, time_limit=0.0)
    assert pipeline.early is Status.TIME_LIMIT
    assert set(rough.counts()) == set(fine.counts()) == {"TIME_LIMIT"}
    np.testing.assert_array_equal(fine.params, rough.params)  # as they came
    assert np.isnan(fine.initial_loss).all()
    resumed = two_stages(tmp_path)
    for one, other in zip(resumed[:2], two_stages()[:2], strict=True):
        assert_same(one, other)


def test_a_run_that_ended_in_its_second_stage_goes_on(tmp_path):
    class Ends(Watched):
        def __getitem__(self, index):
            rows = super().__getitem__(index)
            if isinstance(index, slice) and sum(getattr(self, "taken", [])) >= 6:
                raise KeyboardInterrupt
            return rows

    broken = CENTER.view(Ends)
    broken.taken = []
    with pytest.raises(KeyboardInterrupt):
        two_stages(tmp_path, fine=broken)
    coarse, fine = watched(), watched()
    resumed = two_stages(tmp_path, coarse, fine)
    assert coarse.taken == []
    assert 0 < sum(fine.taken) < COUNT
    assert_same(resumed[1], two_stages()[1])


def test_the_identity_tells_jobs_apart_whose_first_stage_is_the_same(tmp_path):
    two_stages(tmp_path, identity=[CENTER, 3])
    two_stages(tmp_path, identity=[CENTER, 3])
    for other in ([CENTER, 4], [CENTER + 1, 3], [CENTER]):
        with pytest.raises(ValueError, match=r"belongs to another job .*use another folder"):
            two_stages(tmp_path, identity=other)


def test_a_step_within_a_stage_leaves_no_trace_in_the_folder(tmp_path):
    start = np.zeros((COUNT, 2), np.float32)
    with Pipeline(checkpoint=tmp_path) as pipeline:
        pipeline.run(BatchJob(SGD, Bowl(CENTER), start, 5), recorded=False)
    assert list(tmp_path.iterdir()) == []


def test_one_bar_shows_the_stages(capsys):
    two_stages(progress=True)
    drawn = capsys.readouterr().err
    assert "fine" in drawn
    assert f"{COUNT}/{COUNT}" in drawn
