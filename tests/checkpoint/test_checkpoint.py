"""Checkpoints: what is written comes back exactly, or an error says why; no kill loses a step."""

import contextlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from children import PATIENCE, at_file_operation, call, start
from flax import nnx, struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from refinejax.checkpoint import (
    Checkpoints,
    load_card,
    load_tree,
    save_tree,
    states,
    trees,
    versions,
)
from refinejax.networks import Network

SMALL = {"w": np.arange(3.0), "n": 7}


def small(step):
    return {"w": np.arange(3.0) + step, "n": step}


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A folder with steps 1, 2, 3; to be copied before it is changed."""
    folder = tmp_path_factory.mktemp("three")
    for step in (1, 2, 3):
        Checkpoints(folder, config={"rate": 0.1, "net": {"width": 8}}).save(step, small(step))
    return folder


@pytest.fixture
def folder(three, tmp_path):
    shutil.copytree(three, tmp_path / "copy")
    return tmp_path / "copy"


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert type(x) is type(y)
        if hasattr(x, "dtype"):
            assert x.dtype == y.dtype
        if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


# What comes back


class Odd(struct.PyTreeNode):
    """A pytree with things that are no leaves."""

    inside: tuple
    label: str = struct.field(pytree_node=False, default="kept")
    function: object = struct.field(pytree_node=False, default=len)


def everything():
    rng = np.random.default_rng(0)
    some = jax.random.wrap_key_data(np.arange(12, dtype=np.uint32).reshape(3, 4), impl="rbg")
    return {
        "jax": [jnp.arange(6.0).reshape(2, 3), jnp.int32(3), jnp.zeros((0, 4)), jnp.bool_(True)],
        "half": jnp.array([0.1, 3e38, -0.0], jnp.bfloat16),
        "numpy": [
            rng.normal(size=(3, 2)),
            np.float32(0.1),
            np.array(2**63 + 1, np.uint64),
            np.array([True, False]),
            np.array([1 + 2j]),
            np.zeros((2, 0), np.int8),
            np.array([1, -8], ml_dtypes.int4),
            np.array([0.5, -2], ml_dtypes.float8_e4m3fn),
            np.array([np.nan, np.inf, -np.inf, -0.0]),
        ],
        "keys": [jax.random.key(3), some[:2]],
        "no keys": some[:0],
        "numbers": [0.1, -0.0, float("inf"), float("nan"), 10**30, -3, True, False, 1 - 2j],
        "odd": Odd((np.ones(1), None, 2.0)),
        "partial": jax.tree_util.Partial(jnp.dot, jnp.ones(2)),
        "network": Network.of(nnx.Linear(2, 2, rngs=nnx.Rngs(0))),
    }


def blank(tree):
    """The same leaves with other values."""

    def other(x):
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jnp.broadcast_to(jax.random.key(9, impl=str(jax.random.key_impl(x))), x.shape)
        if isinstance(x, jax.Array):
            return jnp.zeros_like(x)
        return type(x)(0) if not isinstance(x, np.ndarray) else np.zeros_like(x)

    return jax.tree.map(other, tree)


def test_all_kinds_of_leaves_come_back_exactly(tmp_path):
    tree = everything()
    Checkpoints(tmp_path / "steps").save(4, tree)
    found = Checkpoints(tmp_path / "steps").restore(blank(tree))
    assert found.step == 4
    assert_same(found.state, tree)
    signs = [np.signbit(x) for x in (found.state["numbers"][1], found.state["numpy"][-1][-1])]
    assert all(signs)
    save_tree(tmp_path / "tree", tree, {})
    assert_same(load_tree(tmp_path / "tree", blank(tree)), tree)


def test_shapes_and_dtypes_alone_say_what_is_expected(tmp_path):
    tree = {"a": jnp.arange(3.0), "k": jax.random.key(1)}
    Checkpoints(tmp_path).save(0, tree)
    like = jax.eval_shape(lambda: tree)
    assert_same(Checkpoints(tmp_path).restore(like).state, tree)


def test_a_tree_of_numbers_alone_needs_no_arrays(tmp_path):
    for save, load in (
        (lambda t: Checkpoints(tmp_path).save(0, t), lambda t: Checkpoints(tmp_path).restore(t)[1]),
        (lambda t: save_tree(tmp_path / "t", t, {}), lambda t: load_tree(tmp_path / "t", t)),
    ):
        save({"a": 1, "b": 0.5})
        assert load({"a": 0, "b": 0.0}) == {"a": 1, "b": 0.5}


def test_arrays_that_jax_may_move_stay_so(tmp_path):
    device = jax.devices()[0]
    Checkpoints(tmp_path).save(0, [jnp.ones(2), jax.device_put(jnp.ones(2), device)])
    free, held = Checkpoints(tmp_path).restore(
        [jnp.ones(2), jax.device_put(1.0 + jnp.ones(2), device)]
    )[1]
    assert not free.committed
    assert held.committed
    placed = Checkpoints(tmp_path).restore(
        [free, held], shardings=[SingleDeviceSharding(device), None]
    )
    assert all(x.committed for x in placed.state)


@pytest.mark.parametrize(
    ("leaf", "what"),
    [("text", "str"), (object(), "object"), (len, "builtin_function"), (b"x", "bytes")],
)
def test_what_is_no_array_is_refused_and_named(tmp_path, leaf, what):
    tree = {"fine": 1, "here": [0, leaf]}
    with pytest.raises(ValueError, match=rf"state\['here'\]\[1\]: expected .*got {what}"):
        Checkpoints(tmp_path / "steps").save(0, tree)
    with pytest.raises(ValueError, match=rf"weights\['here'\]\[1\]: expected .*got {what}"):
        save_tree(tmp_path / "tree", tree, {})
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([None]), np.zeros(1, ml_dtypes.uint4)])
def test_dtypes_that_cannot_be_kept_are_refused_and_named(tmp_path, array):
    with pytest.raises(ValueError, match=r"state\.inside\[0\]: arrays of dtype .* cannot be saved"):
        Checkpoints(tmp_path).save(0, Odd((array,)))


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (
            {"w": np.zeros(4), "n": 0},
            r"state\['w'\]: expected float64\[4\], but step 3.*float64\[3\]",
        ),
        (
            {"w": np.zeros(3, np.float32), "n": 0},
            r"state\['w'\]: expected float32\[3\].*float64\[3\]",
        ),
        ({"w": np.zeros(3), "n": 0.0}, r"state\['n'\]: expected a Python float.*a Python int"),
        ({"w": np.zeros(3), "n": True}, r"state\['n'\]: expected a Python bool.*a Python int"),
        ({"w": jax.random.key(0), "n": 0}, r"state\['w'\]: expected key<fry>\[\].*float64"),
        ({"w": np.zeros(3)}, r"state\['n'\]: step 3 .* has a Python int there, and none"),
        (
            {"w": np.zeros(3), "n": 0, "m": 0},
            r"state\['m'\]: .*no such leaf \(there: \['n'\], \['w'\]",
        ),
    ],
)
def test_leaves_that_differ_are_named(three, like, message):
    with pytest.raises(ValueError, match=message):
        Checkpoints(three).restore(like)


def test_a_number_stands_for_a_single_array_of_its_kind(tmp_path):
    save_tree(tmp_path, [jnp.float32(0.5), jnp.int32(3)], {})
    found = load_tree(tmp_path, [1.0, 1])
    assert_same(found, [jnp.float32(0.5), jnp.int32(3)])
    with pytest.raises(ValueError, match=r"weights\[0\]: expected a Python int, .*float32\[\]"):
        load_tree(tmp_path, [1, 1])


# Which step


def test_the_newest_are_kept(three, tmp_path):
    assert Checkpoints(three).steps == (1, 2, 3)
    assert_same(Checkpoints(three).restore(SMALL).state, small(3))
    assert_same(Checkpoints(three).restore(SMALL, step=1).state, small(1))
    few = Checkpoints(tmp_path, keep=2)
    for step in (5, 10, 20):
        few.save(step, SMALL)
    assert few.steps == (10, 20)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "20"]


def files(step):
    return sorted(path for path in step.rglob("*") if path.is_file())


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [flip, truncate, Path.unlink])
def test_harm_to_any_file_of_a_step_is_found_and_the_one_before_is_used(folder, harm):
    whole = folder.parent / "whole"
    shutil.copytree(folder / "3", whole)
    for path in files(folder / "3"):
        harm(path)
        with pytest.warns(UserWarning, match=r"passed over step 3 \(.*\); step 2 is whole"):
            assert_same(Checkpoints(folder).restore(SMALL).state, small(2))
        shutil.rmtree(folder / "3")
        shutil.copytree(whole, folder / "3")
    assert Checkpoints(folder).restore(SMALL).step == 3


def test_all_that_were_passed_over_are_named(folder):
    flip(folder / "3" / "meta" / "metadata")
    (folder / "2" / "sha256.json").unlink()
    with pytest.warns(UserWarning, match=r"3 \(meta/metadata is not as .*2 \(its writing was not"):
        assert Checkpoints(folder).restore(SMALL).step == 1
    with pytest.raises(ValueError, match=r"step: .*no step 3 that can be used \(meta/metadata"):
        Checkpoints(folder).restore(SMALL, step=3)
    with pytest.raises(
        FileNotFoundError, match=r"no step 2 .*not finished.*finished steps: \[1, 3\]"
    ):
        Checkpoints(folder).restore(SMALL, step=2)


def test_without_a_step_that_can_be_used_it_says_what_there_is(folder):
    with pytest.raises(FileNotFoundError, match="no finished step"):
        Checkpoints(folder.parent / "nothing").restore(SMALL)
    for step in "12":
        shutil.rmtree(folder / step)
    flip(folder / "3" / "meta" / "metadata")
    with pytest.raises(ValueError, match=r"no step can be used: step 3 \(meta/metadata"):
        Checkpoints(folder).restore(SMALL)
    (folder / "3" / "sha256.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"only step 3 \(its writing was not finished"):
        Checkpoints(folder).restore(SMALL)


def test_a_damaged_step_is_written_again_and_a_whole_one_is_not(folder):
    with pytest.raises(ValueError, match=r"step: .*has a step 3 already"):
        Checkpoints(folder).save(3, small(8))
    flip(folder / "3" / "meta" / "metadata")
    Checkpoints(folder).save(3, small(8))
    assert_same(Checkpoints(folder).restore(SMALL).state, small(8))


def test_a_damaged_newer_step_does_not_drive_out_a_whole_one(folder):
    flip(folder / "3" / "meta" / "metadata")
    shutil.move(folder / "3", folder / "30")
    Checkpoints(folder, keep=1).save(5, small(5))
    with pytest.warns(UserWarning, match="passed over step 30"):
        assert_same(Checkpoints(folder).restore(SMALL).state, small(5))
    assert Checkpoints(folder).steps == (5, 30)


@pytest.mark.parametrize("step", [-1, 1.0, True, "1"])
def test_steps_are_numbers(tmp_path, step):
    with pytest.raises(ValueError, match="step: expected a number of 0 or more"):
        Checkpoints(tmp_path).save(step, SMALL)


@pytest.mark.parametrize("keep", [0, True, 1.5])
def test_keep_is_a_number(tmp_path, keep):
    with pytest.raises(ValueError, match="keep: expected an integer of 1 or more"):
        Checkpoints(tmp_path, keep=keep)


# Config, format, versions


def test_another_config_is_refused_and_what_differs_is_named(three):
    config = {"rate": 0.2, "net": {"width": 8, "depth": 2}}
    message = r"net.depth = nothing there and 2 here, rate = 0.1 there and 0.2 here"
    with pytest.raises(ValueError, match=message):
        Checkpoints(three, config=config).restore(SMALL)
    same = {"net": {"width": 8}, "rate": 0.1}
    assert Checkpoints(three, config=same).restore(SMALL).step == 3
    assert Checkpoints(three).restore(SMALL).step == 3


@pytest.mark.parametrize("value", [object(), float("nan"), np.ones(2)])
def test_a_config_is_what_json_can_hold(tmp_path, value):
    with pytest.raises(ValueError, match="config: expected what JSON can hold"):
        Checkpoints(tmp_path, config={"a": value})


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as newer:
        newer.setattr(states, "_FORMAT", 2)
        newer.setattr(trees, "_FORMAT", 2)
        Checkpoints(tmp_path / "steps").save(0, SMALL)
        save_tree(tmp_path / "tree", SMALL, {})
    message = r"has format 2, and this refinejax reads formats up to 1: .*--upgrade"
    with pytest.raises(ValueError, match=message):
        Checkpoints(tmp_path / "steps").restore(SMALL)
    with pytest.raises(ValueError, match=message):
        load_tree(tmp_path / "tree", SMALL)


def test_other_versions_are_a_warning(tmp_path, monkeypatch):
    now = versions.versions()
    assert now["jax"] == jax.__version__
    with monkeypatch.context() as older:
        older.setattr(states, "versions", lambda: now | {"jax": "0.9.9"})
        Checkpoints(tmp_path).save(0, SMALL)
    message = rf"written with jax 0.9.9 \(now {jax.__version__}\): the state is the same"
    with pytest.warns(UserWarning, match=message):
        assert_same(Checkpoints(tmp_path).restore(SMALL).state, SMALL)


# When it cannot be written


@contextlib.contextmanager
def files_no_longer_than(size):
    """Have the system refuse longer files, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_takes_no_more_is_an_error_and_loses_nothing(folder, tmp_path):
    long = {"w": np.random.default_rng(0).normal(size=50_000), "n": 4}
    with (
        files_no_longer_than(50_000),
        pytest.raises(OSError, match=r"folder: cannot write step 4 .*File too large.*still there"),
    ):
        Checkpoints(folder, keep=1).save(4, long)
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "3"]
    assert_same(Checkpoints(folder).restore(SMALL).state, small(3))
    save_tree(tmp_path / "tree", SMALL, {})
    with (
        files_no_longer_than(50_000),
        pytest.raises(OSError, match=r"folder: cannot write to .*File too large"),
    ):
        save_tree(tmp_path / "tree", long, {})
    assert_same(load_tree(tmp_path / "tree", SMALL), SMALL)
    assert len([*(tmp_path / "tree").iterdir()]) == 2
    Checkpoints(folder).save(4, long)
    assert_same(Checkpoints(folder).restore(long).state, long)


