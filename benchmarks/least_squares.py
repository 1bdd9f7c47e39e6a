"""Levenberg–Marquardt against that of others: cost of a fit, and how many problems are solved.

**Cost**: 64 × 64 phase maps of a lens with three unknowns, starts off by 1 % (`_lens`), through a
model given pixel by pixel, and through one given as an image that nobody tuned. Every peer runs at
the settings and the tolerance that take the least CPU time of those that solve within 1 % of its
most, found on maps of their own (`_peers`). Times are of the whole call, after compilation; CPU
time is that of all cores together. **Standard problems**: NIST's regressions and the set of Moré
and Wild, without bounds and with (`_standard`).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import _lens, _peers, _standard
from benchmarks._common import (
    environment,
    note,
    plus_minus,
    race,
    ratio,
    script,
    show,
    spread,
)
from benchmarks._lens import simulate, solved
from benchmarks._peers import OURS, Candidate

TUNING = 1000  # seed of the maps that nothing else sees
WITHIN = 0.01


def tune(candidates: Iterable[Candidate], count: int, quick: bool) -> dict[str, dict[str, Any]]:
    """Return the best settings of each peer and all that was tried.

    Args:
        candidates: several of a peer.
        count: maps for the fastest.
        quick: whether to take each peer's first without trying.
    """
    tried: dict[str, list[tuple[dict[str, Any], Candidate]]] = {}
    for candidate in candidates:
        known = tried.setdefault(candidate.peer, [])
        if quick and known:
            continue
        maps = simulate(_few(candidate, count), TUNING)
        numbers = candidate.numbers[:1] if quick else candidate.numbers
        known += [(_try(candidate, number, maps), candidate) for number in numbers]
    return {peer: _best(rows) for peer, rows in tried.items()}


def _try(candidate: Candidate, number: float, maps: _lens.Maps) -> dict[str, Any]:
    times, lenses = race({"it": lambda: candidate.solve(maps, number)}, 1)
    return {
        **candidate.settings,
        "number": number,
        "cpu": times["it"].cpu[0] / len(maps.turns),
        "solved": float(np.mean(solved(maps, lenses["it"]))),
    }


def _best(rows: list[tuple[dict[str, Any], Candidate]]) -> dict[str, Any]:
    most = max(row["solved"] for row, _ in rows)
    good = [pair for pair in rows if pair[0]["solved"] >= most - WITHIN]
    chosen, candidate = min(good, key=lambda pair: pair[0]["cpu"])
    return {"candidate": candidate, "chosen": chosen, "tried": [row for row, _ in rows]}


def _few(candidate: Candidate, count: int) -> int:
    return max(min(16, count // 32), round(candidate.share * count))


def speed(
    name: str, candidates: Iterable[Candidate], quick: bool, seeds: int
) -> list[dict[str, Any]]:
    """Time all peers in turns on the same maps: a row for each."""
    count = 64 if quick else 2048
    note(f"{name}: tuning")
    peers = tune(candidates, 32 if quick else 512, quick)
    jax.clear_caches()  # compile again below, where the first call is timed
    runs = []
    for seed in range(seeds):
        note(f"{name}: seed {seed}")
        runs.append(_speed_once(peers, count, seed, 1 if quick else 5))
    columns = ("cpu_ratio", "wall_ratio", "cpu", "wall", "solved")
    return [
        {
            "peer": peer,
            "samples": runs[0][peer]["samples"],
            "settings": found["chosen"],
            **{key: spread([run[peer][key] for run in runs]) for key in columns},
            "compile": runs[0][peer]["compile"],
            "seeds": [run[peer] for run in runs],
            "tried": found["tried"],
        }
        for peer, found in peers.items()
    ]


def _speed_once(
    peers: dict[str, dict[str, Any]], count: int, seed: int, repeats: int
) -> dict[str, dict[str, Any]]:
    maps = simulate(count, seed)
    own = {peer: maps.first(_few(found["candidate"], count)) for peer, found in peers.items()}

    def run(peer: str) -> np.ndarray:
        found = peers[peer]
        return found["candidate"].solve(own[peer], found["chosen"]["number"])

    clocks, lenses = race({peer: lambda peer=peer: run(peer) for peer in peers}, repeats)
    each = {
        peer: [np.array(runs) / len(own[peer].turns) for runs in (clock.cpu, clock.runs)]
        for peer, clock in clocks.items()
    }
    cpu, wall = each[OURS]
    return {
        peer: {
            "samples": len(own[peer].turns),
            "cpu_ratio": ratio(each[peer][0].tolist(), cpu.tolist()),
            "wall_ratio": ratio(each[peer][1].tolist(), wall.tolist()),
            "cpu": float(np.median(each[peer][0])),
            "wall": float(np.median(each[peer][1])),
            "compile": clocks[peer].compile,
            "solved": float(np.mean(solved(own[peer], lenses[peer]))),
        }
        for peer in peers
    }


def measure(quick: bool, seeds: int) -> dict[str, Any]:
    """Take all measurements. The standard problems are without chance: once for all seeds."""
    return {
        "environment": environment(),
        "settings": {
            "quick": quick,
            "seeds": seeds,
            "solved_at_most": _lens.SOLVED,
            "error": _lens.ERROR,
            "max_steps": _peers.STEPS,
            "tuned_within": WITHIN,
        },
        "pointwise": speed("pointwise", _peers.pointwise(), quick, seeds),
        "image": speed("image", _peers.images(), quick, seeds),
        "nist": _standard.nist(quick),
        "more_wild": _standard.more_wild(quick),
    }


def report(data: dict[str, Any]) -> None:
    """Print what was measured."""
    for model in ("pointwise", "image"):
        show(f"A fit, {model} model", [_row(row) for row in data[model]])
    show(
        "NIST",
        [
            {
                "method": f"{row['method']}, {row['steps']}",
                "dtype": row["dtype"],
                "right": f"{row['right']} of {row['of']}",
                "failed": ", ".join(row["failed"]),
            }
            for row in data["nist"]
        ],
    )
    for key in ("unbounded", "bounded"):
        rows = data["more_wild"][key]["summary"]
        show(
            f"Moré and Wild, {key}",
            [
                {
                    "method": row["method"],
                    "solved": f"{row['solved']} of {row['of']}",
                    "exact": str(row["exact"]),
                    "failed": ", ".join(row["failed"]),
                }
                for row in rows
            ],
        )


def _row(row: dict[str, Any]) -> dict[str, str]:
    return {
        "peer": row["peer"],
        "CPU time": plus_minus(row["cpu_ratio"]),
        "time": plus_minus(row["wall_ratio"]),
        "CPU µs": plus_minus(row["cpu"], factor=1e6),
        "µs": plus_minus(row["wall"], factor=1e6),
        "solved, %": plus_minus(row["solved"], factor=100),
        "first call, s more": f"{row['compile']:.1f}",
        "at": _settings(row["settings"]),
    }


def _settings(settings: dict[str, Any]) -> str:
    parts = [settings[key] for key in ("residual", "linear_solver", "model") if key in settings]
    if settings.get("group", 1) > 1:
        parts.append(f"groups of {settings['group']}")
    return ", ".join([*parts, f"{settings['number']:g}"])


def main(arguments: Sequence[str] | None = None) -> None:
    script(__doc__, measure, report, arguments)


if __name__ == "__main__":
    main()
