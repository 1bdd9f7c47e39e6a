"""Checkpoints: an interrupted run, resumed, is the uninterrupted one, bit for bit (law 10)."""

import errno
import functools
import os
import signal
import sys
import warnings
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from children import PATIENCE, expect, start
from clocks import Clock
from flax import struct
from jax.typing import ArrayLike

import refinejax as rj
from refinejax import Status
from refinejax.batch import ledger, pipeline
from refinejax.batch.engine import Engine

COUNT = 40
LAST = 20  # the read at which runs below are interrupted
ADAM = rj.Gradient(optax.adam, {"learning_rate": 0.1})
STOP = rj.Stop(target=1e-4)


class Bowl(struct.PyTreeNode):
    """A paraboloid around the center of each sample."""

    center: ArrayLike
    steepness: ArrayLike = 1.0

    def __call__(self, params):
        return self.steepness * jnp.sum((params - self.center) ** 2)


class Watched(np.ndarray):
    """An array that counts the rows read as slices, and calls ``pause`` at read number LAST."""

    def __getitem__(self, index):
        if isinstance(index, slice) and hasattr(self, "taken"):
            taken = np.asarray(self).__getitem__(index)
            self.taken.append(len(taken))
            if len(self.taken) == LAST:
                self.pause()
            return taken
        return np.asarray(self).__getitem__(index)


def watched(array, pause=lambda: None):
    view = array.view(Watched)
    view.taken, view.pause = [], pause
    return view


def samples():
    rng = np.random.default_rng(0)
    center = rng.normal(size=(COUNT, 2)).astype(np.float32)
    return center, center + rng.normal(size=(COUNT, 2)).astype(np.float32)


def fit(folder=None, center=None, refiner=ADAM, start=None, key=1, steepness=1.0, **options):
    default, begin = samples()
    center, start = default if center is None else center, begin if start is None else start
    options = {"max_steps": 200, "stop": STOP, "execution": rj.Execution(lanes=4)} | options
    return rj.run_batch(refiner, Bowl(center, steepness), start, key, checkpoint=folder, **options)


@functools.cache
def whole():
    return fit()


def assert_same(result, expected=None):
    expected = whole() if expected is None else expected
    for name in ("params", "loss", "initial_loss", "steps", "status"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name), err_msg=name)


def parts(folder):
    return sorted(folder.glob("part-*.npz"))


@pytest.fixture
def eager(monkeypatch):
    """Write a file for every few samples, not for every few seconds."""
    monkeypatch.setattr(pipeline, "Ledger", functools.partial(ledger.Ledger, interval=0.0))


@pytest.fixture
def finished(tmp_path, eager):
    """A folder in which everything is finished, in several files."""
    fit(tmp_path)
    assert len(parts(tmp_path)) > 3
    return tmp_path


# Interrupted and resumed


def resume(folder):
    """Resume, and return the result and how many samples were refined for it."""
    center = watched(samples()[0])
    result = fit(folder, center)
    return result, sum(center.taken)


def test_a_checkpoint_changes_nothing(tmp_path):
    assert_same(fit(tmp_path))


