"""What all tests share."""

import os
import tempfile

import jax
import pytest
from hypothesis import HealthCheck, Phase, settings

# Drawn cases compile programs, and are small already: no deadline, no search for smaller ones.
DRAWN = settings(
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],
)
settings.register_profile("quick", DRAWN, max_examples=20, derandomize=True)
settings.register_profile("nightly", DRAWN, max_examples=150)
settings.load_profile("quick")


def pytest_configure(config):
    """Keep compiled programs for the other worker, later modules and processes that are started.

    Each worker has a core to itself: small operations that are spread over two wait for both.
    """
    if hasattr(config, "workerinput") and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        number = int(config.workerinput["workerid"].removeprefix("gw"))
        os.sched_setaffinity(0, {cores[number % len(cores)]})
    # One that is being written by somebody else, or was when that was killed, is compiled instead.
    config.addinivalue_line("filterwarnings", "ignore:Error reading persistent compilation cache")
    if hasattr(config, "workerinput") or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = tempfile.TemporaryDirectory(prefix="refinejax-compiled-")
    config.add_cleanup(folder.cleanup)
    options = {"compilation_cache_dir": folder.name}
    options["persistent_cache_min_compile_time_secs"] = 0
    for name, value in options.items():
        os.environ[f"JAX_{name.upper()}"] = str(value)
        jax.config.update(f"jax_{name}", value)


def pytest_collection_modifyitems(items):
    """Let a worker run a module, a pair of the laws or a frame whole: it traces programs once."""
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        frame = [params["frame"]] if "frame" in params else []
        group = "-".join([item.path.stem, *params.get("pair", ()), *frame])
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_go():
    """Drop them after each module: thousands together use up the memory maps of a process."""
    yield
    jax.clear_caches()
