"""The README's tables of populations."""

from collections.abc import Mapping
from typing import Any

from benchmarks._common import plus_minus
from benchmarks._markdown import machine, markdown, percent, seeds
from benchmarks._runs import EVIDENCE, claims, spread_times

_OURS = "refinejax"


def populations(data: Mapping[str, Any]) -> str:
    """What a population costs on phase maps; then the hybrid."""
    settings, both = data["settings"], data["hybrid"]
    rows = [
        {
            "CMA-ES on phase maps": row["peer"],
            "time a map": "1" if row["peer"] == _OURS else plus_minus(row["times"]) + " ×",
            "maps/s": plus_minus(row["rate"]),
            "solved, %": percent(row["solved"]),
            "first call, s more": f"{row['compile']:.1f}",
            "peak memory, MiB": f"{row['memory']:.0f}",
        }
        for row in data["rows"]
    ]
    note = (
        "20 generations of 50 candidates a map of 64 × 64, three unknowns, starts off by 1 %, "
        f"float32; {settings['maps']} maps a seed (evosax: the first {settings['batched']}, pycma: "
        f"{settings['one_by_one']}, and solved is the share of those); "
        f"{machine(data)}, {seeds(settings['seeds'])}. Memory is beyond imports and data, with "
        "what compilation takes."
    )
    share, rate = plus_minus(both["exact"], factor=100), plus_minus(both["rate"])
    hybrid = (
        "From starts off by 5 %, CMA-ES on 16 × 16 pixels and then Levenberg–Marquardt on all "
        f"bring {share} % of the maps to machine precision (a residual RMSE below 2e-5 rad), "
        f"{rate} maps a second."
    )
    rivals = [row for row in data["rows"] if row["peer"] != f"{_OURS}, 16 × 16 pixels"]
    said = claims("populations", "speed", spread_times(rivals), _OURS, data)
    parts = [markdown(rows), note, f"{EVIDENCE} {said}" if said else "", hybrid]
    return "\n\n".join(part for part in parts if part)


def compiled(data: Mapping[str, Any]) -> str:
    """What the second process saves by what the first has compiled."""
    rows = [
        {
            "fresh processes with `keep_compiled`": row["job"],
            "first begins in, s": plus_minus(row["begin_cold"]),
            "second, s": plus_minus(row["begin_warm"]),
            "ratio": plus_minus(row["begin_ratio"]),
            "of the whole process": plus_minus(row["whole_ratio"]),
        }
        for row in data["rows"]
    ]
    count = data["settings"]["seeds"]
    repeats = "once" if count == 1 else f"{count} times, mean ± standard deviation over them"
    note = (
        f"{data['rows'][0]['maps']} phase maps. To begin is what the first call takes beyond a "
        "later one: tracing, and compiling or reading what was compiled. The whole process has "
        f"Python, imports and one call in it. {machine(data)}, {repeats}."
    )
    return "\n\n".join([markdown(rows), note])


def evolution(data: Mapping[str, Any]) -> str:
    """Generations beside pycma; what bounds cost; Rastrigin functions."""
    return "\n\n".join([_agreement(data), _bounds(data), _rastrigin(data)])


def _agreement(data: Mapping[str, Any]) -> str:
    rows = [
        {
            "generations to 1e-8": f"{row['function']}, {row['n']}-D",
            "refinejax": plus_minus(row["ours"]),
            "pycma": plus_minus(row["pycma"]),
            "solved": f"{row['ours']['n']} and {row['pycma']['n']} of {row['of']}",
        }
        for row in data["agreement"]
    ]
    note = "Mean ± standard deviation over starts, the same for both; float64."
    return "\n\n".join([markdown(rows), note])


def _bounds(data: Mapping[str, Any]) -> str:
    places = list(dict.fromkeys(row["where"] for row in data["bounds"]))
    ways = list(dict.fromkeys(row["way"] for row in data["bounds"]))
    found = {(row["where"], row["way"]): row for row in data["bounds"]}
    rows = [
        {"evaluations to 1e-8": way, **{f"optimum {p}": _cell(found.get((p, way))) for p in places}}
        for way in ways
    ]
    note = "An ellipsoid of condition 100 in [−1, 1]⁵; in parentheses the share that is solved, %."
    return "\n\n".join([markdown(rows), note])


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "—"
    share = f"({100 * row['solved']:.0f})"
    return f"{plus_minus(row['evaluations'])} {share}" if row["evaluations"] else f"none {share}"


def _rastrigin(data: Mapping[str, Any]) -> str:
    sizes = list(dict.fromkeys(row["n"] for row in data["rastrigin"]))
    methods = list(dict.fromkeys(row["method"] for row in data["rastrigin"]))
    found = {(row["n"], row["method"]): row for row in data["rastrigin"]}
    rows = [
        {
            "Rastrigin functions of Open-L2O": method,
            **{f"loss, n = {n}": plus_minus(found[n, method]["loss"]) for n in sizes},
        }
        for method in methods
    ]
    budgets = " and ".join(f"{found[n, methods[0]]['budget']:,}" for n in sizes)
    note = (
        f"Means over {data['rastrigin'][0]['functions']} functions, "
        f"{seeds(data['settings']['seeds'])}; {budgets} evaluations of the population. "
        "The optimum: the best that is known."
    )
    return "\n\n".join([markdown(rows), note])


def bbob(data: Mapping[str, Any]) -> str:
    """How many functions are solved."""
    settings = data["settings"]
    rows = [
        {
            "BBOB": row["method"],
            f"solved of {row['of']}": plus_minus(row["solved"]),
        }
        for row in data["rows"]
    ]
    note = (
        f"24 functions in {settings['dimension']} dimensions, two instances, at most "
        f"{settings['budget']:,} evaluations, to 1e-8; {seeds(settings['seeds'])}."
    )
    return "\n\n".join([markdown(rows), note])
