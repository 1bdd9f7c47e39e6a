"""What does a population cost on phase maps, and what does it solve?

64 × 64 maps with three unknowns (`_lens`), starts off by 1 %, and for each map 20 generations of 50
candidates of CMA-ES with σ of 1 % of the ranges, as the literature proposes; all peers on the same
maps from the same starts. *evosax*: under ``vmap``, with the loss one writes first (the mean
squared difference of cosines and sines of the images), in its best batch. *pycma*: one map after
the other, the loss in NumPy with as few passes as there are. *refinejax*: the loss by pixels in
turns, which is one fused pass; and on 16 × 16 of the pixels.

Then the hybrid: starts off by 5 %, CMA-ES on 16 × 16 pixels until they are explained to 1e-3 rad,
Levenberg–Marquardt on all from there. Float32; machine precision is a residual RMSE below 2e-5 rad.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks import _lens
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
)
from benchmarks._peers_numpy import NumpyLens
from refinejax import (
    Evolution,
    Execution,
    InverseProblem,
    LevenbergMarquardt,
    ParameterSpace,
    Pointwise,
    Stop,
    run_batch,
)
from refinejax.problems import thinned
from refinejax.problems.phase import turn_difference

SIZE, GENERATIONS, SIGMA, COARSE = 50, 20, 0.01, 16
EXACT = 2e-5  # rad
FEW = Evolution("cma_es", population_size=SIZE, std=SIGMA * 40 / 32)  # of a range; scaled by 32
WIDE = Evolution("cma_es", population_size=100, std=0.1)
BATCHED, ONE_BY_ONE = 128, 16  # maps that evosax and pycma get
Maps = _lens.Maps
Method = Callable[[Maps], np.ndarray]


def problem(maps: Maps) -> InverseProblem:
    """Return the maps as pixels in turns; the loss is in rad²."""
    axis = np.linspace(-0.5, 0.5, _lens.SIZE, dtype=np.float32)
    model = Pointwise(_lens.turns_at, (axis[None, :], axis[:, None]), reorder=True)
    low, high = (end.astype(np.float32) for end in (_lens.LOWER, _lens.UPPER))
    return InverseProblem(
        model,
        maps.turns,
        noise=np.float32(1 / (2 * np.pi)),
        difference=turn_difference,
        space=ParameterSpace.create((), low, high),
    )


def ours(maps: Maps, pixels: int) -> np.ndarray:
    some = problem(maps) if pixels == _lens.SIZE else thinned(problem(maps), pixels)
    never = Stop.never()
    result = run_batch(
        FEW,
        some,
        maps.starts,
        0,
        max_steps=GENERATIONS,
        stop=never,
        execution=Execution(lanes=min(256, len(maps.starts))),
    )
    return np.asarray(result.params)


def hybrid(maps: Maps) -> np.ndarray:
    every = problem(maps)
    stop = Stop(target=1e-6)
    rough = run_batch(WIDE, thinned(every, COARSE), maps.starts, 0, max_steps=100, stop=stop)
    return np.asarray(run_batch(LevenbergMarquardt(), every, rough.params, max_steps=50).params)


@functools.cache
def naive_program() -> Callable[..., Array]:
    """Return evosax's CMA-ES over maps, with the loss one writes first."""
    from evosax.algorithms import CMA_ES

    algorithm = CMA_ES(SIZE, jnp.zeros(3))
    numbers = algorithm.default_params.replace(std_init=SIGMA)
    low, width = jnp.asarray(_lens.LOWER, jnp.float32), jnp.asarray(_lens.WIDTH, jnp.float32)

    def loss(unit: Array, image: Array) -> Array:
        found = _lens.image(low + width * unit)
        cosine, sine = jnp.cos(found) - jnp.cos(image), jnp.sin(found) - jnp.sin(image)
        return jnp.mean(cosine**2 + sine**2)

    def one(image: Array, start: Array, key: Array) -> Array:
        state = algorithm.init(key, (start - low) / width, numbers)

        def generation(state: Any, key: Array) -> tuple[Any, None]:
            ask, tell = jax.random.split(key)
            x, state = algorithm.ask(ask, state, numbers)
            x = jnp.clip(x, 0, 1)
            losses = jax.vmap(lambda row: loss(row, image))(x)
            return algorithm.tell(tell, x, losses, state, numbers)[0], None

        keys = jax.random.split(key, GENERATIONS)
        return low + width * jax.lax.scan(generation, state, keys)[0].best_solution

    return jax.jit(jax.vmap(one))


def naive(maps: Maps, batch: int) -> np.ndarray:
    found = []
    for begin in range(0, len(maps.starts), batch):
        rows = slice(begin, begin + batch)
        keys = jax.random.split(jax.random.key(begin), batch)
        found.append(naive_program()(maps.radians[rows], maps.starts[rows], keys))
    return np.concatenate([np.asarray(part) for part in found])


