"""Models as folders: what was saved is what others load, or an error says why not."""

import json
import shutil
import sys
import tomllib
from importlib import resources
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, struct

from refinejax import models
from refinejax._applications import Application
from refinejax.checkpoint import save_tree, trees, versions
from refinejax.models import load_model, pretrained, save_model
from refinejax.networks import Network


class Rule(struct.PyTreeNode):
    """A network, and a number that was given as a Python number."""

    network: Network
    rate: float
    width: int = struct.field(pytree_node=False)


def build(config, key):
    width = config["width"]
    network = Network.of(nnx.Linear(3, width, rngs=nnx.Rngs(key)))
    return Rule(network, config.get("rate", 0.1), width)


KNOWN = {"mine": build}
CONFIG = {"width": 2, "rate": 0.5, "sizes": (1, 2)}
PROVENANCE = {
    "tasks": "quadratics, condition number up to 100",
    "command": "refinejax train quadratics.toml",
    "evaluation": [{"steps": 10, "loss": 0.25}, {"steps": 100, "loss": 1e-3}],
}


def trained():
    """What training makes of it: other weights, and all numbers as arrays."""
    return jax.tree.map(lambda x: jnp.asarray(x) + 1, build(CONFIG, jax.random.key(5)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "rule"
    save_model(
        folder,
        trained(),
        architecture="mine",
        config=CONFIG,
        provenance=PROVENANCE,
        architectures=KNOWN,
    )
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "rule")
    return tmp_path / "rule"


def test_a_model_comes_back_with_all_that_is_known_of_it(saved):
    model = load_model(saved, KNOWN)
    assert jax.tree.structure(model.value) == jax.tree.structure(trained())
    jax.tree.map(np.testing.assert_array_equal, model.value, trained())
    x = jnp.arange(3.0)
    np.testing.assert_array_equal(model.value.network(x), trained().network(x))
    assert model.architecture == "mine"
    assert model.config == {"width": 2, "rate": 0.5, "sizes": [1, 2]}
    assert model.provenance == PROVENANCE
    assert model.versions == versions.versions()
    assert model.notes == ()


def test_a_model_can_be_read_by_people(saved):
    card = json.loads((saved / "model.json").read_text())
    assert card["architecture"] == "mine"
    assert card["provenance"]["tasks"] == PROVENANCE["tasks"]
    assert card["format"] == 1


def test_an_unknown_architecture_is_refused_and_the_known_ones_are_listed(saved, tmp_path):
    message = (
        r"architecture: 'mine' is unknown; known: other, some; .*architectures=\{name: build\}"
    )
    with pytest.raises(ValueError, match=message):
        load_model(saved, {"some": build, "other": build})
    with pytest.raises(ValueError, match=message):
        save_model(
            tmp_path,
            trained(),
            architecture="mine",
            config=CONFIG,
            architectures={"some": build, "other": build},
        )


def test_a_config_that_makes_another_model_is_refused_when_it_is_saved(tmp_path):
    message = (
        r"config: architecture 'mine' makes another.*value.network.weights\['bias'\]: expected"
    )
    with pytest.raises(ValueError, match=message):
        save_model(
            tmp_path, trained(), architecture="mine", config={"width": 3}, architectures=KNOWN
        )
    assert [*tmp_path.iterdir()] == []


def test_an_architecture_that_has_changed_is_an_error_that_names_the_leaf(saved):
    def wider(config, key):
        return build(config | {"width": 4}, key)

    with pytest.raises(
        ValueError, match=r"weights.network.weights\['bias'\]: expected float32\[4\]"
    ):
        load_model(saved, {"mine": wider})


@pytest.mark.parametrize("name", ["config", "provenance"])
def test_what_json_cannot_hold_is_refused(tmp_path, name):
    options = {"config": CONFIG, "provenance": {}} | {name: {"width": 2, "bad": jnp.ones(2)}}
    with pytest.raises(ValueError, match=f"{name}: expected what JSON can hold"):
        save_model(tmp_path, trained(), architecture="mine", architectures=KNOWN, **options)


def test_other_versions_are_a_note(folder, monkeypatch):
    now = versions.versions()
    with monkeypatch.context() as older:
        older.setattr(trees, "versions", lambda: now | {"flax": "0.11.0"})
        save_model(folder, trained(), architecture="mine", config=CONFIG, architectures=KNOWN)
    model = load_model(folder, KNOWN)
    assert model.notes == (f"written with flax 0.11.0 (now {now['flax']})",)
    assert model.versions["flax"] == "0.11.0"


def test_a_newer_format_is_refused(folder, monkeypatch):
    with monkeypatch.context() as newer:
        newer.setattr(trees, "_FORMAT", 2)
        save_model(folder, trained(), architecture="mine", config=CONFIG, architectures=KNOWN)
    with pytest.raises(ValueError, match=r"has format 2, .* reads formats up to 1"):
        load_model(folder, KNOWN)


def test_a_damaged_or_truncated_model_is_refused(folder):
    biggest = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    card = folder / "model.json"
    for path in (next(folder.glob("weights-*")) / "manifest.ocdbt", biggest, card):
        whole = path.read_bytes()
        for harmed in (whole[:-20], whole[:20] + b"#" + whole[21:]):
            path.write_bytes(harmed)
            with pytest.raises(ValueError, match=r"folder: .*(damaged|not as it was written)"):
                load_model(folder, KNOWN)
        path.write_bytes(whole)
    load_model(folder, KNOWN)


def test_what_is_no_model_is_said_to_be_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no model: it has no model.json"):
        load_model(tmp_path / "nothing")
    save_tree(tmp_path / "weights", trained(), {"config": {}})
    with pytest.raises(
        ValueError, match="holds weights, but no model: no architecture, provenance"
    ):
        load_model(tmp_path / "weights")


def test_pretrained_models_are_found_by_name(saved, tmp_path, monkeypatch):
    shutil.copytree(saved, tmp_path / "rule")
    monkeypatch.setattr(models, "pretrained_folders", lambda: {"rule": tmp_path / "rule"})
    with pytest.raises(ValueError, match=r"no pretrained model 'rul'; there are: rule;"):
        pretrained("rul")
    with pytest.raises(ValueError, match=r"architecture: 'mine' is unknown"):
        pretrained("rule")
    monkeypatch.setattr(models, "known_architectures", lambda: KNOWN)
    assert pretrained("rule").provenance == PROVENANCE


def test_without_pretrained_models_it_says_so(monkeypatch):
    monkeypatch.setattr(models, "pretrained_folders", dict)
    with pytest.raises(ValueError, match="there are: none in this version"):
        pretrained("any")


def test_models_of_applications_are_found_and_may_not_share_a_name(saved, tmp_path, monkeypatch):
    for package in ("first", "second"):
        shutil.copytree(saved, tmp_path / package / "models" / "rule")
        (tmp_path / package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    both = [Application(name, pretrained=(f"{name}:models",)) for name in ("first", "second")]
    monkeypatch.setattr(models, "applications", lambda: both[:1])
    folders = models.pretrained_folders()
    assert folders["rule"] == tmp_path / "first" / "models" / "rule"
    assert "damped_sine_damping" in folders
    monkeypatch.setattr(models, "applications", lambda: both)
    with pytest.raises(ValueError, match=r"'rule' is in .*first.* and in .*second"):
        models.pretrained_folders()


def test_architectures_of_applications_are_known(saved, monkeypatch):
    monkeypatch.setattr(
        "refinejax._applications.registered", lambda what: {"mine": f"{__name__}:build"}
    )
    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(build=build))
    assert load_model(saved).provenance == PROVENANCE


PRETRAINED = ("damped_sine_damping", "metalens_predictor", "metalens_update")


@pytest.mark.parametrize("name", PRETRAINED)
def test_what_comes_with_the_package_loads_and_says_where_it_is_from(name):
    model = pretrained(name)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(model.value))
    assert np.isfinite(model.provenance["validation"]["validation_loss"])
    folder = "apps/metalens/configs" if name.startswith("metalens") else "configs"
    path = resources.files("refinejax") / folder / f"{name}.toml"
    given = tomllib.loads(path.read_text())
    made = model.provenance["configuration"]
    assert given["task"].items() <= made["task"].items()
    assert given["training"]["steps"] == model.provenance["steps"]


def test_what_comes_with_the_package_is_small_and_knows_no_folders():
    folders = models.pretrained_folders()
    assert set(folders) == set(PRETRAINED)
    files = [path for folder in folders.values() for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3e6
    assert not [path for path in files if path.name == "commit_success.txt"]
