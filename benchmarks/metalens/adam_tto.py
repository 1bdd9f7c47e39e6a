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
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.evidence import Claim, faster, spread_times
from benchmarks.harness import (
    Data,
    Options,
    environment,
    note,
    peak_memory,
    race,
    ratio,
    spread,
    timed,
)
from benchmarks.metalens._recipe import (
    ERRORS,
    EXACT,
    FREE,
    LOW,
    RATES,
    SIZE,
    SOLVED,
    WIDTH,
    Batch,
    Recipe,
    adam,
    engine,
    judge,
    lbfgs,
    make_batch,
    recipe_problem,
)
from benchmarks.render import Block, Table, machine, multiple, over_seeds, percent, plus_minus

PEERS = {
    "run_batch": "refinejax `run_batch`, optax Adam",
    "torch batched": "PyTorch, batched",
    "torch one by one": "PyTorch, one by one",
}
OURS = "run_batch"


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
    from benchmarks.peers import torch_adam

    rows, steps = [], 20 if quick else 500
    for error in (1e-4, 1e-2):
        batch = make_batches(error, "five", samples(quick), seeds)
        starts = batch.unit.astype(np.float32)
        last, best = torch_adam.batched(batch.observed, starts, rate=1e-2, steps=steps)
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
    """Time the recipe with the wavelength free: time a sample in units of `run_batch`'s."""
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
    from benchmarks.peers import torch_adam

    observed, starts = batch.observed, batch.unit.astype(np.float32)
    return [
        torch_adam.batched(
            observed[i : i + size], starts[i : i + size], rate=1e-2, steps=steps, track=False
        )
        for i in range(0, len(starts), size)
    ]


def torch_single(batch: Batch, steps: int, few: int) -> Any:
    """Refine the first few samples one by one in PyTorch."""
    from benchmarks.peers import torch_adam

    observed, starts = batch.observed[:few], batch.unit[:few].astype(np.float32)
    return torch_adam.one_by_one(observed, starts, rate=1e-2, steps=steps, track=False)


def make_peers(
    batch: Batch, few: int, steps: int, size: int
) -> dict[str, tuple[Callable[[], Any], int]]:
    """Return the peers to time, and how many samples each refines."""
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


def measure(options: Options) -> dict[str, Any]:
    """Take all measurements."""
    quick, seeds = options.quick, options.seeds
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


WAVELENGTH = {"five": "unknown", "known": "known"}


def rows(data: Data) -> Iterator[Block]:
    """Show how often the recipe succeeds, then its speed in refinejax and in PyTorch."""
    settings = data["settings"]
    yield Table.of(_success_rows(data["success"]))
    yield (
        f"Share of samples with a loss below {settings['solved_below']:g}, in %; in parentheses "
        f"the share with a residual RMSE of at most {settings['exact_at_most']:g} rad. "
        f"{settings['samples_a_seed']} samples a seed, {over_seeds(settings['seeds'])}."
    )
    yield Table.of(map(_torch_row, data["torch"]))
    yield Table.of(map(_speed_row, data["speed"]))
    yield _speed_note(data)


def _success_rows(found: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    for free, error in dict.fromkeys((row["free"], row["error"]) for row in found):
        here = [row for row in found if (row["free"], row["error"]) == (free, error)]
        yield {
            "start off by": f"{100 * error:g} % of range",
            "wavelength": WAVELENGTH[free],
            **_recipe_cells([row for row in here if row["method"] == "adam"]),
            "L-BFGS": _share(next(row for row in here if row["method"] == "lbfgs")),
        }


def _recipe_cells(tried: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the recipe as published, then the best of all rates and schedules tried."""
    published = [r for r in tried if (r["schedule"], r["rate"]) == ("constant", 1e-2)]
    cells = {f"Adam 1e-2, {r['steps']} steps": _share(r) for r in published}
    best = max(tried, key=lambda r: (r["solved"]["mean"], -r["rmse"]["mean"]))
    schedule = "" if best["schedule"] == "constant" else f" {best['schedule']}"
    rate = f"{best['rate']:.0e}{schedule}, {best['steps']}"
    of = rate if best["solved"]["mean"] else "none solves any"
    return {**cells, "best Adam": _share(best), "of": of}


def _share(row: Mapping[str, Any]) -> str:
    return f"{percent(row['solved'])} ({100 * row['exact']['mean']:.0f})"


def _torch_row(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "Adam 1e-2, wavelength unknown, in": PEERS.get(row["method"], "PyTorch, batched"),
        "start off by": f"{100 * row['error']:g} % of range",
        "steps": str(row["steps"]),
        "params kept": row["kept"],
        "solved": _share(row),
        "median RMSE, rad": plus_minus(row["rmse"]),
    }


def _speed_row(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "the same recipe in": PEERS[row["peer"]],
        "time a sample": multiple(row["times"], unit=row["peer"] == OURS),
        "samples/s": plus_minus(row["rate"]),
        "first call, s more": f"{row['first_call']:.1f}",
        "peak memory, MiB": f"{row['memory']:.0f}",
    }


def _speed_note(data: Data) -> str:
    found = {row["peer"]: row for row in data["speed"]}
    ours, single = found[OURS], found["torch one by one"]
    return (
        f"{ours['steps']} steps, {ours['samples']} samples (one by one: {single['samples']}, "
        f"extrapolated), PyTorch in its best batches of "
        f"{found['torch batched']['chunk']}; {machine(data)}, {over_seeds(ours['times']['n'])}. "
        "Memory is beyond imports and data, and includes compilation."
    )


def claims(data: Data) -> Iterator[Claim]:
    """Claim that the engine takes less time a sample than PyTorch."""
    steps = data["speed"][0]["steps"]
    yield from faster(f"{steps} steps", OURS, spread_times(data["speed"]))
