"""Training a model from a configuration, by function and by command."""

import json

import jax
import numpy as np
import pytest

from refinejax import cli, run
from refinejax.apps._lens_tasks import LensTasks
from refinejax.apps.training import train_model
from refinejax.learned import LearnedUpdate
from refinejax.models import load_model
from refinejax.physics.metalens import LOWER, UPPER, phase
from refinejax.physics.noise import PhaseNoise
from refinejax.problems.damped_sine import DampedSines

CONFIG = """\
[training]
steps = 6
validate_every = 2
log_every = 1
learning_rate = 0.01

[task]
problems = "damped_sine"
horizon = 2
batch = 4
parts = 2
held_out = 8
size = 16

[refiner]
architecture = "update"
params = 5
width = 4
depth = 1
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    (folder / "config.toml").write_text(CONFIG)
    code = cli.main(
        ["train", "refiner", "--config", str(folder / "config.toml"), "--out", str(folder / "out")]
    )
    assert code == 0
    return folder


def test_a_trained_model_loads_and_refines(trained):
    model = load_model(trained / "out" / "model")
    assert isinstance(model.value, LearnedUpdate)
    assert model.architecture == "update"
    assert model.config == {"params": 5, "width": 4, "depth": 1}
    assert model.provenance["configuration"]["task"]["problems"] == "damped_sine"
    assert model.provenance["steps"] == 6
    assert np.isfinite(model.provenance["validation"]["validation_loss"])
    tasks = DampedSines(count=16)
    task = tasks.sample(jax.random.key(0))
    result = run(model.value, tasks.objective(task), task.truth + 0.2, num_steps=3)
    assert result.loss <= result.initial_loss


def test_the_log_has_a_line_for_each_step(trained):
    lines = (trained / "out" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    assert [line["step"] for line in steps if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in steps if "validation_loss" in line] == [0, 2, 4, 6]
    assert all(line["finite"] == 1 for line in steps if "finite" in line)


def test_resume_of_what_is_done_gives_the_same_and_another_config_is_refused(trained, capsys):
    arguments = ["train", "refiner", "--out", str(trained / "out"), "--config"]
    before = load_model(trained / "out" / "model").value
    assert cli.main([*arguments, str(trained / "config.toml"), "--resume", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["status"] == "MAX_STEPS"
    assert said["step"] == 6
    jax.tree.map(np.testing.assert_array_equal, before, load_model(trained / "out" / "model").value)
    other = trained / "other.toml"
    other.write_text(CONFIG.replace("learning_rate = 0.01", "learning_rate = 0.02"))
    assert cli.main([*arguments, str(other), "--resume"]) == 2
    assert "learning_rate" in capsys.readouterr().err
    assert cli.main([*arguments, str(trained / "config.toml")]) == 2
    assert "resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"damped_sine"',
            '"sines"',
            "problems: expected one of damped_sine, metalens, got",
        ),
        ("horizon = 2", "horizn = 2", "task: unknown 'horizn'"),
        ("parts = 2", "parts = 3", "expected a divisor of the batch of 4, got 3"),
        ('"update"', '"updat"', "refiner: expected one of damping, update, rule, got 'updat'"),
        ("width = 4", "widht = 4", "update: unknown 'widht'"),
        ("[training]", "[trainin]", r"unknown \[trainin\]"),
        ("steps = 6", "steps = ", "is not TOML"),
        ("steps = 6", "steps = -6", "steps: expected"),
        (
            "size = 16",
            "size = 16\nerror = [0.1, 0.2]",
            "expected 1 positive number for",
        ),
    ],
)
def test_bad_configurations_are_named(tmp_path, capsys, old, new, message):
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.replace(old, new))
    out = tmp_path / "out"
    assert cli.main(["train", "refiner", "--config", str(path), "--out", str(out)]) == 2
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(capsys.readouterr().err)
    assert not out.exists()


def test_a_missing_file_and_an_unknown_kind_are_named(tmp_path, capsys):
    path = tmp_path / "none.toml"
    assert cli.main(["train", "refiner", "--config", str(path), "--out", str(tmp_path)]) == 2
    assert "none.toml cannot be read (No such file" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"kind: expected one of .*refiner.*, got 'x'"):
        train_model("x", {}, tmp_path)


@pytest.mark.slow
def test_lens_tasks_are_maps_of_their_lenses_and_starts_within_the_ranges():
    tasks = LensTasks(PhaseNoise.none(), (0.01, 0.3), size=16)
    keys = jax.random.split(jax.random.key(0), 300)
    drawn = jax.vmap(tasks.sample)(keys)
    xc, yc, side, focal = np.asarray(drawn.truth[0])
    lens = np.array([xc, yc, side, drawn.wavelength[0], focal])
    turns = (np.asarray(phase(lens, 16)) - drawn.phase[0]) / (2 * np.pi)
    np.testing.assert_allclose(turns, np.round(turns), atol=2e-3)
    np.testing.assert_array_less(jax.vmap(lambda t: tasks.objective(t)(t.truth))(drawn), 1e-4)
    starts = np.asarray(jax.vmap(tasks.initial)(drawn, keys))
    low, high = (np.delete(np.array(bound), 3) for bound in (LOWER, UPPER))
    assert np.all(starts >= low.astype(np.float32))
    assert np.all(starts <= high.astype(np.float32))
    inside = np.abs(drawn.truth[:, :2]) < 200  # whose starts are not clipped
    share = np.abs(starts - drawn.truth)[:, :2][inside] / 1000 / np.sqrt(2 / np.pi)
    np.testing.assert_allclose(np.mean(share), 0.29 / np.log(30), rtol=0.2)
