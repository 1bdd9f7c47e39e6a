"""What all tests share."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_go():
    """Drop them after each module: thousands together use up the memory maps of a process."""
    yield
    jax.clear_caches()
