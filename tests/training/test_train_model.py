"""Training a model from a configuration, by function and by command."""

import json

import jax
import numpy as np
import pytest

from refinejax import cli, run
from refinejax.apps import metalens
from refinejax.apps.metalens.cascade.scale import OTHERS, REFERENCE
from refinejax.apps.metalens.learned import LearnedSlopes
from refinejax.apps.metalens.problem import exact_problem
from refinejax.apps.metalens.tasks import LensTasks
from refinejax.apps.metalens.train import PredictorTask
from refinejax.learned import LearnedUpdate
from refinejax.models import load_model, pretrained
from refinejax.physics.metalens.lens import LOWER, UPPER, phase
from refinejax.physics.noise import COMPONENTS, PhaseNoise
from refinejax.refiners import LevenbergMarquardt
from refinejax.tasks.damped_sine import DampedSines
from refinejax.training.plans import train_model

CONFIG = """\
[training]
steps = 6
validate_every = 2
log_every = 1
learning_rate = 0.01

[task]
problems = "damped_sines"
horizon = 2
batch = 4
parts = 2
held_out = 8

[task.distribution]
count = 16

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
        [
            "train",
            "refiner",
            "--config",
            str(folder / "config.toml"),
            "--output",
            str(folder / "out"),
        ]
    )
    assert code == 0
    return folder


def test_a_trained_model_loads_and_refines(trained):
    model = load_model(trained / "out" / "model")
    assert isinstance(model.value, LearnedUpdate)
    assert model.architecture == "update"
    assert model.config == {"params": 5, "width": 4, "depth": 1}
    assert model.provenance["configuration"]["task"]["problems"] == "damped_sines"
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


def test_a_rerun_of_what_is_done_gives_the_same_and_another_config_is_refused(trained, capsys):
    arguments = ["train", "refiner", "--output", str(trained / "out"), "--config"]
    before = load_model(trained / "out" / "model").value
    assert cli.main([*arguments, str(trained / "config.toml"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["status"] == "MAX_STEPS"
    assert said["step"] == 6
    jax.tree.map(np.testing.assert_array_equal, before, load_model(trained / "out" / "model").value)
    other = trained / "other.toml"
    other.write_text(CONFIG.replace("learning_rate = 0.01", "learning_rate = 0.02"))
    assert cli.main([*arguments, str(other)]) == 2
    assert "learning_rate" in capsys.readouterr().err
    smaller = trained / "smaller.toml"
    smaller.write_text(CONFIG.replace("horizon = 2", "horizon = 1"))
    assert cli.main([*arguments, str(smaller)]) == 2
    assert "task.task.horizon = 2 there and 1 here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"damped_sines"',
            '"sines"',
            "problems: expected one of quadratics, .*damped_sines, .*lenses, got 'sines'",
        ),
        ("horizon = 2", "horizn = 2", "task.horizn: no such key; did you mean horizon"),
        ("parts = 2", "parts = 3", "expected a divisor of the batch of 4, got 3"),
        ('"update"', '"updat"', "refiner: expected one of damping, update, rule, got 'updat'"),
        ("width = 4", "widht = 4", "update.widht: no such key; did you mean width"),
        ("[training]", "[trainin]", r"unknown \[trainin\]"),
        ("steps = 6", "steps = ", "is not TOML"),
        ("steps = 6", "steps = -6", "steps: expected"),
        (
            "count = 16",
            "count = 16\nerror = [0.1, 0.2]",
            "task.distribution.error: expected a number, got",
        ),
        ("count = 16", "count = 0", "count: expected a whole number of 1"),
        ("count = 16", "size = 16", "task.distribution.size: no such key"),
    ],
)
def test_bad_configurations_are_named(tmp_path, capsys, old, new, message):
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.replace(old, new))
    out = tmp_path / "out"
    assert cli.main(["train", "refiner", "--config", str(path), "--output", str(out)]) == 2
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(capsys.readouterr().err)
    assert not out.exists()


def test_a_missing_file_and_an_unknown_kind_are_named(tmp_path, capsys):
    path = tmp_path / "none.toml"
    assert cli.main(["train", "refiner", "--config", str(path), "--output", str(tmp_path)]) == 2
    assert "none.toml cannot be read (No such file" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"kind: expected one of .*refiner.*, got 'x'"):
        train_model("x", {}, tmp_path)


PREDICTOR = """\
[training]
steps = 2
validate_every = 0

