"""What does a step of meta-training cost, beside opifex's, at equal work?

The learning rate of gradient descent is learned on 10-D quadratics by persistent evolution
strategies: windows of 20 steps of episodes of 100, both signs of a perturbation for each task,
plain losses. opifex 0.2.0 has the design of google/learned_optimization (``truncated_pes``); its
task is the same quadratic, written for it. *step*: the compiled estimate of the gradient by itself.
*training*: 200 steps by ``meta_train`` of each, called again after a first call: programs that the
second call compiles anew count. Without opifex (``pip install --no-deps opifex==0.2.0 calibrax``:
its dependencies are many) ours is measured alone.
"""

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.evidence import Claim, faster, spread_times
from benchmarks.harness import Data, Options, environment, note, race, ratio, spreads
from benchmarks.meta.estimators import descent
from benchmarks.render import Block, Table, machine, multiple, over_seeds, plus_minus
from refinejax import Gradient, meta
from refinejax.meta import Trajectory, pes
from refinejax.tasks.quadratics import Quadratics
from refinejax.training import TrainingConfig

SIZE, HORIZON, WINDOW, STD, FIRST = 10, 100, 20, 0.01, -4.0
OURS = "refinejax"


def first(key: Any) -> Gradient:
    del key
    return Gradient(descent, {"log_rate": jnp.float32(FIRST)})


def ours(lanes: int, steps: int, seed: int) -> dict[str, Callable[[], Any]]:
    """Return our jobs to time."""
    inner = Trajectory(Quadratics(size=SIZE), first, horizon=HORIZON, scale="plain")
    estimator = pes(inner, window=WINDOW, lanes=lanes, std=STD)
    key = jax.random.key(seed)
    numbers = estimator.init(key)
    memory = estimator.begin(numbers, key)
    update = jax.jit(estimator.update)
    config = TrainingConfig(steps, "adam", 3e-3, validate_every=steps, log_every=steps, seed=seed)
    return {
        "step": lambda: update(numbers, memory, key),
        "training": lambda: meta.meta_train(estimator, config, count=16).weights,
    }


def opifex(lanes: int, steps: int, seed: int) -> dict[str, Callable[[], Any]]:
    """Return the same jobs in opifex; {} where it is not installed."""
    try:
        core, learned, meta_train = (
            importlib.import_module(f"opifex.optimization.l2o.{name}")
            for name in ("core", "learned", "meta_train")
        )
    except ImportError:
        return {}

    class Task(core.Task):
        def __init__(self, quadratic: Any) -> None:
            self.quadratic = quadratic

        def init(self, key: Any) -> Any:
            return jax.random.normal(key, (SIZE,))

        def loss(self, params: Any, key: Any) -> Any:
            del key
            return self.quadratic(params)

    class Family(core.TaskFamily):
        def sample(self, key: Any) -> Task:
            return Task(Quadratics(size=SIZE).sample(key))

    family, rule = Family(), learned.LearnableSGD(float(jnp.exp(FIRST)))
    key = jax.random.key(seed)
    numbers = rule.init(key)
    state = meta_train.init_pes_state(
        rule, family, numbers, key, num_tasks=lanes, total_horizon=HORIZON
    )
    sizes: Any = {"trunc_length": WINDOW, "total_horizon": HORIZON}

    @jax.jit
    def step(numbers: Any, state: Any, key: Any) -> Any:
        return meta_train.pes_gradient_step(rule, family, numbers, state, key, std=STD, **sizes)

    options = {"num_outer_steps": steps, "num_tasks": lanes, "perturbation_std": STD, **sizes}
    return {
        "step": lambda: step(numbers, state, key),
        "training": lambda: meta_train.meta_train(rule, family, key, **options)[0],
    }


def measure(options: Options) -> dict[str, Any]:
    quick, seeds = options.quick, options.seeds
    sizes = (16,) if quick else (64, 1024)
    steps, repeats = (20, 2) if quick else (200, 9)
    rows = []
    for lanes in sizes:
        found: dict[tuple[str, str], list[dict[str, float]]] = {}
        for seed in range(seeds):
            note(f"{lanes} tasks, seed {seed}")
            every = {OURS: ours(lanes, steps, seed), "opifex": opifex(lanes, steps, seed)}
            for part, per in (("step", 1), ("training", steps)):
                peers = {name: jobs[part] for name, jobs in every.items() if jobs}
                times, _ = race(peers, repeats if part == "step" else 3)
                for name, timing in times.items():
                    found.setdefault((part, name), []).append(
                        {
                            "times": ratio(timing.runs, times[OURS].runs),
                            "micros": 1e6 * timing.run / per,
                            "compile": timing.compile,
                        }
                    )
        rows += [
            {"tasks": lanes, "part": part, "peer": name} | spreads(some)
            for (part, name), some in found.items()
        ]
    return {
        "environment": environment(),
        "settings": {"seeds": seeds, "steps": steps, "quick": quick},
        "rows": rows,
    }


def rows(data: Data) -> Iterator[Block]:
    """Show the time of a step of meta-training, beside opifex's."""
    parts = {"step": "the estimate", "training": "a step of `meta_train`, second call"}
    yield Table.of(
        {
            "tasks": f"{row['tasks']:,}",
            "time of": parts[row["part"]],
            "by": row["peer"],
            "ratio": multiple(row["times"], unit=row["peer"] == OURS),
            "µs": plus_minus(row["micros"]),
            "first call, s more": plus_minus(row["compile"]),
        }
        for row in data["rows"]
    )
    yield (
        "PES on 10-D quadratics, windows of 20 steps, the learning rate of descent learned. "
        f"{machine(data)}, {over_seeds(data['settings']['seeds'])}."
    )


def claims(data: Data) -> Iterator[Claim]:
    """Claim that an estimate, and a step of training, take less time than opifex's."""
    for tasks, part in dict.fromkeys((row["tasks"], row["part"]) for row in data["rows"]):
        found = [row for row in data["rows"] if (row["tasks"], row["part"]) == (tasks, part)]
        yield from faster(f"{part}, {tasks} tasks", OURS, spread_times(found))
