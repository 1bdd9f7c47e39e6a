"""The README's tables of meta-learning."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks._common import plus_minus
from benchmarks._markdown import machine, markdown, seeds


def meta_estimators(data: Mapping[str, Any]) -> str:
    """How far estimators of the meta-gradient are off, and the learning rate they learn."""
    windows = sorted({row["window"] for row in data["bias"]})
    off: dict[str, dict[str, str]] = {}
    for row in data["bias"]:
        line = off.setdefault(row["estimator"], {"standard errors off": row["estimator"]})
        line[f"window {row['window']}"] = f"{row['deviations']:.1f} ({_share(row):.0f} %)"
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
        "estimates of the meta-gradient are off, and by which share of its length; "
        f"{machine(data)}, {number} seeds together."
    )
    told = (
        f"A learning rate for {noisy['horizon']} steps on a noisy quadratic, learned in windows of "
        f"{noisy['window']} but by backpropagation through all; {seeds(number)}."
    )
    return "\n\n".join([markdown(rows), note, markdown(rates), told])


def _share(row: Mapping[str, Any]) -> float:
    """Return how far an estimate is off, in % of the exact gradient's length."""
    estimate, exact = np.asarray(row["estimate"]), np.asarray(row["exact"])
    return float(100 * np.linalg.norm(estimate - exact) / np.linalg.norm(exact))


def _columns(first: str, windows: list[int]) -> list[str]:
    return [first, *(f"window {window}" for window in windows)]


REPORTED = {  # elsewhere: the names and numbers of their authors
    "normal": {"opifex, its best": {"20": 1.34, "100": 0.578}},
    "uniform": {
        "LSTM (Andrychowicz et al. 2016), the better figure": {"100": 10**-1.08},
        "the same, the other figure": {"100": 10**-0.70},
    },
}


def meta_quadratics(data: Mapping[str, Any]) -> str:
    """Mean losses of learned rules on quadratics, beside tuned Adam and L-BFGS."""
    parts = []
    for law, methods in data["laws"].items():
        lengths = list(next(iter(methods.values())))
        rows = [
            {
                law: name,
                **{f"{n} steps": plus_minus(row[n]["mean"]) for n in lengths},
                f"log₁₀ at {lengths[1]}": _logarithm(row[lengths[1]]["mean"]["mean"]),
                "diverged, %": plus_minus(row[lengths[-1]]["diverged"], factor=100),
            }
            for name, row in methods.items()
        ]
        for name, known in REPORTED[law].items():
            cells = {f"{n} steps": f"{known[n]:.3g}" if n in known else "—" for n in lengths}
            last = {f"log₁₀ at {lengths[1]}": _logarithm(known["100"]), "diverged, %": "—"}
            rows.append({law: f"({name}, as reported)", **cells, **last})
        parts.append(markdown(rows))
    settings = data["settings"]
    note = (
        f"Mean loss on {settings['tasks']} held-out tasks; rules were trained on 20 steps. Adam "
        "has its own best rate and schedule for each number of steps; annealed: steps times half a "
        "cosine over as many; "
        f"{machine(data)}, {seeds(settings['seeds'])} (of training too)."
    )
    return "\n\n".join([*parts, note])


def _logarithm(value: float) -> str:
    return f"{np.log10(value):.2f}"


def meta_sinusoid(data: Mapping[str, Any]) -> str:
    """Errors of few-shot regression after one step and ten."""
    titles = {"1": "1 step", "10": "10 steps", "best": "10 steps, best on support"}
    rows = [
        {"sinusoids, K = 10": name}
        | {title: plus_minus(row[k]) if row[k] else "diverges" for k, title in titles.items()}
        for name, row in data["rows"].items()
    ]
    for name, one, ten in (
        ("(MAML, public code, as reported)", "0.67", "—"),
        ("(Meta-SGD, as reported)", "0.31", "—"),
        ("(opifex MAML, as reported)", "0.58", "0.21"),
    ):
        rows.append(dict(zip(rows[0], (name, one, ten, "—"), strict=True)))
    settings = data["settings"]
    note = (
        f"Mean squared error on 100 points of {settings['tasks']} new sinusoids, learned from 10; "
        "best on support: of the ten steps, the one with the least loss on those 10, which is what "
        f"`run` returns. {settings['steps']:,} steps of training; {seeds(settings['seeds'])}."
    )
    return "\n\n".join([markdown(rows), note])


