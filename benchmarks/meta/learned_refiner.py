"""What does a learned refiner gain over Adam, L-BFGS and Levenberg–Marquardt, at equal cost?

*Damped sines*: five params, 64 observations with noise 0.05, starts off by 0.6 σ (see
`tasks.damped_sine`). Solved: the loss is within 5 % of what Levenberg–Marquardt reaches from the
truth. Beside it the same with three times the noise, with starts off twice as far, and with params
and starts 1.6 times as wide; and ten times the steps of the training.

Cost, in evaluations of the forward model: 1 for the loss, 3 for loss and gradient (reverse mode), 6
for normal equations (five columns in forward mode, which share an evaluation). The cost of
L-BFGS is counted from its line searches.

Every peer is tuned on other tasks than it is tested on: Adam over learning rates with a cosine
schedule, for each number of steps; Levenberg–Marquardt over the first damping. "LM × 8" takes the
best of the start and seven more around it. Meta-SGD (Li et al. 2017, arXiv:1707.09835) learns a
rate for each param, unrolled over ten steps. Learned damping is trained as
``refinejax train refiner --config refinejax/configs/damped_sine_damping.toml``, once for each seed.
"""

import functools
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from benchmarks.evidence import Claim
from benchmarks.harness import Data, Options, environment, note, spread
from benchmarks.render import Block, Table, machine, percent
from refinejax import Gradient, LevenbergMarquardt, Refiner
from refinejax.meta import FullUnroll, Trajectory, meta_train
from refinejax.tasks.damped_sine import STD, DampedSines
from refinejax.training import TrainingConfig, train_model

CONFIG = "damped_sine_damping.toml"
SOLVED = 1.05  # loss over that from the truth
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
DAMPINGS = (1e-3, 1e-2, 0.1, 1.0)
LENGTHS = (5, 10, 20, 50, 100, 200)  # of Adam, each with a schedule of its own
STEPS, LONG = 12, 60  # of the others; of the longest runs
GRADIENT, NORMAL = 3, 6
CHECKED = (5, 10, 50)
BUDGETS = (36, 66, 132, 306)  # 5, 10, 21 and 50 steps of Levenberg–Marquardt
OURS = "learned damping"
CONDITIONS = {
    "as trained": DampedSines(),
    "3 × noise": DampedSines(noise=0.15),
    "2 × error": DampedSines(error=1.2),
    "1.6 × as wide": DampedSines(width=1.6),
}


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0))
def draw(tasks: DampedSines, key: Array) -> tuple[Any, Array]:
    """Return a task and a start."""
    one, other = jax.random.split(key)
    task = tasks.sample(one)
    return task, tasks.initial(task, other)


@functools.partial(jax.jit, static_argnames="steps")
def losses(refiner: Refiner, tasks: DampedSines, task: Any, start: Array, steps: int) -> Array:
    """Return the best loss so far at the start and after each step, shape (B, steps + 1)."""

    def one(task: Any, start: Array) -> Array:
        objective, key = tasks.objective(task), jax.random.key(0)
        state = refiner.init(objective, start, key)

        def advance(state: Any, _: None) -> tuple[Any, Array]:
            state = refiner.step(objective, state, key)
            return state, state.loss

        after = jax.lax.scan(advance, state, None, length=steps)[1]
        return jax.lax.cummin(jnp.concatenate([state.loss[None], after]))

    return jax.lax.map(lambda pair: one(*pair), (task, start), batch_size=250)


class Test:
    """Tasks, starts, and what their loss can be."""

    def __init__(self, tasks: DampedSines, seed: int, count: int) -> None:
        self.tasks = tasks
        self.task, self.start = draw(tasks, jax.random.split(jax.random.key(seed), count))
        least = losses(LevenbergMarquardt(), tasks, self.task, self.task.truth, 30)
        self.floor = np.asarray(least[:, -1])

    def curve(self, refiner: Refiner, steps: int, cost: float) -> dict[str, list[float]]:
        """Return the share solved after each number of steps, and what that costs."""
        found = losses(refiner, self.tasks, self.task, self.start, steps)
        return self._curve(np.asarray(found), cost)

    def restarted(self, refiner: Refiner, steps: int, cost: float) -> dict[str, list[float]]:
        """Do the same for the best of eight starts."""
        keys = jax.random.split(jax.random.key(5), 8)
        starts = [self.start]
        around = self.tasks.error * self.tasks.width * STD
        for key in keys[1:]:
            starts.append(self.start + around * jax.random.normal(key, self.start.shape))
        each = [losses(refiner, self.tasks, self.task, start, steps) for start in starts]
        return self._curve(np.min([np.asarray(found) for found in each], axis=0), 8 * cost)

    def _curve(self, found: np.ndarray, cost: float) -> dict[str, list[float]]:
        solved = np.mean(found <= SOLVED * self.floor[:, None], axis=0)
        steps = range(found.shape[1])
        return {"cost": [cost * (1 + k) for k in steps], "solved": [float(s) for s in solved]}


