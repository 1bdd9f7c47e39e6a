"""Runs and plans for tests of `refinejax.experiments`."""

from refinejax import experiments as ex
from refinejax.experiments import Experiment

SEEDS = (42, 123, 7)
NAMES = ("i_auroc", "p_auroc", "pro")
KNOWN = {  # a log of anomaly detection, in which the largest gain was that over a rejected variant
    "baseline": ((94.5, 97.7, 85.2), (92.8, 96.6, 81.4), (92.2, 96.3, 84.5)),
    "E4": ((92.4, 96.6, 79.4), (93.0, 95.9, 79.1), (89.7, 95.7, 78.9)),
    "E5.5": ((93.3, 97.6, 87.1), (94.9, 97.3, 85.8), (94.5, 97.2, 87.2)),
}


def run(name="baseline", seed=0, metrics=None, **changes):
    fixed = {"revision": "abc", "data": "d0", "metric_version": "1", "budget": {"steps": 100}}
    given = {"config": {"variant": name}, "metrics": metrics or {"pro": 80.0 + seed % 7}}
    return ex.Run(name=name, seed=seed, **(fixed | given | changes))


def known(name):
    """The runs of one variant of the known log."""
    rows = zip(SEEDS, KNOWN[name], strict=True)
    return [run(name, seed, dict(zip(NAMES, row, strict=True))) for seed, row in rows]


def plan(log, name="E1", baseline="baseline", candidate="new", **changes):
    ids = {group.name: key for key, group in log.read().groups.items()}
    said = {"hypothesis": "it helps", "change": "a change", "metric": "pro", "margin": 1.0}
    arms = {"baseline": ids.get(baseline, baseline), "candidate": ids.get(candidate, candidate)}
    return Experiment(id=name, **(said | arms | changes))


def arm(name, values, **changes):
    return [run(name, seed, {"pro": value}, **changes) for seed, value in values.items()]
