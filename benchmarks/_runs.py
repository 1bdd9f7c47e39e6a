"""Measurements as runs: is what the tables say of ours and theirs more than luck?"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from refinejax.experiments import Comparison, Group, Run, compare, hash_config

EVIDENCE = "By `refinejax.experiments`, with 95 % t intervals of the ratio of times over seeds."
METRIC = "log10 time"  # in units of ours, turn by turn
Times = Mapping[str, Sequence[float]]


def claims(benchmark: str, part: str, times: Times, ours: str, data: Mapping[str, Any]) -> str:
    """Say against which peers the time of ours is shorter, with an interval over seeds.

    Args:
        benchmark: its name.
        part: of it, such as a problem.
        times: peer → time of each seed in units of ours.
        ours: which of the peers is.
        data: the measurements, for their settings and versions.
    """
    found = comparisons(timed_groups(benchmark, part, times, data), ours)
    kinds: dict[str, list[str]] = {"faster than": [], "slower than": [], "undecided against": []}
    for peer, one in found.items():
        low, high = (10**end for end in one.interval)
        kind = "faster than" if low > 1 else "slower than" if high < 1 else "undecided against"
        kinds[kind].append(f"{peer} [{_ratio(low)}, {_ratio(high)}]")
    said = [f"{kind} {', '.join(peers)}" for kind, peers in kinds.items() if peers]
    return f"{ours} is {'; '.join(said)}." if said else ""


def _ratio(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def comparisons(found: Mapping[str, Group], ours: str) -> dict[str, Comparison]:
    """Compare ours with each peer that ran the same seeds, two or more, and differs over them."""
    if ours not in found:
        return {}
    own = found[ours]
    return {
        peer: one
        for peer, group in found.items()
        if peer != ours and group.seeds == own.seeds and len(own.seeds) > 1
        for one in [compare(group, own, METRIC, direction="lower")]
        if one.sd > 0
    }


def timed_groups(
    benchmark: str, part: str, times: Times, data: Mapping[str, Any]
) -> dict[str, Group]:
    """Return peer → its runs, with the logarithm of its time of each seed in units of ours."""
    logs = {peer: [math.log10(value) for value in values] for peer, values in times.items()}
    return groups(benchmark, part, {METRIC: logs}, data)


def groups(
    benchmark: str, part: str, metrics: Mapping[str, Times], data: Mapping[str, Any]
) -> dict[str, Group]:
    """Return peer → its runs, a seed each, from metric → peer → its values."""
    settings, packages = dict(data["settings"]), data["environment"]["packages"]
    fixed: dict[str, Any] = {
        "revision": str(packages.get("refinejax", "unknown")),
        "data": hash_config([benchmark, part, settings], "settings"),
        "metric_version": "1",
        "budget": {},
    }
    made = {}
    for peer, values in next(iter(metrics.values())).items():
        config = {"benchmark": benchmark, "part": part, "peer": peer, "packages": dict(packages)}
        made[peer] = Group(
            Run(
                name=f"{benchmark}, {part}: {peer}",
                seed=seed,
                metrics={name: found[peer][seed] for name, found in metrics.items()},
                config=config,
                **fixed,
            )
            for seed in range(len(values))
        )
    return made


def least_squares_times(data: Mapping[str, Any], part: str) -> dict[str, list[float]]:
    """Return peer → CPU time a fit of each seed in units of ours."""
    return {row["peer"]: [seed["cpu_ratio"] for seed in row["seeds"]] for row in data[part]}


def spread_times(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return peer → times of each seed in units of ours; {} where they cannot be had."""
    found = {row["peer"]: ratios(row["times"]) for row in rows}
    return found if all(found.values()) else {}


def ratios(spread: Mapping[str, Any]) -> list[float]:
    """Return the values of a `spread`; of three, where it kept none, what its sums make them.

    These come in ascending order: it is that of the seeds only by chance, which for ratios to ours,
    whose own are 1 in every seed, is all the same.
    """
    if "values" in spread:
        return list(spread["values"])
    low, high, mean = spread["min"], spread["max"], spread["mean"]
    return [low, 3 * mean - low - high, high] if spread["n"] == 3 else []


def batching_times(data: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Return problem → peer → time of each seed in units of the engine's."""
    found: dict[str, dict[str, list[float]]] = {}
    for case in data["cases"]:
        part = f"{case['problem']}, {case['tail']}, {case['batch']} samples"
        peers = found.setdefault(part, {"engine": []})
        peers["engine"].append(1.0)
        for peer, gain in case["gain"].items():
            peers.setdefault(peer, []).append(gain)
    return found


def batching_claims(data: Mapping[str, Any]) -> str:
    """Count the problems on which the engine is faster, slower or undecided."""
    counts: dict[str, list[int]] = {}
    for part, times in batching_times(data).items():
        found = comparisons(timed_groups("continuous_batching", part, times, data), "engine")
        for peer, one in found.items():
            row = counts.setdefault(peer, [0, 0, 0])
            row[0 if one.interval[0] > 0 else 1 if one.interval[1] < 0 else 2] += 1
    names = {"whole": "`vmap` of all", "chunks": "chunks", "best chunks": "the best chunks"}
    said = [
        f"{names[peer]}: faster in {row[0]}, slower in {row[1]}, undecided in {row[2]} of "
        f"{sum(row)}"
        for peer, row in counts.items()
    ]
    return f"{EVIDENCE} The engine against {'; '.join(said)}." if said else ""
