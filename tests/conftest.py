"""What all tests share."""

import os
import re
import tempfile

import jax
import pytest
from hypothesis import HealthCheck, Phase, settings
from programs import drop_if_many

# Drawn cases compile programs, and are small already: no deadline, no search for smaller ones.
DRAWN = settings(
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],
)
settings.register_profile("quick", DRAWN, max_examples=25, derandomize=True)
settings.register_profile("nightly", DRAWN, max_examples=150)
settings.load_profile("quick")

# Modules whose cases, which are named first in the brackets of a test, have programs of their own.
CASE_BY_CASE = ("test_laws.py", "test_right_or_refused.py")


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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Let a worker run a module, a pair of the laws or a frame whole: it traces programs once.

    `pytest.mark.xdist_group` would say the same, but pytest-xdist 3.8 loses it with pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByProgram(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path, _, test = nodeid.partition("::")
            if not path.endswith(CASE_BY_CASE):
                return path
            return path + "".join(re.findall(r"[\w-]+", test.partition("[")[2])[:1])

    return ByProgram(config, log)


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_go():
    """Drop them after a module where there are many."""
    yield
    drop_if_many()
