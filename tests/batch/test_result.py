"""What a person does with the outcome of a batch: read it, ask it, keep it."""

import copy
import os
import pickle
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

import refinejax
from refinejax import BatchResult, Status

STATUSES = [Status.CONVERGED_GRAD, Status.MAX_STEPS, Status.CONVERGED_LOSS, Status.MAX_STEPS]


class Pair(NamedTuple):
    """Params with names."""

    left: np.ndarray
    right: np.ndarray


def make(count=4, **changes):
    rng = np.random.default_rng(0)
    fields = {
        "params": rng.normal(size=(count, 3)).astype(np.float32),
        "loss": np.linspace(1, 2, count, dtype=np.float32),
        "initial_loss": np.linspace(3, 4, count, dtype=np.float32),
        "steps": np.arange(count, dtype=np.int32),
        "status": np.resize(np.array(STATUSES, np.int8), count),
        "at_bound": rng.random((count, 3)) < 0.5,
        "seconds": 1.5,
        "method": "lbfgs: as asked",
    }
    return BatchResult(**fields | changes)


def dicts():
    params = {"a": np.ones((4, 2)), "b": {"c/d": np.zeros(4), "e": np.arange(4.0)}}
    bound = {"a": np.ones((4, 2), bool), "b": {"c/d": np.zeros(4, bool), "e": np.zeros(4, bool)}}
    return make(params=params, at_bound=bound)


# Margins


def test_margins_are_read_kept_and_squeezed(tmp_path):
    margins = {"rung": np.array([0.5, 4.0, np.nan, -1.0]), "line": np.array([9.0, 9, 9, 9])}
    result = make(margins=margins)
    np.testing.assert_array_equal(result.undecided("rung"), [True, False, False, True])
    assert not result.undecided("line").any()
    text = result.summary()
    assert "margin of the rung 0.5" in text
    assert "not decided: 2 samples" in text
    assert "margin" not in make().summary()
    result.save(tmp_path / "kept.npz")
    kept = BatchResult.load(tmp_path / "kept.npz")
    assert set(kept.margins) == {"rung", "line"}
    for name, margin in margins.items():
        np.testing.assert_array_equal(kept.margins[name], margin)
    one = make(1, margins={"rung": np.array([2.0])}).squeeze()
    assert one.margins["rung"] == 2
    assert "not decided: 1 samples" in one.summary()
    with pytest.raises(ValueError, match="choice: 'color' was not made; expected one of: rung"):
        result.undecided("color")


# Reading it


def test_the_repr_says_how_many_converged_what_it_cost_and_what_the_statuses_mean():
    text = repr(make())
    for part in ("4 samples", "50.0 % converged", "1.50 s", "lbfgs: as asked"):
        assert part in text
    for name in ("CONVERGED_GRAD", "MAX_STEPS", "CONVERGED_LOSS"):
        assert name in text
        assert Status[name].explain() in text
    assert "STALLED" not in text


def test_the_summary_gives_losses_before_and_after():
    (line,) = [
        line for line in make().summary().splitlines() if "loss" in line and "before" in line
    ]
    assert "3.5" in line
    assert "1.5" in line
    assert line.index("3.5") < line.index("after") < line.index("1.5", line.index("after"))


def test_the_summary_counts_samples_at_a_bound():
    bound = np.zeros((4, 3), bool)
    bound[1] = bound[3, 2] = True
    assert "at a bound: 2 samples" in make(at_bound=bound).summary()
    assert "at a bound: 4 samples" in dicts().summary()
    assert "at a bound" not in make(at_bound=None).summary()


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_the_summary_bears_losses_that_are_no_numbers(loss):
    result = make(loss=np.full(4, loss, np.float32), initial_loss=np.full(4, np.nan, np.float32))
    assert "nan" not in result.summary()


def test_the_repr_is_short_for_a_million():
    assert len(repr(make(1_000_000))) < 2000


def test_every_status_has_an_explanation_and_its_sign_says_whether_it_is_usable():
    for status in Status:
        assert len(status.explain()) > 30
        assert status.explain().endswith(".")
    failed = {Status.NONFINITE_START, Status.NONFINITE, Status.SINGULAR, Status.DIVERGED}
    assert {status for status in Status if status < 0} == failed


# Asking it


