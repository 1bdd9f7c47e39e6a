"""How well do learned starts fit sinusoids from ten points (Finn et al. 2017)?

Squared error after 1 and 10 inner steps.

K = 10 points to learn from; judged on 100 others of each of 600 sinusoids that share nothing with
those trained on. "iterated": after 10 steps; "best on support": the params with the least loss on
the 10 points among those steps, which `refinejax.run` returns, and which stays finite where a
learned rate for one step diverges when it is taken ten times. Reported elsewhere for K = 10: MAML
0.67 after one step (public code); Meta-SGD 0.31.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.evidence import Claim
from benchmarks.harness import Data, Options, environment, note, spread
from benchmarks.render import Block, Table, over_seeds, plus_minus
from refinejax import Gradient
from refinejax._trees import select
from refinejax.meta import anil, fomaml, imaml, maml, meta_sgd, meta_train, reptile
from refinejax.tasks.distribution import Split
from refinejax.tasks.sinusoids import Sinusoids
from refinejax.training import TrainingConfig

TASKS = Sinusoids()
SGD = Gradient(optax.sgd, {"learning_rate": 0.01})
ADAM = Gradient(optax.adam, {"learning_rate": 0.01, "b1": 0.0})  # as Reptile has it
SMOOTH = Gradient(optax.adam, {"learning_rate": 0.01})
SIZES: dict[str, Any] = {"batch": 25, "parts": 1}
METHODS: dict[str, Any] = {
    "MAML": (maml(TASKS, SGD, **SIZES), {}),
    "MAML, loss after 1 and 2 steps": (maml(TASKS, SGD, steps=2, weights=(1.0, 1.0), **SIZES), {}),
    "FOMAML": (fomaml(TASKS, SGD, **SIZES), {}),
    "ANIL": (anil(TASKS, SGD, **SIZES), {}),
    "Meta-SGD": (meta_sgd(TASKS, **SIZES), {}),
    "Meta-SGD, loss after 1 to 5 steps": (
        meta_sgd(TASKS, steps=5, weights=(1.0,) * 5, **SIZES),
        {},
    ),
    "Reptile": (
        reptile(TASKS, ADAM, steps=10, **SIZES),
        {"optimizer": "sgd", "learning_rate": 0.3, "schedule": "linear", "clip": 0.0},
    ),
    "iMAML": (
        imaml(TASKS, SMOOTH, strength=0.5, steps=30, iterations=8, **SIZES),
        {"learning_rate": 1e-3},
    ),
}
ADAPTED = 10


def errors(inner: Any, meta: Any, seed: int, count: int) -> dict[str, float]:
    """Return mean errors after 0, 1 and 10 steps, and for the best on the support set."""
    test = inner.replace(tasks=Split(TASKS.replace(queries=100), "test"))

    def one(key: Any) -> tuple[Any, Any]:
        draw, first = jax.random.split(key)
        task = test.sample(draw)
        state = test.begin(meta, task, first)

        def step(carry: Any, key: Any) -> tuple[Any, Any]:
            state, best = carry
            state = test.advance(meta, task, state, key)
            best = select(state[0].loss < best[0].loss, state, best)
            return (state, best), test.score(task, state)

        keys = jax.random.split(first, ADAPTED)
        (_, best), after = jax.lax.scan(step, (state, state), keys)
        whole = jnp.concatenate([test.score(task, state)[None], after])
        return whole, test.score(task, best)

    keys = jax.random.split(jax.random.key(1000 + seed), count)
    whole, best = jax.jit(jax.vmap(one))(keys)
    means = np.asarray(jnp.mean(whole, axis=0))
    found = {"0": means[0], "1": means[1], "10": means[10], "best": jnp.mean(best)}
    return {name: float(value) for name, value in found.items()}


def measure(options: Options) -> dict[str, Any]:
    quick, seeds = options.quick, options.seeds
    steps, count = (30, 50) if quick else (20_000, 600)
    rows = {}
    for name, (estimator, settings) in METHODS.items():
        runs = []
        for seed in range(seeds):
            note(f"{name}, seed {seed}")
            usual: dict[str, Any] = {"steps": steps, "optimizer": "adam", "learning_rate": 5e-3}
            usual |= {"warmup": min(100, steps - 1), "average": 0.999, "clip": 10.0, "seed": seed}
            config = TrainingConfig(
                **usual | settings, log_every=max(1, steps // 20), validate_every=max(1, steps // 4)
            )
            meta = meta_train(estimator, config, count=count).weights
            runs.append(errors(estimator.inner, meta, seed, count))
        rows[name] = {
            k: spread([run[k] for run in runs]) if _finite(runs, k) else None for k in runs[0]
        }
    return {
        "environment": environment(),
        "settings": {"seeds": seeds, "steps": steps, "tasks": count, "quick": quick, **SIZES},
        "rows": rows,
    }


def _finite(runs: list[dict[str, float]], name: str) -> bool:
    return all(np.isfinite(run[name]) and run[name] < 1e3 for run in runs)


TITLES = {
    "0": "start",
    "1": "1 step",
    "10": "10 steps",
    "best": "10 steps, best on support",
}
REPORTED = {
    "MAML, public code": {"1 step": "0.67"},
    "Meta-SGD": {"1 step": "0.31"},
    "opifex MAML": {"1 step": "0.58", "10 steps": "0.21"},
}


def rows(data: Data) -> Iterator[Block]:
    """Show errors of few-shot regression at the start, after one step and after ten."""
    own = [
        {"sinusoids, K = 10": name}
        | {title: plus_minus(row[k]) if row[k] else "diverges" for k, title in TITLES.items()}
        for name, row in data["rows"].items()
    ]
    published = [
        {"sinusoids, K = 10": f"({name}, as reported)", **known} for name, known in REPORTED.items()
    ]
    yield Table.of([*own, *published])
    settings = data["settings"]
    yield (
        f"Mean squared error on 100 points of {settings['tasks']} new sinusoids, learned from 10; "
        "best on support: of the ten steps, the one with the least loss on those 10, which `run` "
        f"returns. {settings['steps']:,} steps of training; {over_seeds(settings['seeds'])}."
    )


def claims(data: Data) -> Iterator[Claim]:
    """Claim nothing: the published figures have no seeds to pair with."""
    del data
    return iter(())
