"""The log: what is admitted, what a crash leaves, two writers, the page that is made of it."""

import dataclasses
import functools
import io
import json
import os
import subprocess
import sys

import pytest
from children import PATIENCE
from logs import KNOWN, arm, known, plan, run

from refinejax import cli
from refinejax import experiments as ex
from refinejax.experiments import Assumption, Experiment, Log, RefusedError, jsonl

BASE = {1: 80.0, 2: 81.0, 3: 82.5}
BETTER = {1: 83.0, 2: 84.1, 3: 85.4}


@pytest.fixture
def log(tmp_path):
    """A log with a baseline and a candidate that is better by 3."""
    made = Log(tmp_path / "log.jsonl")
    made.add(*arm("baseline", BASE), *arm("new", BETTER))
    return made


@functools.cache
def known_runs():
    return [one for name in KNOWN for one in known(name)]


def test_what_is_added_is_read(log):
    assumption = Assumption(id="A1", choice="c", why="w", alternatives="a", notice="n")
    asked = plan(log, guards={"pro": 0.5}, looks=(3, 6), touches=("pro",))
    log.add(asked, assumption)
    records = log.read()
    assert [dict(one.metrics) for one in records.runs[:3]] == [{"pro": v} for v in BASE.values()]
    assert records.experiments == (asked,)
    assert records.assumptions == (assumption,)
    before = log.path.read_bytes()
    log.add(asked, *arm("new", BETTER))  # again
    assert log.path.read_bytes() == before
    log.add(dataclasses.replace(assumption, status="refuted"))
    assert [a.status for a in log.read().assumptions] == ["refuted"]
    assert log.path.read_bytes().startswith(before)  # nothing is changed


def test_no_file_is_an_empty_log(tmp_path):
    assert Log(tmp_path / "none.jsonl").read() == ex.Records()


def test_a_crash_in_mid_line(log):
    whole = log.path.read_bytes()
    for cut in (2, 40, 200):
        log.path.write_bytes(whole[:-cut])
        assert len(log.read().runs) == 5
        log.add(*arm("later", {cut: 1.0}))
        with pytest.warns(UserWarning, match="line 6: not a JSON object"):
            assert len(log.read().runs) == 6


def test_a_crash_before_the_end_of_the_line(log):
    log.path.write_bytes(log.path.read_bytes()[:-1])
    assert len(log.read().runs) == 6
    log.add(*arm("later", {1: 1.0}), *arm("new", BETTER))  # of which none is new
    assert len(log.read().runs) == 7


def test_a_full_disk_leaves_the_file_as_it_was(log, monkeypatch):
    before, write = log.path.read_bytes(), os.write
    monkeypatch.setattr(jsonl.os, "write", lambda file, text: write(file, text[:10]))
    with pytest.raises(OSError, match="only 10 of"):
        log.add(*arm("new", {9: 1.0}))
    assert log.path.read_bytes() == before


WRITER = """
import sys
from refinejax.experiments import Log, Run
log, name, count = Log(sys.argv[1]), sys.argv[2], int(sys.argv[3])
fixed = dict(revision="r", data="d", metric_version="1", budget={}, config={"text": name * 2000})
for seed in range(count):
    log.add(Run(name=name, seed=seed, metrics={"pro": 1.0}, **fixed))
    log.add(Run(name="both", seed=seed, metrics={"pro": 1.0}, **(fixed | {"config": {}})))
"""


def test_two_writers(tmp_path):
    path, count = tmp_path / "log.jsonl", 25
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, name, str(count)]) for name in "ab"]
    assert [writer.wait(timeout=PATIENCE) for writer in writers] == [0, 0]
    groups = {group.name: group for group in Log(path).read().groups.values()}
    assert {name: sorted(group.seeds) for name, group in groups.items()} == {
        name: list(range(count)) for name in ("a", "b", "both")
    }
    assert len(path.read_text().splitlines()) == 3 * count  # of "both", each seed once


