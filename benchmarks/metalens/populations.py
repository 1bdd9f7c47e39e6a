"""What does a population cost on phase maps, and what does it solve?

64 × 64 maps with three unknowns (`benchmarks.lens`), starts off by 1 %, and for each map 20
generations of 50 candidates of CMA-ES with σ of 1 % of the ranges, as the literature proposes; all
peers on the same maps from the same starts. *evosax*: under ``vmap``, with the loss one writes
first (the mean squared difference of cosines and sines of the images), in its best batch. *pycma*:
one map after the other, the loss in NumPy with as few passes as possible. *refinejax*: the loss by
pixels in turns, which is one fused pass; and on 16 × 16 of the pixels.

Then the hybrid: starts off by 5 %, CMA-ES on 16 × 16 pixels until they are explained to 1e-3 rad,
Levenberg–Marquardt on all from there. Float32; machine precision is a residual RMSE below 2e-5 rad.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks import lens as small_lens
from benchmarks.evidence import Claim, evidence, faster, spread_times
from benchmarks.harness import Data, Options, environment, note, peak_memory, race, ratio, spread
from benchmarks.peers.numpy_fits import NumpyLens
from benchmarks.render import Block, Table, machine, multiple, over_seeds, percent, plus_minus
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
OURS, COARSER = "refinejax", "refinejax, 16 × 16 pixels"
BATCHED, ONE_BY_ONE = 128, 16  # maps that evosax and pycma get
Maps = small_lens.Maps
Method = Callable[[Maps], np.ndarray]


def problem(maps: Maps) -> InverseProblem:
    """Return the maps as pixels in turns; the loss is in rad²."""
    axis = np.linspace(-0.5, 0.5, small_lens.SIZE, dtype=np.float32)
    model = Pointwise(small_lens.turns_at, (axis[None, :], axis[:, None]), reorder=True)
    low, high = (end.astype(np.float32) for end in (small_lens.LOWER, small_lens.UPPER))
    return InverseProblem(
        model,
        maps.turns,
        noise=np.float32(1 / (2 * np.pi)),
        difference=turn_difference,
        space=ParameterSpace.create((), low, high),
    )


def ours(maps: Maps, pixels: int) -> np.ndarray:
    some = problem(maps) if pixels == small_lens.SIZE else thinned(problem(maps), pixels)
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
    low, width = (
        jnp.asarray(small_lens.LOWER, jnp.float32),
        jnp.asarray(small_lens.WIDTH, jnp.float32),
    )

    def loss(unit: Array, image: Array) -> Array:
        found = small_lens.image(low + width * unit)
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
        unit = (start - small_lens.LOWER) / small_lens.WIDTH
        options = {"popsize": SIZE, "maxiter": GENERATIONS, "verbose": -9, "seed": index + 1}
        search = cma.CMAEvolutionStrategy(unit, SIGMA, {**options, "bounds": [0, 1]})
        while not search.stop():
            x = search.ask()
            lenses = (small_lens.LOWER + small_lens.WIDTH * row for row in x)
            search.tell(x, [float(np.mean(lens.residual(one, turns) ** 2)) for one in lenses])
        found.append(small_lens.LOWER + small_lens.WIDTH * search.result.xbest)
    return np.array(found)


def rmse(maps: Maps, lenses: np.ndarray) -> np.ndarray:
    """Return the residual RMSE of each map against the lens that made it [rad]."""
    difference = small_lens.exact(lenses) - small_lens.exact(maps.truth[: len(lenses)])
    difference = 2 * np.pi * (difference - np.round(difference))
    return np.sqrt(np.mean(difference**2, axis=(1, 2)))


def peers(maps: Maps, quick: bool) -> dict[str, Callable[[], np.ndarray]]:
    few = maps.first(2 if quick else ONE_BY_ONE)
    some = maps.first(16 if quick else BATCHED)
    return {
        COARSER: lambda: ours(maps, COARSE),
        OURS: lambda: ours(maps, small_lens.SIZE),
        "evosax, naive loss": lambda: naive(some, 16),
        "pycma, one by one": lambda: pycma(few),
    }


def memory(name: str, quick: bool) -> Callable[[], Any]:
    maps = small_lens.simulate(32 if quick else 512, 0)
    return peers(maps, quick)[name]


def measure(options: Options) -> dict[str, Any]:
    quick, seeds = options.quick, options.seeds
    count, turns = (32, 1) if quick else (512, 3)
    times: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    shares: dict[str, list[float]] = {}
    compiled: dict[str, float] = {}
    for seed in range(seeds):
        note(f"seed {seed}")
        maps = small_lens.simulate(count, seed)
        timings, found = race(peers(maps, quick), turns)
        each = {
            name: [run / len(found[name]) for run in timing.runs]
            for name, timing in timings.items()
        }
        for name, timing in timings.items():
            compiled.setdefault(name, timing.compile)
            times.setdefault(name, []).append(ratio(each[name], each[OURS]))
            rates.setdefault(name, []).append(len(found[name]) / timing.run)
            shares.setdefault(name, []).append(float(np.mean(small_lens.solved(maps, found[name]))))
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
        maps = small_lens.simulate(32 if quick else 512, 100 + seed, error=0.05)
        timings, found = race({"hybrid": lambda maps=maps: hybrid(maps)}, 1)
        exact.append(float(np.mean(rmse(maps, found["hybrid"]) <= EXACT)))
        rates.append(len(maps.starts) / timings["hybrid"].run)
    return {"error": 0.05, "exact": spread(exact), "rate": spread(rates)}


def rows(data: Data) -> Iterator[Block]:
    """Show the time of a population on phase maps; then the hybrid."""
    settings, both = data["settings"], data["hybrid"]
    yield Table.of(
        {
            "CMA-ES on phase maps": row["peer"],
            "time a map": multiple(row["times"], unit=row["peer"] == OURS),
            "maps/s": plus_minus(row["rate"]),
            "solved, %": percent(row["solved"]),
            "first call, s more": f"{row['compile']:.1f}",
            "peak memory, MiB": f"{row['memory']:.0f}",
        }
        for row in data["rows"]
    )
    yield (
        "20 generations of 50 candidates a map of 64 × 64, three unknowns, starts off by 1 %, "
        f"float32; {settings['maps']} maps a seed (evosax: the first {settings['batched']}, pycma: "
        f"{settings['one_by_one']}, and solved is their share of those); "
        f"{machine(data)}, {over_seeds(settings['seeds'])}. Memory is beyond imports and data, and "
        "includes compilation."
    )
    yield evidence(claims, data)
    share, rate = plus_minus(both["exact"], factor=100), plus_minus(both["rate"])
    yield (
        "From starts off by 5 %, CMA-ES on 16 × 16 pixels and then Levenberg–Marquardt on all "
        f"bring {share} % of the maps to machine precision (a residual RMSE below 2e-5 rad), "
        f"{rate} maps a second."
    )


def claims(data: Data) -> Iterator[Claim]:
    """Claim that a map takes less time than in other libraries."""
    found = [row for row in data["rows"] if row["peer"] != COARSER]
    yield from faster("a map", OURS, spread_times(found))