def test_a_run_cut_by_its_time_limit_goes_on_where_it_was(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("refinejax._deadline.time", clock)
    center = watched(samples()[0], pause=lambda: clock.advance(1.0))
    cut = fit(tmp_path, center, time_limit=1.0)
    done = cut.status != Status.TIME_LIMIT
    assert 0 < done.sum() < COUNT
    assert_same(fit_rows(cut, done), fit_rows(whole(), done))
    result, refined = resume(tmp_path)
    assert_same(result)
    assert refined == COUNT - done.sum()


def fit_rows(result, rows):
    names = ("params", "loss", "initial_loss", "steps", "status")
    return rj.BatchResult(**{name: getattr(result, name)[rows] for name in names})


def wait_in_mid_run(folder):
    """In a child: refine, say so in mid-run, go on when told, and save the result."""

    def pause():
        print("reading", flush=True)
        sys.stdin.readline()

    pipeline.Ledger = functools.partial(ledger.Ledger, interval=0.0)
    result = fit(folder, watched(samples()[0], pause))
    result.save(Path(folder, "result.npz"))
    print(result, flush=True)


def child_in_mid_run(folder):
    child = start(wait_in_mid_run, folder)
    expect(child, "reading")
    return child


def test_ctrl_c_returns_what_is_done_and_the_run_can_be_resumed(tmp_path):
    child = child_in_mid_run(tmp_path)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate("\n", timeout=PATIENCE)
    assert child.returncode == 0, err
    assert "STOPPED" in out
    assert "Traceback" not in err
    cut = rj.BatchResult.load(tmp_path / "result.npz")
    done = cut.status != Status.STOPPED
    assert 0 < done.sum() < COUNT
    begun = ~np.isnan(cut.initial_loss)
    assert np.all(cut.loss[begun] <= cut.initial_loss[begun])
    result, refined = resume(tmp_path)
    assert_same(result)
    assert refined == COUNT - done.sum()


def test_a_run_that_was_killed_can_be_resumed(tmp_path):
    child = child_in_mid_run(tmp_path)
    child.kill()
    child.communicate(timeout=PATIENCE)
    assert len(parts(tmp_path)) > 0
    result, refined = resume(tmp_path)
    assert_same(result)
    assert 0 < refined < COUNT


def test_a_finished_run_is_read_and_not_computed(finished, monkeypatch):
    def refuse(*_):
        raise AssertionError("something was computed")

    expected = whole()
    monkeypatch.setattr(Engine, "drive", refuse)
    assert_same(fit(finished), expected)


def test_the_number_of_lanes_may_change_on_resumption(finished):
    parts(finished)[0].unlink()
    assert_same(fit(finished, execution=rj.Execution(lanes=3)))


# Damage


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    at = content.index(b"NUMPY") + 128  # in the numbers of the first column
    content[at] ^= 1
    path.write_bytes(content)


def write_another_format(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


DAMAGES = {
    "truncated": cut_in_half,
    "flipped": flip_a_bit,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not what you think"),
    "npy": write_another_format,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_passed_over_with_a_warning(finished, damage):
    damage(parts(finished)[1])
    with pytest.warns(UserWarning, match=r"checkpoint: .*damaged"):
        result, refined = resume(finished)
    assert_same(result)
    assert 0 < refined < COUNT


def test_no_flipped_bit_gets_through(finished):
    job = ledger.json.loads((finished / "job.json").read_text())["fingerprint"]
    path, *others = parts(finished)
    for other in others:
        other.unlink()
    whole_file = path.read_bytes()
    (columns,) = ledger.Ledger(finished, job).load()
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for at in range(0, len(whole_file), 2):
            content = bytearray(whole_file)
            content[at] ^= 1 << rng.integers(8)
            path.write_bytes(content)
            for loaded in ledger.Ledger(finished, job).load():
                assert len(loaded) == len(columns), at
                for got, want in zip(loaded, columns, strict=True):
                    np.testing.assert_array_equal(got, want, err_msg=f"byte {at}")


def test_unfinished_temporary_files_of_a_killed_run_do_no_harm(finished):
    (finished / ".part-0123.npz.abc.tmp").write_bytes(b"half")
    assert_same(fit(finished))


# Other folders


OTHERS = {
    "data": {"center": samples()[0] + 1},
    "start": {"start": samples()[1] + 1},
    "key": {"key": 2},
    "limit": {"max_steps": 201},
    "rules": {"stop": rj.Stop(target=1e-3)},
    "shared number": {"steepness": 2.0},
    "number of the method": {"refiner": rj.Gradient(optax.adam, {"learning_rate": 0.2})},
    "optimizer": {"refiner": rj.Gradient(optax.sgd, {"learning_rate": 0.1})},
    "method": {"refiner": rj.RandomSearch()},
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_the_folder_of_another_job_is_refused(finished, change):
    with pytest.raises(ValueError, match=r"checkpoint: .*another job"):
        fit(finished, **change)


def test_a_size_of_the_method_makes_another_job(tmp_path):
    fit(tmp_path, refiner=rj.RandomSearch(population_size=4), max_steps=0)
    with pytest.raises(ValueError, match=r"checkpoint: .*another job"):
        fit(tmp_path, refiner=rj.RandomSearch(population_size=8), max_steps=0)


def test_a_job_file_that_cannot_be_read_is_refused(finished):
    (finished / "job.json").write_text("{")
    with pytest.raises(ValueError, match=r"checkpoint: .*cannot be read"):
        fit(finished)


def test_a_refused_folder_is_left_as_it_was(finished):
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    with pytest.raises(ValueError, match="checkpoint"):
        fit(finished, key=2)
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_place_of_the_folder_is_an_error_that_names_it(tmp_path, below):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OSError, match=r"checkpoint: .*taken"):
        fit(tmp_path / "taken" / below)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OSError, match=r"checkpoint: .*locked"):
        fit(tmp_path / "locked")


def test_a_full_disk_costs_the_checkpoint_and_not_the_run(tmp_path, monkeypatch, eager):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ledger, "write_npz", full)
    with pytest.warns(UserWarning, match=r"checkpoint: cannot write .*No space left"):
        result = fit(tmp_path)
    assert_same(result)
    assert parts(tmp_path) == []


def test_a_disk_that_was_full_for_a_while_loses_nothing(tmp_path, monkeypatch, eager):
    written, calls = ledger.write_npz, []

    def full_at_first(*args, **kwargs):
        calls.append(args)
        if len(calls) < 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        written(*args, **kwargs)

    monkeypatch.setattr(ledger, "write_npz", full_at_first)
    with pytest.warns(UserWarning, match="cannot write"):
        fit(tmp_path)
    result, refined = resume(tmp_path)
    assert_same(result)
    assert refined == 0


def test_a_chain_of_methods_is_resumed_like_any_other(tmp_path, eager):
    chain = rj.Sequential(rj.RandomSearch(population_size=4), ADAM, steps=6)
    expected = fit(refiner=chain)
    assert_same(fit(tmp_path, refiner=chain), expected)
    parts(tmp_path)[0].unlink()
    assert_same(fit(tmp_path, refiner=chain), expected)


def test_params_of_several_leaves_are_resumed_in_their_places(tmp_path, eager):
    def loss(params):
        return jnp.sum((params["b"] - 1) ** 2) + params["a"] ** 2

    start = {"b": np.ones((5, 2), np.float32) * 3, "a": np.arange(5, dtype=np.float32)}
    fitted = functools.partial(
        rj.run_batch,
        ADAM,
        loss,
        start,
        max_steps=90,
        execution=rj.Execution(lanes=2),
        stop=STOP,
        checkpoint=tmp_path,
    )
    first = fitted()
    parts(tmp_path)[0].unlink()
    second = fitted()
    for name in start:
        np.testing.assert_array_equal(first.params[name], second.params[name])