def test_a_line_that_is_no_record(log):
    with log.path.open("a") as file:
        file.write('{"kind": "run", "name": "a", "speed": 3}\n')
    with pytest.raises(ValueError, match=r"missing budget, config, .*, unknown speed"):
        log.read()
    with pytest.raises(ValueError, match="kind is one of run, experiment"):
        ex.records.from_json({"kind": "thing"})


def test_a_name_stands_for_one_group(log):
    with pytest.raises(ValueError, match="'baseline' is the name of group"):
        log.add(*arm("baseline", BETTER, config={"variant": "other"}))


def test_a_seed_is_run_once(log):
    with pytest.raises(ValueError, match=r"seed: 3 of group .* is done already"):
        log.add(run("new", 3, {"pro": 99.0}))
    log.add(run("new", 4, {"pro": 1.0}, status="failed"), run("new", 4, {"pro": 2.0}))
    assert log.read().group(log.read().runs[-1].group).values("pro")[4] == 2.0


def test_all_or_none(log):
    before = log.path.read_bytes()
    with pytest.raises(ValueError, match="done already"):
        log.add(run("new", 5, {"pro": 1.0}), run("new", 3, {"pro": 99.0}))
    assert log.path.read_bytes() == before


def test_groups_are_named_by_id(log):
    with pytest.raises(ValueError, match=r"'baseline' is the name of group [0-9a-f]{12}; "):
        log.add(Experiment(**_named(plan(log), baseline="baseline")))
    with pytest.raises(ValueError, match="'new' is the name of group"):
        log.add(Experiment(**_named(plan(log), candidate="new")))
    log.add(plan(log, candidate="0123456789ab"))  # not run yet
    with pytest.raises(ValueError, match="expected the id of a group on record, got '0123"):
        ex.judge(log.read(), "E1")


def _named(asked, **changes):
    return {field.name: getattr(asked, field.name) for field in dataclasses.fields(asked)} | changes


def test_what_was_said_beforehand_stays(log):
    log.add(plan(log))
    with pytest.raises(ValueError, match="there is an experiment 'E1'"):
        log.add(plan(log, margin=0.5))


