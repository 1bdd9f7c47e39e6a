"""Tables and judgments from measurements."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from measurements import ENVIRONMENT, every, evolution_data, latent_data, learned_data, spread
from scipy.stats import ttest_1samp

from benchmarks import claims, evidence, tables
from benchmarks.catalog import find
from benchmarks.core import evolution
from benchmarks.headline import headline
from benchmarks.meta import _picture
from benchmarks.render import to_markdown
from refinejax import experiments

MARKED = "\n".join(f"<!-- table:{n} -->\nold\n<!-- /table:{n} -->\n" for n in tables.names())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Measurements of every benchmark and a page with every table; the headline stands aside."""
    for name, data in every().items():
        path = find()[name].path(tmp_path / "results")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text(f"before\n{MARKED}after\n")
    (tmp_path / "README.md").write_text("nothing here\n")
    monkeypatch.setitem(tables.SUMMARIES, "headline", lambda results: "one row")
    return tmp_path


def call(folder, *options):
    return tables.main(["--root", str(folder), "--results", str(folder / "results"), *options])


def page(folder):
    return (folder / "docs" / "page.md").read_text()


def test_tables_are_written_and_then_fresh(folder):
    assert call(folder, "--check") == 1
    assert "old" in page(folder)
    assert call(folder) == 0
    text = page(folder)
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert call(folder, "--check") == 0


def test_tables_hold_the_numbers(folder):
    call(folder)
    text = page(folder)
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
    assert "| MAML | 0.600 ± 0.141 | 0.600 ± 0.141 | diverges | 0.600 ± 0.141 |" in text
    assert "| LISTA-CPSS | -61.0 ± 1.4 | -63 |" in text
    assert "| novel | LM | 10.0 | 50.0 | 100 |" in text
    assert "| 20, tanh | RNNprop, learned | 55.0 ± 7.1 | 55.0 ± 7.1 |" in text
    assert "| 64 | the estimate | opifex | 1.50 ± 0.71 × |" in text
    assert "1,200 held-out maps (200 for Adam and CMA-ES)" in text
    assert "| a step of `LevenbergMarquardt`, with bounds | 4.00 ± 1.41 × | 2.00 |" in text
    assert "| 1,024 | 4.00 ± 1.41 × | 4.00 ± 1.41 × | 4.00 ± 1.41 × (lax.map 8) | 14.3 × |" in text


def test_what_is_faster_is_said_with_an_interval(folder):
    call(folder)
    text = page(folder)
    low, high = np.exp(ttest_1samp(np.log([3.0, 3.5, 4.0]), 0).confidence_interval(0.95))
    assert f"ours is faster than SciPy [{low:.3g}, {high:.3g}]; slower than swift [" in text
    assert "`vmap` of all: faster in 1, slower in 0, undecided in 0 of 1; chunks" in text
    assert "chunks: faster in 0, slower in 1, undecided in 0 of 1." in text
    data = {"environment": ENVIRONMENT, "settings": {}}
    rows = [{"peer": "ours", "times": spread(1, 1)}, {"peer": "a", "times": spread(2, 200)}]

    def asked(data):
        del data
        return evidence.faster("p", "ours", evidence.spread_times(rows))

    said = evidence.evidence(asked, data)
    assert said.startswith(f"{evidence.EVIDENCE} ours is undecided against a [")
    del rows[1]["times"]["values"]  # as measurements had it that kept no seeds
    assert evidence.evidence(asked, data) == ""


def verdicts(folder):
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log.jsonl"
        assert claims.main([str(log), "--results", str(folder / "results")]) == 0
        assert (
            claims.main([str(log), "--results", str(folder / "results")]) == 2
        )  # never judged twice
        records = experiments.Log(log).read()
    return {e.change: records.verdict(e.id) for e in records.experiments}, records