def test_counts_come_most_frequent_first():
    assert make().counts() == {"MAX_STEPS": 2, "CONVERGED_GRAD": 1, "CONVERGED_LOSS": 1}
    assert next(iter(make().counts())) == "MAX_STEPS"
    assert sum(make(9).counts().values()) == len(make(9)) == 9


@pytest.mark.parametrize("status", [Status.MAX_STEPS, "MAX_STEPS", "max_steps", 6, np.int8(6)])
def test_samples_are_found_by_status_or_its_name(status):
    assert make().where(status).tolist() == [1, 3]


def test_a_status_that_none_has_finds_none():
    assert make().where("diverged").tolist() == []


def test_a_name_that_is_no_status_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match=r"status: 'good'.*CONVERGED_GRAD"):
        make().where("good")


def test_converged_is_true_for_the_tolerances_and_the_target_only():
    result = make(len(Status), status=np.array(list(Status), np.int8))
    names = {status.name for status, yes in zip(Status, result.converged, strict=True) if yes}
    assert names == {"CONVERGED_GRAD", "CONVERGED_LOSS", "CONVERGED_STEP", "TARGET_REACHED"}
    assert all(s.converged == yes for s, yes in zip(Status, result.converged, strict=True))


# A single sample


def test_squeeze_drops_the_sample_axis():
    single = make(1).squeeze()
    assert single.params.shape == (3,)
    assert np.shape(single.loss) == np.shape(single.status) == ()
    assert single.at_bound.shape == (3,)
    assert len(single) == 1
    assert single.converged
    assert single.where("converged_grad").tolist() == [0]
    assert "1 samples, 100.0 % converged" in repr(single)
    assert single.method == "lbfgs: as asked"


def test_squeeze_drops_it_in_every_leaf():
    single = make(1, params={"a": np.ones((1, 2)), "b": np.ones(1)}, at_bound=None).squeeze()
    assert single.params["a"].shape == (2,)
    assert np.shape(single.params["b"]) == ()


def test_squeeze_of_several_samples_is_refused():
    with pytest.raises(ValueError, match=r"squeeze: .*4"):
        make().squeeze()


# Keeping it


def assert_same(loaded, result):
    for name in ("params", "loss", "initial_loss", "steps", "status", "at_bound"):
        got, want = getattr(loaded, name), getattr(result, name)
        assert np.asarray(got).dtype == np.asarray(want).dtype, name
        np.testing.assert_array_equal(got, want, err_msg=name)
    assert (loaded.seconds, loaded.method) == (result.seconds, result.method)


@pytest.mark.parametrize(
    "result",
    [
        make(),
        make(at_bound=None),
        make(method=""),
        make(1).squeeze(),
        make(0),
        make(method="λ: µm"),
    ],
    ids=["whole", "no bounds", "no method", "single", "none", "unicode"],
)
def test_what_is_saved_can_be_loaded(result, tmp_path):
    result.save(tmp_path / "result.npz")
    assert_same(BatchResult.load(tmp_path / "result.npz"), result)


def test_the_name_is_taken_as_it_is_given(tmp_path):
    make().save(str(tmp_path / "result"))
    assert os.listdir(tmp_path) == ["result"]


def leaves_by_name(tree):
    return {name: leaf.tolist() for name, leaf in tree.items()}


def test_dicts_come_back_flat_with_a_name_for_each_leaf(tmp_path):
    dicts().save(tmp_path / "result.npz")
    loaded = BatchResult.load(tmp_path / "result.npz")
    assert leaves_by_name(loaded.params) == {
        "['a']": np.ones((4, 2)).tolist(),
        "['b']['c/d']": [0.0] * 4,
        "['b']['e']": [0.0, 1.0, 2.0, 3.0],
    }
    assert set(loaded.at_bound) == set(loaded.params)


def test_tuples_with_names_come_back_too(tmp_path):
    result = make(params=Pair(np.ones(4), np.zeros((4, 2))), at_bound=None)
    result.save(tmp_path / "result.npz")
    loaded = BatchResult.load(tmp_path / "result.npz")
    assert [leaf.shape for leaf in loaded.params.values()] == [(4,), (4, 2)]


def test_a_saved_file_opens_without_pickle_and_without_this_package(tmp_path):
    make().save(tmp_path / "result.npz")
    with np.load(tmp_path / "result.npz", allow_pickle=False) as file:
        assert {"params", "loss", "initial_loss", "steps", "status"} <= set(file.files)


