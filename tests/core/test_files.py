"""Files that are whole or absent, and hashes."""

import errno
import hashlib
import json
import os
import resource
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from refinejax._files import (
    atomic_write,
    canonical_json,
    hash_json,
    hash_parts,
    read_blocks,
    write_json,
    write_npz,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_new_file_gets_the_permissions_that_the_umask_allows(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "ours", "text")
        (tmp_path / "plain").write_text("text")
    finally:
        os.umask(before)
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_that_exists_is_replaced_and_keeps_its_permissions(tmp_path):
    path = tmp_path / "out"
    path.write_text("a longer text than the new one")
    path.chmod(0o640)
    write_text(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ["out"]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_reader_sees_the_old_file_until_the_end(tmp_path):
    path = tmp_path / "out"
    path.write_text("old")
    with atomic_write(path) as file:
        file.write(b"half")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "half"


def fail_in_the_block(path, monkeypatch, error):
    with atomic_write(path) as file:
        file.write(b"half")
        raise error


def fail_in(function):
    def fail(path, monkeypatch, error):
        def raising(*_):
            raise error

        monkeypatch.setattr(os, function, raising)
        write_text(path, "new")

    return fail


@pytest.mark.parametrize("fail", [fail_in_the_block, fail_in("fsync"), fail_in("replace")])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), ValueError()])
@pytest.mark.parametrize("exists", [True, False])
def test_a_failure_leaves_the_folder_as_it_was(tmp_path, monkeypatch, fail, error, exists):
    path = tmp_path / "out"
    if exists:
        path.write_text("old")
    with monkeypatch.context() as patched, pytest.raises(type(error)):
        fail(path, patched, error)
    assert names(tmp_path) == (["out"] if exists else [])
    assert not exists or path.read_text() == "old"


def test_a_full_disk(tmp_path):
    """The limit on the length of files has the system refuse to write, as a full disk does."""
    (tmp_path / "out").write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            write_npz(tmp_path / "out", x=np.zeros(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert (tmp_path / "out").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_a_missing_folder_is_an_error_that_names_the_file_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_text(tmp_path / "nowhere" / "out", "text")
    assert caught.value.filename == str(tmp_path / "nowhere" / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(PermissionError) as caught:
        write_text(tmp_path / "locked" / "out", "text")
    assert caught.value.filename == str(tmp_path / "locked" / "out")


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "out", "text")
    assert names(tmp_path) == ["out"]


def test_arrays_and_json_come_back(tmp_path):
    write_npz(tmp_path / "a.npz", x=np.arange(3), y=np.float32(0.1))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["x"], np.arange(3))
        assert (file["y"], file["y"].dtype) == (np.float32(0.1), np.float32)
    content = {"α": [1, 2.5, None], "b": {"c": True}}
    write_json(tmp_path / "a.json", content)
    assert json.loads((tmp_path / "a.json").read_text()) == content
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == content


def test_hashes_are_those_of_hashlib(tmp_path):
    assert hash_json({"b": 1, "a": [True, "x"]}, "config") == (
        hashlib.sha256(b'{"a": [true, "x"], "b": 1}').hexdigest()
    )
    array = np.arange(6, dtype="<i4").reshape(2, 3)
    expected = hashlib.sha256(b"text" + b"<i4(2, 3)" + array.tobytes() + b"end").hexdigest()
    assert hash_parts(["text", array, b"end"]) == expected
    assert hash_parts(["text", np.asfortranarray(array), b"end"]) == expected
    (tmp_path / "large").write_bytes(os.urandom(3 * 2**20 + 5))
    content = (tmp_path / "large").read_bytes()
    assert hash_parts(read_blocks(tmp_path / "large")) == hashlib.sha256(content).hexdigest()


def test_arrays_that_differ_in_dtype_or_shape_alone_differ_in_hash():
    zeros = [
        np.zeros(2, kind)
        for kind in ("f4", ">f4", "i4", "u4", ml_dtypes.bfloat16, ml_dtypes.float8_e5m2)
    ]
    zeros += [np.zeros(2, ml_dtypes.float8_e4m3fn), np.zeros((2, 1), "f4"), np.zeros(1, "f8")]
    assert len({hash_parts([array]) for array in zeros}) == len(zeros)


@pytest.mark.parametrize("value", [{"x": float("nan")}, {"x": object()}, {(1, 2): 3}, b"bytes"])
def test_settings_that_json_cannot_hold_are_refused_by_name(value):
    with pytest.raises(ValueError, match="card: expected what JSON can hold"):
        canonical_json(value, "card")


def test_they_need_numpy_alone():
    script = (
        "import sys; from refinejax import _files;"
        "print(sorted({'jax', 'flax', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n"
