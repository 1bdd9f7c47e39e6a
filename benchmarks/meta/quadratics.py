"""How do learned update rules compare with Adam and L-BFGS on quadratics in 10-D?

f(x) = ‖Wx − y‖², on 256 held-out tasks, from the same starts. *normal*: W, y and starts standard
normal; *uniform*: W and y uniform on [0, 1], as in the code of Andrychowicz et al. (2016), whose
figure shows log₁₀ of the mean loss after 100 steps, −0.7 to −1.08. Rules are trained on episodes of
20 steps by backpropagation through all of them, once for each seed, the average of their weights
that is best over 100 steps on tasks held out being kept, and run far beyond that: 100, 300 and 500
steps, as they are and *annealed*, their steps times half a cosine that falls to 0 in as
many. Adam is tuned for each number of steps: rates up to 1, constant and with the same cosine. A
task has diverged if its loss is above that at the start.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.evidence import Claim, logarithms
from benchmarks.harness import Data, Options, environment, note, spreads
from benchmarks.render import Block, Table, machine, over_seeds, plus_minus
from refinejax import Gradient
from refinejax.learned import RuleConfig, learned_rule, schedule
from refinejax.meta import FullUnroll, Trajectory, meta_train, traces
from refinejax.tasks.distribution import Split
from refinejax.tasks.quadratics import Quadratics
from refinejax.training import TrainingConfig

STEPS = (20, 100, 300, 500)
RATES = (0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0)
LAWS = ("normal", "uniform")
RULES = {"LSTM": (RuleConfig("lstm"), 6000, 5e-3), "RNNprop": (RuleConfig("rnnprop"), 2000, 3e-3)}

REPORTED = {  # elsewhere: the names and numbers of their authors
    "normal": {"opifex, its best": {"20": 1.34, "100": 0.578}},
    "uniform": {
        "LSTM (Andrychowicz et al. 2016), the better figure": {"100": 10**-1.08},
        "the same, the other figure": {"100": 10**-0.70},
    },
}


def adam(rate: Any, length: Any, cosine: Any) -> optax.GradientTransformation:
    falling = schedule("cosine", rate, length)
    return optax.adam(lambda count: jnp.where(cosine > 0, falling(count), rate))


def annealed(rule: Any, length: Any) -> optax.GradientTransformation:
    return optax.chain(learned_rule(rule), optax.scale_by_schedule(schedule("cosine", 1.0, length)))


def curves(tasks: Any, refiner: Any, seed: int, count: int, steps: int) -> np.ndarray:
    """Return losses on held-out tasks, shape (count, steps + 1)."""
    inner = Trajectory(Split(tasks, "test"), RuleConfig(), horizon=steps)
    return np.asarray(_curves(inner, refiner, jax.random.key(seed), count, steps))


@functools.partial(jax.jit, static_argnums=(3, 4))
def _curves(inner: Any, refiner: Any, key: Any, count: int, steps: int) -> Any:
    return traces(inner, refiner, key, count=count, steps=steps, batch=count)


def summary(found: np.ndarray, steps: int) -> dict[str, float]:
    after = found[:, steps]
    return {"mean": float(after.mean()), "diverged": float(np.mean(~(after <= found[:, 0])))}


def peers(tasks: Any, seed: int, count: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    rows: dict[str, Any] = {"Adam, tuned": {}, "L-BFGS": {}}
    search = curves(tasks, Gradient(optax.lbfgs), seed, count, lengths[-1])
    for length in lengths:
        rows["L-BFGS"][length] = summary(search, length)
        found = {}
        for cosine in (0.0, 1.0):
            for rate in RATES:
                numbers = {"rate": rate, "length": float(length), "cosine": cosine}
                made = Gradient(adam, numbers)
                tuning = curves(tasks, made, 500 + seed, count, length)
                found[rate, cosine] = (tuning[:, length].mean(), made)
        best = min(found.values(), key=lambda pair: pair[0])[1]
        rows["Adam, tuned"][length] = summary(curves(tasks, best, seed, count, length), length)
    return rows


def falling(
    tasks: Any, rule: Any, seed: int, count: int, lengths: tuple[int, ...]
) -> dict[int, Any]:
    rows = {}
    for length in lengths:
        made = Gradient(annealed, {**rule.numbers, "length": float(length)})
        rows[length] = summary(curves(tasks, made, seed, count, length), length)
    return rows


def learned(tasks: Any, name: str, seed: int, quick: bool, count: int) -> Any:
    build, steps, rate = RULES[name]
    steps = 20 if quick else steps
    inner = Trajectory(tasks, build, horizon=20, scale="plain")
    config = TrainingConfig(
        steps,
        "adam",
        rate,
        warmup=min(20, steps - 1),
        average=0.99,
        validate_every=max(1, steps // 10),
        log_every=max(1, steps // 20),
        seed=seed,
    )
    estimator = FullUnroll(inner, batch=64, parts=1)
    return meta_train(estimator, config, steps=100, count=count).weights


def measure(options: Options) -> dict[str, Any]:
    quick, seeds = options.quick, options.seeds
    count = 32 if quick else 256
    lengths = STEPS[:2] if quick else STEPS
    laws: dict[str, Any] = {}
    for law in LAWS:
        tasks = Quadratics(law=law)
        runs: dict[str, dict[int, list[Any]]] = {}
        for seed in range(seeds):
            note(f"{law}, seed {seed}: peers")
            rows = peers(tasks, seed, count, lengths)
            for name in RULES:
                note(f"{law}, seed {seed}: {name}")
                rule = learned(tasks, name, seed, quick, count)
                found = curves(tasks, rule, seed, count, lengths[-1])
                rows[name] = {length: summary(found, length) for length in lengths}
                rows[f"{name}, annealed"] = falling(tasks, rule, seed, count, lengths)
            for name, row in rows.items():
                for length, value in row.items():
                    runs.setdefault(name, {}).setdefault(length, []).append(value)
        laws[law] = {
            name: {str(length): spreads(values) for length, values in row.items()}
            for name, row in runs.items()
        }
    return {
        "environment": environment(),
        "settings": {"seeds": seeds, "tasks": count, "quick": quick},
        "laws": laws,
    }


def rows(data: Data) -> Iterator[Block]:
    """Show mean losses of learned rules beside tuned Adam, L-BFGS and published figures."""
    for law, methods in data["laws"].items():
        lengths = list(next(iter(methods.values())))
        own = [
            {
                law: name,
                **{f"{n} steps": plus_minus(row[n]["mean"]) for n in lengths},
                f"log₁₀ at {lengths[1]}": _logarithm(row[lengths[1]]["mean"]["mean"]),
                "diverged, %": plus_minus(row[lengths[-1]]["diverged"], factor=100),
            }
            for name, row in methods.items()
        ]
        published = [
            {
                law: f"({name}, as reported)",
                **{f"{n} steps": f"{known[n]:.3g}" for n in lengths if n in known},
                f"log₁₀ at {lengths[1]}": _logarithm(known["100"]),
            }
            for name, known in REPORTED[law].items()
        ]
        yield Table.of([*own, *published])
    settings = data["settings"]
    yield (
        f"Mean loss on {settings['tasks']} held-out tasks; rules were trained on 20 steps. Adam "
        "has its own best rate and schedule for each number of steps; annealed: steps times half a "
        "cosine over as many; "
        f"{machine(data)}, {over_seeds(settings['seeds'])} (of training too)."
    )


def _logarithm(value: float) -> str:
    return f"{np.log10(value):.2f}"


def claims(data: Data) -> Iterator[Claim]:
    """Claim that the LSTM, as it is and annealed, ends lower than tuned Adam and L-BFGS."""
    for law, methods in data["laws"].items():
        for ours in ("LSTM", "LSTM, annealed"):
            for steps in ("20", "100") if ours in methods else ():
                losses = {
                    name: methods[name][steps]["mean"]["values"]
                    for name in (ours, "Adam, tuned", "L-BFGS")
                    if name in methods
                }
                yield Claim(f"{law}, {steps} steps", ours, {"log10 loss": logarithms(losses)})
