"""How much faster do learned refiners converge, on problems like those they saw and on others?

Lenses are fitted to the slopes of their phase maps, from starts 5 to 20 % of the ranges off.
Trained on clean maps of lenses from the lower 60 % of every range. *Similar*: the same; *related*:
lenses from the upper 60 %; *novel*: all lenses, all noise, the warp too, at levels up to 1. For
each task, the steps to the loss that Adam reaches in 500, at the best of its rates and schedules
for those problems; speed is 500 over the mean of those steps, each 500 where it is not reached. A
step of L-BFGS searches a line; one of the others evaluates the model once, with its derivatives.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import optax

from benchmarks.evidence import Claim, logarithms
from benchmarks.harness import Data, Options, environment, note, spreads
from benchmarks.meta.quadratics import RATES, adam
from benchmarks.render import Block, Table, over_seeds, plus_minus
from refinejax import Gradient, LevenbergMarquardt
from refinejax.apps.metalens import LensTasks
from refinejax.learned import DampingConfig, RuleConfig
from refinejax.meta import FullUnroll, Trajectory, meta_train, traces
from refinejax.physics.noise import PhaseNoise
from refinejax.tasks.distribution import Split
from refinejax.training import TrainingConfig

ERROR = (0.05, 0.2)
KINDS = {
    "similar": LensTasks(PhaseNoise().scaled(0.0), ERROR, (0.0, 0.6)),
    "related": LensTasks(PhaseNoise().scaled(0.0), ERROR, (0.4, 1.0)),
    "novel": LensTasks(PhaseNoise(), ERROR),
}
LEARNED: dict[str, Any] = {
    "learned rule (RNNprop)": (RuleConfig("rnnprop", rate=0.1), 30, 3e-3),
    "learned damping": (DampingConfig(params=4), 5, 1e-3),
}
FAR = 500
ROUNDING = 1e-10  # (turns a pixel)²: what float32 leaves of the loss of a clean map


@functools.partial(jax.jit, static_argnums=(3, 4))
def curves(tasks: Any, refiner: Any, key: Any, count: int, steps: int) -> Any:
    """Return losses at the start and after each step, shape (count, steps + 1)."""
    inner = Trajectory(Split(tasks, "test"), RuleConfig(), horizon=steps)
    return traces(inner, refiner, key, count=count, steps=steps, batch=count)


def learned(name: str, seed: int, steps: int) -> Any:
    build, horizon, rate = LEARNED[name]
    config = TrainingConfig(
        steps,
        "adam",
        rate,
        warmup=min(20, steps - 1),
        clip=1.0,
        validate_every=max(1, steps // 5),
        log_every=max(1, steps // 10),
        seed=seed,
    )
    estimator = FullUnroll(Trajectory(KINDS["similar"], build, horizon=horizon), batch=64, parts=8)
    return meta_train(estimator, config, count=64).weights


def tuned_adam(tasks: Any, seed: int, count: int, steps: int) -> Any:
    found = []
    for cosine in (0.0, 1.0):
        for rate in RATES:
            made = Gradient(adam, {"rate": rate, "length": float(steps), "cosine": cosine})
            losses = np.asarray(curves(tasks, made, jax.random.key(900 + seed), count, steps))
            found.append((np.mean(np.log(best(losses)[:, -1] + ROUNDING)), rate, cosine, made))
    return min(found, key=lambda row: row[0])[3]


def best(losses: np.ndarray) -> np.ndarray:
    return np.fmin.accumulate(losses, axis=1)


def measure(options: Options) -> dict[str, Any]:
    quick, seeds = options.quick, options.seeds
    steps, count, far = (4, 8, 20) if quick else (1500, 256, FAR)
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for seed in range(seeds):
        refiners: dict[str, Any] = {}
        for name in LEARNED:
            note(f"seed {seed}: training {name}")
            refiners[name] = learned(name, seed, steps)
        refiners |= {"LM": LevenbergMarquardt(), "L-BFGS": Gradient(optax.lbfgs)}
        for kind, tasks in KINDS.items():
            note(f"seed {seed}: {kind}")
            key = jax.random.key(seed)
            made = {"Adam, tuned": tuned_adam(tasks, seed, count, far), **refiners}
            found = {
                n: best(np.asarray(curves(tasks, r, key, count, far))) for n, r in made.items()
            }
            target = found["Adam, tuned"][:, -1:] * 1.001 + ROUNDING
            for name, losses in found.items():
                hit = losses <= target
                reached = hit.any(axis=1) if name != "Adam, tuned" else np.ones(len(hit), bool)
                first = np.where(hit.any(axis=1), hit.argmax(axis=1), far)
                row = {
                    "speed": float(far / max(first.mean(), 1e-9)),
                    "steps": float(first.mean()),
                    "reached": float(reached.mean()),
                    "loss": float(np.exp(np.mean(np.log(losses[:, -1] + ROUNDING)))),
                }
                runs.setdefault((kind, name), []).append(row)
    return {
        "environment": environment(),
        "settings": {"seeds": seeds, "steps": steps, "tasks": count, "far": far, "quick": quick},
        "rows": [
            {"kind": kind, "method": name, **spreads(rows)} for (kind, name), rows in runs.items()
        ],
    }


def rows(data: Data) -> Iterator[Block]:
    """Show how many steps sooner lenses are fitted, on tasks more and less like the training's."""
    settings = data["settings"]
    far = settings["far"]
    yield Table.of(
        {
            "lenses": row["kind"],
            "by": row["method"],
            "steps": plus_minus(row["steps"]),
            f"{far} / steps": plus_minus(row["speed"]),
            "reached, %": plus_minus(row["reached"], factor=100),
            "loss in the end": f"{row['loss']['mean']:.2e}",
        }
        for row in data["rows"]
    )
    yield (
        f"Mean steps to the loss that Adam reaches in {far} at its best rate and schedule for "
        f"those problems, {far} where it is not reached; {settings['tasks']} lenses, "
        f"{over_seeds(settings['seeds'])} (of training too). Losses are geometric means."
    )


def claims(data: Data) -> Iterator[Claim]:
    """Claim that learned damping needs fewer steps than the other methods."""
    for kind in dict.fromkeys(row["kind"] for row in data["rows"]):
        steps = {
            row["method"]: row["steps"]["values"] for row in data["rows"] if row["kind"] == kind
        }
        yield Claim(f"{kind} lenses", "learned damping", {"log10 steps": logarithms(steps)})