def test_the_known_log(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log.add(*known_runs())
    baseline, e4, best = log.read().groups
    asked = {"hypothesis": "h", "change": "c", "metric": "pro", "margin": 1.0}
    log.add(
        Experiment(id="E4", baseline=baseline, candidate=e4, **asked),
        Experiment(id="E5.5", baseline=baseline, candidate=best, **asked),
    )
    found = ex.decide(log, "E5.5")
    assert (str(found.verdict), found.promote) == ("INCONCLUSIVE", True)
    assert [round(x, 1) for x in (found.mean, *found.interval)] == [3.0, -0.2, 6.2]
    assert str(ex.decide(log, "E4").verdict) == "REVERT"
    # The largest gain of that log: E5.5 against E4, which had been rejected, as "baseline".
    as_baseline = [dataclasses.replace(one, name="baseline") for one in known("E4")]
    with pytest.raises(ValueError, match="'baseline' is the name of group"):
        log.add(*as_baseline)
    with pytest.raises(ValueError, match="was rejected by experiment E4"):
        log.add(Experiment(id="E6", baseline=e4, candidate=best, **asked))
    with pytest.raises(ValueError, match="they differ in config"):
        ex.Group([*known("baseline")[:1], *as_baseline[1:]])


def test_one_look_unless_planned(log):
    log.add(plan(log))
    first = ex.decide(log, "E1")
    assert ex.decide(log, "E1") == first
    assert len(log.read().decisions) == 1
    log.add(*arm("baseline", {4: 80.0}), *arm("new", {4: 83.5}))
    with pytest.raises(RefusedError, match="was decided at 3 seeds, KEEP"):
        ex.decide(log, "E1")


def test_looks(log):
    log.add(*arm("weak", {1: 80.5, 2: 80.9, 3: 84.0}))
    log.add(plan(log, candidate="weak"), plan(log, "E2", candidate="weak", looks=(3, 5)))
    assert str(ex.decide(log, "E1").verdict) == "INCONCLUSIVE"
    assert "go on to 5 seeds" in str(ex.decide(log, "E2"))
    log.add(*arm("baseline", {4: 80.0}), *arm("weak", {4: 83.5}))
    with pytest.raises(RefusedError, match="no further look was planned"):
        ex.decide(log, "E1")
    with pytest.raises(RefusedError, match="run 1 more"):
        ex.decide(log, "E2")
    log.add(*arm("baseline", {5: 80.0}), *arm("weak", {5: 83.5}))
    found = ex.decide(log, "E2")
    assert found.n == 5
    assert 0.95 < found.level < 1
    assert len(log.read().looks_at("E2")) == 2


def test_confirmation_takes_fresh_seeds(log):
    log.add(plan(log))
    assert str(ex.decide(log, "E1").verdict) == "KEEP"
    with pytest.raises(ValueError, match="a confirmation compares the same"):
        log.add(plan(log, "C0", candidate="0123456789ab", confirms="E1"))
    log.add(plan(log, "C1", confirms="E1"))
    with pytest.raises(RefusedError, match="run fresh ones"):
        ex.judge(log.read(), "C1")
    fresh = {7: 80.0, 8: 81.0, 9: 82.0}
    log.add(*arm("baseline", fresh), *arm("new", {s: x + (-1) ** s for s, x in fresh.items()}))
    found = ex.decide(log, "C1")
    assert found.pairs == (7, 8, 9)
    assert str(found.verdict) == "INCONCLUSIVE"
    assert "confirmation: C1 INCONCLUSIVE" in ex.markdown(log.read())


def test_another_try_with_the_same_groups_is_named(log):
    log.add(plan(log), plan(log, "E2", metric="pro", margin=0.5))
    ex.decide(log, "E1")
    assert ex.judge(log.read(), "E1").warnings == ()
    assert "judged before, by pro: E1 KEEP" in ex.judge(log.read(), "E2").warnings[0]


def test_evaluation_only(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    for name, shift, auroc in (("baseline", 0, 0.0), ("smooth", 1, 0.0), ("retrained", 1, 1e-9)):
        for seed in (1, 2, 3):
            metrics = {"pro": 80.0 + seed + shift * seed**0.5, "auroc": 90.0 + seed + auroc}
            log.add(run(name, seed, metrics))
    log.add(plan(log, candidate="smooth", touches=["pro"]))
    log.add(plan(log, "E2", candidate="retrained", touches=["pro"]))
    assert ex.judge(log.read(), "E1").mean > 1
    with pytest.raises(RefusedError, match=r"auroc of seed 1 went from 91\.0 to 91\.000000001"):
        ex.judge(log.read(), "E2")


def test_a_copy_of_another_group_is_named(log):
    log.add(*arm("copy", BETTER))
    log.add(plan(log, candidate="copy"))
    assert "(new) bit by bit" in ex.judge(log.read(), "E1").warnings[0]


def test_phases(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    means = {"baseline": (1.0, 2.0), "a": (2.0, 5.0), "b": (3.0, 4.0), "c": (0.0, 1.0)}
    for phase, index in (("A", 0), ("B", 1)):
        fixed = {"budget": {"steps": 10 if phase == "A" else 1000}}
        for name, mean in means.items():
            both = {1: mean[index], 2: mean[index] + 0.5}
            log.add(*arm(f"{name}-{phase}", both, config={"variant": name}, **fixed))
        for name in ("a", "b", "c"):
            arms = {"baseline": f"baseline-{phase}", "candidate": f"{name}-{phase}"}
            log.add(plan(log, name + phase, phase=phase, **arms))
    found = ex.screening(log.read(), "pro")
    assert len(found.candidates) == 4
    assert found.tau == pytest.approx(4 / 6)
    assert (found.same_best, found.regret) == (False, 1.0)


def test_the_page(log, tmp_path):
    assert "No experiments yet" in ex.markdown(ex.Records())
    log.add(*arm("worse", {1: 78.0, 2: 79.2, 3: 80.1}))
    log.add(plan(log, guards={"pro": 0.1}, change="wider | deeper"))
    log.add(plan(log, "E2", candidate="worse", looks=(3, 6)), plan(log, "E3", candidate="worse"))
    log.add(Assumption(id="A1", choice="SGD", why="usual", alternatives="Adam", notice="slow"))
    assert str(ex.decide(log, "E1").verdict) == "KEEP"
    assert str(ex.decide(log, "E2").verdict) == "REVERT"
    page = ex.markdown(log.read())
    assert "| E1 | A | wider \\| deeper | pro | 3 | +3.00 | [+2.75, +3.25] |" in page
    assert "| seed | pro, baseline | pro, candidate |" in page
    assert "| 2 | 81 | 84.1 |" in page
    assert "- E1: wider | deeper (not confirmed on fresh seeds yet)" in page
    assert "### Rejected\n\n- E2: a change" in page
    assert page.count("Not judged yet.") == 1
    assert "| A1 | SGD | usual | Adam | slow | open |" in page
    ex.write_markdown(log.read(), tmp_path / "LOG.md")
    assert (tmp_path / "LOG.md").read_text() == page == ex.markdown(Log(log.path).read())
    with pytest.raises(OSError):
        ex.write_markdown(log.read(), tmp_path / "none" / "LOG.md")


def test_p_values_hold_for_the_whole_log(log):
    values = {1: 81.0, 2: 84.0, 3: 84.0}
    for k in range(6):
        log.add(*arm(f"try{k}", {s: x + 0.1 * k * s for s, x in values.items()}))
        log.add(plan(log, f"T{k}", candidate=f"try{k}"))
        ex.decide(log, f"T{k}")
    p = {d.experiment: d.comparison["p"] for d in log.read().decisions}
    table = ex.progress_table(log.read()).splitlines()
    assert table[0].count("|") == table[2].count("|")
    assert f"| {min(1, 6 * min(p.values())):.2g} |" in ex.progress_table(log.read())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"direction": "up"}, "direction: expected one of higher, lower"),
        ({"phase": "C"}, "phase: expected one of A, B"),
        ({"margin": -1.0}, "margin: expected"),
        ({"hypothesis": " "}, "hypothesis: expected a text"),
        ({"guards": {"g": -1.0}}, r"guards\['g'\]: expected"),
        ({"looks": (6, 3)}, "looks: expected numbers of seeds"),
        ({"candidate": "x", "baseline": "x"}, "nothing has changed"),
    ],
)
def test_wrong_experiments(log, changes, says):
    with pytest.raises(ValueError, match=says):
        plan(log, **changes)


