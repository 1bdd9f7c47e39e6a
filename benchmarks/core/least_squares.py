"""What does a fit by Levenberg–Marquardt cost, and how many problems are solved?

**Cost**: 64 × 64 phase maps of a lens with three unknowns, starts off by 1 % (`benchmarks.lens`),
through a model given pixel by pixel, and through an untuned one given as an image. Every peer runs
at the settings and the tolerance that take the least CPU time while solving within 1 % of its best
share, found on other maps (`benchmarks.peers.lens_fits`). Times are of the whole call, after
compilation; CPU time counts all cores together. **Standard problems**: NIST's regressions and the
set of Moré and Wild, without bounds and with (`_standard`).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from benchmarks import lens as small_lens
from benchmarks.core import _standard
from benchmarks.evidence import EVIDENCE, Claim, faster, sentence
from benchmarks.harness import Data, Options, environment, note, race, ratio, spread
from benchmarks.lens import simulate, solved
from benchmarks.peers import lens_fits
from benchmarks.peers.least_squares import OURS as METHOD
from benchmarks.peers.lens_fits import OURS, Candidate
from benchmarks.render import Block, Table, machine, multiple, over_seeds, percent, plus_minus

TUNING = 1000  # seed of the maps that nothing else sees
WITHIN = 0.01
PARTS = {"pointwise": "pixel by pixel", "image": "as an image"}


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


def _try(candidate: Candidate, number: float, maps: small_lens.Maps) -> dict[str, Any]:
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


def measure(options: Options) -> dict[str, Any]:
    """Take all measurements. The standard problems are without chance: once for all seeds."""
    quick, seeds = options.quick, options.seeds
    return {
        "environment": environment(),
        "settings": {
            "quick": quick,
            "seeds": seeds,
            "solved_at_most": small_lens.SOLVED,
            "error": small_lens.ERROR,
            "max_steps": lens_fits.STEPS,
            "tuned_within": WITHIN,
        },
        "pointwise": speed("pointwise", lens_fits.pointwise(), quick, seeds),
        "image": speed("image", lens_fits.images(), quick, seeds),
        "nist": _standard.nist(quick),
        "more_wild": _standard.more_wild(quick),
    }


def rows(data: Data) -> Iterator[Block]:
    """Show the cost of a fit through both models; NIST's problems; Moré and Wild's."""
    settings = data["settings"]
    for part, name in PARTS.items():
        yield Table.of(_cost(name, row, unit=i == 0) for i, row in enumerate(data[part]))
    samples = [row["samples"] for row in data["pointwise"]]
    yield (
        f"64 × 64 clean maps, three unknowns, starts off by {100 * settings['error']:g} %, "
        f"float32; solved: a residual RMSE of at most {settings['solved_at_most']:g} rad. CPU time "
        "counts all cores together. Each peer runs at its best settings and tolerance of those "
        f"tried; {samples[0]:,} maps, of which slow peers get the first {min(samples)} or more; "
        f"{machine(data)}, {over_seeds(settings['seeds'])}."
    )
    yield _evidence(data)
    yield Table.of(_by_digits(data["nist"]))
    own = next(row for row in data["nist"] if row["method"] == METHOD and row["dtype"] == "float64")
    yield (
        "NIST's nonlinear regressions, from both starts: how often every param is right. "
        f"{_missed(own['failed'], 'in float64')}"
    )
    yield Table.of(_solved(data["more_wild"]))
    yield _more_wild_note(data["more_wild"])


def _cost(model: str, row: Mapping[str, Any], *, unit: bool) -> dict[str, str]:
    return {
        f"model given {model}": row["peer"],
        "CPU time a fit": multiple(row["cpu_ratio"], unit=unit),
        "time a fit": multiple(row["wall_ratio"], unit=unit),
        "CPU time, µs": plus_minus(row["cpu"], factor=1e6),
        "time, µs": plus_minus(row["wall"], factor=1e6),
        "solved, %": percent(row["solved"]),
        "first call, s more": f"{row['compile']:.1f}",
        "best at": _settings(row["settings"]),
    }


def _settings(settings: Mapping[str, Any]) -> str:
    parts = [settings[key] for key in ("residual", "linear_solver", "model") if key in settings]
    if settings.get("group", 1) > 1:
        parts.append(f"groups of {settings['group']}")
    return ", ".join([*parts, f"{settings['number']:g}"])


def _evidence(data: Data) -> str:
    said = [
        f"Given {PARTS[part]}, in CPU time, {words}"
        for part in PARTS
        for claim in _claims(data, part)
        for words in [sentence(claim, data)]
        if words
    ]
    return " ".join([EVIDENCE, *said]) if said else ""


def _by_digits(found: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    lines: dict[tuple[str, int], dict[str, str]] = {}
    for row in found:
        at = {"NIST StRD": row["method"], "steps at most": f"{row['steps']:,}"}
        line = lines.setdefault((row["method"], row["steps"]), at)
        line[f"{row['dtype']}, {row['digits_wanted']} digits"] = f"{row['right']} of {row['of']}"
    return list(lines.values())


def _solved(data: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for key, bounds in (("unbounded", "no"), ("bounded", "yes")):
        for row in data[key]["summary"]:
            yield {
                "Moré–Wild": row["method"],
                "bounds": bounds,
                "solved": f"{row['solved']} of {row['of']}",
                "to six digits": str(row["exact"]),
            }


def _more_wild_note(data: Mapping[str, Any]) -> str:
    failed = {
        key: next(row for row in data[key]["summary"] if row["method"] == METHOD)["failed"]
        for key in ("unbounded", "bounded")
    }
    return (
        f"The problems of Moré and Wild (2009), float64, at most {data['steps']} steps or "
        f"evaluations. Solved: f₀ − f ≥ (1 − {data['tau']:g})(f₀ − f_L), f_L the least known "
        "value or the least that any method here finds; to six digits: f ≤ (1 + 1e-6) f_L + "
        "1e-10. Bounds cut the optimum off in every other param. "
        f"{_missed(failed['unbounded'], 'without bounds')} "
        f"{_missed(failed['bounded'], 'with bounds')}"
    )


def _missed(names: list[str], where: str) -> str:
    return f"refinejax misses {', '.join(names) or 'none'} {where}."


def claims(data: Data) -> Iterator[Claim]:
    """Claim that a fit takes less CPU time than in other libraries."""
    for part in PARTS:
        yield from _claims(data, part)


def _claims(data: Data, part: str) -> Iterator[Claim]:
    times = {row["peer"]: [seed["cpu_ratio"] for seed in row["seeds"]] for row in data[part]}
    yield from faster(PARTS[part], data[part][0]["peer"], times)