def test_saving_replaces_an_older_file(tmp_path):
    for result in (make(), make(9)):
        result.save(tmp_path / "result.npz")
    assert len(BatchResult.load(tmp_path / "result.npz")) == 9
    assert os.listdir(tmp_path) == ["result.npz"]


def test_a_saved_file_has_the_usual_permissions(tmp_path):
    make().save(tmp_path / "result.npz")
    (tmp_path / "other").write_text("")
    assert (tmp_path / "result.npz").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("where", ["savez", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_whole_and_nothing_beside_it(
    tmp_path, monkeypatch, where, error
):
    make().save(tmp_path / "result.npz")
    written = np.savez

    def fail(*args, **kwargs):
        if where == "savez":  # half a file is there by then
            written(args[0], loss=np.zeros(3))
        raise error

    monkeypatch.setattr(np if where == "savez" else os, where, fail)
    with pytest.raises(type(error)):
        make(9).save(tmp_path / "result.npz")
    monkeypatch.undo()
    assert_same(BatchResult.load(tmp_path / "result.npz"), make())
    assert os.listdir(tmp_path) == ["result.npz"]


def test_a_folder_that_is_not_there_is_an_error_that_names_it(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        make().save(Path(tmp_path, "nowhere", "result.npz"))


# Compared, copied, pickled


def test_results_are_equal_if_their_values_are():
    result, again = make(), make(seconds=9.0)
    assert result == again
    lost = make(loss=np.float32([np.nan, 1, 2, 3]))
    assert lost == make(loss=np.float32([np.nan, 1, 2, 3]))
    assert lost != result
    assert result != make(3)
    assert result != make(notes=("a",))
    assert result != make(margins={"rung": np.ones(4)})
    assert dicts() == dicts() != result
    assert result != "result"
    other = dicts()
    other.params["b"]["c/d"][2] = 5
    assert other != dicts()


def fitted():
    slope = 2.0
    t = np.linspace(0, 1, 8, dtype=np.float32)
    model = lambda p: p[0] + slope * p[1] * t  # noqa: E731  (local: it has no name to pickle)
    return refinejax.refine(model, np.float32(1 + t), np.float32([0.5, 1.0]), max_steps=5)


def test_results_of_local_models_are_pickled_without_their_problem_and_copied_with_it():
    result = fitted()
    kept = pickle.loads(pickle.dumps(result))
    assert kept == result
    with pytest.raises(ValueError, match=r"does not hold the problem .* until saved or pickled"):
        kept.covariance()
    for same in (copy.copy(result), copy.deepcopy(result)):
        assert same == result
        assert same.covariance() == result.covariance()
    deep = copy.deepcopy(result)
    deep.params[0] = 99
    assert result.params[0] != 99


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn])
def test_short_dtypes_come_back_as_they_were(tmp_path, dtype):
    params = np.asarray(jnp.array([[0.1, -3.0], [np.inf, 7.0]], dtype))
    result = make(2, params=params, at_bound=None, loss=params[:, 0])
    result.save(tmp_path / "short.npz")
    kept = BatchResult.load(tmp_path / "short.npz")
    assert kept.params.dtype == kept.loss.dtype == params.dtype
    assert kept == result


def test_other_files_are_refused_by_name_with_what_is_missing(tmp_path):
    result, path = make(), tmp_path / "file.npz"
    np.savez(path, params=np.ones(3), loss=np.ones(3))
    with pytest.raises(ValueError, match=r"file\.npz: .*BatchResult\.save.*lacks initial_loss, st"):
        BatchResult.load(path)
    result.save(path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays, image=np.ones(2))
    with pytest.raises(ValueError, match="holds image, which no result has"):
        BatchResult.load(path)
    result.save(path)
    whole = path.read_bytes()
    for part in (whole[: len(whole) // 2], whole[:-200] + bytes(200), b"", b"hello", whole[9:]):
        path.write_bytes(part)
        with pytest.raises(ValueError, match=r"file\.npz: .* damaged or something else"):
            BatchResult.load(path)
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ValueError, match=r"file\.npz: .* damaged or something else"):
        BatchResult.load(path)
    with pytest.raises(FileNotFoundError):
        BatchResult.load(tmp_path / "none.npz")