def test_wrong_assumptions():
    with pytest.raises(ValueError, match="status: expected one of open, tested, refuted"):
        Assumption(id="A", choice="c", why="w", alternatives="a", notice="n", status="maybe")


def test_every_line_is_json_with_kind_and_time(log):
    log.add(plan(log))
    for line in log.path.read_text().splitlines():
        assert {"kind", "time"} <= json.loads(line).keys()


def command(capsys, *arguments):
    """Run `refinejax experiments`: exit code, standard output, standard error."""
    try:
        code = cli.main(["experiments", *map(str, arguments)])
    except SystemExit as exit_:
        code = exit_.code
    return code, *capsys.readouterr()


def test_the_command(log, tmp_path, capsys, monkeypatch):
    records = tmp_path / "new.json"
    ids = {group.name: key for key, group in log.read().groups.items()}
    arms = {"baseline": ids["baseline"], "candidate": ids["new"]}
    said = {"id": "E1", "hypothesis": "h", "change": "c", "metric": "pro", "looks": [3, 6]}
    records.write_text(json.dumps([{"kind": "experiment", **said, **arms}]))
    code, out, _ = command(capsys, "add", log.path, records)
    assert (code, out.splitlines()[0]) == (0, f"group {ids['baseline']}  baseline, seeds 1, 2, 3")
    code, out, _ = command(capsys, "compare", log.path, "E1")
    assert code == 0
    assert out == f"{ex.judge(log.read(), 'E1')}\n"
    assert "KEEP: the interval lies above 0" in out
    found = json.loads(command(capsys, "compare", log.path, "E1", "--json")[1])
    assert (found["verdict"], found["experiment"], found["pairs"]) == ("KEEP", "E1", [1, 2, 3])
    assert len(log.read().decisions) == 1
    page = tmp_path / "LOG.md"
    assert command(capsys, "log", log.path, "--output", page, "--check")[0] == 1
    assert command(capsys, "log", log.path, "--output", page)[:2] == (0, f"written: {page}\n")
    assert command(capsys, "log", log.path, "--output", page, "--check")[0] == 0
    assert command(capsys, "log", log.path)[1].strip() == page.read_text().strip()
    assert command(capsys, "table", log.path)[1].strip() in page.read_text()
    row = json.loads(command(capsys, "table", log.path, "--json")[1])["experiments"][0]
    assert (row["id"], row["verdict"], row["seeds"]) == ("E1", "KEEP", [1, 2, 3])
    assert row["p"] == row["p_holm"] == found["p"]
    line = {"kind": "assumption", "id": "A1", "choice": "c", "why": "w"}
    lines_ = [json.dumps(line | {"alternatives": "a", "notice": n}) for n in ("one", "two")]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines_)))
    code, out, _ = command(capsys, "add", log.path, "--json")
    assert json.loads(out) == {"added": 2, "groups": {key: name for name, key in ids.items()}}
    assert log.read().assumptions[0].notice == "two"