def pycma(maps: Maps) -> np.ndarray:
    import cma  # pyright: ignore[reportMissingImports]

    lens, found = NumpyLens("float32"), []
    for index, (turns, start) in enumerate(zip(maps.turns, maps.starts, strict=True)):
        unit = (start - _lens.LOWER) / _lens.WIDTH
        options = {"popsize": SIZE, "maxiter": GENERATIONS, "verbose": -9, "seed": index + 1}
        search = cma.CMAEvolutionStrategy(unit, SIGMA, {**options, "bounds": [0, 1]})
        while not search.stop():
            x = search.ask()
            lenses = (_lens.LOWER + _lens.WIDTH * row for row in x)
            search.tell(x, [float(np.mean(lens.residual(one, turns) ** 2)) for one in lenses])
        found.append(_lens.LOWER + _lens.WIDTH * search.result.xbest)
    return np.array(found)


def rmse(maps: Maps, lenses: np.ndarray) -> np.ndarray:
    """Return the residual RMSE of each map against the lens that made it [rad]."""
    difference = _lens.exact(lenses) - _lens.exact(maps.truth[: len(lenses)])
    difference = 2 * np.pi * (difference - np.round(difference))
    return np.sqrt(np.mean(difference**2, axis=(1, 2)))


def peers(maps: Maps, quick: bool) -> dict[str, Callable[[], np.ndarray]]:
    few = maps.first(2 if quick else ONE_BY_ONE)
    some = maps.first(16 if quick else BATCHED)
    return {
        "refinejax, 16 × 16 pixels": lambda: ours(maps, COARSE),
        "refinejax": lambda: ours(maps, _lens.SIZE),
        "evosax, naive loss": lambda: naive(some, 16),
        "pycma, one by one": lambda: pycma(few),
    }


def memory(name: str, quick: bool) -> Callable[[], Any]:
    maps = _lens.simulate(32 if quick else 512, 0)
    return peers(maps, quick)[name]


def measure(quick: bool, seeds: int) -> dict[str, Any]:
    count, turns = (32, 1) if quick else (512, 3)
    times: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    shares: dict[str, list[float]] = {}
    compiled: dict[str, float] = {}
    for seed in range(seeds):
        note(f"seed {seed}")
        maps = _lens.simulate(count, seed)
        timings, found = race(peers(maps, quick), turns)
        each = {
            name: [run / len(found[name]) for run in timing.runs]
            for name, timing in timings.items()
        }
        for name, timing in timings.items():
            compiled.setdefault(name, timing.compile)
            times.setdefault(name, []).append(ratio(each[name], each["refinejax"]))
            rates.setdefault(name, []).append(len(found[name]) / timing.run)
            shares.setdefault(name, []).append(float(np.mean(_lens.solved(maps, found[name]))))
    rows = [
        {
            "peer": name,
            "times": spread(times[name]),
            "rate": spread(rates[name]),
            "solved": spread(shares[name]),
            "compile": compiled[name],
            "memory": peak_memory(memory, name, quick),
        }
        for name in times
    ]
    settings = {"seeds": seeds, "quick": quick, "maps": count}
    settings |= {"batched": BATCHED, "one_by_one": ONE_BY_ONE}
    return {
        "environment": environment(),
        "settings": settings,
        "rows": rows,
        "hybrid": _hybrid(quick, seeds),
    }


def _hybrid(quick: bool, seeds: int) -> dict[str, Any]:
    note("hybrid")
    exact, rates = [], []
    for seed in range(seeds):
        maps = _lens.simulate(32 if quick else 512, 100 + seed, error=0.05)
        timings, found = race({"hybrid": lambda maps=maps: hybrid(maps)}, 1)
        exact.append(float(np.mean(rmse(maps, found["hybrid"]) <= EXACT)))
        rates.append(len(maps.starts) / timings["hybrid"].run)
    return {"error": 0.05, "exact": spread(exact), "rate": spread(rates)}


def report(data: Mapping[str, Any]) -> None:
    rows = [
        {
            "50 × 20 evaluations a map": row["peer"],
            "time a map": plus_minus(row["times"]) + " ×",
            "maps/s": plus_minus(row["rate"]),
            "solved, %": plus_minus(row["solved"], factor=100),
            "compile, s": f"{row['compile']:.1f}",
            "peak memory, MiB": f"{row['memory']:.0f}",
        }
        for row in data["rows"]
    ]
    show("CMA-ES on phase maps", rows)
    both = data["hybrid"]
    exact, rate = plus_minus(both["exact"], factor=100), plus_minus(both["rate"])
    show("CMA-ES, then LM, from 5 %", [{"exact, %": exact, "maps/s": rate}])


if __name__ == "__main__":
    script(__doc__, measure, report)
