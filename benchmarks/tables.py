"""Are the README's tables those of the measurements? ``--check`` says; without it they are made so.

Each table stands between ``<!-- table:NAME -->`` and ``<!-- /table:NAME -->`` and is generated from
``benchmarks/results/NAME.json``; "judged" from all of them, see `benchmarks.claims`.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._common import RESULTS, plus_minus
from benchmarks._markdown import machine, markdown, percent, seeds
from benchmarks._runs import EVIDENCE, batching_claims, claims, spread_times
from benchmarks._table_latent import latent
from benchmarks._table_learned import learned_refiner, pipeline
from benchmarks._table_least_squares import least_squares
from benchmarks._table_meta import (
    meta_digits,
    meta_estimators,
    meta_lens,
    meta_lista,
    meta_quadratics,
    meta_sinusoid,
    meta_speed,
)
from benchmarks._table_populations import bbob, compiled, evolution, populations
from benchmarks.claims import judged

README = Path(__file__).parent.parent / "README.md"
_WAVELENGTH = {"five": "unknown", "known": "known"}
_PASS = {
    "C": "loss, gradient and matrix in C",
    "pass": "`normal_equations`",
    "pass along a triangle": "`normal_equations` along a triangle",
    "step": "a step of `LevenbergMarquardt`, with bounds",
}
_PROBLEM = {"phase": "64 × 64 phase map", "tiny": "3-param quadratic"}


def adam_tto(data: Mapping[str, Any]) -> str:
    """Success of the recipe, then its speed in refinejax and in PyTorch."""
    settings = data["settings"]
    note = (
        f"Share of samples with a loss below {settings['solved_below']:g}, in %; in parentheses "
        f"the share with a residual RMSE of at most {settings['exact_at_most']:g} rad. "
        f"{settings['samples_a_seed']} samples a seed, {seeds(settings['seeds'])}."
    )
    return "\n\n".join([_success(data), note, _speed(data), _speed_note(data)])


def _success(data: Mapping[str, Any]) -> str:
    keys = dict.fromkeys((row["free"], row["error"]) for row in data["success"])
    rows = []
    for free, error in keys:
        here = [r for r in data["success"] if (r["free"], r["error"]) == (free, error)]
        rows.append(
            {
                "start off by": f"{100 * error:g} % of range",
                "wavelength": _WAVELENGTH[free],
                **_recipe_cells([r for r in here if r["method"] == "adam"]),
                "L-BFGS": _share(next(r for r in here if r["method"] == "lbfgs")),
            }
        )
    return markdown(rows)


def _recipe_cells(tried: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The recipe as published, then the best of all rates and schedules tried."""
    published = [r for r in tried if (r["schedule"], r["rate"]) == ("constant", 1e-2)]
    cells = {f"Adam 1e-2, {r['steps']} steps": _share(r) for r in published}
    best = max(tried, key=lambda r: (r["solved"]["mean"], -r["rmse"]["mean"]))
    schedule = "" if best["schedule"] == "constant" else f" {best['schedule']}"
    if not best["solved"]["mean"]:
        return {**cells, "best Adam": _share(best), "of": "none solves any"}
    return {
        **cells,
        "best Adam": _share(best),
        "of": f"{best['rate']:.0e}{schedule}, {best['steps']}",
    }


def _share(row: Mapping[str, Any]) -> str:
    solved, exact = row["solved"], row["exact"]
    return f"{percent(solved)} ({100 * exact['mean']:.0f})"


def _speed(data: Mapping[str, Any]) -> str:
    names = {
        "run_batch": "refinejax `run_batch`, optax Adam",
        "torch batched": "PyTorch, batched",
        "torch one by one": "PyTorch, one by one",
    }
    rows = [
        {
            "the same recipe in": names[row["peer"]],
            "time a sample": "1" if row["peer"] == "run_batch" else plus_minus(row["times"]) + " ×",
            "samples/s": plus_minus(row["rate"]),
            "first call, s more": f"{row['first_call']:.1f}",
            "peak memory, MiB": f"{row['memory']:.0f}",
        }
        for row in data["speed"]
    ]
    return markdown(rows)


def _speed_note(data: Mapping[str, Any]) -> str:
    rows = {row["peer"]: row for row in data["speed"]}
    ours, single = rows["run_batch"], rows["torch one by one"]
    return (
        f"{ours['steps']} steps, {ours['samples']} samples (one by one: {single['samples']}, "
        f"extrapolated), PyTorch in its best batches of "
        f"{rows['torch batched']['chunk']}; {machine(data)}, {seeds(ours['times']['n'])}. "
        "Memory is beyond imports and data, with what compilation takes."
    )


def continuous_batching(data: Mapping[str, Any]) -> str:
    """How many times faster the engine is than each peer."""
    rows = [_batching_row(row) for row in data["summary"]]
    parts = [markdown(rows), _batching_note(data), batching_claims(data)]
    return "\n\n".join(part for part in parts if part)


def _batching_row(row: Mapping[str, Any]) -> dict[str, str]:
    gain = row["gain"]
    steps = "1 in 50 needs 20 ×" if row["tail"] == "tail" else "all the same"
    style, size = row["best"].split()
    return {
        "problem": _PROBLEM[row["problem"]],
        "steps": steps,
        "samples": f"{row['batch']:,}",
        "over `vmap` of all": plus_minus(gain["whole"]) + " ×",
        f"over chunks of {row['lanes']}": plus_minus(gain["chunks"]) + " ×",
        "over the best chunks": plus_minus(gain["best chunks"]) + f" × ({style} {size})",
        "possible over all": f"{row['ideal']['mean']:.1f} ×",
    }


