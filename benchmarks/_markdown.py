"""The words and numbers of the README's tables."""

from collections.abc import Mapping, Sequence
from typing import Any


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Lay rows out as a table; the first column left, the others right-aligned."""
    names = list(rows[0])
    lines = [names, [":--", *["--:"] * (len(names) - 1)], *[list(row.values()) for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(value: Mapping[str, float]) -> str:
    """Format a `spread` of shares."""
    mean, std = 100 * value["mean"], 100 * value["std"]
    return f"{mean:.0f} ± {std:.0f}" if value["n"] > 1 else f"{mean:.0f}"


def machine(data: Mapping[str, Any]) -> str:
    """Say what it was measured on."""
    here = data["environment"]
    cores = f"core{'s' * (here['cpus'] != 1)}"
    return f"{here['cpus']} {here['device'].upper()} {cores}, jax {here['packages']['jax']}"


def seeds(count: int) -> str:
    """Say how many seeds there were."""
    return "1 seed" if count == 1 else f"{count} seeds, mean ± standard deviation over them"
