"""Are the estimators of the meta-gradient unbiased, and what does bias do to a learning rate?

*Bias*: descent with momentum, log rate and logit momentum learned, 40 steps on random quadratics in
3-D; the mean loss over the steps, relative to the start. The gradient of each of the episodes by
backpropagation through all steps is exact; the others see windows of 1 to 40 steps of the same
episodes. Given is by how many standard errors of their mean difference the estimators are off, the
larger of both meta-params.

*Noisy quadratic*: the learning rate of descent under gradient noise for a horizon of 100 steps,
where the best one is known in closed form (Wu et al. 2018), learned in windows of 5 steps.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.evidence import Claim
from benchmarks.harness import Data, Options, environment, note, spread
from benchmarks.render import Block, Table, machine, over_seeds, plus_minus
from refinejax import Gradient
from refinejax.meta import (
    Antithetic,
    Estimator,
    FullUnroll,
    Trajectory,
    TruncatedUnroll,
    meta_train,
)
from refinejax.tasks.noisy_quadratics import NoisyQuadratics
from refinejax.tasks.quadratics import Quadratics
from refinejax.training import TrainingConfig

WINDOWS = (1, 4, 10, 20, 40)
HORIZON = 40
STD = 0.01
NOISES = {"PES": "accumulated", "NRES": "kept", "truncated ES": "fresh"}
LONG, WINDOW = 100, 5


def momentum(log_rate: Any, logit: Any) -> optax.GradientTransformation:
    return optax.sgd(jnp.exp(log_rate), momentum=jax.nn.sigmoid(logit))


def first_momentum(key: Any) -> Gradient:
    del key
    return Gradient(momentum, {"log_rate": jnp.float32(-4.0), "logit": jnp.float32(0.0)})


def descent(log_rate: Any) -> optax.GradientTransformation:
    return optax.sgd(jnp.exp(log_rate))


def first_descent(key: Any) -> Gradient:
    del key
    return Gradient(descent, {"log_rate": jnp.float32(-3.0)})


@functools.partial(jax.jit, static_argnames="kind")
def each(estimator: Estimator, meta: Any, tasks: Any, keys: Any, kind: str) -> jax.Array:
    """Return the estimate of each episode by itself, shape (n, 2)."""
    del kind  # structures of two classes are equal to jaxlib where their fields are

    def one(task: Any, key: Any) -> jax.Array:
        alone = jax.tree.map(lambda leaf: leaf[None], task)
        found = estimator(meta, alone, key[None])[1]
        return jnp.stack(jax.tree.leaves(found))

    return jax.vmap(one)(tasks, keys)


def bias(samples: int, seeds: int) -> list[dict[str, Any]]:
    inner = Trajectory(Quadratics(size=3), first_momentum, horizon=HORIZON, scale="relative")
    meta = inner.init(jax.random.key(0))
    rows: dict[tuple[str, int], list[Any]] = {}
    for seed in range(seeds):
        keys = jax.random.split(jax.random.key(seed), (2, samples))
        tasks = jax.vmap(inner.sample)(keys[0])
        exact = np.asarray(each(FullUnroll(inner), meta, tasks, keys[1], "exact"), float)
        for window in WINDOWS:
            note(f"seed {seed}, window {window}")
            for name in (*NOISES, "truncated backpropagation"):
                if name in NOISES:
                    made: Any = Antithetic(inner, STD, None, window, noise=NOISES[name])
                else:
                    made = TruncatedUnroll(inner, window=window)
                found = np.asarray(each(made, meta, tasks, keys[1], name), float)
                rows.setdefault((name, window), []).append((found, exact))
    return [_row(name, window, runs) for (name, window), runs in rows.items()]


def _row(name: str, window: int, runs: list[Any]) -> dict[str, Any]:
    found, exact = (np.concatenate(list(x)) for x in zip(*runs, strict=True))
    error = found - exact
    deviations = error.mean(axis=0) / np.maximum(error.std(axis=0), 1e-12) * np.sqrt(len(error))
    return {
        "estimator": name,
        "window": window,
        "samples": len(error),
        "estimate": [float(x) for x in found.mean(axis=0)],
        "exact": [float(x) for x in exact.mean(axis=0)],
        "standard_error": [float(x) for x in error.std(axis=0) / np.sqrt(len(error))],
        "deviations": float(np.abs(deviations).max()),
    }


def noisy(steps: int, seeds: int) -> dict[str, Any]:
    tasks = NoisyQuadratics(noise=1.0)
    inner = Trajectory(tasks, first_descent, horizon=LONG, scale="plain", judged=True)
    rates = np.exp(np.linspace(-5, 0.5, 2000))
    means = np.asarray(jax.vmap(lambda r: tasks.expected(r, LONG))(rates))
    made: dict[str, Estimator] = {
        "backpropagation": FullUnroll(inner, batch=128, parts=1),
        "PES": Antithetic(inner, 0.1, None, WINDOW, 256),
        "NRES": Antithetic(inner, 0.1, None, WINDOW, 256, "kept"),
        "truncated backpropagation": TruncatedUnroll(inner, window=WINDOW, lanes=256),
    }
    learned: dict[str, list[float]] = {}
    for name, estimator in made.items():
        for seed in range(seeds):
            note(f"noisy quadratic, {name}, seed {seed}")
            config = TrainingConfig(
                steps, "adam", 0.05, average=0.98, validate_every=0, log_every=100, seed=seed
            )
            found = meta_train(estimator, config, count=8)
            learned.setdefault(name, []).append(float(jnp.exp(found.weights.numbers["log_rate"])))
    return {
        "horizon": LONG,
        "window": WINDOW,
        "best_rate": float(rates[means.argmin()]),
        "best_loss": float(means.min()),
        "rates": {name: spread(values) for name, values in learned.items()},
        "losses": {
            name: spread([float(tasks.expected(r, LONG)) for r in values])
            for name, values in learned.items()
        },
    }


def measure(options: Options) -> dict[str, Any]:
    quick, seeds = options.quick, options.seeds
    samples = 256 if quick else 2048
    return {
        "environment": environment(),
        "settings": {"seeds": seeds, "samples": samples, "quick": quick, "std": STD},
        "bias": bias(samples, seeds),
        "noisy": noisy(50 if quick else 600, seeds),
    }


def rows(data: Data) -> Iterator[Block]:
    """Show how far estimates of the meta-gradient are off, and the learning rates they learn."""
    noisy, number = data["noisy"], data["settings"]["seeds"]
    count = max(row["samples"] for row in data["bias"])
    yield Table.of(_by_window(data["bias"]))
    yield (
        f"By how many standard errors of their mean, over {count:,} episodes of {HORIZON} steps, "
        "estimates of the meta-gradient are off, and by which share of its length; "
        f"{machine(data)}, {number} seeds together."
    )
    lines = [
        {"learned by": name, "rate": plus_minus(noisy["rates"][name]), "loss": plus_minus(loss, 4)}
        for name, loss in noisy["losses"].items()
    ]
    best = {"rate": f"{noisy['best_rate']:.4g}", "loss": f"{noisy['best_loss']:.4g}"}
    yield Table.of([*lines, {"learned by": "(best, in closed form)", **best}])
    yield (
        f"A learning rate for {noisy['horizon']} steps on a noisy quadratic, learned in windows of "
        f"{noisy['window']} steps; backpropagation goes through all; {over_seeds(number)}."
    )


def _by_window(found: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    lines: dict[str, dict[str, str]] = {}
    for row in sorted(found, key=lambda row: row["window"]):
        line = lines.setdefault(row["estimator"], {"standard errors off": row["estimator"]})
        line[f"window {row['window']}"] = f"{row['deviations']:.1f} ({_share_off(row):.0f} %)"
    return list(lines.values())


def _share_off(row: Mapping[str, Any]) -> float:
    """Return how far an estimate is off, in % of the exact gradient's length."""
    estimate, exact = np.asarray(row["estimate"]), np.asarray(row["exact"])
    return float(100 * np.linalg.norm(estimate - exact) / np.linalg.norm(exact))


def claims(data: Data) -> Iterator[Claim]:
    """Claim nothing: the standard errors in the table are the judgment."""
    del data
    return iter(())
