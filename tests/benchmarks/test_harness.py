"""What benchmarks share: times, JSON, numbers as text, the walk that finds them, the command."""

import inspect
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from children import PATIENCE
from measurements import spread
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import catalog, harness, render

ROOT = Path(__file__).parents[2]


def test_options():
    options = command.make_parser().parse_args(["run", "core.bbob", "--quick", "--results", "x"])
    assert (options.names, options.quick, options.seeds) == (["core.bbob"], True, 3)
    assert options.results == Path("x")
    assert not command.make_parser().parse_args(["run"]).quick


def test_bad_seeds_are_refused(capsys):
    with pytest.raises(SystemExit):
        command.make_parser().parse_args(["run", "--seeds", "0"])
    assert "expected 1 or more" in capsys.readouterr().err


def test_a_name_of_no_benchmark_is_refused(capsys):
    assert command.main(["run", "core.nothing"]) == 2
    assert "unknown: core.nothing; known: core.bbob" in capsys.readouterr().err


def test_every_public_module_of_a_subject_is_a_benchmark():
    found = catalog.find()
    files = {
        f"{path.parent.name}.{path.stem}"
        for path in (ROOT / "benchmarks").glob("*/*.py")
        if path.parent.name != "peers" and not path.stem.startswith("_")
    }
    assert set(found) == files
    assert {"core.least_squares", "meta.lens", "metalens.inversion", "latent.search"} <= files


@pytest.mark.parametrize("name", catalog.find())
def test_a_benchmark_has_its_three_parts(name):
    benchmark = catalog.find()[name]
    parts = benchmark.load()
    for part, names in (("measure", ["options"]), ("rows", ["data"]), ("claims", ["data"])):
        assert list(inspect.signature(getattr(parts, part)).parameters) == names
    assert len(benchmark.question) > 20
    assert benchmark.read()["settings"]["quick"] is False


def test_all_are_listed(capsys):
    assert command.main([]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in catalog.find())


def test_a_benchmark_that_fails_does_not_stop_the_others(monkeypatch, capsys):
    calls = []

    def run(arguments, check):
        calls.append(arguments)
        return subprocess.CompletedProcess(arguments, int("core.bbob" in arguments))

    monkeypatch.setattr(subprocess, "run", run)
    names = ["core.bbob", "core.compiled"]
    assert command.main(["run", *names, "--quick", "--results", "x"]) == 1
    shared = ["--seeds", "3", "--quick", "--results", "x"]
    start = [sys.executable, "-m", "benchmarks", "run"]
    assert calls == [[*start, name, *shared] for name in names]
    assert "failed: core.bbob\n" in capsys.readouterr().err


def test_race_keeps_the_first_call_apart():
    calls = []
    times, results = harness.race({"a": lambda: calls.append("a") or 1, "b": lambda: 2}, 3)
    assert results == {"a": 1, "b": 2}
    assert len(calls) == 4
    assert len(times["a"].runs) == len(times["a"].cpu) == 3


def test_json_is_whole_and_names_no_machine(tmp_path):
    path = tmp_path / "new" / "x.json"
    harness.write_json(path, harness.environment())
    assert set(json.loads(path.read_text())) == {
        "python", "packages", "system", "device", "cpus", "x64",
    }  # fmt: skip
    with pytest.raises(ValueError):
        harness.write_json(path, float("nan"))
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


def test_plus_minus():
    assert render.plus_minus(spread(3.0, 5.0)) == "4.00 ± 1.41"
    assert render.plus_minus(spread(1234.5)) == "1234"
    assert render.plus_minus(spread(0.0)) == "0"


def test_percent_and_multiple():
    assert render.percent(spread(0.25, 0.75)) == "50 ± 35"
    assert render.percent(spread(0.123), 1) == "12.3"
    assert render.multiple(spread(3.0, 5.0)) == "4.00 ± 1.41 ×"
    assert render.multiple(spread(1.0), unit=True) == "1"


def test_one_table_is_written_as_markdown_and_printed():
    table = render.Table.of([{"`peer`": "a [1]", "time": "2"}, {"`peer`": "b", "loss": "3"}])
    blocks = [table, "", render.Table.of([]), "A *note*."]
    assert render.to_markdown(blocks) == (
        "| `peer` | time | loss |\n| :-- | --: | --: |\n| a [1] | 2 | — |\n| b | — | 3 |\n\n"
        "A *note*."
    )
    console = Console(file=io.StringIO(), width=80)
    render.to_terminal(blocks, console)
    printed = console.file.getvalue()
    assert [part in printed for part in ("peer", "a [1]", "3", "A note.")] == [True] * 4
    assert "`" not in printed


def test_a_quick_run_says_so():
    benchmark = catalog.find()["core.compiled"]
    data = dict(benchmark.read())
    assert catalog.QUICK not in benchmark.blocks(data)
    data["settings"] = {**data["settings"], "quick": True}
    assert benchmark.blocks(data)[0] == catalog.QUICK


@pytest.mark.slow
def test_continuous_batching_runs(tmp_path):
    name = "core.continuous_batching"
    start = [sys.executable, "-m", "benchmarks", "run", name, "--quick"]
    subprocess.run([*start, "--results", tmp_path], cwd=ROOT, check=True, timeout=PATIENCE)
    benchmark = catalog.find()[name]
    data = benchmark.read(tmp_path)
    assert {row["problem"] for row in data["summary"]} == {"phase", "tiny"}
    text = render.to_markdown(benchmark.blocks(data))
    assert "64 × 64 phase map" in text
