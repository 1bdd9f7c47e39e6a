"""Which package versions wrote a file, and whether they differ from those that run now."""

import importlib.metadata
from collections.abc import Mapping
from typing import Any

_PACKAGES = ("refinejax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")


def versions() -> dict[str, str]:
    """Return the versions of the packages on which the saved values depend."""
    return {name: _version(name) for name in _PACKAGES}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def changes(before: Mapping[str, str]) -> str:
    """Return which packages have changed, as text; "" if none has.

    Args:
        before: package → version at the time of writing.
    """
    now = versions()
    pairs = [(name, old, now.get(name, "none")) for name, old in before.items()]
    return ", ".join(f"{name} {old} (now {new})" for name, old, new in pairs if new != old)


def check_format(found: Any, known: int, source: str) -> None:
    """Raise unless this version of the package can read a format.

    Args:
        found: the number of the format.
        known: the newest format that can be read.
        source: the file or folder, for the error.

    Raises:
        ValueError: if the format is newer, or not a number.
    """
    if not isinstance(found, int):
        raise ValueError(f"{source}: expected a format number, got {found!r}; is it damaged?")
    if found > known:
        raise ValueError(
            f"{source} has format {found}, and this refinejax reads formats up to {known}: it was "
            "written by a newer one; pip install --upgrade refinejax"
        )