def meta_lista(data: Mapping[str, Any]) -> str:
    """Sparse recovery by layers, and the lasso by rules."""
    names = {"lista": "LISTA", "cpss": "LISTA-CPSS", "alista": "ALISTA"}
    reported = {"lista": -35, "cpss": -63, "alista": -79}
    layers = [
        {
            "sparse recovery": names[kind],
            "NMSE, dB": plus_minus(value),
            "reported, dB": str(reported[kind]),
        }
        for kind, value in data["recovery"].items()
    ]
    known = {"FISTA": "6e-5", "RNNprop": "5.5e-4", "Adam, tuned": "4e-2"}
    rules = [
        {
            "lasso": name,
            "(f − f*)/f*": f"{value['mean']:.1e} ± {value['std']:.1e}",
            "reported": known.get(name, "—"),
        }
        for name, value in data["lasso"].items()
    ]
    settings = data["settings"]
    m, n = settings["size"]
    note = (
        f"A of {m} × {n}, {settings['layers']} layers; lasso of 25 × 50 after "
        f"{settings['far']:,} steps. Reported: Open-L2O (Chen et al. 2022). "
        f"{seeds(settings['seeds'])}."
    )
    return "\n\n".join([markdown(layers), markdown(rules), note])


def meta_digits(data: Mapping[str, Any]) -> str:
    """Steps of a learned rule on networks it has not seen, beside tuned Adam."""
    settings = data["settings"]
    far = settings["far"]
    rows = [
        {
            "hidden layers": row["network"],
            "by": row["method"],
            "target": plus_minus(row["target"]),
            "steps to it": plus_minus(row["steps"]),
            f"loss after {far}": plus_minus(row["final"]),
            "diverged, %": plus_minus(row["diverged"], factor=100),
        }
        for row in data["rows"]
    ]
    note = (
        "Target: the mean held-out cross entropy that Adam reaches in "
        f"{settings['ahead']} steps, at the best of its rates and schedules for each row; its loss "
        f"after {far} is at the best for those. {settings['tasks']} networks; the rule is trained "
        f"on {settings['horizon']} steps, {settings['steps']:,} times; "
        f"{seeds(settings['seeds'])} (of training too)."
    )
    return "\n\n".join([markdown(rows), note])


def meta_speed(data: Mapping[str, Any]) -> str:
    """What a step of meta-training costs, beside opifex's."""
    parts = {"step": "the estimate", "training": "a step of `meta_train`, second call"}
    rows = [
        {
            "tasks": f"{row['tasks']:,}",
            "time of": parts[row["part"]],
            "by": row["peer"],
            "ratio": "1" if row["peer"] == "refinejax" else plus_minus(row["times"]) + " ×",
            "µs": plus_minus(row["micros"]),
            "first call, s more": plus_minus(row["compile"]),
        }
        for row in data["rows"]
    ]
    note = (
        "PES on 10-D quadratics, windows of 20 steps, the learning rate of descent learned. "
        f"{machine(data)}, {seeds(data['settings']['seeds'])}."
    )
    return "\n\n".join([markdown(rows), note])


def meta_lens(data: Mapping[str, Any]) -> str:
    """How many steps sooner lenses are fitted, on problems more and less like those trained on."""
    far = data["settings"]["far"]
    rows = [
        {
            "lenses": row["kind"],
            "by": row["method"],
            "steps": plus_minus(row["steps"]),
            f"{far} / steps": plus_minus(row["speed"]),
            "reached, %": plus_minus(row["reached"], factor=100),
        }
        for row in data["rows"]
    ]
    settings = data["settings"]
    note = (
        f"Mean steps to the loss that Adam reaches in {far} at its best rate and schedule for "
        f"those problems, {far} where it is not reached; {settings['tasks']} lenses, "
        f"{seeds(settings['seeds'])} (of training too)."
    )
    return "\n\n".join([markdown(rows), note])