def test_the_command_compares_over_tasks(tmp_path, capsys):
    log = Log(tmp_path / "log.jsonl")
    values = {"old": 2.0, "new": 1.0}
    for name, value in values.items():
        metrics = {"a/error": value, "b/error": 10 * value}
        log.add(
            *(run(name, seed, {k: v + 0.01 * seed for k, v in metrics.items()}) for seed in (1, 2))
        )
    ids = {group.name: key for key, group in log.read().groups.items()}
    arguments = ("tasks", log.path, ids["old"], ids["new"], "error", "--lower")
    code, out, _ = command(capsys, *arguments)
    assert code == 0
    assert "difference, positive is better: +5.5, 95 % [+5.5, +5.5]" in out
    assert "  a: +1\n  b: +10\n" in out
    found = json.loads(command(capsys, *arguments, "--json")[1])
    assert found["better"] == 1
    assert found["means"] == pytest.approx({"a": 1, "b": 10})
    code, _, text = command(capsys, "tasks", log.path, ids["old"], ids["new"], "gain")
    assert code == 2
    assert "is named task/gain" in text


def test_wrong_input_of_the_command(log, tmp_path, capsys):
    def error(*arguments):
        code, out, text = command(capsys, *arguments)
        assert (code, out) == (2, "")
        assert text.startswith("refinejax: error: ")
        assert text.count("\n") == 1
        return text

    bad = tmp_path / "bad.json"
    bad.write_text('{"kind": "run"}\n{"kind')
    assert "line 2: not JSON" in error("add", log.path, bad)
    bad.write_text('{"kind": "run"}')
    assert "a run: missing budget" in error("add", log.path, bad)
    decision = {"experiment": "E1", "verdict": "KEEP", "promote": False, "action": "keep"}
    bad.write_text(json.dumps({"kind": "decision", **decision, "seeds": [], "comparison": {}}))
    assert "a decision is made by" in error("add", log.path, bad)
    assert "expected one on record, got 'E9'" in error("compare", log.path, "E9")
    assert "no such file" in error("table", tmp_path / "none")
    assert "which page?" in error("log", log.path, "--check")


def test_the_command_does_without_jax(log):
    code = "import sys; from refinejax.cli import main; main(); sys.exit('jax' in sys.modules)"
    command = [sys.executable, "-c", code, "experiments", "table", str(log.path)]
    assert subprocess.run(command, timeout=PATIENCE, capture_output=True).returncode == 0
