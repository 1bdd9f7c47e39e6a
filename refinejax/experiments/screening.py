"""Whether a short run predicts a long one: rank agreement between phases A and B."""

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from refinejax._files import canonical_json
from refinejax.experiments.log import Records
from refinejax.experiments.plans import Direction
from refinejax.experiments.runs import Group

_ALL = 8  # candidates up to which all orders are counted: 40,320
_DRAWS = 19_999


class Agreement(NamedTuple):
    """How far two phases rank the same candidates alike.

    Attributes:
        candidates: that ran in both phases.
        tau: Kendall's τ-b: 1 for the same order, −1 for the reverse, NaN if a phase ranks all
            alike.
        p: one-sided: the share of all orders of phase B that agree at least as well.
        same_best: whether the best of phase A is a best of phase B.
        regret: the loss in phase B from taking the best of phase A, in units of the metric.
    """

    candidates: tuple[str, ...]
    tau: float
    p: float
    same_best: bool
    regret: float


def rank_agreement(
    short: Mapping[str, float], full: Mapping[str, float], direction: Direction = "higher"
) -> Agreement:
    """Measure how far the short phase ranks candidates as the full one does.

    Kendall (1945), τ-b; exact p up to 8 candidates, beyond by 19,999 random orders.

    Args:
        short: candidate → mean of the metric in phase A.
        full: the same in phase B; candidates of one phase only are ignored.
        direction: "higher" or "lower" is better.

    Returns:
        τ-b, p, and the regret.

    Raises:
        ValueError: for fewer than 3 candidates in both.
    """
    names = [name for name in short if name in full]
    if len(names) < 3:
        raise ValueError(
            f"candidates: 3 or more must have run in both phases, got {', '.join(names) or 'none'}"
        )
    sign = 1.0 if direction == "higher" else -1.0
    a, b = (sign * np.array([phase[name] for name in names], float) for phase in (short, full))
    best = int(np.argmax(a))
    return Agreement(
        tuple(names), _tau(a, b), _p(a, b), bool(b[best] == b.max()), float(b.max() - b[best])
    )


def _tau(a: Any, b: Any) -> float:
    i, j = np.triu_indices(len(a), 1)
    x, y = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
    norm = math.sqrt(float(np.sum(x**2) * np.sum(y**2)))
    return float(np.sum(x * y)) / norm if norm else math.nan


def _p(a: Any, b: Any) -> float:
    """Return the share of orders of b that agree at least as well, by the numerator of τ-b."""
    n = len(a)
    i, j = np.triu_indices(n, 1)
    x, y = np.sign(a[i] - a[j]), np.sign(b[:, None] - b[None, :])
    exact = n <= _ALL
    if exact:
        orders = np.array(list(itertools.permutations(range(n))))
    else:
        rng = np.random.default_rng(0)
        orders = rng.permuted(np.tile(np.arange(n), (_DRAWS, 1)), axis=1)
    sums = sum(x[k] * y[orders[:, i[k]], orders[:, j[k]]] for k in range(len(i)))
    hits = int(np.count_nonzero(sums >= np.sum(x * y[i, j])))
    return hits / len(orders) if exact else (1 + hits) / (1 + len(orders))


def screening(records: Records, metric: str, direction: Direction = "higher") -> Agreement:
    """Measure the agreement of the phases of a log, over configs that were run in both.

    A config belongs to a phase as candidate or baseline of one of its experiments. Data, revision
    and metric version must be equal; the budget differs.

    Args:
        records: the content of the log.
        metric: compared by its mean over seeds.
        direction: "higher" or "lower" is better.

    Returns:
        τ-b, p, and the regret.

    Raises:
        ValueError: for fewer than 3 configs in both phases.
    """
    means: dict[str, dict[str, float]] = {"A": {}, "B": {}}
    groups = records.groups
    for experiment in records.experiments:
        for group in (groups.get(experiment.baseline), groups.get(experiment.candidate)):
            if group is not None:
                means[experiment.phase][_same_but_budget(group)] = float(
                    np.mean(list(group.values(metric).values()))
                )
    names = {_same_but_budget(group): group.name for group in groups.values()}
    short, full = ({names[key]: x for key, x in means[phase].items()} for phase in "AB")
    return rank_agreement(short, full, direction)


def _same_but_budget(group: Group) -> str:
    first = group.first
    return canonical_json(
        [dict(first.config), first.revision, first.data, first.metric_version], "run"
    )