[task]
size = 12
batch = 2
validation = 2
block = 6

[network]
widths = [4]
groups = 2
hidden = 4
"""


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictor")
    (folder / "config.toml").write_text(PREDICTOR)
    arguments = ["--config", str(folder / "config.toml"), "--output", str(folder / "out"), "--json"]
    assert cli.main(["train", "predictor", *arguments]) == 0
    return folder / "out" / "model"


@pytest.mark.slow
def test_a_trained_predictor_gives_the_starts_of_the_command(predictor, tmp_path, capsys):
    model = load_model(predictor)
    assert model.architecture == "predictor"
    assert model.provenance["configuration"]["network"]["widths"] == [4]
    made = metalens.simulate(3, 12, error=0.01)
    np.savez(tmp_path / "maps.npz", **made)
    options = ["--predict", str(predictor), "--method", "lm", "--max-steps", "1", "--json"]
    options += ["--output", str(tmp_path / "out.npz")]
    assert cli.main(["metalens", str(tmp_path / "maps.npz"), *options]) == 0
    capsys.readouterr()
    found = metalens.predict_lenses(
        made["phase"], wavelength=made["wavelength"], predictor=model.value
    )
    before = metalens.residual_rmse(made["phase"], found.params)
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_allclose(out["initial_rmse"], before, rtol=1e-5)
        assert np.all(out["rmse"] <= out["initial_rmse"] * (1 + 1e-6))


def assert_no_predictor(model, message, folder, capsys):
    np.savez(folder / "maps.npz", **metalens.simulate(2, 18))
    arguments = ["metalens", str(folder / "maps.npz"), "--output", str(folder / "out.npz")]
    assert cli.main([*arguments, "--predict", str(model)]) == 2
    assert message in capsys.readouterr().err


def test_what_is_no_predictor_is_named(trained, tmp_path, capsys):
    update = trained / "out" / "model"
    assert_no_predictor(update, "kind 'update'; expected a predictor", tmp_path, capsys)
    assert_no_predictor("nothing", "no pretrained model 'nothing'", tmp_path, capsys)


@pytest.mark.slow
def test_a_predictor_of_other_maps_is_named(predictor, tmp_path, capsys):
    assert_no_predictor(predictor, "not made for maps of 18 × 18 pixels", tmp_path, capsys)


@pytest.mark.slow
def test_lens_tasks_are_slopes_of_their_lenses_and_starts_within_the_ranges():
    tasks = LensTasks(PhaseNoise.none(), (0.01, 0.3), size=64)
    keys = jax.random.split(jax.random.key(0), 300)
    drawn = jax.vmap(tasks.sample)(keys)
    scale = np.asarray(drawn.scale)[:, None]
    xc, yc, side, focal = np.asarray(drawn.truth[0]) / scale[0]
    lens = np.array([xc, yc, side, REFERENCE / scale[0, 0], focal])
    turns = np.asarray(phase(lens, 64)) / (2 * np.pi)
    steps = np.diff(turns, axis=1)[3:-4, 3:-4]  # blocks of 7 pixels in the middle
    wrapped = np.exp(2j * np.pi * steps[:56, :56]).reshape(8, 7, 8, 7).sum((1, 3))
    np.testing.assert_allclose(drawn.across[0], np.angle(wrapped) / (2 * np.pi), atol=0.02)
    losses = jax.vmap(lambda t: tasks.objective(t)(t.truth))(drawn)
    assert np.median(losses) < 1e-3
    starts = np.asarray(jax.vmap(tasks.initial)(drawn, keys)) / scale
    low, high = (np.delete(np.array(bound), 3) for bound in (LOWER, UPPER))
    assert np.all(starts >= low - 1e-3)
    assert np.all(starts <= high + 1e-3)
    truth = np.asarray(drawn.truth) / scale
    inside = np.abs(truth[:, :2]) < 200  # whose starts are not clipped
    share = np.abs(starts - truth)[:, :2][inside] / 1000 / np.sqrt(2 / np.pi)
    np.testing.assert_allclose(np.mean(share), 0.29 / np.log(30), rtol=0.2)


@pytest.fixture(scope="module")
def maps():
    return metalens.simulate(16, 64, error=0.02, key=3)


def fit(learned, maps, space=None):
    space = metalens.space(wavelength=False) if space is None else space
    start = maps["initial"][:, OTHERS]
    problem = exact_problem(maps["phase"], maps["wavelength"], space)
    return learned(problem, space, start, given=True, steps=0)


@pytest.mark.slow
def test_the_first_stage_by_any_refiner_fits_the_slopes(maps):
    lenses, losses = fit(LearnedSlopes(LevenbergMarquardt(), steps=8), maps)
    assert np.all(np.diff(losses, axis=1) >= 0)
    before, unfitted = fit(LearnedSlopes(LevenbergMarquardt(), steps=0), maps)
    assert lenses.shape == before.shape == (16, before.shape[1], 4)
    start = maps["initial"][:, None, OTHERS]
    assert np.all(np.min(np.abs(before - start).max(-1), axis=1) < 1e-2)
    side, truth = lenses[:, 0, 2], maps["truth"][:, 2]
    assert np.median(np.abs(side / truth - 1)) < 0.2 * np.median(np.abs(start[:, 0, 2] / truth - 1))
    assert np.median(losses[:, 0]) < 0.01 * np.median(unfitted[:, -1])


@pytest.mark.slow
def test_draws_of_a_predictor_are_tried_too_and_the_best_comes_first(maps):
    task = PredictorTask.of({"block": 16}, {"widths": [4], "groups": 2, "hidden": 4})
    predictor = task.init(jax.random.key(0))
    learned = LearnedSlopes(LevenbergMarquardt(), predictor, steps=8)
    lenses, losses = fit(learned, maps)
    alone, loss = fit(learned.replace(predictor=None), maps)
    assert lenses.shape[1] == alone.shape[1] + 3
    assert np.all(losses[:, 0] <= loss[:, 0] * 1.01 + 1e-9)  # rounding: (3e-5 turns a pixel)²
    again, _ = fit(learned, jax.tree.map(lambda x: x[5:6], maps))
    np.testing.assert_allclose(again[0], lenses[5], rtol=1e-3, atol=1e-2)


@pytest.mark.slow
def test_predicted_and_refined_by_what_comes_with_the_package():
    seen = [name for name in COMPONENTS if name != "warp"]  # which hides the lens
    made = metalens.simulate(64, 64, noise=PhaseNoise.only(*seen), key=11)
    known = {"wavelength": made["wavelength"]}
    found = metalens.predict_lenses(made["phase"], **known)
    width = np.array(UPPER) - np.array(LOWER)
    error = np.mean(np.abs(np.asarray(found.params) - made["truth"]) / width, axis=0)
    assert error[2] < 0.06  # the middle of the ranges leaves 0.25
    assert np.all(error[:2] < 0.12)
    predictor = pretrained("metalens_predictor").value
    result = metalens.invert(made["phase"], initial=predictor, method="learned", **known)
    assert "learned" in result.method
    floor = metalens.residual_rmse(made["phase"], made["truth"])
    assert np.mean(np.sqrt(result.loss) <= 1.02 * floor) >= 0.95


def test_the_learned_method_needs_a_start_and_pixels(maps):
    with pytest.raises(ValueError, match='initial: method "learned" needs a start'):
        metalens.invert(maps["phase"], method="learned")
    with pytest.raises(ValueError, match="needs maps of 33 × 33 pixels or more, got 20 × 20"):
        metalens.invert(maps["phase"][0, :20, :20], initial=maps["initial"][0], method="learned")
