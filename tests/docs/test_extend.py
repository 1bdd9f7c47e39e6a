"""The application of docs/extend, built as a package outside of the repository."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import refinejax

EXTEND = Path(__file__).parents[2] / "docs" / "extend"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project; what installing it does: its package and entry points on a path."""
    project = tmp_path_factory.mktemp("outside") / "damped_sine"
    ignored = shutil.ignore_patterns("__pycache__", ".pytest_cache")
    shutil.copytree(EXTEND / "damped_sine", project, ignore=ignored)
    about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    info = project / f"damped_sine-{about['version']}.dist-info"
    info.mkdir()
    name, version = about["name"], about["version"]
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(
        "\n".join(
            line
            for group, points in about["entry-points"].items()
            for line in (f"[{group}]", *(f"{key} = {value}" for key, value in points.items()))
        )
    )
    return project


def python(project, *arguments):
    """Run Python where only refinejax and the project are on the path; return what it prints."""
    package = str(Path(refinejax.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(project), package])}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_refinejax_lists_its_commands_without_jax(project):
    script = (
        "import sys\nfrom refinejax.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: print('jax' in sys.modules)"
    )
    said = python(project, "-c", script)
    assert "damped-sine           height, decay and frequency of damped sines" in said
    assert "simulate damped-sine  make damped sines" in said
    assert "refinejax damped-sine signals.npz --output fits.npz --report report" in said
    assert said.splitlines()[-1] == "False"


def test_its_commands_refine_and_report(project):
    command = ("-m", "refinejax")
    python(project, *command, "simulate", "damped-sine", "--count", 30, "--output", "signals.npz")
    options = ("--output", "fits.npz", "--report", "report", "--json")
    said = json.loads(python(project, *command, "damped-sine", "signals.npz", *options))
    assert said["samples"] == 30
    with np.load(project / "signals.npz") as signals, np.load(project / "fits.npz") as fits:
        truth, params, std = signals["truth"], fits["params"], fits["std"]
    assert np.abs((params - truth) / std).max() < 5
    assert said["rmse"] == pytest.approx(0.1, rel=0.1)  # the noise
    page = (project / "report" / "index.html").read_text()
    for words in ("<h1>Damped sines</h1>", "<h2>Half-lives</h2>", "residual RMSE [V]", "Worst"):
        assert words in page


@pytest.mark.slow
def test_its_own_tests_pass(project):
    said = python(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert re.search(r"\b6 passed", said)


def test_the_page_shows_the_files_that_are_there():
    text = (EXTEND / "application.md").read_text()
    shown = re.findall(r"```\{literalinclude\} (\S+)", text)
    assert {EXTEND / path for path in shown} == {
        path
        for path in (EXTEND / "damped_sine").rglob("*")
        if path.suffix in (".py", ".toml") and "__pycache__" not in path.parts
    }
