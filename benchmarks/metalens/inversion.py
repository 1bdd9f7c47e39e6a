"""How many phase maps are solved, and how fast: `apps.metalens.invert` and its peers.

`invert` takes the cascade. The wavelength is known; lenses are drawn from the full ranges of the
other four params. A clean map is solved where the residual RMSE is at most 2e-3 rad, a noisy one
where it is at most 1.02 times that at the truth. All methods get the same maps and starts; Adam
(300 steps) its best learning rate of three, with and without a cosine schedule. Times are of the
whole call, after compilation.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.evidence import Claim, evidence, faster, spread_times
from benchmarks.harness import Data, Options, environment, note, race, ratio, spread
from benchmarks.render import Block, Table, machine, multiple, over_seeds, percent, plus_minus
from refinejax import Gradient, InverseProblem, LevenbergMarquardt, run_batch, wrapped_difference
from refinejax.apps import metalens
from refinejax.apps.metalens.cascade.scale import OTHERS, WAVELENGTH
from refinejax.physics.metalens.lens import phase
from refinejax.physics.noise import COMPONENTS, PhaseNoise

SOLVED = 2e-3  # rad
SLACK = 1.02
STEPS = 300  # of Adam
RATES = (1e-2, 1e-3, 1e-4)
OURS, WITH_ERRORS = "cascade", "cascade, with standard errors"

Maps = dict[str, np.ndarray]


def cascade(maps: Maps, *, start: bool = True, uncertainty: bool = False) -> np.ndarray:
    return metalens.invert(
        maps["phase"],
        wavelength=maps["wavelength"],
        initial=maps["initial"] if start else None,
        uncertainty=uncertainty,
    ).params


def from_start(maps: Maps, method: Any, max_steps: int) -> np.ndarray:
    return metalens.invert(
        maps["phase"],
        wavelength=maps["wavelength"],
        initial=maps["initial"],
        method=method,
        max_steps=max_steps,
        uncertainty=False,
    ).params


def adam(maps: Maps) -> tuple[np.ndarray, str]:
    """Return the params at the learning rate and schedule that solve most."""
    tried = {}
    for rate in RATES:
        tried[f"{rate:g}"] = Gradient(optax.adam, {"learning_rate": rate})
        tried[f"{rate:g} cosine"] = Gradient(cosine_adam, {"rate": rate})
    found = {name: from_start(maps, refiner, STEPS) for name, refiner in tried.items()}
    best = max(found, key=lambda name: np.mean(solved(maps, found[name])))
    return found[best], best


def cosine_adam(rate: Any) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(rate, STEPS))


def solved(maps: Maps, params: np.ndarray) -> np.ndarray:
    """Return whether each map is explained as well as by the truth."""
    at_truth = metalens.residual_rmse(maps["phase"], maps["truth"])
    return metalens.residual_rmse(maps["phase"], params) <= np.maximum(SOLVED, SLACK * at_truth)


def right(maps: Maps, params: np.ndarray) -> np.ndarray:
    """Return whether each param is within 0.1 % of its range."""
    box = metalens.space()
    width = np.asarray(box.upper - box.lower)
    return np.all(np.abs(params - maps["truth"]) <= 1e-3 * width, axis=1)


def success(quick: bool, seeds: int) -> list[dict[str, Any]]:
    """Count clean maps solved: sizes × starts × methods."""
    rows = []
    for size, count in ((64, 256), (128, 128), (256, 64)):
        for error in (0.01, 0.05, 0.2):
            note(f"success: {size} × {size}, starts off by {100 * error:g} %")
            count = 16 if quick else count
            batches = [metalens.simulate(count, size, error=error, key=k) for k in range(seeds)]
            methods: dict[str, Callable[[Maps], np.ndarray]] = {
                "cascade, no start": lambda maps: cascade(maps, start=False),
                "cascade": cascade,
                "LM": lambda maps: from_start(maps, LevenbergMarquardt(), 100),
            }
            if size == 64:
                methods["L-BFGS"] = lambda maps: from_start(maps, "lbfgs", 200)
            for name, method in methods.items():
                found = [method(maps) for maps in batches]
                rows.append(
                    {"size": size, "error": error, "method": name, **shares(batches, found)}
                )
            if size == 64:
                few = [{k: v[:32] for k, v in maps.items()} for maps in batches]
                best = [adam(maps) for maps in few]
                row = {"size": size, "error": error, "method": "best Adam"}
                found = [params for params, _ in best]
                rows.append({**row, **shares(few, found), "of": [rate for _, rate in best]})
    return rows


def shares(batches: list[Maps], found: list[np.ndarray]) -> dict[str, Any]:
    pairs = list(zip(batches, found, strict=True))
    return {
        "samples": len(found[0]),
        "solved": spread([float(np.mean(solved(*pair))) for pair in pairs]),
        "right": spread([float(np.mean(right(*pair))) for pair in pairs]),
    }


def noisy(quick: bool, seeds: int) -> list[dict[str, Any]]:
    """Count noisy 64 × 64 maps solved without a start."""
    rows = []
    for names in (*((name,) for name in COMPONENTS), COMPONENTS):
        label = " + ".join(names) if len(names) < len(COMPONENTS) else "all"
        note(f"noise: {label}")
        noise = PhaseNoise.only(*names)
        count = 16 if quick else 256
        batches = [
            metalens.simulate(count, 64, noise=noise, error=0.05, key=k) for k in range(seeds)
        ]
        found = [cascade(maps, start=False) for maps in batches]
        floor = [metalens.residual_rmse(maps["phase"], maps["truth"]) for maps in batches]
        row = {"noise": label, "floor": spread([float(np.median(f)) for f in floor])}
        rows.append({**row, **shares(batches, found)})
    return rows


@jax.jit
def residual(lens: jax.Array, length: jax.Array, image: jax.Array) -> jax.Array:
    params = jnp.insert(lens, WAVELENGTH, length)
    return wrapped_difference(phase(params, image.shape[-1]), image).ravel()


jacobian = jax.jit(jax.jacfwd(residual))


def scipy_lm(maps: Maps, count: int) -> np.ndarray:
    """Refine the first maps in a loop, with exact Jacobians, in units of the ranges."""
    from scipy.optimize import least_squares

    box = metalens.space(wavelength=False)
    scale = np.asarray(box.upper - box.lower)
    lenses = []
    for i in range(count):
        data = maps["wavelength"][i], maps["phase"][i]
        fit = least_squares(
            lambda x, length, image: np.asarray(residual(x, length, image), float),
            maps["initial"][i, OTHERS].astype(float),
            jac=lambda x, length, image: np.asarray(jacobian(x, length, image), float),  # pyright: ignore[reportArgumentType]
            method="lm",
            x_scale=scale,
            args=data,
        )
        lenses.append(fit.x)
    return np.insert(np.array(lenses), WAVELENGTH, maps["wavelength"][:count], axis=1)


def torch_adam(maps: Maps, count: int, *, single: bool) -> np.ndarray:
    """Refine the first maps with the recipe of the literature."""
    from benchmarks.peers import torch_adam

    box = metalens.space()
    unit = np.array(box.to_unit(maps["initial"][:count]), np.float32)
    images = maps["phase"][:count]
    observed = np.stack([np.cos(images), np.sin(images)], axis=1)
    method = torch_adam.one_by_one if single else torch_adam.batched
    _, best = method(observed, unit, rate=1e-2, steps=STEPS)
    return np.asarray(box.from_unit(jnp.asarray(best)))


def lm_engine(maps: Maps) -> np.ndarray:
    """Run Levenberg–Marquardt under the batch engine, through an untuned image-level model."""
    problem = InverseProblem(
        image_model,
        maps["phase"],
        difference=wrapped_difference,
        space=metalens.space(wavelength=False),
        context=maps["wavelength"],
    )
    fit = run_batch(LevenbergMarquardt(), problem, maps["initial"][:, OTHERS], max_steps=100)
    return np.insert(fit.params, WAVELENGTH, maps["wavelength"], axis=1)


def image_model(lens: jax.Array, length: jax.Array) -> jax.Array:
    return phase(jnp.insert(lens, WAVELENGTH, length), 64)


def speed_once(count: int, few: int, seed: int) -> dict[str, dict[str, float]]:
    """Time all peers in turns on the same maps."""
    note(f"speed, seed {seed}")
    maps = metalens.simulate(count, 64, error=0.01, key=seed)
    some = 16 * few
    peers: dict[str, tuple[Callable[[], np.ndarray], int]] = {
        OURS: (lambda: cascade(maps), count),
        WITH_ERRORS: (lambda: cascade(maps, uncertainty=True), count),
        "LM from the start": (lambda: lm_engine(maps), count),
        "SciPy `lm`, one by one": (lambda: scipy_lm(maps, some), some),
        "PyTorch Adam, batched": (lambda: torch_adam(maps, some, single=False), some),
        "PyTorch Adam, one by one": (lambda: torch_adam(maps, few, single=True), few),
    }
    times, found = race({name: peer for name, (peer, _) in peers.items()}, 3)
    each = {name: np.array(times[name].runs) / done for name, (_, done) in peers.items()}
    return {
        name: {
            "times": ratio(each[name].tolist(), each[OURS].tolist()),
            "rate": 1 / float(np.median(each[name])),
            "compile": times[name].compile,
            "solved": float(np.mean(solved(first(maps, done), found[name]))),
        }
        for name, (_, done) in peers.items()
    }


def speed(quick: bool, seeds: int) -> list[dict[str, Any]]:
    """Time methods on 64 × 64 clean maps, starts off by 1 %, in units of the cascade's time."""
    count, few = (64, 1) if quick else (2048, 2)
    runs = [speed_once(count, few, seed) for seed in range(seeds)]
    return [
        {
            "peer": name,
            "samples": count if "one" not in name and "batched" not in name else None,
            **{
                key: spread([run[name][key] for run in runs]) for key in ("times", "rate", "solved")
            },
            "compile": runs[0][name]["compile"],
        }
        for name in runs[0]
    ]


