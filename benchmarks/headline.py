"""The headline table of the README: one figure of each kind, and the benchmark it comes from."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.catalog import find
from benchmarks.harness import RESULTS, Data
from benchmarks.meta.learned_refiner import at_cost
from benchmarks.peers.least_squares import OURS as LM
from benchmarks.render import Table, machine, multiple, percent, plus_minus, to_markdown

Row = Mapping[str, Any]
Figure = tuple[str, str, str]  # quantity, ours, others


def headline(results: Path = RESULTS) -> str:
    """Return the table as Markdown.

    Args:
        results: the folder of JSON files.

    Raises:
        FileNotFoundError: if measurements are missing.
    """
    benchmarks = find()
    lines, machines = [], []
    for name, figure in FIGURES:
        data = benchmarks[name].read(results)
        measured, ours, others = figure(data)
        lines.append((measured, ours, others, f"`{name}`"))
        machines.append(machine(data))
    table = Table(("measured", "refinejax", "beside it", "benchmark"), lines)
    note = (
        f"Mean ± standard deviation over seeds; × is a multiple of refinejax's time, so that more "
        f"than 1 × is slower. Measured on {', or '.join(dict.fromkeys(machines))}."
    )
    return to_markdown([table, note])


def _one(rows: Iterable[Row], **wanted: Any) -> Row:
    """Return the first row that has the wanted values."""
    return next(row for row in rows if all(row[key] == value for key, value in wanted.items()))


def _beside(rows: Iterable[Row], key: str, names: Mapping[str, str]) -> str:
    """Return how many times as long others take: names of peers → words for them."""
    return "; ".join(
        f"{word} {multiple(_one(rows, peer=name)[key])}" for name, word in names.items()
    )


def _solved_maps(data: Data) -> Figure:
    rows = [row for row in data["success"] if (row["size"], row["error"]) == (64, 0.05)]
    shares = {row["method"]: f"{percent(row['solved'])} %" for row in rows}
    ours = f"cascade {shares['cascade']}, without a start {shares['cascade, no start']}"
    others = ", ".join(f"{name} {shares[name]}" for name in ("LM", "L-BFGS", "best Adam"))
    return "phase maps of a lens solved, starts off by 5 %", ours, others


def _map_rate(data: Data) -> Figure:
    names = {"SciPy `lm`, one by one": "SciPy `lm`", "PyTorch Adam, batched": "PyTorch Adam"}
    rate = plus_minus(_one(data["speed"], peer="cascade")["rate"])
    return "time a map of 64 × 64", f"{rate} maps/s", _beside(data["speed"], "times", names)


def _fit(data: Data) -> Figure:
    names = {"optimistix LM": "optimistix LM", "jaxopt LM": "jaxopt LM", "SciPy `lm`": "SciPy `lm`"}
    rows = data["pointwise"]
    ours = plus_minus(rows[0]["cpu"], factor=1e6)
    others = _beside(rows, "cpu_ratio", names)
    return "CPU time of a least-squares fit, 4,096 pixels, 3 params", f"{ours} µs", others


def _standard(data: Data) -> Figure:
    rows = [row for row in data["nist"] if row["dtype"] == "float64" and row["steps"] == 500]
    ours = _one(rows, method=LM)
    others = ", ".join(
        f"{name} {row['right']}"
        for name in ("SciPy `lm`", "optimistix LM")
        for row in [_one(rows, method=name)]
    )
    right = f"{ours['right']} of {ours['of']}"
    return "NIST regressions right to 6 digits, 500 steps, float64", right, others


def _arithmetic(data: Data) -> Figure:
    found = multiple(_one(data["rows"], what="step")["cpu_ratio"])
    return "a step of LM with bounds, in units of one pass in C", found, "1 × is the arithmetic"


def _generations(data: Data) -> Figure:
    names = {"evosax, naive loss": "evosax", "pycma, one by one": "pycma"}
    rate = plus_minus(_one(data["rows"], peer="refinejax")["rate"])
    others = _beside(data["rows"], "times", names)
    return "CMA-ES, 1,000 evaluations a map", f"{rate} maps/s", others


def _bbob(data: Data) -> Figure:
    found = {row["method"]: plus_minus(row["solved"]) for row in data["rows"]}
    number = data["rows"][0]["of"]
    return (
        f"BBOB problems solved of {number}, BIPOP",
        found["refinejax BIPOP"],
        f"pycma {found['pycma BIPOP']}",
    )


def _batching(data: Data) -> Figure:
    row = _one(data["summary"], problem="phase", tail="tail", batch=1024)
    others = f"`vmap` of all {multiple(row['gain']['whole'])}; best chunks " + multiple(
        row["gain"]["best chunks"]
    )
    return "1,024 fits of which 1 in 50 needs 20 × the steps", "1 ×", others


def _search(data: Data) -> Figure:
    rows = [row for row in data["speed"] if (row["samples"], row["restarts"]) == (64, 8)]
    rate = plus_minus(_one(rows, peer="ours", rival="literature")["rate"])
    others = _beside(rows, "times", {"literature": "Adam in PyTorch", "apart": "BoTorch"})
    return "target search, 64 samples × 8 starts", f"{rate} runs/s", others


def _refiner(data: Data) -> Figure:
    methods = data["conditions"]["as trained"]
    shares = {name: f"{100 * at_cost(curve, 36):.1f} %" for name, curve in methods.items()}
    others = f"LM, damping tuned {shares['LM, damping tuned']}; Adam, tuned {shares['Adam, tuned']}"
    ours = f"learned damping {shares['learned damping']}"
    return "damped sines solved within 36 evaluations", ours, others


def _meta(data: Data) -> Figure:
    rows = [row for row in data["rows"] if (row["tasks"], row["part"]) == (1024, "step")]
    ours = plus_minus(_one(rows, peer="refinejax")["micros"])
    others = _beside(rows, "times", {"opifex": "opifex"})
    return "an estimate of the meta-gradient by PES, 1,024 tasks", f"{ours} µs", others


FIGURES: tuple[tuple[str, Callable[[Data], Figure]], ...] = (
    ("metalens.inversion", _solved_maps),
    ("metalens.inversion", _map_rate),
    ("core.least_squares", _fit),
    ("core.least_squares", _standard),
    ("core.one_pass", _arithmetic),
    ("metalens.populations", _generations),
    ("core.bbob", _bbob),
    ("core.continuous_batching", _batching),
    ("latent.search", _search),
    ("meta.learned_refiner", _refiner),
    ("meta.speed", _meta),
)