def test_every_comparison_is_judged(folder):
    found, records = verdicts(folder)
    assert found["pixel by pixel: ours in place of SciPy"] == "KEEP"
    assert found["as an image: ours in place of swift"] == "REVERT"
    assert found["a map: refinejax in place of pycma, one by one"] == "INCONCLUSIVE"
    asked = next(e for e in records.experiments if e.change.startswith("pixel by pixel: ours in"))
    (look,) = records.looks_at(asked.id)
    known = ttest_1samp(np.log10([3.0, 3.5, 4.0]), 0).confidence_interval(0.95)
    np.testing.assert_allclose(look.comparison["interval"], known)
    call(folder)
    text = page(folder)
    assert f"{len(found)} comparisons: " in text
    assert "pixel by pixel: ours in place of SciPy | log10 time | 3 |" in text


def latent_rows(folder, losses):
    data = latent_data()
    for row in data["speed"]:
        row["times"] = spread(1, 1, 1) if row["peer"] == "ours" else spread(9, 10, 11)
        row["loss"] = spread(*(losses if row["peer"] == "ours" else (1, 1, 1)))
    find()["latent.search"].path(folder / "results").write_text(json.dumps(data))
    found, _ = verdicts(folder)
    part = "64 × 8, the loop of the literature: "
    return found[f"{part}`optimize_latent` in place of Adam in PyTorch, 200 steps"]


def test_what_is_faster_but_worse_is_not_kept(folder):
    assert latent_rows(folder, (1, 1, 1)) == "KEEP"
    assert latent_rows(folder, (2, 2.1, 1.9)) == "REVERT"


def test_three_values_come_back_from_their_sums():
    known = [0.2, 1.7, 1.1]
    one = spread(*known)
    assert evidence.ratios(one) == known
    del one["values"]
    np.testing.assert_allclose(evidence.ratios(one), sorted(known))
    assert evidence.ratios({"mean": 1.0, "std": 1.0, "min": 0.0, "max": 2.0, "n": 5}) == []


def test_the_table_of_evolution_holds_the_numbers():
    text = to_markdown(evolution.rows(evolution_data()))
    assert "| cigar, 5-D | 8.00 ± 1.41 | 8.00 | 2 and 1 of 3 |" in text
    assert "| penalty | — | none (100) |" in text
    assert "| CMA-ES | 1.80 | 28.0 |" in text
    assert "Means over 32 functions" in text


def test_the_picture_of_success_over_cost_is_drawn(tmp_path):
    _picture.draw(learned_data(), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("missing", ["adam_tto.json", "marker"])
def test_what_is_missing_is_named(folder, missing, capsys):
    if missing == "marker":
        (folder / "docs" / "page.md").write_text("nothing\n")
    else:
        (folder / "results" / "metalens" / missing).unlink()
    assert call(folder) == 2
    assert "adam_tto" in capsys.readouterr().err


def test_a_table_of_no_benchmark_is_refused(folder, capsys):
    (folder / "README.md").write_text("<!-- table:core.nothing -->\n<!-- /table:core.nothing -->\n")
    assert call(folder) == 2
    assert "table:core.nothing: no table has this name" in capsys.readouterr().err


def test_pages_are_fresh():
    assert tables.main(["--check"]) == 0


def test_headline_figures_are_those_of_the_measurements():
    text = headline()
    rows = {row.split(" | ")[0]: row for row in text.splitlines()}
    bbob = find()["core.bbob"].read()["rows"]
    (ours,) = [row["solved"] for row in bbob if row["method"] == "refinejax BIPOP"]
    assert (
        f"| {ours['mean']:.1f} ± {ours['std']:.1f} | pycma"
        in rows["| BBOB problems solved of 48, BIPOP"]
    )
    maps = find()["metalens.inversion"].read()["speed"]
    (rate,) = [row["rate"]["mean"] for row in maps if row["peer"] == "cascade"]
    assert f"{rate:.0f} ±" in rows["| time a map of 64 × 64"]
    assert 8 <= len(rows) - 4 <= 12
