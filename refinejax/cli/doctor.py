"""`refinejax doctor`: versions, devices, precision, compilation cache, and their problems."""

import argparse
import importlib.metadata
import os
import platform
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from packaging.requirements import Requirement
from packaging.version import Version

from refinejax.commands.files import print_json
from refinejax.commands.options import add_shared

_PACKAGES = ("refinejax", "jax", "jaxlib", "flax", "optax", "evosax", "orbax-checkpoint", "numpy")
_EXTRAS = {"matplotlib": "plot"}
_FREE = 2**30  # bytes; with less, a compilation cache does more harm than good


class Diagnosis(NamedTuple):
    """The state of an installation.

    Attributes:
        facts: versions, devices and the like, by name.
        problems: errors in the installation, each with its remedy.
        advice: possible improvements.
    """

    facts: dict[str, Any]
    problems: list[str]
    advice: list[str]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command.

    Args:
        parser: of the command.
    """
    parser.description = "Versions, devices, precision, compilation cache, and their problems."
    add_shared(parser, "json")


def run(options: argparse.Namespace) -> int:
    """Print the diagnosis.

    Args:
        options: of the command.

    Returns:
        The exit code: 1 if there are problems.
    """
    diagnosis = diagnose()
    if options.json:
        print_json(**diagnosis._asdict())
    else:
        _print_diagnosis(diagnosis)
    return 1 if diagnosis.problems else 0


def _print_diagnosis(diagnosis: Diagnosis) -> None:
    facts = dict(diagnosis.facts)
    for name, version in facts.pop("versions").items():
        print(f"{name:<18} {version or 'not installed'}")
    for name, fact in facts.items():
        print(f"{name:<18} {', '.join(fact) if isinstance(fact, list) else fact}")
    for text in diagnosis.problems:
        print(f"\nproblem: {text}")
    for text in diagnosis.advice:
        print(f"\nadvice: {text}")
    if not diagnosis.problems:
        print("\nno problems found")


def diagnose() -> Diagnosis:
    """Look at versions, devices, precision and compilation cache."""
    versions = {name: _version(name) for name in (*_PACKAGES, *_EXTRAS)}
    devices = [str(device.device_kind) for device in jax.devices()]
    cache = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    facts = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        "versions": versions,
        "backend": jax.default_backend(),
        "devices": devices,
        "precision": "float64" if jax.config.jax_enable_x64 else "float32",  # pyright: ignore[reportAttributeAccessIssue]
        "cache": cache or "none",
    }
    return Diagnosis(facts, _problems(versions, cache), _advice(versions, cache))


def _problems(versions: dict[str, str | None], cache: str | None) -> list[str]:
    problems = [*_outdated(versions), *_arithmetic()]
    if versions["jax"] != versions["jaxlib"]:
        problems.append(
            f"jax {versions['jax']} and jaxlib {versions['jaxlib']} differ; reinstall: "
            "pip install --upgrade jax"
        )
    if jax.default_backend() == "cpu" and _has_nvidia() and not os.environ.get("JAX_PLATFORMS"):
        problems.append(
            "there is an NVIDIA GPU but JAX does not use it; pip install 'refinejax[cuda13]' (or "
            "cuda12 for older drivers)"
        )
    if cache and "://" not in cache:
        problems += _cache_problems(Path(cache))
    return problems


def _outdated(versions: dict[str, str | None]) -> list[str]:
    """Compare with the floors that the package states."""
    found = []
    for line in _requirements():
        package = Requirement(line)
        if package.marker is not None and not package.marker.evaluate({"extra": ""}):
            continue  # of an extra, or of another system
        have = versions.get(package.name) or _version(package.name)
        if have is None:
            found.append(f"{package.name} is not installed; pip install {package.name}")
            continue
        found += [
            f"{package.name} {have} is older than {floor.version}; "
            f"pip install --upgrade {package.name}"
            for floor in package.specifier
            if floor.operator == ">=" and Version(have) < Version(floor.version)
        ]
    return found


def _requirements() -> list[str]:
    try:
        return importlib.metadata.requires("refinejax") or []
    except importlib.metadata.PackageNotFoundError:  # run from its sources
        return []


def _arithmetic() -> list[str]:
    """Compile and run something whose result is known."""
    total = float(jax.jit(lambda x: jnp.sum(x * x))(jnp.arange(10.0)))
    return [] if total == 285.0 else [f"JAX computed Σk² to 9 as {total}, not 285; reinstall jax"]


def _cache_problems(folder: Path) -> list[str]:
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return [f"compilation cache {folder}: not a folder that can be written; mkdir -p {folder}"]
    free = shutil.disk_usage(folder).free
    if free < _FREE:
        return [f"compilation cache {folder}: only {free / 2**20:.0f} MiB free on its disk"]
    return []


def _advice(versions: dict[str, str | None], cache: str | None) -> list[str]:
    advice = [
        f"{name} is not installed; for reports: pip install 'refinejax[{extra}]'"
        for name, extra in _EXTRAS.items()
        if versions[name] is None
    ]
    if not cache:
        advice.append(
            "no compilation cache: set JAX_COMPILATION_CACHE_DIR to a folder, and a second process "
            "starts in a fraction of the time"
        )
    return advice


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _has_nvidia() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