def first(maps: Maps, count: int) -> Maps:
    return {name: array[:count] for name, array in maps.items()}


def measure(options: Options) -> dict[str, Any]:
    quick, seeds = options.quick, options.seeds
    settings = {
        "quick": quick,
        "seeds": seeds,
        "solved_at_most": SOLVED,
        "slack": SLACK,
        "adam_steps": STEPS,
    }
    return {
        "environment": environment(),
        "settings": settings,
        "speed": speed(quick, seeds),
        "noise": noisy(quick, seeds),
        "success": success(quick, seeds),
    }


def rows(data: Data) -> Iterator[Block]:
    """Show the maps solved by size and start, by noise, and the time a map takes."""
    settings = data["settings"]
    yield Table.of(_by_start(data["success"]))
    yield (
        "Share of maps solved, in %: a residual RMSE of at most "
        f"{settings['solved_at_most']:g} rad; in parentheses the share with every param within "
        "0.1 % of its range, which also requires the right rung of the fringe ladder. "
        f"Adam: {settings['adam_steps']} steps. {over_seeds(settings['seeds'])}."
    )
    yield Table.of(
        {
            "noise": row["noise"],
            "RMSE at the truth, rad": plus_minus(row["floor"]),
            "solved": percent(row["solved"]),
        }
        for row in data["noise"]
    )
    yield (
        f"{data['noise'][0]['samples']} maps of 64 × 64 a seed, no start. Solved: RMSE of at most "
        f"{settings['slack']:g} × the RMSE at the truth."
    )
    yield Table.of(
        {
            "method": row["peer"],
            "time a map": multiple(row["times"], unit=row["peer"] == OURS),
            "maps/s": plus_minus(row["rate"]),
            "solved, %": percent(row["solved"]),
            "first call, s more": f"{row['compile']:.1f}",
        }
        for row in data["speed"]
    )
    over = over_seeds(settings["seeds"])
    yield f"64 × 64 clean maps, starts off by 1 %; {machine(data)}, {over}."
    yield evidence(claims, data)


def _by_start(found: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    lines: dict[tuple[int, float], dict[str, str]] = {}
    for row in found:
        size, error = row["size"], row["error"]
        at = {"maps": f"{size} × {size}", "start off by": f"{100 * error:g} %"}
        line = lines.setdefault((size, error), at)
        line[row["method"]] = f"{percent(row['solved'])} ({100 * row['right']['mean']:.0f})"
    return list(lines.values())


def claims(data: Data) -> Iterator[Claim]:
    """Claim that the cascade takes less time a map than other methods."""
    found = [row for row in data["speed"] if row["peer"] != WITH_ERRORS]
    yield from faster("a map", OURS, spread_times(found))
