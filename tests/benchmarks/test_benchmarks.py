"""The benchmarks' own parts: tables from measurements, options, one script end to end."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from benchmarks import _common, _plot_learned, _runs, _table_populations, claims, tables
from refinejax import experiments

ROOT = Path(__file__).parents[2]
MARKED = "\n".join(f"<!-- table:{n} -->\nold\n<!-- /table:{n} -->\n" for n in tables.NAMES)
ENVIRONMENT = {"cpus": 2, "device": "cpu", "packages": {"jax": "0.10.2"}}


def spread(*values):
    return _common.spread(values)


def adam_data():
    shares = {"solved": spread(0.25, 0.75), "exact": spread(0.0, 0.0), "rmse": spread(1.0)}
    none = {**shares, "solved": spread(0.0, 0.0)}
    at = {"free": "five", "error": 0.01}
    adam = {**at, "method": "adam", "schedule": "constant", "steps": 500}
    cost = {"times": spread(1.0, 3.0), "rate": spread(10.0, 20.0), "memory": 50.2}
    cost |= {"samples": 4, "steps": 9, "first_call": 1.5, "chunk": 8}
    return {
        "environment": ENVIRONMENT,
        "settings": {"solved_below": 1e-3, "exact_at_most": 2e-3, "samples_a_seed": 8, "seeds": 2},
        "success": [
            {**adam, "rate": 1e-2, **none},
            {**adam, "rate": 1e-4, **shares},
            {**at, "method": "lbfgs", **shares},
        ],
        "speed": [{"peer": p, **cost} for p in ("run_batch", "torch batched", "torch one by one")],
    }


def batching_data():
    gain = {name: spread(3.0, 5.0) for name in ("whole", "chunks", "best chunks")}
    row = {"problem": "phase", "tail": "tail", "batch": 1024, "lanes": 32, "best": "lax.map 8"}
    gains = [{"whole": 2.0 + 0.1 * seed, "chunks": 0.5 - 0.01 * seed} for seed in range(3)]
    return {
        "environment": ENVIRONMENT,
        "settings": {"quick": False},
        "summary": [{**row, "gain": gain, "ideal": spread(14.3)}],
        "compile": [{"problem": "phase", "engine": 2.0, "whole": 1.0}],
        "cases": [{**row, "seed": seed, "gain": gain} for seed, gain in enumerate(gains)],
    }


def metalens_data():
    half = {"solved": spread(0.25, 0.75), "right": spread(0.5), "samples": 8}
    settings = {"solved_at_most": 2e-3, "slack": 1.02, "adam_steps": 300, "seeds": 2}
    speed = {"times": spread(3.0, 5.0), "rate": spread(10.0), "solved": spread(1.0), "compile": 2.0}
    return {
        "environment": ENVIRONMENT,
        "settings": settings,
        "success": [
            {"size": 64, "error": 0.01, "method": "cascade", **half},
            {"size": 64, "error": 0.01, "method": "LM", **half},
            {"size": 128, "error": 0.2, "method": "cascade", **half},
        ],
        "noise": [{"noise": "grain", "floor": spread(0.2), **half}],
        "speed": [{"peer": name, **speed} for name in ("cascade", "SciPy")],
    }


def least_squares_data():
    numbers = {"cpu_ratio": spread(3.0, 5.0), "wall_ratio": spread(2.0), "solved": spread(1.0)}
    numbers |= {"cpu": spread(5e-5), "wall": spread(1e-4), "compile": 2.0}
    settings = {"quick": False, "seeds": 2, "solved_at_most": 2e-3, "error": 0.01}
    ratios = {"ours": [1.0, 1.0, 1.0], "SciPy": [3.0, 3.5, 4.0], "swift": [0.5, 0.6, 0.5]}
    speed = [
        {"peer": peer, "samples": 9, "seeds": [{"cpu_ratio": x} for x in ratio], **numbers}
        for peer, ratio in ratios.items()
    ]
    nist = {"method": "refinejax LM", "steps": 500, "of": 54, "right": 53, "failed": ["MGH10 1"]}
    counts = {"method": "refinejax LM", "of": 53, "solved": 51, "exact": 50, "failed": ["cube 8"]}
    return {
        "environment": ENVIRONMENT,
        "settings": settings,
        "pointwise": speed,
        "image": speed,
        "nist": [
            {**nist, "dtype": "float64", "digits_wanted": 6},
            {**nist, "dtype": "float32", "digits_wanted": 3, "right": 44},
        ],
        "more_wild": {
            "steps": 500,
            "tau": 1e-7,
            **{key: {"summary": [counts]} for key in ("unbounded", "bounded")},
        },
    }


def one_pass_data():
    numbers = {"cpu_ratio": spread(3.0, 5.0), "cpu": spread(2e-9), "wall": spread(2e-9)}
    names = ("C", "pass", "pass along a triangle", "step")
    settings = {"seeds": 2, "maps": 64, "flags": ["-O3"]}
    rows = [{"what": name, **numbers} for name in names]
    return {"environment": ENVIRONMENT, "settings": settings, "rows": rows}


def populations_data():
    numbers = {"times": spread(3.0, 5.0), "rate": spread(10.0), "solved": spread(1.0)}
    numbers |= {"compile": 2.0, "memory": 50.2}
    return {
        "environment": ENVIRONMENT,
        "settings": {"seeds": 2, "maps": 8, "batched": 4, "one_by_one": 2},
        "rows": [{"peer": peer, **numbers} for peer in ("refinejax", "pycma, one by one")],
        "hybrid": {"error": 0.05, "exact": spread(0.5, 1.0), "rate": spread(30.0)},
    }


def evolution_data():
    agreement = {"function": "cigar", "n": 5, "ours": spread(7.0, 9.0), "pycma": spread(8.0)}
    rastrigin = {"method": "CMA-ES", "budget": 10_000, "functions": 32}
    bound = {"where": "inside", "way": "ours", "evaluations": spread(70.0), "solved": 1.0}
    return {
        "environment": ENVIRONMENT,
        "settings": {"seeds": 2, "quick": False},
        "agreement": [{**agreement, "of": 3}],
        "bounds": [bound, {**bound, "where": "in a corner", "way": "penalty", "evaluations": None}],
        "rastrigin": [
            {**rastrigin, "n": 2, "loss": spread(1.8)},
            {**rastrigin, "n": 10, "loss": spread(28.0)},
        ],
    }


def compiled_data():
    row = {"job": "CMA-ES", "maps": 32, "begin_cold": spread(9.0, 11.0), "begin_warm": spread(2.0)}
    row |= {"begin_ratio": spread(0.2), "whole_ratio": spread(0.4)}
    return {"environment": ENVIRONMENT, "settings": {"seeds": 2, "quick": False}, "rows": [row]}


def bbob_data():
    settings = {"seeds": 2, "dimension": 5, "budget": 10_000}
    rows = [{"method": "refinejax BIPOP", "of": 48, "solved": spread(30.0, 32.0)}]
    return {"environment": ENVIRONMENT, "settings": settings, "rows": rows}


def learned_data():
    curve = {"cost": [6.0, 36.0, 66.0], "solved": [0.0, 0.5, 1.0]}
    curve["steps"] = {"5": spread(0.4, 0.6)}
    settings = {"seeds": 2, "tasks": 2000, "quick": False}
    conditions = {"as trained": {"learned damping": curve}, "3 × noise": {"learned damping": curve}}
    return {"environment": ENVIRONMENT, "settings": settings, "conditions": conditions}


def pipeline_data():
    row = {name: spread(1.0, 3.0) for name in ("xc", "yc", "S", "focal_length", "rmse", "rate")}
    row |= {"noise": "all", "way": "predictor", "maps": 600, "solved": spread(0.5)}
    rows = [row, {**row, "way": "Adam", "maps": 100}]
    settings = {"seeds": 2, "quick": False}
    parts = {"rows": rows, "off": [row]}
    return {"environment": ENVIRONMENT, "settings": settings, **parts}


def latent_data():
    numbers = {name: spread(3.0, 5.0) for name in ("rate", "times", "loss", "all", "compile")}
    pairs = [("literature", ("ours", "ours, brief", "literature")), ("botorch", ("ours", "apart"))]
    settings = {"seeds": 2, "quick": False, "steps": 200, "brief": 40, "few": 8}
    names = ("before", "claimed", "returned", "ours", "ours_worst")
    same = {"farthest": spread(0.0), "same_best": spread(1.0)}
    return {
        "environment": ENVIRONMENT,
        "settings": settings,
        "speed": [
            {"rival": rival, "samples": 64, "restarts": 8, "peer": peer, **numbers}
            for rival, peers in pairs
            for peer in peers
        ],
        "round_trip": {name: spread(0.25, 0.75) for name in names},
        "company": {"64": same, "1024": same},
    }


def meta_data():
    row = {"estimator": "PES", "samples": 6144, "deviations": 1.23}
    row |= {"estimate": [0.3, 0.43], "exact": [0.3, 0.4]}
    noisy = {"horizon": 100, "window": 5, "best_rate": 0.1685, "best_loss": 0.1295}
    noisy |= {name: {"PES": spread(0.16, 0.18)} for name in ("rates", "losses")}
    return {
        "environment": ENVIRONMENT,
        "settings": {"seeds": 2, "quick": False},
        "bias": [{**row, "window": 1}, {**row, "window": 40, "deviations": 0.5}],
        "noisy": noisy,
    }


def meta_tables_data():
    """Return the measurements of the other benchmarks of meta-learning, by name."""
    loss, shares = spread(0.5, 0.7), spread(0.0, 0.0)
    law = {"LSTM": {n: {"mean": loss, "diverged": shares} for n in ("20", "100", "500")}}
    sinusoid = {"0": loss, "1": loss, "10": None, "best": loss}
    lens = {"kind": "novel", "method": "LM", "steps": spread(10.0), "speed": spread(50.0)}
    digits = {name: spread(50.0, 60.0) for name in ("target", "steps", "final", "diverged")}
    digits |= {"network": "20, tanh"}
    speed = {name: spread(1.0, 2.0) for name in ("times", "micros", "compile")}
    speed |= {"tasks": 64, "part": "step"}
    common = {"seeds": 2, "tasks": 8, "steps": 100, "far": 500, "ahead": 100, "horizon": 50}
    common |= {"layers": 16, "size": [256, 512]}
    parts = {
        "meta_quadratics": {"laws": {"normal": law, "uniform": law}},
        "meta_sinusoid": {"rows": {"MAML": sinusoid}},
        "meta_lista": {"recovery": {"cpss": spread(-60.0, -62.0)}, "lasso": {"FISTA": loss}},
        "meta_lens": {"rows": [{**lens, "reached": spread(1.0)}]},
        "meta_digits": {"rows": [digits | {"method": m} for m in ("Adam", "RNNprop, learned")]},
        "meta_speed": {"rows": [speed | {"peer": p} for p in ("refinejax", "opifex")]},
    }
    return {
        n: {"environment": ENVIRONMENT, "settings": common, **part} for n, part in parts.items()
    }


@pytest.fixture
def folder(tmp_path):
    for name, data in meta_tables_data().items():
        (tmp_path / f"{name}.json").write_text(json.dumps(data))
    (tmp_path / "meta_estimators.json").write_text(json.dumps(meta_data()))
    (tmp_path / "learned_refiner.json").write_text(json.dumps(learned_data()))
    (tmp_path / "latent.json").write_text(json.dumps(latent_data()))
    (tmp_path / "pipeline.json").write_text(json.dumps(pipeline_data()))
    (tmp_path / "populations.json").write_text(json.dumps(populations_data()))
    (tmp_path / "evolution.json").write_text(json.dumps(evolution_data()))
    (tmp_path / "compiled.json").write_text(json.dumps(compiled_data()))
    (tmp_path / "bbob.json").write_text(json.dumps(bbob_data()))
    (tmp_path / "README.md").write_text(f"before\n{MARKED}after\n")
    (tmp_path / "adam_tto.json").write_text(json.dumps(adam_data()))
    (tmp_path / "continuous_batching.json").write_text(json.dumps(batching_data()))
    (tmp_path / "least_squares.json").write_text(json.dumps(least_squares_data()))
    (tmp_path / "metalens.json").write_text(json.dumps(metalens_data()))
    (tmp_path / "one_pass.json").write_text(json.dumps(one_pass_data()))
    return tmp_path


def call(folder, *options):
    return tables.main(["--readme", str(folder / "README.md"), "--results", str(folder), *options])


def test_tables_are_written_and_then_fresh(folder):
    assert call(folder, "--check") == 1
    assert "old" in (folder / "README.md").read_text()
    assert call(folder) == 0
    text = (folder / "README.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert call(folder, "--check") == 0


def test_tables_hold_the_numbers(folder):
    call(folder)
    text = (folder / "README.md").read_text()
    assert "| 1 % of range | unknown | 0 ± 0 (0) | 50 ± 35 (0) | 1e-04, 500 | 50 ± 35 (0) |" in text
    assert "| PyTorch, batched | 2.00 ± 1.41 × | 15.0 ± 7.1 | 1.5 | 50 |" in text
    assert "| SciPy | 4.00 ± 1.41 × | 2.00 × | 50.0 | 100 | 100 | 2.0 |" in text
    assert "| refinejax LM | 500 | 53 of 54 | 44 of 54 |" in text
    assert "refinejax misses cube 8 with bounds." in text
    assert "quick" not in text
    assert "| CMA-ES | 10.0 ± 1.4 | 2.00 | 0.200 | 0.400 |" in text
    assert "| as trained | learned damping | 50.0 % | 100.0 % | 100.0 % |" in text
    assert "3 × noise: 50.0 ± 14.1 % after 5." in text
    assert "| PES | 1.2 (6 %) | 0.5 (6 %) |" in text
    quadratics = "| LSTM | 0.600 ± 0.141 | 0.600 ± 0.141 | 0.600 ± 0.141 | -0.22 |"
    assert quadratics in text
    assert "| MAML | 0.600 ± 0.141 | diverges | 0.600 ± 0.141 |" in text
    assert "| LISTA-CPSS | -61.0 ± 1.4 | -63 |" in text
    assert "| novel | LM | 10.0 | 50.0 | 100 |" in text
    assert "| 20, tanh | RNNprop, learned | 55.0 ± 7.1 | 55.0 ± 7.1 |" in text
    assert "| 64 | the estimate | opifex | 1.50 ± 0.71 × |" in text
    assert "1,200 held-out maps (200 for Adam and CMA-ES)" in text
    assert "| a step of `LevenbergMarquardt`, with bounds | 4.00 ± 1.41 × | 2.00 |" in text
    assert "| 1,024 | 4.00 ± 1.41 × | 4.00 ± 1.41 × | 4.00 ± 1.41 × (lax.map 8) | 14.3 × |" in text


def test_what_is_faster_is_said_with_an_interval(folder):
    call(folder)
    text = (folder / "README.md").read_text()
    low, high = np.exp(ttest_1samp(np.log([3.0, 3.5, 4.0]), 0).confidence_interval(0.95))
    assert f"ours is faster than SciPy [{low:.3g}, {high:.3g}]; slower than swift [" in text
    assert "`vmap` of all: faster in 1, slower in 0, undecided in 0 of 1; chunks" in text
    assert "chunks: faster in 0, slower in 1, undecided in 0 of 1." in text
    data = {"environment": ENVIRONMENT, "settings": {}}
    rows = [{"peer": "ours", "times": spread(1, 1)}, {"peer": "a", "times": spread(2, 200)}]
    said = _runs.claims("b", "p", _runs.spread_times(rows), "ours", data)
    assert said.startswith("ours is undecided against a [")
    del rows[1]["times"]["values"]  # as measurements had it that kept no seeds
    assert _runs.claims("b", "p", _runs.spread_times(rows), "ours", data) == ""


def verdicts(folder):
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log.jsonl"
        assert claims.main([str(log), "--results", str(folder)]) == 0
        assert claims.main([str(log), "--results", str(folder)]) == 2  # never judged twice
        records = experiments.Log(log).read()
    return {e.change: records.verdict(e.id) for e in records.experiments}, records


def test_every_comparison_is_judged(folder):
    found, records = verdicts(folder)
    assert found["pixel by pixel: ours in place of SciPy"] == "KEEP"
    assert found["an image: ours in place of swift"] == "REVERT"
    assert found["a map: refinejax in place of pycma, one by one"] == "INCONCLUSIVE"
    asked = next(e for e in records.experiments if e.change.startswith("pixel by pixel: ours in"))
    (look,) = records.looks_at(asked.id)
    known = ttest_1samp(np.log10([3.0, 3.5, 4.0]), 0).confidence_interval(0.95)
    np.testing.assert_allclose(look.comparison["interval"], known)
    call(folder)
    text = (folder / "README.md").read_text()
    assert f"{len(found)} comparisons: " in text
    assert "pixel by pixel: ours in place of SciPy | log10 time | 3 |" in text


def latent_rows(folder, losses):
    data = latent_data()
    for row in data["speed"]:
        row["times"] = spread(1, 1, 1) if row["peer"] == "ours" else spread(9, 10, 11)
        row["loss"] = spread(*(losses if row["peer"] == "ours" else (1, 1, 1)))
    (folder / "latent.json").write_text(json.dumps(data))
    found, _ = verdicts(folder)
    part = "64 × 8, the loop of the literature: "
    return found[f"{part}`optimize_latent` in place of Adam in PyTorch, 200 steps"]


def test_what_is_faster_but_worse_is_not_kept(folder):
    assert latent_rows(folder, (1, 1, 1)) == "KEEP"
    assert latent_rows(folder, (2, 2.1, 1.9)) == "REVERT"


def test_three_values_come_back_from_their_sums():
    known = [0.2, 1.7, 1.1]
    one = spread(*known)
    assert _runs.ratios(one) == known
    del one["values"]
    np.testing.assert_allclose(_runs.ratios(one), sorted(known))
    assert _runs.ratios({"mean": 1.0, "std": 1.0, "min": 0.0, "max": 2.0, "n": 5}) == []


def test_the_table_of_evolution_holds_the_numbers():
    text = _table_populations.evolution(evolution_data())
    assert "| cigar, 5-D | 8.00 ± 1.41 | 8.00 | 2 and 1 of 3 |" in text
    assert "| penalty | — | none (100) |" in text
    assert "| CMA-ES | 1.80 | 28.0 |" in text
    assert "Means over 32 functions" in text


def test_the_picture_of_success_over_cost_is_drawn(tmp_path):
    _plot_learned.draw(learned_data(), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("missing", ["adam_tto.json", "marker"])
def test_what_is_missing_is_named(folder, missing, capsys):
    if missing == "marker":
        (folder / "README.md").write_text("nothing\n")
    else:
        (folder / missing).unlink()
    assert call(folder) == 2
    assert "adam_tto" in capsys.readouterr().err


def test_readme_is_fresh():
    text = tables.README.read_text()
    if any(f"<!-- table:{name} -->" not in text for name in tables.NAMES):
        pytest.skip("the README has no tables yet")
    assert tables.main(["--check"]) == 0


def test_options():
    options = _common.make_parser("Why?").parse_args(["--quick", "--json", "x.json"])
    assert (options.quick, options.json, options.seeds) == (True, Path("x.json"), 3)
    assert not _common.make_parser("Why?").parse_args([]).quick


def test_bad_seeds_are_refused(capsys):
    with pytest.raises(SystemExit):
        _common.make_parser("Why?").parse_args(["--seeds", "0"])
    assert "expected 1 or more" in capsys.readouterr().err


def test_race_keeps_the_first_call_apart():
    calls = []
    times, results = _common.race({"a": lambda: calls.append("a") or 1, "b": lambda: 2}, 3)
    assert results == {"a": 1, "b": 2}
    assert len(calls) == 4
    assert len(times["a"].runs) == len(times["a"].cpu) == 3


def test_json_is_whole_and_names_no_machine(tmp_path):
    path = tmp_path / "new" / "x.json"
    _common.write_json(path, _common.environment())
    assert set(json.loads(path.read_text())) == {
        "python", "packages", "system", "device", "cpus", "x64",
    }  # fmt: skip
    with pytest.raises(ValueError):
        _common.write_json(path, float("nan"))
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


def test_plus_minus():
    assert _common.plus_minus(spread(3.0, 5.0)) == "4.00 ± 1.41"
    assert _common.plus_minus(spread(1234.5)) == "1234"
    assert _common.plus_minus(spread(0.0)) == "0"


@pytest.mark.slow
def test_continuous_batching_runs(tmp_path):
    path = tmp_path / "x.json"
    command = [sys.executable, "-m", "benchmarks.continuous_batching", "--quick", "--json", path]
    subprocess.run(command, cwd=ROOT, check=True, timeout=600)
    data = json.loads(path.read_text())
    assert {row["problem"] for row in data["summary"]} == {"phase", "tiny"}
    assert "64 × 64 phase map" in tables.continuous_batching(data)
