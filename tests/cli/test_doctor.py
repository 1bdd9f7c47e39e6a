import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from children import PATIENCE

import refinejax
from refinejax import cli
from refinejax.cli import doctor

FLOORS = ["jax>=0.10", "flax>=0.12.8", "numpy>=2.0", 'matplotlib>=3.9; extra == "plot"']


@pytest.fixture
def installed(monkeypatch):
    """A healthy machine, in which tests break one thing at a time."""
    versions = {"refinejax": "0.1.0", "jax": "0.10.0", "jaxlib": "0.10.0", "flax": "0.12.8"}
    versions |= {"optax": "0.2.8", "evosax": "0.3.2", "orbax-checkpoint": "0.12.8"}
    versions |= {"numpy": "2.4.1", "matplotlib": "3.10.0"}
    monkeypatch.setattr(doctor, "_version", versions.get)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: FLOORS)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(doctor, "_has_nvidia", lambda: False)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    return versions


def only(problems):
    """The one problem that there is."""
    assert len(problems) == 1, problems
    return problems[0]


def test_facts():
    facts = doctor.diagnose().facts
    assert facts["python"] == platform.python_version()
    assert facts["backend"] == jax.default_backend()
    assert facts["devices"] == [device.device_kind for device in jax.devices()]
    assert facts["precision"] == "float32"
    assert facts["versions"]["jax"] == jax.__version__
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["versions"]["refinejax"] == importlib.metadata.version("refinejax")
    with jax.enable_x64(True):
        assert doctor.diagnose().facts["precision"] == "float64"


def test_the_version_is_stated_once():
    assert importlib.metadata.version("refinejax") == refinejax.__version__


def test_no_problems(installed):
    assert doctor.diagnose().problems == []


@pytest.mark.parametrize("version", ["0.12.7", "0.9.12", "0.12.7rc1"])
def test_an_old_version(installed, version):
    installed["flax"] = version
    problem = only(doctor.diagnose().problems)
    assert problem == f"flax {version} is older than 0.12.8; pip install --upgrade flax"


@pytest.mark.parametrize("version", ["0.12.8", "0.12.10", "0.13", "1.0.0.dev1"])
def test_a_version_new_enough(installed, version):
    installed["flax"] = version
    assert doctor.diagnose().problems == []


def test_a_required_package_that_is_missing(installed):
    installed["flax"] = None
    assert only(doctor.diagnose().problems) == "flax is not installed; pip install flax"


def test_an_extra_that_is_missing_is_no_problem(installed):
    installed["matplotlib"] = None
    diagnosis = doctor.diagnose()
    assert diagnosis.problems == []
    assert any("pip install 'refinejax[plot]'" in text for text in diagnosis.advice)


def test_jax_and_jaxlib_that_differ(installed):
    installed["jaxlib"] = "0.10.1"
    problem = only(doctor.diagnose().problems)
    assert "jax 0.10.0 and jaxlib 0.10.1 differ" in problem
    assert "pip install" in problem


def test_run_from_its_sources_without_being_installed(installed, monkeypatch):
    def fail(name):
        raise importlib.metadata.PackageNotFoundError(name)

    installed["refinejax"] = None
    monkeypatch.setattr(importlib.metadata, "requires", fail)
    assert doctor.diagnose().problems == []


def test_a_gpu_that_is_not_used(installed, monkeypatch):
    monkeypatch.setattr(doctor, "_has_nvidia", lambda: True)
    problem = only(doctor.diagnose().problems)
    assert "NVIDIA" in problem
    assert "pip install 'refinejax[cuda13]'" in problem
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # as asked
    assert doctor.diagnose().problems == []
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert doctor.diagnose().problems == []


def test_arithmetic_that_is_wrong(installed, monkeypatch):
    monkeypatch.setattr(jax, "jit", lambda function: lambda x: 284.0)
    problem = only(doctor.diagnose().problems)
    assert "284.0, not 285" in problem


def test_caches(tmp_path, monkeypatch):
    assert doctor._cache_problems(tmp_path) == []
    missing = tmp_path / "missing"
    assert f"mkdir -p {missing}" in only(doctor._cache_problems(missing))
    file = tmp_path / "file"
    file.touch()
    assert str(file) in only(doctor._cache_problems(file))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "written" in only(doctor._cache_problems(tmp_path))
    monkeypatch.undo()
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=7 * 2**20))
    assert "only 7 MiB free" in only(doctor._cache_problems(tmp_path))


def test_advice_on_the_cache(installed):
    versions = {name: installed.get(name) for name in (*installed, "matplotlib")}
    assert doctor._advice(versions, "a folder") == []
    assert "JAX_COMPILATION_CACHE_DIR" in only(doctor._advice(versions, None))
    assert doctor._problems(versions, "gs://bucket/cache") == []  # nothing to look at from here


PROBLEM = doctor.Diagnosis(
    {"python": "3.11.0", "versions": {"jax": "0.10.0", "matplotlib": None}, "devices": ["a", "b"]},
    ["flax 0.1 is older than 0.12.8; pip install --upgrade flax"],
    ["no compilation cache"],
)


@pytest.mark.parametrize("problems", [[], PROBLEM.problems])
def test_exit_codes_and_output(capsys, monkeypatch, problems):
    diagnosis = PROBLEM._replace(problems=problems)
    monkeypatch.setattr(doctor, "diagnose", lambda: diagnosis)
    code = 1 if problems else 0
    assert cli.main(["doctor"]) == code
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["jax", "0.10.0"],
        ["matplotlib", "not", "installed"],
        ["python", "3.11.0"],
        ["devices", "a,", "b"],
    ]
    assert "advice: no compilation cache" in lines
    assert ("problem: " + PROBLEM.problems[0] in lines) == bool(problems)
    assert ("no problems found" in lines) == (not problems)
    assert cli.main(["doctor", "--json"]) == code
    captured = capsys.readouterr()
    assert json.loads(captured.out) == diagnosis._asdict()
    assert captured.err == ""


def test_as_a_process_with_a_cache_that_is_no_folder(tmp_path):
    file = tmp_path / "cache"
    file.touch()
    done = subprocess.run(
        [sys.executable, "-m", "refinejax", "doctor", "--json"],
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(file), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert found["facts"]["cache"] == str(file)
    assert f"compilation cache {file}: not a folder" in only(found["problems"])
