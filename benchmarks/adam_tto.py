"""How well does the recipe from the literature refine metalens parameters?

The recipe: Adam with learning rate 1e-2 on range-normalized params, (x − lower)/(upper − lower),
100 or 500 steps, loss = mean squared difference of the two channels (cos φ, sin φ). Here on noise-
free maps of 64 × 64 pixels, params over their full ranges, starts off by 0.01 to 5 % of each range
(Gaussian, clipped), with all five params free and with the wavelength known; and what smaller
learning rates and a cosine schedule change. Beside it L-BFGS on the wrapped difference, through
`refine` with its defaults, from the same starts.

Then the recipe in PyTorch, one sample at a time and batched, against `run_batch` with optax's Adam:
time a sample, success, peak memory. One at a time is timed on a few samples; the time a sample does
not depend on how many there are, and nothing else is extrapolated.

A sample is solved if the loss falls below 1e-3; beside it the share whose residual RMSE is at most
2e-3 rad. Both are evaluated in float64, for all methods alike, at the best params seen. (The recipe
as published keeps the last ones; for PyTorch both are reported.)
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from benchmarks._common import (
    environment,
    note,
    peak_memory,
    plus_minus,
    race,
    ratio,
    script,
    show,
    spread,
    timed,
)
from refinejax import Gradient, InverseProblem, ParameterSpace, Refiner, Stop, refine, run_batch
from refinejax.physics.metalens.lens import LOWER, NAMES, UPPER, channels, phase

SIZE, SOLVED, EXACT = 64, 1e-3, 2e-3
ERRORS = (1e-4, 1e-3, 1e-2, 5e-2)
RATES = (1e-2, 1e-3, 1e-4, 1e-5)
LOW, WIDTH = np.array(LOWER), np.array(UPPER) - np.array(LOWER)
FREE = {"five": (0, 1, 2, 3, 4), "known": (0, 1, 2, 4)}  # columns of params; without wavelength


class Batch(NamedTuple):
    """Samples: truth and normalized starts (B, 5), wrapped phase (B, n, n), both float64."""

    truth: np.ndarray
    unit: np.ndarray
    maps: np.ndarray

    @property
    def observed(self) -> np.ndarray:
        """The channels, float32 (B, 2, n, n)."""
        return np.stack([np.cos(self.maps), np.sin(self.maps)], axis=1).astype(np.float32)


class Recipe(NamedTuple):
    """Adam, its (peak) learning rate, and how many steps."""

    schedule: str
    rate: float
    steps: int

    @property
    def refiner(self) -> Refiner:
        """The same as a refiner."""
        if self.schedule == "constant":
            return Gradient(optax.adam, {"learning_rate": self.rate})
        return Gradient(cosine_adam, {"peak": self.rate, "steps": self.steps})


def cosine_adam(peak: Any, steps: int) -> optax.GradientTransformation:
    """Adam whose learning rate falls from its peak to 0 along a cosine."""
    return optax.adam(optax.cosine_decay_schedule(peak, steps))


def phase64(params: np.ndarray, size: int = SIZE) -> np.ndarray:
    """The unwrapped phase in float64 with NumPy, apart from the code that is measured."""
    xc, yc, side, wavelength, focal = (p[:, None, None] for p in params.astype(np.float64).T)
    axis = np.linspace(-0.5, 0.5, size)
    r2 = (xc + side * axis[None, :]) ** 2 + (yc + side * axis[:, None]) ** 2
    return 2 * math.pi / wavelength * (np.sqrt(r2 + focal**2) - focal)


def make_batch(error: float, free: str, count: int, seed: int) -> Batch:
    """Draw truths over the full ranges, and starts off by ``error`` of the range."""
    random = np.random.default_rng(seed)
    truth = random.uniform(size=(count, 5))
    moved = np.clip(truth + error * random.standard_normal((count, 5)), 0, 1)
    columns = list(FREE[free])
    unit = truth.copy()
    unit[:, columns] = moved[:, columns]
    params = LOW + truth * WIDTH
    return Batch(params, unit, np.angle(np.exp(1j * phase64(params))))


def judge(batch: Batch, params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return loss and residual RMSE [rad] of each sample, in float64."""
    difference = np.angle(np.exp(1j * (phase64(params) - batch.maps)))
    loss = np.mean(1 - np.cos(difference), axis=(1, 2))  # ½((Δcos)² + (Δsin)²), over pixels
    return loss, np.sqrt(np.mean(difference**2, axis=(1, 2)))


