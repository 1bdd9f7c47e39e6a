"""How well do learned layers recover sparse signals, and learned rules solve the lasso?

*Recovery*: A of 256 × 512 with columns of length 1, x with 10 % normal entries, without noise (Chen
et al. 2022, Open-L2O); normalized mean squared error 10·log₁₀(E‖x − x*‖² / E‖x*‖²) after 16 layers,
on 1,000 held-out x. Reported there: LISTA-CPSS −63 dB, ALISTA −79. Training is on the error after
k layers, k = 1 … 16 in turn, all layers together, and then longer after all; that of LISTA-CPSS,
whose matrices are free, goes on from ALISTA, whose matrix is given. LISTA (−35 dB there), which has
no support selection and 6.3 million weights, goes on from an ALISTA without one, in steps of 1e-6:
in longer ones it loses more than it gains.

*Lasso*: 25 × 50, λ = 0.005, another A in each task; (f − f*) / f* after 1,000 steps, f* the least
that FISTA finds in 20,000. Reported there: FISTA 6e-5, RNNprop 5.5e-4, Adam 4e-2. RNNprop is
trained on episodes of 60 steps, and used as it is and with steps that fall by half a cosine to 0 in
1,000; so is Adam, each at the best of its rates.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.evidence import Claim, logarithms
from benchmarks.harness import Data, Options, environment, note, spread
from benchmarks.meta.quadratics import adam, annealed
from benchmarks.render import NOTHING, Block, Table, over_seeds, plus_minus
from refinejax import Gradient
from refinejax.learned import RuleConfig
from refinejax.learned.lista import shrinkage
from refinejax.meta import FullUnroll, Trajectory, meta_train, traces
from refinejax.tasks.distribution import Split
from refinejax.tasks.sparse import Lassos, SparseRecovery, dictionary
from refinejax.training import TrainingConfig

LAYERS = 16
SHARE, MOST = 0.012, 0.13  # support selection: 1.2 % more in each layer, at most 13 %
RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
FAR = 1000


def nothing(key: Any) -> Any:
    raise ValueError(f"key: layers are made from A, not from {key}")


class Stage(NamedTuple):
    """A stage of training: how many layers, for how many steps; positive: train logarithms."""

    layers: int
    steps: int
    positive: bool


@functools.partial(jax.jit, static_argnames="stage")
def trained(tasks: Any, refiner: Any, key: Any, rate: Any, stage: Stage) -> Any:
    """Return layers after a stage of training on the error after the last of them."""
    layers, steps, positive = stage
    train = Split(tasks, "train")
    inner = Trajectory(train, nothing, horizon=layers, scale="plain", whole=False, judged=True)
    estimator = FullUnroll(inner, batch=64, parts=1)
    optimizer = optax.adam(optax.cosine_decay_schedule(1.0, steps), eps=1e-16)
    inward, outward = (jnp.log, jnp.exp) if positive else (jnp.asarray, jnp.asarray)

    def made(numbers: Any) -> Any:
        first, second, thresholds = jax.tree.map(outward, numbers)
        return refiner.replace(first=first, second=second, thresholds=thresholds)

    def step(carry: Any, key: Any) -> Any:
        numbers, state = carry
        meta, pull = jax.vjp(made, numbers)
        gradient = pull(estimator.update(meta, (), key)[1])[0]
        updates, state = optimizer.update(gradient, state)
        return (jax.tree.map(lambda x, u: x + rate * u, numbers, updates), state), None

    numbers = jax.tree.map(inward, (refiner.first, refiner.second, refiner.thresholds))
    begun = (numbers, optimizer.init(numbers))
    return made(jax.lax.scan(step, begun, jax.random.split(key, steps))[0][0])


def error(tasks: Any, refiner: Any, seed: int, count: int, layers: int) -> float:
    """Return the NMSE in dB."""
    inner = Trajectory(Split(tasks, "test"), nothing, horizon=layers)
    found = jax.jit(lambda r, k: traces(inner, r, k, count=count, steps=layers))(
        refiner, jax.random.key(seed)
    )
    return float(10 * jnp.log10(jnp.mean(found[:, -1])))


def recovery(
    matrix: Any, seed: int, steps: int, joint: int, count: int, layers: int
) -> dict[str, float]:
    """Train ALISTA, then from there LISTA-CPSS, whose W_k are free; return their NMSE in dB."""
    tasks, key = SparseRecovery(matrix), jax.random.key(seed)
    alista: Any = shrinkage("alista", matrix, layers, weight=1.0, share=SHARE, most=MOST)
    for k in range(1, layers + 1):
        alista = trained(tasks, alista, jax.random.fold_in(key, k), 0.03, Stage(k, steps, True))
        new = jnp.arange(layers) >= k  # they begin as the last one that was trained
        alista = alista.replace(
            first=jnp.where(new, alista.first[k - 1], alista.first),
            thresholds=jnp.where(new, 0.7 * alista.thresholds[k - 1], alista.thresholds),
        )
    alista = trained(tasks, alista, jax.random.fold_in(key, 0), 0.01, Stage(layers, joint, True))
    first = alista.first[:, None, None] * alista.fixed
    cpss = shrinkage("cpss", matrix, layers, share=SHARE, most=MOST)
    cpss = cpss.replace(first=first, thresholds=alista.thresholds)
    cpss = trained(
        tasks, cpss, jax.random.fold_in(key, layers + 1), 1e-5, Stage(layers, steps, False)
    )
    return {
        "alista": error(tasks, alista, seed, count, layers),
        "cpss": error(tasks, cpss, seed, count, layers),
    }


def lista(matrix: Any, seed: int, joint: int, steps: int, count: int, layers: int) -> float:
    """Train ALISTA without support selection, from there LISTA, all free; return its NMSE in dB."""
    tasks, key = SparseRecovery(matrix), jax.random.key(300 + seed)
    begun: Any = shrinkage("alista", matrix, layers, weight=1.0)
    begun = trained(tasks, begun, key, 0.03, Stage(layers, joint, True))
    free = shrinkage("lista", matrix, layers)
    first = begun.first[:, None, None] * begun.fixed.T
    free = free.replace(
        first=first, second=jnp.eye(matrix.shape[1]) - first @ matrix, thresholds=begun.thresholds
    )
    free = trained(tasks, free, jax.random.fold_in(key, 1), 1e-6, Stage(layers, steps, False))
    return error(tasks, free, seed, count, layers)


def fista(task: Any, steps: int) -> jax.Array:
    """Return the losses of FISTA (Beck and Teboulle 2009, §4), shape (steps,)."""
    A, b, weight = task.matrix, task.observation, task.weight
    length = jnp.linalg.norm(A, ord=2) ** 2

    def step(carry: Any, _: None) -> Any:
        x, y, t = carry
        moved = y - A.T @ (A @ y - b) / length
        new = jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - weight / length, 0)
        after = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        return (new, new + (t - 1) / after * (new - x), after), task(new)

    zeros = jnp.zeros(A.shape[1])
    return jax.lax.scan(step, (zeros, zeros, jnp.float32(1)), length=steps)[1]


def lasso(seed: int, steps: int, count: int, far: int, exact: int) -> dict[str, float]:
    """Return the mean relative excess of each method."""
    tasks, build = Lassos(), RuleConfig("rnnprop")
    inner = Trajectory(Split(tasks, "test"), build, horizon=far)
    key = jax.random.key(seed)
    drawn = jax.vmap(lambda k: inner.sample(jax.random.split(k)[0]))(jax.random.split(key, count))
    way = jax.jit(lambda t: jax.lax.map(lambda task: fista(task, exact), t, batch_size=64))(drawn)
    least = jnp.min(way, axis=1)

    @jax.jit
    def losses(refiner: Any) -> Any:
        return traces(inner, refiner, key, count=count, steps=far)[:, -1]

    some = least > 0  # where x* = 0 there is nothing to find

    def excess(found: Any) -> float:
        return float(jnp.mean(((found - least) / least)[some]))

    constant, falling = (
        [
            excess(losses(Gradient(adam, {"rate": rate, "length": float(FAR), "cosine": cosine})))
            for rate in RATES
        ]
        for cosine in (0.0, 1.0)
    )
    config = TrainingConfig(
        steps,
        "adam",
        3e-3,
        validate_every=max(1, steps // 5),
        log_every=max(1, steps // 10),
        seed=seed,
    )
    estimator = FullUnroll(Trajectory(tasks, build, horizon=60), batch=32, parts=1, segment=8)
    rule = meta_train(estimator, config, steps=far // 4, count=count).weights
    return {
        "FISTA": excess(way[:, far - 1]),
        "RNNprop": excess(losses(rule)),
        "RNNprop, annealed": excess(
            losses(Gradient(annealed, {**rule.numbers, "length": float(FAR)}))
        ),
        "Adam, tuned": min(constant),
        "Adam, annealed, tuned": min(falling),
    }


def measure(options: Options) -> dict[str, Any]:
    quick, seeds = options.quick, options.seeds
    rows, columns = (16, 32) if quick else (256, 512)
    count = 32 if quick else 1000
    layers, steps, joint = (2, 10, 10) if quick else (LAYERS, 250, 1500)
    sizes = (10, 8, 40, 400) if quick else (300, 64, FAR, 20_000)
    recovered: dict[str, list[float]] = {}
    lassos: dict[str, list[float]] = {}
    for seed in range(seeds):
        matrix = dictionary(jax.random.key(seed), rows, columns)
        found = recovery(matrix, seed, steps, joint, count, layers)
        found["lista"] = lista(matrix, seed, 4 * steps, steps, count, layers)
        for kind, value in found.items():
            note(f"recovery, {kind}, seed {seed}: {value:.1f} dB")
            recovered.setdefault(kind, []).append(value)
        note(f"lasso, seed {seed}")
        for name, value in lasso(seed, *sizes).items():
            lassos.setdefault(name, []).append(value)
    return {
        "environment": environment(),
        "settings": {
            "seeds": seeds,
            "layers": layers,
            "size": [rows, columns],
            "far": sizes[2],
            "quick": quick,
        },
        "recovery": {name: spread(values) for name, values in recovered.items()},
        "lasso": {name: spread(values) for name, values in lassos.items()},
    }


NAMES = {"lista": "LISTA", "cpss": "LISTA-CPSS", "alista": "ALISTA"}
REPORTED_DB = {"lista": -35, "cpss": -63, "alista": -79}
REPORTED_GAPS = {"FISTA": "6e-5", "RNNprop": "5.5e-4", "Adam, tuned": "4e-2"}


def rows(data: Data) -> Iterator[Block]:
    """Show the error of learned layers, and what rules reach on the lasso."""
    yield Table.of(
        {
            "sparse recovery": NAMES[kind],
            "NMSE, dB": plus_minus(value),
            "reported, dB": str(REPORTED_DB[kind]),
        }
        for kind, value in data["recovery"].items()
    )
    yield Table.of(
        {
            "lasso": name,
            "(f − f*)/f*": f"{value['mean']:.1e} ± {value['std']:.1e}",
            "reported": REPORTED_GAPS.get(name, NOTHING),
        }
        for name, value in data["lasso"].items()
    )
    settings = data["settings"]
    m, n = settings["size"]
    yield (
        f"A of {m} × {n}, {settings['layers']} layers; lasso of 25 × 50 after "
        f"{settings['far']:,} steps. Reported: Open-L2O (Chen et al. 2022). "
        f"{over_seeds(settings['seeds'])}."
    )


def claims(data: Data) -> Iterator[Claim]:
    """Claim that the annealed rule leaves a smaller gap on the lasso."""
    gaps = {name: found["values"] for name, found in data["lasso"].items()}
    yield Claim("lasso", "RNNprop, annealed", {"log10 gap": logarithms(gaps)})
