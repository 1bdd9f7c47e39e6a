"""Measurements as runs of `refinejax.experiments`: which differences between methods are real?

A `Claim` compares one of our methods with its peers over seeds. `groups` puts its measurements into
groups of runs, a run a seed; `sentence` says in words against which peers ours is faster.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from benchmarks.harness import Data
from refinejax.experiments import Comparison, Group, Run, compare, hash_config

EVIDENCE = "By `refinejax.experiments`, with 95 % t intervals of the ratio of times over seeds."
METRIC = "log10 time"  # in units of ours, turn by turn
Times = Mapping[str, Sequence[float]]
"""Peer → its value of each seed."""


class Claim(NamedTuple):
    """One of our methods beside its peers, on one problem.

    Attributes:
        part: the problem, in words.
        ours: name of our method among the peers.
        metrics: name → peer → values, seed by seed; the first decides, others are guards.
        direction: of all metrics, "lower" or "higher" is better.
    """

    part: str
    ours: str
    metrics: Mapping[str, Times]
    direction: Literal["lower", "higher"] = "lower"


def logarithms(values: Times) -> dict[str, list[float]]:
    """Return the decimal logarithms of values."""
    return {peer: [math.log10(v) for v in found] for peer, found in values.items()}


def faster(part: str, ours: str, times: Times) -> Iterator[Claim]:
    """Claim that ours takes less time; nothing where there are no times of single seeds."""
    if times:
        yield Claim(part, ours, {METRIC: logarithms(times)})


def spread_times(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return peer → times of each seed in units of ours; {} where single seeds are not known."""
    found = {row["peer"]: ratios(row["times"]) for row in rows}
    return found if all(found.values()) else {}


def ratios(spread: Mapping[str, Any]) -> list[float]:
    """Return the values of a `spread`; of three it kept none of, those that its sums imply.

    The implied ones come in ascending order, not in the order of the seeds. For ratios to ours,
    which are 1 for ours in every seed, the order makes no difference.
    """
    if "values" in spread:
        return list(spread["values"])
    low, high, mean = spread["min"], spread["max"], spread["mean"]
    return [low, 3 * mean - low - high, high] if spread["n"] == 3 else []


def groups(benchmark: str, claim: Claim, data: Data) -> dict[str, Group]:
    """Return peer → its runs, a seed each.

    Args:
        benchmark: its name.
        claim: whose metrics the runs have.
        data: the measurements, for their settings and versions.
    """
    packages = dict(data["environment"]["packages"])
    fixed: dict[str, Any] = {
        "revision": str(packages.get("refinejax", "unknown")),
        "data": hash_config([benchmark, claim.part, dict(data["settings"])], "settings"),
        "metric_version": "1",
        "budget": {},
    }
    made = {}
    for peer, values in next(iter(claim.metrics.values())).items():
        config = {"benchmark": benchmark, "part": claim.part, "peer": peer, "packages": packages}
        made[peer] = Group(
            Run(
                name=f"{benchmark}, {claim.part}: {peer}",
                seed=seed,
                metrics={name: found[peer][seed] for name, found in claim.metrics.items()},
                config=config,
                **fixed,
            )
            for seed in range(len(values))
        )
    return made


def comparisons(claim: Claim, data: Data) -> dict[str, Comparison]:
    """Compare ours by the deciding metric with each peer that has the same seeds, two or more.

    A peer whose differences to ours are equal in all seeds is left out: it has no interval.
    """
    found = groups("", claim, data)
    if claim.ours not in found:
        return {}
    own, metric = found[claim.ours], next(iter(claim.metrics))
    return {
        peer: one
        for peer, group in found.items()
        if peer != claim.ours and group.seeds == own.seeds and len(own.seeds) > 1
        for one in [compare(group, own, metric, direction=claim.direction)]
        if one.sd > 0
    }


def sentence(claim: Claim, data: Data) -> str:
    """Say against which peers ours is faster, with the interval of the ratio; "" without peers.

    Args:
        claim: its deciding metric is the logarithm of a time.
        data: the measurements.
    """
    kinds: dict[str, list[str]] = {"faster than": [], "slower than": [], "undecided against": []}
    for peer, one in comparisons(claim, data).items():
        low, high = (10**end for end in one.interval)
        kind = "faster than" if low > 1 else "slower than" if high < 1 else "undecided against"
        kinds[kind].append(f"{peer} [{_ratio(low)}, {_ratio(high)}]")
    said = [f"{kind} {', '.join(peers)}" for kind, peers in kinds.items() if peers]
    return f"{claim.ours} is {'; '.join(said)}." if said else ""


def evidence(claims: Callable[[Data], Iterator[Claim]], data: Data) -> str:
    """Return the sentences of claims about time, with their source; "" where there are none."""
    said = [words for claim in claims(data) for words in [sentence(claim, data)] if words]
    return " ".join([EVIDENCE, *said]) if said else ""


def _ratio(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
