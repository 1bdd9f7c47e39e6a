"""What `import refinejax` offers, at run time and to a type checker."""

import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import refinejax as rj
from refinejax._lazy import attach, read_stub

STUB = Path(rj.__file__).with_suffix(".pyi")
HOMES, PARTS, NAMES = read_stub("refinejax", STUB)
INTERNAL = {"cli", "commands"}  # behind the command `refinejax`


def _python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_every_name_of_the_stub_is_in_all_and_the_other_way_round():
    assert sorted(HOMES) == sorted(NAMES) == rj.__all__
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_the_object_of_its_module(name):
    assert getattr(rj, name) is getattr(importlib.import_module(HOMES[name]), name)


@pytest.mark.parametrize("name", sorted(PARTS))
def test_a_subpackage_is_imported_when_it_is_asked_for(name):
    assert rj.__getattr__(name) is importlib.import_module(f"refinejax.{name}")


def test_what_is_below_a_subpackage_is_reached_without_being_imported_first():
    paths = ["tasks.Split", "physics.phase", "apps.latent", "apps.metalens"]
    code = "import refinejax as rj; " + "; ".join(f"print(rj.{path}.__name__)" for path in paths)
    assert _python(code) == ["Split", *(f"refinejax.{path}" for path in paths[1:])]


def test_every_public_subpackage_is_listed():
    found = {module.name for module in pkgutil.iter_modules(rj.__path__)}
    assert {name for name in found if not name.startswith("_")} - INTERNAL == PARTS


@pytest.mark.parametrize("package", ["apps", "physics"])
def test_every_module_of_a_lazy_package_is_listed(package):
    module = importlib.import_module(f"refinejax.{package}")
    found = {inner.name for inner in pkgutil.iter_modules(module.__path__)}
    modules = {name for name in module.__all__ if name.islower()}
    assert {name for name in found if not name.startswith("_")} == modules
    assert dir(module) == module.__all__


def test_dir_has_the_public_names_and_no_others():
    assert set(dir(rj)) == {*NAMES, *PARTS}


def test_star_import_defines_all_and_nothing_else():
    code = "names = set(dir()); from refinejax import *; print(*set(dir()) - names - {'names'})"
    assert sorted(_python(code)) == rj.__all__


def test_a_log_of_experiments_is_read_without_jax():
    code = "import refinejax as rj, sys; rj.experiments.Log; print('jax' in sys.modules)"
    assert _python(code) == ["False"]


def test_an_unknown_name_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="'refinejax' has no attribute 'refined'"):
        rj.refined


def test_a_package_reads_its_names_from_its_stub(tmp_path):
    (tmp_path / "__init__.pyi").write_text(
        "from package import part as part\nfrom json import loads as loads\n__all__ = ['loads']\n"
    )
    lazy = attach("package", str(tmp_path / "__init__.py"))
    assert lazy.getattr("loads") is importlib.import_module("json").loads
    assert (lazy.dir(), lazy.all) == (["loads", "part"], ["loads"])


SNIPPET = """
import numpy as np
import optax
from typing_extensions import assert_type

import refinejax as rj
from refinejax import BatchResult, run_until

problem = rj.InverseProblem(lambda p: 2 * p, np.zeros(3))
assert_type(rj.Status.MAX_STEPS.explain(), str)
assert_type(rj.refiners.BFGS, type[rj.refiners.BFGS])
assert_type(rj.experiments.Log, type[rj.experiments.Log])
rj.meta.meta_trained  # wrong: there is no such function
refiner = rj.Sequential(rj.RandomSearch(std=0.1), rj.Gradient(optax.lbfgs), steps=50)
result = rj.run_batch(refiner, problem, np.zeros((4, 3)), max_steps=3)
assert_type(result, BatchResult)
rj.apps.metalens.invert
rj.apps.latent.optimize_latent
rj.plot.rates
rj.tasks.Quadratics
rj.refined  # wrong: there is no such name
"""


def test_a_type_checker_sees_every_name(tmp_path):
    """basedpyright reports the two lines that are wrong, and no other."""
    (tmp_path / "snippet.py").write_text(SNIPPET)
    root = STUB.parents[1]
    config = f'{{"extraPaths": ["{root}"], "typeCheckingMode": "standard"}}'
    (tmp_path / "pyrightconfig.json").write_text(config)
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run([*command, "-p", str(tmp_path)], capture_output=True, text=True)
    found = json.loads(done.stdout)
    wrong = [n for n, line in enumerate(SNIPPET.splitlines()) if "# wrong" in line]
    errors = [entry for entry in found["generalDiagnostics"] if entry["severity"] == "error"]
    assert [entry["range"]["start"]["line"] for entry in errors] == wrong, errors
