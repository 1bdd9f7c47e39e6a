"""Compiled programs that outlive the process."""

import os
import subprocess
import sys

import jax
import pytest

import refinejax as rj

SCRIPT = """
import sys, jax, jax.numpy as jnp, refinejax as rj
from jax._src import monitoring
hits = []
monitoring.register_event_listener(lambda name, **_: hits.append(name))
rj.keep_compiled(sys.argv[1])
problem = rj.InverseProblem(lambda p: p**2, jnp.ones(2))
rj.run_until(rj.LevenbergMarquardt(), problem, 2 * jnp.ones(2), max_steps=9)
print(sum(name == "/jax/compilation_cache/cache_hits" for name in hits))
"""


@pytest.fixture
def restored():
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def process(folder):
    environment = {k: v for k, v in os.environ.items() if "COMPILATION_CACHE" not in k}
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return int(done.stdout), {path.name for path in folder.iterdir() if "atime" not in path.name}


def test_a_second_process_compiles_nothing_that_takes_long(tmp_path):
    hits, kept = process(tmp_path)
    assert hits == 0
    assert kept
    hits, again = process(tmp_path)
    assert hits == len(kept)
    assert again == kept


def test_the_folder_of_the_user_is_taken_by_default(tmp_path, monkeypatch, restored):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert rj.keep_compiled() == tmp_path / "refinejax"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "refinejax")


def test_a_folder_that_cannot_be_written_is_named(tmp_path, restored):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"folder: cannot write in .*file"):
        rj.keep_compiled(tmp_path / "file" / "cache")
