"""What does a prediction gain, and what does refining it: phase maps alone in, lenses out.

Held-out 64 × 64 maps of lenses from the full ranges, wavelength known; with all noise, which
includes a warp that leaves about as much at the true params as a random map would (1.8 rad), and
with all but that. The pretrained predictor was trained on other keys. Each way is judged by the
mean absolute error of each param, in % of its range; by the residual RMSE; by the share of maps
solved, which are explained as well as by the truth (see `benchmarks.metalens`); and by maps a
second of the whole call, compilation apart. Adam (500 steps, its best rate of three, found on other
maps) and CMA-ES refine fewer maps, as they are slow.

Then without the predictor, from starts off by 5 %, with all noise but the warp and with none. *LM*
is Levenberg–Marquardt on the phase itself from there; *learned* takes a few steps on the slopes,
and goes on to the phase as the cascade does.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import optax

from benchmarks.evidence import Claim
from benchmarks.harness import Data, Options, environment, note, spread, spreads
from benchmarks.metalens.inversion import OTHERS, SLACK, SOLVED, Maps, solved
from benchmarks.render import NOTHING, Block, Table, machine, over_seeds, percent, plus_minus
from refinejax import Gradient
from refinejax.apps import metalens
from refinejax.apps.metalens.cascade.scale import WAVELENGTH
from refinejax.apps.metalens.solve import PREDICTOR
from refinejax.models import pretrained
from refinejax.physics.metalens.lens import NAMES
from refinejax.physics.noise import COMPONENTS, PhaseNoise

SIZE, STEPS = 64, 500
RATES = (1e-2, 1e-3, 1e-4)
NOISES = {"all": COMPONENTS, "all but warp": tuple(x for x in COMPONENTS if x != "warp")}
OFF = {"all but warp": NOISES["all but warp"], "none": ()}
FAST, SLOW = 1366, 128  # a seed; three make 4,098 and 384

Way = Callable[[Maps], np.ndarray]


def middle(maps: Maps) -> np.ndarray:
    """Predict the middle of the ranges for every map."""
    box = metalens.space()
    lens = np.asarray(box.lower + (box.upper - box.lower) / 2)
    return _known(np.tile(lens, (len(maps["phase"]), 1)), maps)


def predicted(maps: Maps) -> np.ndarray:
    found = metalens.predict_lenses(maps["phase"], wavelength=maps["wavelength"])
    return np.asarray(found.params)


def refined(method: Any, *, start: str | None = "predictor", max_steps: int | None = None) -> Way:
    """Return a way that refines from the prediction, from the start of the maps, or from none."""

    def way(maps: Maps) -> np.ndarray:
        initial = {
            "predictor": lambda: pretrained(PREDICTOR).value,
            "given": lambda: maps["initial"],
            None: lambda: None,
        }[start]()
        return metalens.invert(
            maps["phase"],
            wavelength=maps["wavelength"],
            initial=initial,
            method=method,
            max_steps=max_steps,
            uncertainty=False,
        ).params

    return way


def adam(maps: Maps) -> Way:
    """Return Adam from the prediction, at the rate that leaves the least on these maps."""

    def left(rate: float) -> float:
        params = _adam(rate)(maps)
        return float(np.median(metalens.residual_rmse(maps["phase"], params)))

    return _adam(min(RATES, key=left))


def _adam(rate: float) -> Way:
    return refined(Gradient(optax.adam, {"learning_rate": rate}), max_steps=STEPS)


def _known(params: np.ndarray, maps: Maps) -> np.ndarray:
    params[:, WAVELENGTH] = maps["wavelength"]
    return params.astype(np.float32)


def judge(maps: Maps, params: np.ndarray) -> dict[str, float]:
    box = metalens.space()
    error = np.abs(params - maps["truth"]) / np.asarray(box.upper - box.lower)
    rmse = metalens.residual_rmse(maps["phase"], params)
    found = {NAMES[i]: float(100 * np.mean(error[:, i])) for i in OTHERS}
    found |= {"rmse": float(np.median(rmse)), "solved": float(np.mean(solved(maps, params)))}
    return found


def compare(ways: dict[str, tuple[Way, int]], batches: list[Maps]) -> list[dict[str, Any]]:
    rows = []
    for name, (way, count) in ways.items():
        note(name)
        judged, rates = [], []
        few = [{key: array[:count] for key, array in maps.items()} for maps in batches]
        way(few[0])  # compiles
        for maps in few:
            begin = time.perf_counter()
            params = way(maps)
            rates.append(len(params) / (time.perf_counter() - begin))
            judged.append(judge(maps, params))
        rows.append(
            {"way": name, "maps": len(few[0]["phase"]), "rate": spread(rates)} | spreads(judged)
        )
    return rows


def measure(options: Options) -> dict[str, Any]:
    quick, seeds = options.quick, options.seeds
    fast, slow = (32, 16) if quick else (FAST, SLOW)
    rows, off = [], []
    for kind, names in NOISES.items():
        note(kind)
        noise = PhaseNoise.only(*names)
        batches, tune = _maps(noise, fast, seeds), _maps(noise, min(slow, 64), 1, first=999)[0]
        ways: dict[str, tuple[Way, int]] = {
            "middle of the ranges": (middle, fast),
            "predictor": (predicted, fast),
            "predictor + Adam": (adam(tune), slow),
            "predictor + CMA-ES": (refined("cma_es"), slow),
            "predictor + learned": (refined("learned"), fast),
            "predictor + cascade": (refined("cascade"), fast),
            "cascade, no network": (refined("cascade", start=None), fast),
        }
        rows += [{"noise": kind, **row} for row in compare(ways, batches)]
    for kind, names in OFF.items():
        note(f"starts off by 5 %, {kind}")
        ways = {
            "LM": (refined("lm", start="given"), fast),
            "learned": (refined("learned", start="given"), fast),
            "cascade": (refined("cascade", start="given"), fast),
        }
        found = compare(ways, _maps(PhaseNoise.only(*names), fast, seeds, first=2000))
        off += [{"noise": kind, **row} for row in found]
    settings = {"seeds": seeds, "quick": quick, "slack": SLACK, "solved": SOLVED}
    return {"environment": environment(), "settings": settings, "rows": rows, "off": off}


def _maps(noise: PhaseNoise, count: int, seeds: int, *, first: int = 1000) -> list[Maps]:
    return [
        metalens.simulate(count, SIZE, noise=noise, error=0.05, key=first + k) for k in range(seeds)
    ]


def rows(data: Data) -> Iterator[Block]:
    """Show errors, residuals and rates of the ways from a map to a lens."""
    number, count = data["settings"]["seeds"], data["rows"][0]["maps"]
    fewer = sorted({row["maps"] for row in data["rows"]} - {count})
    less = f" ({number * fewer[0]:,} for Adam and CMA-ES)" if fewer else ""
    yield Table.of(map(_cells, data["rows"]))
    yield (
        "Mean absolute error in % of each range; median residual RMSE; solved: explained as well "
        "as by the truth. With the warp the truth itself leaves 1.8 rad, as a random map would: "
        "to explain such a map says nothing of its lens, and the prediction is best left as it is. "
        f"{number * count:,} held-out maps{less}, wavelength known. "
        f"{machine(data)}, {over_seeds(number)}."
    )
    yield Table.of(map(_cells, data["off"]))
    yield "Without the predictor, from starts off by 5 %."


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "noise": row["noise"],
        "way": row["way"],
        **{f"{NAMES[i]}, %": plus_minus(row[NAMES[i]]) for i in OTHERS},
        "RMSE, rad": plus_minus(row["rmse"]),
        "solved, %": percent(row["solved"], 1),
        "maps/s": plus_minus(row["rate"]) if row["rate"]["mean"] < 1e5 else NOTHING,
    }


def claims(data: Data) -> Iterator[Claim]:
    """Claim that the cascade from the network's prediction explains more maps."""
    for noise in dict.fromkeys(row["noise"] for row in data["rows"]):
        solved = {
            row["way"]: row["solved"]["values"] for row in data["rows"] if row["noise"] == noise
        }
        yield Claim(f"noise {noise}", "predictor + cascade", {"solved": solved}, "higher")
