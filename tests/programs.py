"""Compiled programs of the process that runs the tests."""

from pathlib import Path

import jax

MAPS = 30_000  # Linux grants a process 65,530 memory maps; thousands of programs use them up


def drop_if_many() -> None:
    """Forget all compiled programs where they take many memory maps; they are costly to make."""
    try:
        maps = Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:  # not Linux
        maps = MAPS
    if maps >= MAPS:
        jax.clear_caches()