def _batching_note(data: Mapping[str, Any]) -> str:
    count = max(row["gain"]["whole"]["n"] for row in data["summary"])
    compiled = "; ".join(
        f"{_PROBLEM[row['problem']]} {row['engine']:.1f} s and {row['whole']:.1f} s"
        for row in data["compile"]
    )
    return (
        f"Above 1 the engine is faster. {machine(data)}; {seeds(count)} where a ± stands, "
        f"else 1. Compilation, engine and `vmap`, not in the times: {compiled}."
    )


def metalens(data: Mapping[str, Any]) -> str:
    """Maps solved by size and start, by noise, and the time a map takes."""
    settings = data["settings"]
    solved = (
        "Share of maps solved, in %: a residual RMSE of at most "
        f"{settings['solved_at_most']:g} rad; in parentheses the share with every param within "
        "0.1 % of its range, which also asks for the right rung of the fringe ladder. "
        f"Adam: {settings['adam_steps']} steps. "
        f"{seeds(settings['seeds'])}."
    )
    noise = (
        f"{data['noise'][0]['samples']} maps of 64 × 64 a seed, no start. Solved: RMSE of at most "
        f"{settings['slack']:g} × that at the truth."
    )
    speed = f"64 × 64 clean maps, starts off by 1 %; {machine(data)}, {seeds(settings['seeds'])}."
    rivals = [row for row in data["speed"] if row["peer"] != "cascade, with standard errors"]
    said = claims("metalens", "speed", spread_times(rivals), "cascade", data)
    evidence = [f"{EVIDENCE} {said}"] if said else []
    parts = [_lens_success(data), solved, _lens_noise(data), noise, _lens_speed(data), speed]
    return "\n\n".join([*parts, *evidence])


def _lens_success(data: Mapping[str, Any]) -> str:
    methods = dict.fromkeys(row["method"] for row in data["success"])
    rows = []
    for size, error in dict.fromkeys((row["size"], row["error"]) for row in data["success"]):
        here = {r["method"]: r for r in data["success"] if (r["size"], r["error"]) == (size, error)}
        cells = {
            name: f"{percent(here[name]['solved'])} ({100 * here[name]['right']['mean']:.0f})"
            if name in here
            else "—"
            for name in methods
        }
        rows.append({"maps": f"{size} × {size}", "start off by": f"{100 * error:g} %", **cells})
    return markdown(rows)


def _lens_noise(data: Mapping[str, Any]) -> str:
    return markdown(
        [
            {
                "noise": row["noise"],
                "RMSE at the truth, rad": plus_minus(row["floor"]),
                "solved": percent(row["solved"]),
            }
            for row in data["noise"]
        ]
    )


def _lens_speed(data: Mapping[str, Any]) -> str:
    return markdown(
        [
            {
                "method": row["peer"],
                "time a map": "1" if row["peer"] == "cascade" else plus_minus(row["times"]) + " ×",
                "maps/s": plus_minus(row["rate"]),
                "solved, %": percent(row["solved"]),
                "first call, s more": f"{row['compile']:.1f}",
            }
            for row in data["speed"]
        ]
    )


def one_pass(data: Mapping[str, Any]) -> str:
    """What a pass over the pixels costs, and a step, beside the same sums in C."""
    settings = data["settings"]
    rows = [
        {
            "64 × 64 pixels, four unknowns": _PASS[row["what"]],
            "CPU time": "1" if row["what"] == "C" else plus_minus(row["cpu_ratio"]) + " ×",
            "CPU time a pixel, ns": plus_minus(row["cpu"], factor=1e9),
        }
        for row in data["rows"]
    ]
    note = (
        f"{settings['maps']} maps at once; C by `cc {' '.join(settings['flags'])}`, one thread; "
        f"{machine(data)}, {seeds(settings['seeds'])}."
    )
    return "\n\n".join([markdown(rows), note])


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "adam_tto": adam_tto,
    "bbob": bbob,
    "compiled": compiled,
    "continuous_batching": continuous_batching,
    "evolution": evolution,
    "latent": latent,
    "learned_refiner": learned_refiner,
    "least_squares": least_squares,
    "meta_digits": meta_digits,
    "meta_estimators": meta_estimators,
    "meta_lens": meta_lens,
    "meta_lista": meta_lista,
    "meta_quadratics": meta_quadratics,
    "meta_sinusoid": meta_sinusoid,
    "meta_speed": meta_speed,
    "metalens": metalens,
    "one_pass": one_pass,
    "pipeline": pipeline,
    "populations": populations,
}


NAMES = (*TABLES, "judged")


def _made(name: str, results: Path) -> str:
    if name == "judged":
        return judged(results)
    return TABLES[name](json.loads((results / f"{name}.json").read_text()))


def fill(text: str, results: Path) -> str:
    """Return ``text`` with every table generated anew.

    Raises:
        ValueError: a pair of markers is missing.
        FileNotFoundError: the measurements of a table are missing.
    """
    for name in NAMES:
        pattern = re.compile(rf"(<!-- table:{name} -->\n).*?(<!-- /table:{name} -->)", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"expected <!-- table:{name} --> … <!-- /table:{name} --> once")
        made = _made(name, results)
        text = pattern.sub(lambda found, made=made: f"{found[1]}{made}\n{found[2]}", text)
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if stale")
    parser.add_argument("--readme", type=Path, default=README, help="the file with the markers")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of JSON files")
    options = parser.parse_args(arguments)
    text = options.readme.read_text()
    try:
        made = fill(text, options.results)
    except (ValueError, FileNotFoundError) as error:
        print(f"{options.readme.name}: {error}", file=sys.stderr)
        return 2
    if options.check and made != text:
        print(f"{options.readme.name}: stale; run python -m benchmarks.tables", file=sys.stderr)
        return 1
    if made != text:
        options.readme.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
