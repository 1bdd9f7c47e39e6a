"""Which versions of what wrote something, and whether that differs from what runs now."""

import importlib.metadata
from collections.abc import Mapping
from typing import Any

_PACKAGES = ("refinejax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")


def versions() -> dict[str, str]:
    """Return the versions of the packages on which what is saved depends."""
    return {name: _version(name) for name in _PACKAGES}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def changes(before: Mapping[str, str]) -> str:
    """Return which packages have changed since, in words; "" if none."""
    now = versions()
    pairs = [(name, old, now.get(name, "none")) for name, old in before.items()]
    return ", ".join(f"{name} {old} (now {new})" for name, old, new in pairs if new != old)


def check_format(found: Any, known: int, source: str) -> None:
    """Insist on a format that this version can read.

    Raises:
        ValueError: if it is newer, or no format number.
    """
    if not isinstance(found, int):
        raise ValueError(f"{source}: expected a format number, got {found!r}; is it damaged?")
    if found > known:
        raise ValueError(
            f"{source} has format {found}, and this refinejax reads formats up to {known}: it was "
            "written by a newer one; pip install --upgrade refinejax"
        )
