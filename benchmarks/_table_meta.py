"""The README's tables of meta-learning."""

from collections.abc import Mapping
from typing import Any

from benchmarks._common import plus_minus
from benchmarks._markdown import machine, markdown, seeds


def meta_estimators(data: Mapping[str, Any]) -> str:
    """How far estimators of the meta-gradient are off, and the learning rate they learn."""
    windows = sorted({row["window"] for row in data["bias"]})
    off: dict[str, dict[str, str]] = {}
    for row in data["bias"]:
        line = off.setdefault(row["estimator"], {"standard errors off": row["estimator"]})
        line[f"window {row['window']}"] = f"{row['deviations']:.1f}"
    rows = [
        {name: line.get(name, "—") for name in _columns("standard errors off", windows)}
        for line in off.values()
    ]
    noisy = data["noisy"]
    rates = [
        {"learned by": name, "rate": plus_minus(noisy["rates"][name]), "loss": plus_minus(loss, 4)}
        for name, loss in noisy["losses"].items()
    ]
    best = {"rate": f"{noisy['best_rate']:.4g}", "loss": f"{noisy['best_loss']:.4g}"}
    rates.append({"learned by": "(best, in closed form)", **best})
    number = data["settings"]["seeds"]
    count = max(row["samples"] for row in data["bias"])
    note = (
        f"By how many standard errors of their mean, over {count:,} episodes of 40 steps, "
        f"estimates of the meta-gradient are off; {machine(data)}, {number} seeds together."
    )
    told = (
        f"A learning rate for {noisy['horizon']} steps on a noisy quadratic, learned in windows of "
        f"{noisy['window']} but by backpropagation through all; {seeds(number)}."
    )
    return "\n\n".join([markdown(rows), note, markdown(rates), told])


def _columns(first: str, windows: list[int]) -> list[str]:
    return [first, *(f"window {window}" for window in windows)]
