"""The README's tables of `least_squares`."""

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks._common import plus_minus
from benchmarks._markdown import machine, markdown, percent, seeds
from benchmarks._runs import EVIDENCE, claims, least_squares_times
from benchmarks._solvers import OURS


def least_squares(data: Mapping[str, Any]) -> str:
    """What a fit costs, through both models; NIST's problems; those of Moré and Wild."""
    parts = [
        _speed("given pixel by pixel", data["pointwise"]),
        _speed("given as an image", data["image"]),
        _speed_note(data),
        _speed_claims(data),
        _nist(data["nist"]),
        _nist_note(data["nist"]),
        _more_wild(data["more_wild"]),
        _more_wild_note(data["more_wild"]),
    ]
    parts = [part for part in parts if part]
    quick = ["**A quick run: too few samples to be quoted.**"]
    return "\n\n".join([*quick, *parts] if data["settings"]["quick"] else parts)


def _speed(model: str, rows: Iterable[Mapping[str, Any]]) -> str:
    return markdown(
        [
            {
                f"model {model}": row["peer"],
                "CPU time a fit": "1" if i == 0 else plus_minus(row["cpu_ratio"]) + " ×",
                "time a fit": "1" if i == 0 else plus_minus(row["wall_ratio"]) + " ×",
                "CPU time, µs": plus_minus(row["cpu"], factor=1e6),
                "time, µs": plus_minus(row["wall"], factor=1e6),
                "solved, %": percent(row["solved"]),
                "first call, s more": f"{row['compile']:.1f}",
            }
            for i, row in enumerate(rows)
        ]
    )


def _speed_note(data: Mapping[str, Any]) -> str:
    settings = data["settings"]
    samples = [row["samples"] for row in data["pointwise"]]
    return (
        f"64 × 64 clean maps, three unknowns, starts off by {100 * settings['error']:g} %, "
        f"float32; solved: a residual RMSE of at most {settings['solved_at_most']:g} rad. CPU time "
        "is that of all cores together. Each peer at its best settings and tolerance of those "
        f"tried; {samples[0]:,} maps, of which slow peers get the first {min(samples)} or more; "
        f"{machine(data)}, {seeds(settings['seeds'])}."
    )


def _speed_claims(data: Mapping[str, Any]) -> str:
    said = []
    for part, name in (("pointwise", "pixel by pixel"), ("image", "as an image")):
        times = least_squares_times(data, part)
        claim = claims("least_squares", part, times, data[part][0]["peer"], data)
        said += [f"Given {name}, in CPU time, {claim}"] if claim else []
    return " ".join([EVIDENCE, *said]) if said else ""


def _nist(rows: Iterable[Mapping[str, Any]]) -> str:
    methods: dict[tuple[str, int], dict[str, str]] = {}
    for row in rows:
        cells = methods.setdefault((row["method"], row["steps"]), {})
        cells[f"{row['dtype']}, {row['digits_wanted']} digits"] = f"{row['right']} of {row['of']}"
    return markdown(
        [
            {"NIST StRD": name, "steps at most": f"{steps:,}", **cells}
            for (name, steps), cells in methods.items()
        ]
    )


def _nist_note(rows: Iterable[Mapping[str, Any]]) -> str:
    own = next(row for row in rows if row["method"] == OURS and row["dtype"] == "float64")
    return (
        "NIST's nonlinear regressions, from both starts: how often every param is right. "
        f"{_missed(own['failed'], 'in float64')}"
    )


def _more_wild(data: Mapping[str, Any]) -> str:
    rows = []
    for key, bounds in (("unbounded", "no"), ("bounded", "yes")):
        rows += [
            {
                "Moré–Wild": row["method"],
                "bounds": bounds,
                "solved": f"{row['solved']} of {row['of']}",
                "to six digits": str(row["exact"]),
            }
            for row in data[key]["summary"]
        ]
    return markdown(rows)


def _more_wild_note(data: Mapping[str, Any]) -> str:
    own = {
        key: next(row for row in data[key]["summary"] if row["method"] == OURS)["failed"]
        for key in ("unbounded", "bounded")
    }
    return (
        f"The problems of Moré and Wild (2009), float64, at most {data['steps']} steps or "
        f"evaluations. Solved: f₀ − f ≥ (1 − {data['tau']:g})(f₀ − f_L), f_L the least that is "
        "known or that any method here finds; to six digits: f ≤ (1 + 1e-6) f_L + 1e-10. Bounds "
        "cut the optimum off in every other param. "
        f"{_missed(own['unbounded'], 'without bounds')} {_missed(own['bounded'], 'with bounds')}"
    )


def _missed(names: list[str], where: str) -> str:
    return f"refinejax misses {', '.join(names) or 'none'} {where}."