def five(unit: Array) -> Array:
    """Channels at normalized params."""
    return channels(_params(unit), SIZE)


def known(unit: Array, wavelength: Array) -> Array:
    """Channels at normalized params without the wavelength."""
    xc, yc, side, focal = unit
    whole = (wavelength - LOWER[3]) / (UPPER[3] - LOWER[3])
    return channels(_params(jnp.stack([xc, yc, side, whole, focal])), SIZE)


def _params(unit: Array) -> Array:
    return jnp.asarray(LOW, unit.dtype) + unit * jnp.asarray(WIDTH, unit.dtype)


def adam(batch: Batch, free: str, recipe: Recipe) -> np.ndarray:
    """Refine by the recipe with the batch engine; return params (B, 5)."""
    problem, starts = recipe_problem(batch, free)
    return denormalize(batch, free, engine(problem, starts, recipe))


def recipe_problem(batch: Batch, free: str) -> tuple[InverseProblem, np.ndarray]:
    """Return the normalized problem and its starts."""
    starts = batch.unit[:, list(FREE[free])].astype(np.float32)
    if free == "five":
        return InverseProblem(five, batch.observed), starts
    wavelength = batch.truth[:, 3].astype(np.float32)
    return InverseProblem(known, batch.observed, context=wavelength), starts