def test_a_file_in_place_of_the_folder_is_an_error_that_names_it(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OSError, match=r"folder: cannot write step 0 to .*taken"):
        Checkpoints(tmp_path / "taken").save(0, SMALL)
    with pytest.raises(OSError, match=r"folder: cannot write to .*taken"):
        save_tree(tmp_path / "taken", SMALL, {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OSError, match=r"folder: cannot write .*locked"):
        Checkpoints(tmp_path / "locked").save(0, SMALL)


# Folders of weights


def test_a_card_comes_back(tmp_path):
    save_tree(tmp_path / "a" / "b", SMALL, {"name": "it", "table": {"x": [1, 0.5]}})
    card = load_card(tmp_path / "a" / "b")
    assert (card["name"], card["table"]) == ("it", {"x": [1, 0.5]})
    assert card["versions"] == versions.versions()


def test_a_tree_is_replaced_whole_or_not(tmp_path, monkeypatch):
    save_tree(tmp_path, small(1), {})

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(trees, "write_json", die)
        with pytest.raises(KeyboardInterrupt):
            save_tree(tmp_path, small(2), {})
    assert_same(load_tree(tmp_path, SMALL), small(1))
    save_tree(tmp_path, small(3), {})
    assert_same(load_tree(tmp_path, SMALL), small(3))
    assert len([*tmp_path.iterdir()]) == 2


@pytest.mark.parametrize("harm", [flip, truncate, Path.unlink])
def test_harm_to_any_file_of_a_tree_is_found(tmp_path, harm):
    save_tree(tmp_path / "tree", SMALL, {"note": "x"})
    shutil.copytree(tmp_path / "tree", tmp_path / "whole")
    for path in files(tmp_path / "tree"):
        harm(path)
        kind = FileNotFoundError if harm is Path.unlink and path.suffix == ".json" else ValueError
        with pytest.raises(kind, match=r"folder: .*(damaged|not as it was written|is no model)"):
            load_tree(tmp_path / "tree", SMALL)
        shutil.rmtree(tmp_path / "tree")
        shutil.copytree(tmp_path / "whole", tmp_path / "tree")
    assert_same(load_tree(tmp_path / "tree", SMALL), SMALL)


def test_an_edited_card_is_refused(tmp_path):
    save_tree(tmp_path, SMALL, {"rate": 0.1})
    card = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(card | {"rate": 0.2}))
    with pytest.raises(ValueError, match="not as it was written"):
        load_card(tmp_path)
    for text in ("[]", "{}", '{"format": "1"}'):
        (tmp_path / "model.json").write_text(text)
        with pytest.raises(ValueError, match="damaged"):
            load_card(tmp_path)


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(FileExistsError, match=r"holds other things \(thesis.txt\)"):
        save_tree(tmp_path, SMALL, {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_card_has_names_of_its_own(tmp_path):
    with pytest.raises(ValueError, match="card: format, leaves: these names are taken"):
        save_tree(tmp_path, SMALL, {"format": 3, "leaves": []})
    with pytest.raises(ValueError, match="card: expected what JSON can hold"):
        save_tree(tmp_path, SMALL, {"a": {1, 2}})


# Other devices


def restore_and_save_on_four(one, four):
    """In a child with four devices."""
    assert len(jax.devices()) == 4
    one, four = Checkpoints(one), Checkpoints(four)
    mesh = Mesh(np.array(jax.devices()), ("all",))
    split, whole = NamedSharding(mesh, PartitionSpec("all")), NamedSharding(mesh, PartitionSpec())
    numbers, keys = jnp.arange(16.0).reshape(8, 2), jax.random.split(jax.random.key(7), 4)
    like = {"rows": jnp.zeros((8, 2)), "all": jnp.zeros(3), "keys": keys, "n": 0}
    places = {"rows": split, "all": whole, "keys": None, "n": None}

    state = one.restore(like, shardings=places).state
    assert state["rows"].sharding == split
    assert len(state["rows"].addressable_shards) == 4
    np.testing.assert_array_equal(state["rows"], numbers)

    state = {
        "rows": jax.device_put(numbers + 1, split),
        "all": jax.device_put(jnp.arange(3.0), whole),
        "keys": jax.device_put(keys, split),
        "n": 5,
    }
    four.save(1, state)
    again = four.restore(state).state
    assert again["rows"].sharding == split
    assert again["keys"].sharding == split
    half = NamedSharding(Mesh(np.array(jax.devices()[:2]), ("all",)), PartitionSpec("all"))
    again = four.restore(like, shardings=places | {"rows": half}).state
    assert again["rows"].sharding == half
    np.testing.assert_array_equal(again["rows"], numbers + 1)


@pytest.mark.slow
def test_states_go_from_one_device_to_four_and_back(tmp_path):
    one = {
        "rows": jnp.arange(16.0).reshape(8, 2),
        "all": jnp.ones(3),
        "keys": jax.random.split(jax.random.key(3), 4),
        "n": 1,
    }
    Checkpoints(tmp_path / "one").save(0, one)
    call(restore_and_save_on_four, tmp_path / "one", tmp_path / "four", devices=4)
    found = Checkpoints(tmp_path / "four").restore(one).state
    expected = {
        "rows": one["rows"] + 1,
        "all": jnp.arange(3.0),
        "keys": jax.random.split(jax.random.key(7), 4),
        "n": 5,
    }
    assert_same(found, expected)
    assert found["rows"].sharding == one["rows"].sharding


# Kills


def bulky(step):
    rng = np.random.default_rng(step)
    rows = jnp.asarray(rng.normal(size=(40, 50)), jnp.float32)
    return {"rows": rows, "x": rng.normal(size=7), "k": jax.random.key(step), "n": step}


def write_until_killed(folder, moment):
    """In a child with four devices: write step after step from where the folder stands.

    The rows are spread over the devices. After each step it says so. The moment of the kill is
    "unsealed", "removing" or the number of a file operation.
    """

    def kill(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    def remove_some(path, **_):
        Path(path, "meta", "metadata").unlink()
        kill()

    steps = Checkpoints(folder, keep=2)
    rows = NamedSharding(Mesh(np.array(jax.devices()), ("all",)), PartitionSpec("all"))
    shardings = {"rows": rows, "x": None, "k": None, "n": None}
    first, state = steps.restore(bulky(0), shardings=shardings)
    assert_same(state, bulky(first))
    assert len(state["rows"].addressable_shards) == 4
    if moment.isdecimal():
        at_file_operation(int(moment), folder, kill)
    for step in itertools.count(first + 1):
        if step == 4:
            if moment == "unsealed":
                states.seal = kill
            elif moment == "removing":
                shutil.rmtree = remove_some
        state = bulky(step)
        steps.save(step, state | {"rows": jax.device_put(state["rows"], rows)})
        print(step, flush=True)


def assert_at_most_one_is_lost(folder, moment):
    """Write until killed, and return the newest step."""
    child = start(write_until_killed, folder, moment, devices=4)
    out, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == -signal.SIGKILL, err
    said = [int(line) for line in out.split("\n")[:-1] if line.isdecimal()]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*passed over")
        found = Checkpoints(folder).restore(bulky(0))
    assert not said or found.step in (said[-1], said[-1] + 1)
    assert_same(found.state, bulky(found.step))
    assert len(found.state["rows"].addressable_shards) == 1
    return found.step


@pytest.mark.parametrize(
    ("moment", "whole"),
    [("unsealed", (2, 3)), pytest.param("removing", (3, 4), marks=pytest.mark.slow)],
)
def test_a_kill_loses_at_most_the_step_being_written(tmp_path, moment, whole):
    """And a state goes from one device to four, and back."""
    Checkpoints(tmp_path).save(0, bulky(0))
    assert assert_at_most_one_is_lost(tmp_path, moment) == whole[-1]
    assert Checkpoints(tmp_path).steps == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3", "4"]
    Checkpoints(tmp_path, keep=2).save(9, bulky(9))
    assert len(Checkpoints(tmp_path).steps) == len([*tmp_path.iterdir()]) == 2


@pytest.mark.slow
def test_kills_at_any_file_operation_lose_at_most_the_step_being_written(tmp_path):
    rng, newest, inside = random.Random(0), 0, 0
    Checkpoints(tmp_path).save(0, bulky(0))
    for _ in range(24):
        found = assert_at_most_one_is_lost(tmp_path, rng.randint(1, 200))
        assert found >= newest
        newest = found
        inside += len([*tmp_path.iterdir()]) > len(Checkpoints(tmp_path).steps)
    assert newest > 24
    assert inside > 5  # kills in the midst of writing