def adam(tune: Test, test: Test, lengths: Sequence[int]) -> dict[str, list[float]]:
    """Return Adam's curve: for each length the best rate, with a cosine schedule of that length."""
    points = {"cost": [], "solved": []}
    for length in lengths:
        best = max(RATES, key=lambda rate: tune.curve(_adam(rate, length), length, 1)["solved"][-1])
        points["cost"].append(float(GRADIENT * (1 + length)))
        points["solved"].append(test.curve(_adam(best, length), length, 1)["solved"][-1])
    return points


def _adam(rate: float, length: int) -> Gradient:
    return Gradient(_cosine_adam, {"rate": rate, "length": float(length)})


def _cosine_adam(rate: Any, length: Any) -> optax.GradientTransformation:
    def schedule(count: Any) -> Any:
        return rate * (1 + jnp.cos(jnp.pi * jnp.minimum(count / length, 1))) / 2

    return optax.adam(schedule)


@functools.partial(jax.jit, static_argnames="steps")
def searches(tasks: DampedSines, task: Any, start: Array, steps: int) -> Array:
    """Return the mean number of evaluations of L-BFGS until each step."""
    refiner, key = Gradient(optax.lbfgs), jax.random.key(0)

    def one(task: Any, start: Array) -> Array:
        objective = tasks.objective(task)

        def advance(state: Any, _: None) -> tuple[Any, Array]:
            state = refiner.step(objective, state, key)
            count = optax.tree.get(state.memory.optimizer, "num_linesearch_steps")
            return state, count

        state = refiner.init(objective, start, key)
        return jax.lax.scan(advance, state, None, length=steps)[1]

    counts = jnp.mean(jax.vmap(one)(task, start).astype(float), axis=0)
    return jnp.concatenate([jnp.ones(1), 1 + jnp.cumsum(counts)])


def lbfgs(test: Test, steps: int) -> dict[str, list[float]]:
    curve = test.curve(Gradient(optax.lbfgs), steps, GRADIENT)
    counts = searches(test.tasks, test.task, test.start, steps)
    return {"cost": [float(GRADIENT * c) for c in counts], "solved": curve["solved"]}


def tuned(tune: Test) -> LevenbergMarquardt:
    """Return Levenberg–Marquardt with the first damping that solves most in five steps."""

    def share(damping: float) -> float:
        return tune.curve(LevenbergMarquardt(damping=damping), 5, NORMAL)["solved"][-1]

    return LevenbergMarquardt(damping=max(DAMPINGS, key=share))