def engine(problem: InverseProblem, starts: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Take all steps of the recipe; return the best normalized params."""
    stop = Stop.never()
    return run_batch(recipe.refiner, problem, starts, max_steps=recipe.steps, stop=stop).params


def denormalize(batch: Batch, free: str, unit: np.ndarray) -> np.ndarray:
    """Put normalized params back into µm, with the wavelength if it was known."""
    whole = batch.unit.copy()
    whole[:, list(FREE[free])] = unit
    return LOW + whole * WIDTH


def lbfgs(batch: Batch, free: str) -> np.ndarray:
    """Refine through `refine`, L-BFGS by its defaults; return params (B, 5)."""
    columns = list(FREE[free])
    lower, upper = np.array(LOWER)[columns], np.array(UPPER)[columns]
    space = ParameterSpace.create([NAMES[c] for c in columns], lower, upper)
    params = LOW + batch.unit * WIDTH
    result = refine(
        phase_five if free == "five" else phase_known,
        batch.maps.astype(np.float32),
        params[:, columns].astype(np.float32),
        bounds=space,
        context=None if free == "five" else batch.truth[:, 3].astype(np.float32),
        difference="wrapped",
        method="lbfgs",
    )
    params[:, columns] = result.params
    return params


def phase_five(params: Array) -> Array:
    """Phase at all five params."""
    return phase(params, SIZE)


def phase_known(params: Array, wavelength: Array) -> Array:
    """Phase at the params without the wavelength."""
    xc, yc, side, focal = params
    return phase(jnp.stack([xc, yc, side, wavelength, focal]), SIZE)


def recipes(quick: bool) -> list[Recipe]:
    """Return the recipe as published, then what other rates and a schedule make of it."""
    if quick:
        return [Recipe("constant", rate, 100) for rate in (1e-2, 1e-4)]
    constant = [Recipe("constant", rate, steps) for steps in (100, 500) for rate in RATES]
    return constant + [Recipe("cosine", rate, 500) for rate in RATES]


def entry(batch: Batch, params: np.ndarray, seeds: int) -> dict[str, Any]:
    """Say how many samples of each seed came out right."""
    loss, rmse = (np.split(values, seeds) for values in judge(batch, params))
    return {
        "solved": spread([float(np.mean(values < SOLVED)) for values in loss]),
        "exact": spread([float(np.mean(values <= EXACT)) for values in rmse]),
        "rmse": spread([float(np.median(values)) for values in rmse]),
    }


def make_batches(error: float, free: str, count: int, seeds: int) -> Batch:
    """Return the batches of all seeds, one after the other, to be refined at once."""
    batches = [make_batch(error, free, count, seed) for seed in range(seeds)]
    return Batch(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))


def samples(quick: bool) -> int:
    """Return how many samples a seed has."""
    return 8 if quick else 16


def success(quick: bool, seeds: int) -> list[dict[str, Any]]:
    """Run every recipe and L-BFGS from every starting error: one row each."""
    rows = []
    for free in FREE:
        for error in (1e-4, 1e-2) if quick else ERRORS:
            note(f"{free}: starts off by {100 * error:g} %")
            batch = make_batches(error, free, samples(quick), seeds)
            rows += success_from(batch, {"free": free, "error": error}, recipes(quick), seeds)
    return rows


def success_from(
    batch: Batch, at: dict[str, Any], tried: Sequence[Recipe], seeds: int
) -> list[dict[str, Any]]:
    """Run every recipe and L-BFGS on one batch."""
    free = at["free"]
    rows = [{"method": "start", **entry(batch, LOW + batch.unit * WIDTH, seeds)}]
    for recipe in tried:
        found = entry(batch, adam(batch, free, recipe), seeds)
        rows.append({"method": "adam", **recipe._asdict(), **found})
    rows.append({"method": "lbfgs", **entry(batch, lbfgs(batch, free), seeds)})
    return [{**at, **row} for row in rows]


def torch_success(quick: bool, seeds: int) -> list[dict[str, Any]]:
    """Run the recipe in PyTorch, batched (last and best params), and ours from the same starts."""
    from benchmarks import _torch_adam

    rows, steps = [], 20 if quick else 500
    for error in (1e-4, 1e-2):
        batch = make_batches(error, "five", samples(quick), seeds)
        starts = batch.unit.astype(np.float32)
        last, best = _torch_adam.batched(batch.observed, starts, rate=1e-2, steps=steps)
        found = {
            ("torch", "last"): LOW + last * WIDTH,
            ("torch", "best"): LOW + best * WIDTH,
            ("run_batch", "best"): adam(batch, "five", Recipe("constant", 1e-2, steps)),
        }
        for (method, kept), params in found.items():
            at = {"error": error, "method": method, "kept": kept, "steps": steps}
            rows.append({**at, **entry(batch, params, seeds)})
    return rows


def speed(quick: bool, seeds: int) -> list[dict[str, Any]]:
    """Time the recipe with the wavelength free: time a sample over that of `run_batch`."""
    count, few, steps = (8, 1, 10) if quick else (96, 2, 100)
    sizes = torch_sizes(count, steps)
    runs = [speed_once(count, few, steps, sizes["best"], seed) for seed in range(seeds)]
    note("peak memory")
    rows = []
    for name in runs[0]["micros"]:
        memory = peak_memory(memory_job, name, count, few, steps, sizes["best"])
        rows.append(
            {
                "peer": name,
                "samples": few if name == "torch one by one" else count,
                "steps": steps,
                "times": spread([run["times"][name] for run in runs]),
                "rate": spread([1e6 / run["micros"][name] for run in runs]),
                "first_call": runs[0]["compile"][name],
                "memory": memory,
                "chunk": sizes["best"] if name == "torch batched" else None,
            }
        )
    return rows


def torch_sizes(count: int, steps: int) -> dict[str, Any]:
    """Find the batch size at which PyTorch is fastest on ``count`` samples."""
    batch = make_batch(1e-2, "five", count, seed=100)
    peers = {}
    for size in (4, 8, 16, 32, 96):
        if size <= count:
            peers[str(size)] = functools.partial(torch_batched, batch, max(steps // 10, 1), size)
    times, _ = race(peers, 2)
    best = min(times, key=lambda name: times[name].run)
    return {"best": int(best), "seconds": {name: timing.run for name, timing in times.items()}}


def torch_batched(batch: Batch, steps: int, size: int) -> list[Any]:
    """Refine ``size`` samples at a time in PyTorch."""
    from benchmarks import _torch_adam

    observed, starts = batch.observed, batch.unit.astype(np.float32)
    return [
        _torch_adam.batched(
            observed[i : i + size], starts[i : i + size], rate=1e-2, steps=steps, track=False
        )
        for i in range(0, len(starts), size)
    ]


def torch_single(batch: Batch, steps: int, few: int) -> Any:
    """Refine the first few samples one by one in PyTorch."""
    from benchmarks import _torch_adam

    observed, starts = batch.observed[:few], batch.unit[:few].astype(np.float32)
    return _torch_adam.one_by_one(observed, starts, rate=1e-2, steps=steps, track=False)


def make_peers(
    batch: Batch, few: int, steps: int, size: int
) -> dict[str, tuple[Callable[[], Any], int]]:
    """Return what is timed, and how many samples each refines."""
    problem, starts = recipe_problem(batch, "five")
    recipe = Recipe("constant", 1e-2, steps)
    count = len(starts)
    return {
        "run_batch": (lambda: engine(problem, starts, recipe), count),
        "torch batched": (lambda: torch_batched(batch, steps, size), count),
        "torch one by one": (lambda: torch_single(batch, steps, few), few),
    }


def speed_once(count: int, few: int, steps: int, size: int, seed: int) -> dict[str, Any]:
    """Time all peers in turns on the same starts."""
    note(f"speed, seed {seed}")
    peers = make_peers(make_batch(1e-2, "five", count, seed), few, steps, size)
    times, _ = race({name: peer for name, (peer, _) in peers.items()}, 3)
    each = {name: np.array(times[name].runs) / done for name, (_, done) in peers.items()}
    return {
        "micros": {name: 1e6 * float(np.median(runs)) for name, runs in each.items()},
        "times": {
            name: ratio(runs.tolist(), each["run_batch"].tolist()) for name, runs in each.items()
        },
        "compile": {name: timing.compile for name, timing in times.items()},
    }


def memory_job(name: str, count: int, few: int, steps: int, size: int) -> Callable[[], Any]:
    """Prepare one peer in a fresh process."""
    import torch  # pyright: ignore[reportMissingImports]  # in the extra `bench`

    torch.zeros(1)
    timed(lambda: jnp.zeros(1))  # starts both libraries, so that they do not count
    return make_peers(make_batch(1e-2, "five", count, 0), few, steps, size)[name][0]


def measure(quick: bool, seeds: int) -> dict[str, Any]:
    """Take all measurements."""
    return {
        "environment": environment(),
        "settings": {
            "quick": quick,
            "seeds": seeds,
            "samples_a_seed": samples(quick),
            "size": SIZE,
            "solved_below": SOLVED,
            "exact_at_most": EXACT,
        },
        "speed": speed(quick, seeds),
        "torch": torch_success(quick, seeds),
        "success": success(quick, seeds),
    }


def report(data: dict[str, Any]) -> None:
    """Print what was measured."""
    show("Share solved, %", [_success_row(row) for row in data["success"]])
    show("In PyTorch, %", [_success_row(row) for row in data["torch"]])
    show("The recipe, against run_batch", [_speed_row(row) for row in data["speed"]])


def _success_row(row: dict[str, Any]) -> dict[str, str]:
    method = row["method"]
    if method == "adam":
        method = f"adam {row['rate']:g} {row['schedule']}, {row['steps']}"
    return {
        "method": f"{row.get('free', '')} {row.get('kept', '')} {method}".strip(),
        "start off": f"{100 * row['error']:g} %",
        "loss < 1e-3": plus_minus(row["solved"], factor=100),
        "RMSE ≤ 2e-3": plus_minus(row["exact"], factor=100),
        "median RMSE": plus_minus(row["rmse"]),
    }


def _speed_row(row: dict[str, Any]) -> dict[str, str]:
    return {
        "peer": row["peer"],
        "timed on": str(row["samples"]),
        "time a sample": plus_minus(row["times"]),
        "samples/s": plus_minus(row["rate"]),
        "compile s": f"{row['first_call']:.2f}",
        "peak MiB": f"{row['memory']:.0f}",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    script(__doc__, measure, report, arguments)


if __name__ == "__main__":
    main()
