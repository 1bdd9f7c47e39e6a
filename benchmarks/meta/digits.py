"""Does a learned optimizer train networks that it has not seen? On scikit-learn's digits.

A rule is trained on 50 steps of networks with one hidden layer of 20, minibatches of 32, by the
loss on held-out rows; the weights kept are the best on held-out tasks over 250 steps. It is used
for 250 on that and on other architectures, on halves of the data that are split anew. The target is
the mean held-out cross entropy to which Adam comes in 100 steps, at the best of its rates and
schedules for each architecture and seed; given are the steps to it, 2,500 where it is not reached.
Diverged: ends above its start.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from benchmarks.evidence import Claim, logarithms
from benchmarks.harness import Data, Options, environment, note, spreads
from benchmarks.meta.quadratics import adam
from benchmarks.render import Block, Table, over_seeds, plus_minus
from refinejax import Gradient
from refinejax.learned import RuleConfig
from refinejax.meta import FullUnroll, Trajectory, meta_train, traces
from refinejax.tasks.classification import MLPTraining
from refinejax.tasks.distribution import Split
from refinejax.training import TrainingConfig

RULE = RuleConfig("rnnprop", width=8, layers=2)
NETWORKS: dict[str, Any] = {
    "20 (as trained)": {"hidden": (20,)},
    "100": {"hidden": (100,)},
    "20, 20": {"hidden": (20, 20)},
    "20, tanh": {"hidden": (20,), "activation": "tanh"},
}
LEARNED = "RNNprop, learned"
RATES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 1.0)
HORIZON, AHEAD, FAR = 50, 100, 250


def digits(**network: Any) -> MLPTraining:
    inputs, labels = load_digits(return_X_y=True)
    return MLPTraining(
        jnp.asarray(inputs / 16, jnp.float32), jnp.asarray(labels, jnp.int32), **network
    )


@functools.partial(jax.jit, static_argnums=(3, 4))
def curves(tasks: Any, refiner: Any, key: Any, count: int, steps: int) -> Any:
    """Return held-out losses at the start and after each step, shape (count, steps + 1)."""
    inner = Trajectory(Split(tasks, "test"), RULE, horizon=steps)
    return traces(inner, refiner, key, count=count, steps=steps, batch=count)


def learned(seed: int, steps: int, far: int) -> Any:
    """Train the rule; keep the weights that are best over ``far`` steps on held-out tasks."""
    inner = Trajectory(digits(hidden=(20,)), RULE, horizon=HORIZON, scale="plain", judged=True)
    config = TrainingConfig(
        steps,
        "adam",
        5e-3,
        warmup=min(20, steps - 1),
        clip=1.0,
        validate_every=max(1, steps // 15),
        log_every=max(1, steps // 15),
        seed=seed,
    )
    return meta_train(FullUnroll(inner, batch=8, parts=1), config, steps=far, count=16).weights


def first_below(curve: np.ndarray, target: float) -> float:
    below = np.flatnonzero(curve <= target)
    return float(below[0]) if len(below) else float("inf")


def tuned_adam(tasks: Any, seed: int, count: int, ahead: int, far: int) -> dict[int, Any]:
    """Return the best mean loss after ``ahead`` and after ``far`` steps, each with its own rate."""
    tuning, test = jax.random.key(700 + seed), jax.random.key(seed)
    best: dict[int, Any] = {}
    for length in (ahead, far):
        found = []
        for cosine in (0.0, 1.0):
            for rate in RATES:
                made = Gradient(adam, {"rate": rate, "length": float(length), "cosine": cosine})
                curve = np.asarray(curves(tasks, made, tuning, count, far)).mean(axis=0)
                found.append((float(curve[: length + 1].min()), rate, cosine, made))
        _, rate, cosine, made = min(found, key=lambda x: x[0])
        curve = np.asarray(curves(tasks, made, test, count, far))
        best[length] = {"rate": rate, "cosine": cosine, "curve": curve}
    return best


def sizes(quick: bool) -> tuple[int, int, int, int]:
    """Return steps of training, tasks, and the steps that Adam has to the target and in all."""
    return (4, 4, 10, 20) if quick else (1500, 16, AHEAD, FAR)


def one_seed(quick: bool, seed: int) -> dict[tuple[str, str], dict[str, float]]:
    """Train a rule, and return its row and Adam's for each architecture."""
    steps, count, ahead, far = sizes(quick)
    networks = dict(list(NETWORKS.items())[:2]) if quick else NETWORKS
    note(f"seed {seed}: training")
    rule, key = learned(seed, steps, far), jax.random.key(seed)
    rows = {}
    for kind, network in networks.items():
        note(f"seed {seed}: {kind}")
        tasks = digits(**network)
        adams = tuned_adam(tasks, seed, count, ahead, far)
        target = float(adams[ahead]["curve"].mean(axis=0)[: ahead + 1].min())
        found = {"Adam, tuned": adams[far]["curve"]}
        found[LEARNED] = np.asarray(curves(tasks, rule, key, count, far))
        for name, curve in found.items():
            mean = curve.mean(axis=0)
            reached = adams[ahead]["curve"].mean(axis=0) if name == "Adam, tuned" else mean
            rows[kind, name] = {
                "steps": min(first_below(reached, target), 10.0 * far),
                "target": target,
                "final": float(mean[far]),
                "diverged": float(np.mean(~(curve[:, far] <= curve[:, 0]))),
            }
    return rows


def together(quick: bool, runs: Sequence[dict[tuple[str, str], dict[str, float]]]) -> Any:
    """Put the rows of the seeds together."""
    steps, count, ahead, far = sizes(quick)
    return {
        "environment": environment(),
        "settings": {
            "seeds": len(runs),
            "steps": steps,
            "tasks": count,
            "horizon": HORIZON,
            "ahead": ahead,
            "far": far,
            "quick": quick,
        },
        "rows": [
            {"network": kind, "method": name} | spreads([run[kind, name] for run in runs])
            for kind, name in runs[0]
        ],
    }


def measure(options: Options) -> dict[str, Any]:
    runs = [one_seed(options.quick, seed) for seed in range(options.seeds)]
    return together(options.quick, runs)


def rows(data: Data) -> Iterator[Block]:
    """Show the steps of a learned rule on networks it has not seen, beside tuned Adam."""
    settings = data["settings"]
    far = settings["far"]
    yield Table.of(
        {
            "hidden layers": row["network"],
            "by": row["method"],
            "target": plus_minus(row["target"]),
            "steps to it": plus_minus(row["steps"]),
            f"loss after {far}": plus_minus(row["final"]),
            "diverged, %": plus_minus(row["diverged"], factor=100),
        }
        for row in data["rows"]
    )
    yield (
        "Target: the mean held-out cross entropy that Adam reaches in "
        f"{settings['ahead']} steps, at the best of its rates and schedules for each row; its loss "
        f"after {far} is at the best for those. {settings['tasks']} networks; the rule is trained "
        f"on {settings['horizon']} steps, {settings['steps']:,} times; "
        f"{over_seeds(settings['seeds'])} (of training too)."
    )


def claims(data: Data) -> Iterator[Claim]:
    """Claim that the learned rule needs fewer steps to the loss that tuned Adam reaches."""
    for network in dict.fromkeys(row["network"] for row in data["rows"]):
        found = [row for row in data["rows"] if row["network"] == network]
        steps = {row["method"]: row["steps"]["values"] for row in found}
        yield Claim(f"network {network}", LEARNED, {"log10 steps": logarithms(steps)})