def meta_sgd(seed: int, steps: int) -> Refiner:
    """Train a rate for each param."""
    inner = Trajectory(DampedSines(), _untrained_sgd, horizon=10)
    config = TrainingConfig(
        steps, "adam", 1e-2, warmup=min(20, steps - 1), validate_every=max(1, steps // 5), seed=seed
    )
    estimator = FullUnroll(inner, batch=64, parts=8)
    return meta_train(estimator, config, validate_by="log_last").weights


def _untrained_sgd(key: Any) -> Gradient:
    del key
    return Gradient(_sgd, {"log_rate": jnp.full(5, -6.0)})


def _sgd(log_rate: Any) -> optax.GradientTransformation:
    return optax.sgd(jnp.exp(log_rate))


def learned(seed: int, folder: Path, quick: bool) -> Refiner:
    """Train learned damping, or load the model that an earlier run trained."""
    text = (resources.files("refinejax") / "configs" / CONFIG).read_text()
    config = tomllib.loads(text)
    config["training"]["seed"] = seed
    if quick:
        config["training"] |= {"steps": 20, "warmup": 5, "validate_every": 10}
        config["task"] |= {"batch": 16, "parts": 4, "held_out": 64, "horizon": 2}
        config["refiner"]["hidden"] = [16]
    return train_model("refiner", config, folder / f"damping-{seed}").weights


def measure(options: Options) -> dict[str, Any]:
    """Train and compare; trained models stay in the folder of the options, if one is named."""
    if options.models is not None:
        return _measure(options.quick, options.seeds, options.models)
    with tempfile.TemporaryDirectory() as folder:
        return _measure(options.quick, options.seeds, Path(folder))


def _measure(quick: bool, seeds: int, folder: Path) -> dict[str, Any]:
    count = 100 if quick else 2000
    curves: dict[str, dict[str, list[Any]]] = {name: {} for name in CONDITIONS}
    for seed in range(seeds):
        note(f"seed {seed}: training")
        refiner = learned(seed, folder, quick)
        rates = meta_sgd(seed, 20 if quick else 1000)
        for name, tasks in CONDITIONS.items():
            note(f"seed {seed}: {name}")
            tune, test = (Test(tasks, 1000 * (1 + seed) + k, n) for k, n in ((1, 400), (2, count)))
            best = tuned(tune)
            lengths = LENGTHS[:2] if quick else LENGTHS
            found = {
                OURS: test.curve(refiner, LONG, NORMAL),
                "LM": test.curve(LevenbergMarquardt(), LONG, NORMAL),
                "LM, damping tuned": test.curve(best, LONG, NORMAL),
                "LM × 8, damping tuned": test.restarted(best, STEPS, NORMAL),
                "L-BFGS": lbfgs(test, STEPS if quick else LONG),
                "Meta-SGD": test.curve(rates, LONG, GRADIENT),
                "Adam, tuned": adam(tune, test, lengths),
            }
            for method, curve in found.items():
                curves[name].setdefault(method, []).append(curve)
    return {
        "environment": environment(),
        "settings": {"seeds": seeds, "tasks": count, "quick": quick, "horizon": LONG},
        "conditions": {
            name: {method: _together(runs) for method, runs in methods.items()}
            for name, methods in curves.items()
        },
    }


def _together(runs: list[dict[str, list[float]]]) -> dict[str, Any]:
    """Return the curve of the mean over seeds, and the spread at the steps that are checked."""
    cost = np.mean([run["cost"] for run in runs], axis=0)
    solved = np.array([run["solved"] for run in runs])
    at = {str(k): spread(list(solved[:, k])) for k in CHECKED if k < solved.shape[1]}
    whole = [float(x) for x in solved.mean(axis=0)]
    return {"cost": [float(c) for c in cost], "solved": whole, "steps": at}


def at_cost(curve: Mapping[str, Any], budget: float) -> float:
    """Return the share solved within a cost; 0 where the cost does not pay for a step."""
    affordable = [s for c, s in zip(curve["cost"], curve["solved"], strict=True) if c <= budget]
    return max(affordable, default=0.0)


def rows(data: Data) -> Iterator[Block]:
    """Show the share solved at equal cost, in each condition."""
    settings = data["settings"]
    yield Table.of(
        {
            "damped sines": condition,
            "method": method,
            **{f"cost {cost}": f"{100 * at_cost(curve, cost):.1f} %" for cost in BUDGETS},
        }
        for condition, methods in data["conditions"].items()
        for method, curve in methods.items()
    )
    yield (
        f"Solved, of {settings['tasks']:,} tasks never seen in training, by the cost in "
        "evaluations of the forward model: 3 for a gradient, 6 for normal equations (5, 10, 21 and "
        "50 steps of Levenberg–Marquardt). Learned damping is trained on the first condition only. "
        f"{machine(data)}, means over {settings['seeds']} trainings and tests."
    )
    said = [
        f"{condition}: "
        + ", ".join(
            f"{percent(share, 1)} % after {k}" for k, share in methods[OURS]["steps"].items()
        )
        for condition, methods in data["conditions"].items()
    ]
    yield f"Learned damping, by steps: {'; '.join(said)}."


def claims(data: Data) -> Iterator[Claim]:
    """Claim nothing: the curves are means over trainings, and keep no single seeds."""
    del data
    return iter(())
