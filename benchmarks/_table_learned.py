"""Tables of `learned_refiner` and `pipeline`."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks._common import plus_minus
from benchmarks._markdown import machine, markdown, seeds

BUDGETS = (36, 66, 306)  # five, ten and fifty steps of Levenberg–Marquardt
_PARAMS = ("xc", "yc", "S", "focal_length")


def at_cost(curve: Mapping[str, Any], budget: float) -> float:
    """Return the share solved at a cost, or 0 if not even a step can be had."""
    affordable = [s for c, s in zip(curve["cost"], curve["solved"], strict=True) if c <= budget]
    return max(affordable, default=0.0)


def learned_refiner(data: Mapping[str, Any]) -> str:
    """Share solved at equal cost, in each condition."""
    rows = []
    for condition, methods in data["conditions"].items():
        for method, curve in methods.items():
            row = {"damped sines": condition, "method": method}
            for budget in BUDGETS:
                row[f"cost {budget}"] = f"{100 * at_cost(curve, budget):.1f} %"
            rows.append(row)
    settings = data["settings"]
    note = (
        f"Solved, of {settings['tasks']:,} tasks never seen in training, by the cost in "
        "evaluations of the forward model: 3 for a gradient, 6 for normal equations (5, 10 and 50 "
        "steps of Levenberg–Marquardt). The learned one is trained on the first condition alone. "
        f"{machine(data)}, means over {settings['seeds']} trainings and tests."
    )
    checked = _checked(data["conditions"])
    return "\n\n".join([markdown(rows), note, *([checked] if checked else [])])


def _checked(conditions: Mapping[str, Any]) -> str:
    """Say what learned damping solves after so many steps, with the spread over trainings."""
    said = []
    for condition, methods in conditions.items():
        steps = methods["learned damping"]["steps"]
        shares = ", ".join(f"{percent(share)} % after {k}" for k, share in steps.items())
        said.append(f"{condition}: {shares}")
    return f"Learned damping, by steps: {'; '.join(said)}."


def percent(value: Mapping[str, float]) -> str:
    """Format a `spread` of shares near one."""
    mean, std = 100 * value["mean"], 100 * value["std"]
    return f"{mean:.1f} ± {std:.1f}" if value["n"] > 1 else f"{mean:.1f}"


def pipeline(data: Mapping[str, Any]) -> str:
    """Errors, residuals and rates of the ways from a map to a lens."""
    number, count = data["settings"]["seeds"], data["rows"][0]["maps"]
    fewer = sorted({row["maps"] for row in data["rows"]} - {count})
    less = f" ({number * fewer[0]:,} for Adam and CMA-ES)" if fewer else ""
    note = (
        "Mean absolute error in % of each range; median residual RMSE; solved: explained as well "
        "as by the truth. With the warp the truth itself leaves 1.8 rad, as a random map would: "
        "what explains such a map says nothing of its lens, and the prediction is best left as it "
        "is. "
        f"{number * count:,} held-out maps{less}, wavelength known. "
        f"{machine(data)}, {seeds(number)}."
    )
    parts = [markdown(_ways(data["rows"])), note]
    for noise in dict.fromkeys(row["noise"] for row in data["off"]):
        said = "; ".join(
            f"{row['way']} solves {percent(row['solved'])} %, {plus_minus(row['rate'])} maps a "
            "second"
            for row in data["off"]
            if row["noise"] == noise
        )
        parts.append(f"From starts off by 5 %, noise {noise}: {said}.")
    return "\n\n".join(parts)


def _ways(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    return [
        {
            "noise": row["noise"],
            "way": row["way"],
            **{f"{name}, %": plus_minus(row[name]) for name in _PARAMS},
            "RMSE, rad": plus_minus(row["rmse"]),
            "solved, %": percent(row["solved"]),
            "maps/s": plus_minus(row["rate"]) if row["rate"]["mean"] < 1e5 else "—",
        }
        for row in rows
    ]
