import contextlib
import functools
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest
from children import PATIENCE, at_file_operation, start

import refinejax
from refinejax import Status, cli
from refinejax.apps import metalens
from refinejax.apps.metalens.cascade.scale import WAVELENGTH
from refinejax.apps.metalens.notes import NOTE_SCALE, NOTE_START
from refinejax.batch import ledger, pipeline
from refinejax.batch import result as batch_result
from refinejax.physics.metalens.lens import LASER_LINES, LOWER, NAMES, UPPER

COUNT, SIZE = 4, 16  # everywhere: what takes time here is to compile
ROUNDING = 1e-3  # of the phase, in float32 [rad]
KEYS = ("input", "output", "report", "samples", "converged", "statuses", "rmse", "initial_rmse")


def rmse(maps, params):
    """Of the residual, by NumPy in float64 [rad]."""
    x = np.linspace(-0.5, 0.5, maps.shape[-1])
    xc, yc, side, wavelength, focal = np.asarray(params, float).T[:, :, None, None]
    r2 = (xc + side * x) ** 2 + (yc + side * x[:, None]) ** 2
    phase = 2 * np.pi / wavelength * (np.sqrt(r2 + focal**2) - focal)
    residual = np.angle(np.exp(1j * (phase - maps)))
    seen = np.isfinite(maps).sum(axis=(1, 2))
    return np.sqrt(np.nansum(residual**2, axis=(1, 2)) / np.where(seen, seen, np.nan))


def load(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@functools.cache
def arrays():
    return metalens.simulate(COUNT, SIZE, error=1e-4)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def starts(maps):
    """Where the command starts: in the ranges, at the known wavelength."""
    initial = np.clip(maps["initial"], np.float32(LOWER), np.float32(UPPER))
    initial[:, NAMES.index("wavelength")] = maps["wavelength"]
    return initial


def write(name="maps.npz", **changes):
    """Write an input file; None leaves an array out."""
    content = {**arrays(), **changes}
    np.savez(name, **{key: array for key, array in content.items() if array is not None})
    return name


def call(*arguments):
    """Run the command in this process; also where argparse exits."""
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        return exit_.code


def refine(*arguments):
    return call("metalens", "maps.npz", "--output", "out.npz", *arguments)


def process(*arguments, cwd, **options):
    return subprocess.run(
        [sys.executable, "-m", "refinejax", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        **options,
    )


def check_failure(captured, *words):
    """One line on stderr that holds the words; nothing on stdout."""
    assert captured.out == ""
    assert re.match(r"refinejax( \w+)*: error: ", captured.err), captured.err
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.endswith("\n")
    assert "Traceback" not in captured.err
    for word in words:
        assert word in captured.err, captured.err


# As real processes


@pytest.mark.slow
def test_compiled_programs_are_kept(tmp_path):
    with contextlib.chdir(tmp_path):
        write()
    arguments = ("metalens", "maps.npz", "--output", "out.npz", "--method", "lm", "--cache", "kept")
    environment = {k: v for k, v in os.environ.items() if "COMPILATION_CACHE" not in k}
    process(*arguments, cwd=tmp_path, env=environment, check=True)
    assert any((tmp_path / "kept").iterdir())


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write()
    assert refine("--cache", "maps.npz") == 2
    check_failure(capsys.readouterr(), "maps.npz", "cannot write")


def test_simulate_and_refine(tmp_path):
    made = process(
        *("simulate", "metalens", "--count", COUNT, "--size", SIZE, "--noise", "grain"),
        *("--error", "1e-4", "--seed", "3", "--output", "maps.npz", "--json"),
        cwd=tmp_path,
    )
    assert (made.returncode, made.stderr) == (0, "")
    shapes = {
        "phase": [COUNT, SIZE, SIZE],
        "truth": [COUNT, 5],
        "wavelength": [COUNT],
        "initial": [COUNT, 5],
    }
    assert json.loads(made.stdout) == {"output": "maps.npz", "arrays": shapes}
    maps = load(tmp_path / "maps.npz")
    assert {name: list(array.shape) for name, array in maps.items()} == shapes
    np.testing.assert_allclose(rmse(maps["phase"], maps["truth"]), 0.2, atol=0.04)

    done = process(
        "metalens", "maps.npz", "--output", "out.npz", "--report", "page", "--json", cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    said = json.loads(done.stdout)
    assert set(KEYS) <= set(said)
    assert said["samples"] == sum(said["statuses"].values()) == COUNT
    assert (said["output"], said["report"]) == ("out.npz", "page/index.html")
    out = load(tmp_path / "out.npz")
    check_output(out, maps)
    np.testing.assert_allclose(said["rmse"]["median"], np.median(out["rmse"]))
    page = tmp_path / said["report"]
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert "maps.npz" in page.read_text()
    for figure in ("worst", "median", "best", "before_after", "convergence"):
        assert page.with_name(f"{figure}.png").read_bytes().startswith(b"\x89PNG")


def check_output(out, maps):
    documented = {
        "params": ((COUNT, 5), np.float32),
        "rmse": ((COUNT,), np.float32),
        "initial_rmse": ((COUNT,), np.float32),
        "loss": ((COUNT,), np.float32),
        "status": ((COUNT,), np.int8),
        "steps": ((COUNT,), np.int32),
        "std": ((COUNT, 5), np.float32),
        "at_bound": ((COUNT, 5), bool),
        "margin_rung": ((COUNT,), np.float64),
        "names": ((5,), np.dtype("<U12")),
        "method": ((), None),
        "notes": (None, None),
    }
    assert set(out) == set(documented)
    for name, (shape, dtype) in documented.items():
        assert shape is None or out[name].shape == shape, name
        assert dtype is None or out[name].dtype == dtype, name
    assert tuple(out["names"]) == NAMES
    np.testing.assert_allclose(out["rmse"], rmse(maps["phase"], out["params"]), atol=3e-3)
    np.testing.assert_allclose(out["initial_rmse"], rmse(maps["phase"], starts(maps)), atol=3e-3)
    assert np.all(out["rmse"] <= out["initial_rmse"] + ROUNDING)
    np.testing.assert_allclose(out["rmse"], np.sqrt(out["loss"]), atol=3e-3)
    assert np.all((out["params"] >= np.float32(LOWER)) & (out["params"] <= np.float32(UPPER)))
    assert all(Status(int(status)) for status in out["status"])


def test_bad_input_as_a_process(tmp_path):
    (tmp_path / "maps.npz").write_text("xc,yc\n1,2\n")
    done = process("metalens", "maps.npz", "--output", "out.npz", "--json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("refinejax: error: maps.npz: ")
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == ["maps.npz"]


def test_a_full_disk_as_a_process(tmp_path):
    """The limit on the size of files stands for the disk."""
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048));"
        "from refinejax.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ("simulate", "metalens", "--size", SIZE, "--noise", "none", "--output", "maps.npz")
    # nor may a file of the cache end there
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("refinejax: error: maps.npz: cannot be written (")
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_a_terminal_that_knows_only_ascii(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = process("metalens", "--help", cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "focal_length) [\\xb5m]" in done.stdout


def interrupted(*arguments):
    """In a child: the command, with Ctrl-C as the first file of finished samples appears."""
    pipeline.Ledger = functools.partial(ledger.Ledger, interval=0.0)
    at_file_operation(2, "part-", lambda: os.kill(os.getpid(), signal.SIGINT))
    sys.exit(cli.main([*arguments]))


@pytest.mark.slow
def test_interrupted_and_resumed(folder, capsys):
    """Ctrl-C keeps what is finished; a rerun computes the rest."""
    made = metalens.simulate(4000, SIZE, error=1e-3)
    np.savez("maps.npz", **made)
    arguments = ["maps.npz", "--output", "out.npz", "--method", "adam", "--max-steps", "300"]
    arguments += ["--checkpoint", "done"]
    running = start(interrupted, "metalens", *arguments, "--lanes", "1", "--json")
    stdout, stderr = running.communicate(timeout=PATIENCE)
    assert (running.returncode, stderr) == (130, "")
    said, out = json.loads(stdout), load("out.npz")
    stopped = out["status"] == Status.STOPPED
    assert 0 < said["statuses"]["STOPPED"] == stopped.sum() < len(stopped)
    np.testing.assert_allclose(
        out["rmse"], rmse(made["phase"], out["params"]), atol=2e-2
    )  # of all maps, also of those that were not begun
    assert np.all(out["rmse"] <= out["initial_rmse"] + ROUNDING)

    # What was finished comes from the folder: also with other lanes it is the same to the last bit.
    again = folder / "again.npz"
    assert call("metalens", *arguments[:2], again, *arguments[3:], "--json") == 0
    json.loads(capsys.readouterr().out)
    rest = load(again)
    np.testing.assert_array_equal(rest["params"][~stopped], out["params"][~stopped])
    np.testing.assert_array_equal(rest["steps"][~stopped], out["steps"][~stopped])
    assert not np.any(rest["status"] == Status.STOPPED)
    assert np.all(rest["steps"][stopped] > 0)


# In this process: what comes out


def test_prints_for_people(folder, capsys):
    write()
    assert refine() == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for text in (f"{COUNT} samples", "residual RMSE [rad]", "before", "after", "written: out.npz"):
        assert text in captured.out
    check_output(load("out.npz"), arrays())


@pytest.mark.slow
def test_wavelengths(folder, capsys):
    made = arrays()
    known = made["wavelength"]
    column = WAVELENGTH

    def params(*arguments, **changes):
        write(**changes)
        assert refine("--json", "--method", "adam", "--max-steps", 5, *arguments) == 0
        notes = json.loads(capsys.readouterr().out)["notes"]
        out = load("out.npz")
        assert notes == list(out["notes"])
        unknown = NOTE_SCALE in notes
        assert not unknown or np.isnan(out["std"]).all()
        return out["params"][:, column], unknown

    found, unknown = params()  # in the file, one a map
    assert not unknown
    np.testing.assert_array_equal(found, known)
    found, unknown = params(wavelength=np.float64(0.5))  # in the file, one for all
    assert not unknown
    np.testing.assert_array_equal(found, np.float32(0.5))
    found, unknown = params("--wavelength", "0.6")  # goes before that in the file
    assert not unknown
    np.testing.assert_array_equal(found, np.float32(0.6))
    assert params("--wavelength", "unknown")[1]
    assert params(wavelength=None)[1]


def test_laser_lines(folder, capsys):
    write(wavelength=np.float64(0.5))  # goes before that in the file
    assert refine("--json", "--wavelength", "lines") == 0
    said, out = json.loads(capsys.readouterr().out), load("out.npz")
    assert np.isin(out["params"][:, WAVELENGTH], np.float32(LASER_LINES)).all()
    assert out["margin_line"].shape == out["margin_rung"].shape == (COUNT,)
    assert said["undecided"] == {
        name: int(np.sum(out[f"margin_{name}"] < 3)) for name in ("rung", "line")
    }
    assert refine("--wavelength", "lines", "--method", "lm") == 2
    assert "lines: only the cascade" in capsys.readouterr().err


@pytest.mark.slow
def test_missing_pixels_and_missing_maps(folder, capsys):
    write()
    assert refine() == 0
    whole = load("out.npz")
    maps = arrays()["phase"].copy()
    maps[0, ::3] = np.nan
    maps[2] = np.nan
    write(phase=maps)
    assert refine("--json") == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["statuses"]["NONFINITE_START"] == 1
    out = load("out.npz")
    assert out["status"][2] == Status.NONFINITE_START
    assert np.isnan(out["rmse"][2])
    np.testing.assert_array_equal(out["params"][2], starts(arrays())[2])
    np.testing.assert_allclose(out["rmse"], rmse(maps, out["params"]), atol=3e-3)
    assert out["rmse"][0] <= out["initial_rmse"][0] + ROUNDING
    np.testing.assert_allclose(out["params"][[1, 3]], whole["params"][[1, 3]])


@pytest.mark.parametrize("name", ["initial", "wavelength"])
def test_nan_beside_the_maps_is_a_status(folder, capsys, name):
    bad = arrays()[name].copy()
    bad[1] = np.nan
    write(**{name: bad})
    assert refine("--json", "--method", "lm") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert json.loads(captured.out)["statuses"]["NONFINITE_START"] == 1
    out = load("out.npz")
    assert out["status"][1] == Status.NONFINITE_START
    others = [0, 2, 3]
    assert np.all(out["status"][others] > 0)
    assert np.all(out["rmse"][others] <= out["initial_rmse"][others] + ROUNDING)


@pytest.mark.slow
def test_all_maps_missing(folder, capsys):
    write(phase=np.full((COUNT, SIZE, SIZE), np.nan, np.float32))
    quick = ("--method", "random", "--max-steps", 3, "--report", "page")
    assert refine("--json", *quick) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["statuses"] == {"NONFINITE_START": COUNT}
    assert said["rmse"] == {"low": None, "median": None, "high": None}
    os.unlink("page/index.html")
    assert refine(*quick) == 0
    page = Path("page/index.html")
    assert f"report:  {page}" in capsys.readouterr().out
    assert page.exists()


def test_integers_and_others_to_start_from(folder, capsys):
    whole = np.rint(arrays()["initial"])
    whole[:, WAVELENGTH] = 0.5
    for initial in (whole.astype(int), whole, whole.astype(">f8")):
        initial = np.maximum(initial, np.array([-500, -500, 1, 0, 10]).astype(initial.dtype))
        write(initial=initial)
        assert refine("--json", "--method", "lm", "--max-steps", 0) == 0
        expected = metalens.starts(initial, arrays()["wavelength"], arrays()["phase"])
        np.testing.assert_array_equal(load("out.npz")["params"], expected)
    write(initial=None)
    assert refine("--json", "--method", "lm", "--max-steps", 0) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["notes"] == [NOTE_START]


def test_a_single_map(folder, capsys):
    first = {name: array[0] for name, array in arrays().items()}
    write(**first)
    assert refine("--json", "--method", "random", "--max-steps", 3) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 1
    assert load("out.npz")["params"].shape == (1, 5)


def test_time_limit(folder, capsys):
    write()
    assert refine("--json", "--time-limit", "0") == 0
    assert json.loads(capsys.readouterr().out)["samples"] == COUNT
    assert load("out.npz")["params"].shape == (COUNT, 5)


def test_progress_leaves_stdout_alone(folder, capsys):
    write()
    assert refine("--json", "--progress") == 0
    json.loads(capsys.readouterr().out)


def test_checkpoint_of_another_job(folder, capsys):
    write()
    assert refine("--checkpoint", "done") == 0
    assert refine("--checkpoint", "done") == 0  # all is there
    capsys.readouterr()
    os.unlink("out.npz")
    assert refine("--checkpoint", "done", "--method", "adam") == 2
    check_failure(capsys.readouterr(), "checkpoint", "another")
    assert not Path("out.npz").exists()


def test_help_and_version(capsys):
    texts = {
        (): ("metalens", "simulate", "doctor", "example", "exit codes"),
        ("metalens",): ("INPUT.npz", "OUT.npz", "phase", "NaN", "std", "--method", "lbfgs", "130"),
        ("simulate",): ("metalens",),
        ("simulate", "metalens"): ("--noise", "warp,field,sinusoid,grain,dead", "truth"),
        ("doctor",): ("--json",),
    }
    for command, words in texts.items():
        assert call(*command, "--help") == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        for word in words:
            assert word in captured.out, (command, word)
        assert max(map(len, captured.out.splitlines())) <= 100
    assert call("--version") == 0
    assert capsys.readouterr().out == f"refinejax {refinejax.__version__}\n"


def test_simulate_for_people(folder, capsys):
    small = ("simulate", "metalens", "--count", COUNT, "--size", SIZE)
    assert call(*small, "--noise", "none", "--output", "maps.npz") == 0
    assert capsys.readouterr().out == (
        "written: maps.npz: phase [4, 16, 16], truth [4, 5], wavelength [4]\n"
    )
    poisson = ("--noise", "grain , sinusoid", "--grain", "poisson", "--output", "other.npz")
    assert call(*small, *poisson) == 0
    np.testing.assert_array_equal(load("maps.npz")["truth"], load("other.npz")["truth"])


# In this process: what is refused


def truncated():
    write()
    content = Path("maps.npz").read_bytes()
    Path("maps.npz").write_bytes(content[: len(content) // 2])


def damaged():
    np.savez_compressed("maps.npz", **arrays())
    content = bytearray(Path("maps.npz").read_bytes())
    middle = len(content) // 3
    content[middle : middle + 50] = bytes(50)
    Path("maps.npz").write_bytes(content)


def plain_array():
    np.save("maps.npy", arrays()["phase"])
    os.rename("maps.npy", "maps.npz")


def pickled():
    write(phase=np.array([{"a": 1}, None], dtype=object))


FILES = {
    "text": lambda: Path("maps.npz").write_text("not,a,map\n"),
    "nothing": lambda: Path("maps.npz").touch(),
    "array": plain_array,
    "pickled": pickled,
    "truncated": truncated,
    "damaged": damaged,
}


@pytest.mark.parametrize("make", FILES.values(), ids=FILES)
def test_not_a_file_of_maps(folder, capsys, make):
    make()
    assert refine("--json") == 2
    check_failure(capsys.readouterr(), "maps.npz: not an .npz file", "numpy.savez")
    assert os.listdir() == ["maps.npz"]


def test_no_such_file(folder, capsys):
    assert refine("--json") == 2
    check_failure(capsys.readouterr(), "maps.npz: no such file", "refinejax simulate metalens")
    os.mkdir("maps.npz")
    assert refine("--json") == 2
    check_failure(capsys.readouterr(), "maps.npz")


CONTENTS = {
    "no phase": ({"phase": None}, ("maps.npz: no array named phase", "truth, wavelength")),
    "not square": ({"phase": np.zeros((4, 16, 15))}, ("phase:", "(B, N, N)", "(4, 16, 15)")),
    "one number": ({"phase": np.zeros(())}, ("phase:", "(B, N, N)", "()")),
    "channels": ({"phase": np.zeros((4, 2, 16, 16))}, ("phase:", "(4, 2, 16, 16)")),
    "one pixel": ({"phase": np.zeros((4, 1, 1))}, ("phase:", "N ≥ 2")),
    "integers": ({"phase": np.zeros((4, 16, 16), np.uint8)}, ("phase:", "uint8", "convert")),
    "complex": ({"phase": np.zeros((4, 16, 16), complex)}, ("phase:", "complex128")),
    "texts": ({"phase": np.full((4, 16, 16), "a")}, ("phase:", "<U1")),
    "empty": ({"phase": np.zeros((0, 16, 16))}, ("phase:", "empty batch")),
    "initial shape": ({"initial": np.zeros((3, 5))}, ("initial:", "(4, 5)", "(3, 5)", "xc, yc")),
    "initial columns": ({"initial": np.zeros((4, 4))}, ("initial:", "(4, 5)", "(4, 4)")),
    "initial texts": ({"initial": np.full((4, 5), "a")}, ("initial:", "real numbers")),
    "wavelengths": ({"wavelength": np.full(3, 0.5)}, ("wavelength:", "(4,)", "(3,)")),
    "wavelength nm": ({"wavelength": np.full(4, 550.0)}, ("wavelength:", "nm / 1000 = µm")),
    "wavelength < 0": ({"wavelength": np.full(4, -0.5)}, ("wavelength:", "above 0")),
    "wavelength text": ({"wavelength": np.array("red")}, ("wavelength:", "real numbers")),
}


@pytest.mark.parametrize(("changes", "words"), CONTENTS.values(), ids=CONTENTS)
def test_wrong_contents(folder, capsys, changes, words):
    write(**changes)
    assert refine("--json") == 2
    check_failure(capsys.readouterr(), *words)
    assert os.listdir() == ["maps.npz"]


OPTIONS = {
    "method": (("--method", "nope"), ("method:", "auto", "lbfgs", "'nope'")),
    "nm": (("--wavelength", "550"), ("wavelength:", "nm / 1000 = µm")),
    "color": (("--wavelength", "red"), ("--wavelength:", "'lines' or 'unknown'", "'red'")),
    "negative": (("--wavelength", "-0.5"), ("wavelength:", "above 0")),
    "nan": (("--wavelength", "nan"), ("wavelength:", "above 0")),
    "steps": (("--max-steps", "-1"), ("max_steps:", "-1")),
    "many steps": (("--max-steps", 2**40), ("--max-steps:", "2^31")),
    "no number": (("--max-steps", "ten"), ("--max-steps:", "'ten'", "--help")),
    "seed": (("--seed", 2**64), ("--seed:", "2^63")),
    "lanes": (("--lanes", "0"), ("lanes:", "1 or more")),
    "memory": (("--memory-limit", "lots"), ("memory_limit:", "30GB", "'lots'")),
    "threads": (("--threads", "0"), ("threads:", "0")),
    "threads, memory": (
        ("--threads", "2", "--memory-limit", "1GB"),
        ("threads:", "memory_limit", "2"),
    ),
    "option": (("--nope",), ("--nope", "--help")),
}


@pytest.mark.parametrize(("options", "words"), OPTIONS.values(), ids=OPTIONS)
def test_wrong_options(folder, capsys, options, words):
    write()
    assert refine("--json", *options) == 2
    check_failure(capsys.readouterr(), *words)
    assert os.listdir() == ["maps.npz"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("COMMAND", "--help")),
        (("nope",), ("'nope'", "metalens")),
        (("metalens", "maps.npz"), ("--output", "--help")),
        (("simulate", "nope"), ("'nope'", "metalens")),
    ],
)
def test_wrong_commands(capsys, arguments, words):
    assert call(*arguments) == 2
    check_failure(capsys.readouterr(), *words)


SIMULATIONS = {
    "count": (("--count", "-3"), ("count:", "-3")),
    "none": (("--count", "0"), ("count:", "1 or more")),
    "size": (("--size", "1"), ("size", "at least 2")),
    "noise": (("--noise", "grain,dust"), ("'dust'", "warp, field, sinusoid, grain, dead")),
    "grain": (("--grain", "nope"), ("--grain", "gaussian", "poisson")),
    "error": (("--error", "-1"), ("error:", "-1")),
    "infinite": (("--error", "inf"), ("error:", "inf")),
    "seed": (("--seed", 2**64), ("--seed:", "2^63")),
}


@pytest.mark.parametrize(("options", "words"), SIMULATIONS.values(), ids=SIMULATIONS)
def test_wrong_simulations(folder, capsys, options, words):
    small = ("--count", COUNT, "--size", SIZE, "--output", "maps.npz", "--json")
    assert call("simulate", "metalens", *small, *options) == 2
    check_failure(capsys.readouterr(), *words)
    assert os.listdir() == []


COMMANDS = {
    "metalens": ("metalens", "maps.npz", "--method", "adam", "--max-steps", 5),
    "simulate": ("simulate", "metalens", "--count", COUNT, "--size", SIZE, "--noise", "none"),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_unwritable_outputs(folder, capsys, monkeypatch, command):
    write()
    os.mkdir("folder")
    os.mkfifo("pipe")
    before = sorted(os.listdir())
    refused = {
        "no/such/out.npz": "mkdir -p",
        "folder": "is a folder",
        "maps.npz/out.npz": "maps.npz/out.npz",
        "pipe": "not a regular file",
    }
    for path, word in refused.items():
        assert call(*command, "--output", path, "--json") == 2
        check_failure(capsys.readouterr(), f"{path}: ", word)

    def read_only(**_):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:  # root may write everywhere else
        patched.setattr(tempfile, "mkstemp", read_only)
        assert call(*command, "--output", "out.npz", "--json") == 1
    check_failure(capsys.readouterr(), "out.npz: cannot write to ", "Read-only file system")
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_disk_that_fills_up_on_the_way(folder, capsys, monkeypatch, command):
    write()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(batch_result.np, "savez", full)
    assert call(*command, "--output", "out.npz", "--json") == 1
    check_failure(capsys.readouterr(), "out.npz: cannot be written (No space left on device)")
    assert os.listdir() == ["maps.npz"]


def test_the_output_is_not_the_input(folder, capsys):
    write()
    content = Path("maps.npz").read_bytes()
    assert call("metalens", "maps.npz", "--output", "./maps.npz", "--json") == 2
    check_failure(capsys.readouterr(), "--output", "is the input")
    assert Path("maps.npz").read_bytes() == content


def test_an_earlier_output_stays_if_the_input_is_bad(folder, capsys):
    Path("out.npz").write_text("earlier")
    write(phase=np.zeros((4, 16, 15)))
    assert refine() == 2
    assert Path("out.npz").read_text() == "earlier"


def test_reports_that_cannot_be_made(folder, capsys, monkeypatch):
    write()
    Path("page").write_text("a file")
    assert refine("--json", "--report", "page") == 2
    check_failure(capsys.readouterr(), "--report: page is a file", "name a folder")
    write(truth=np.zeros((3, 5)))
    assert refine("--json", "--report", "other") == 2
    check_failure(capsys.readouterr(), "truth: expected shape (4, 5), got (3, 5)")
    write()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert refine("--json", "--report", "other") == 1
    check_failure(capsys.readouterr(), "matplotlib", "pip install 'refinejax[plot]'")
    assert sorted(os.listdir()) == ["maps.npz", "page"]


def test_memory_that_runs_out(folder, capsys, monkeypatch):
    write()

    def fail(error):
        def invert(*_, **__):
            raise error

        return invert

    for error in (
        MemoryError("Unable to allocate 1 TiB"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating 1 TiB"),
    ):
        monkeypatch.setattr(metalens, "invert", fail(error))
        assert refine("--json") == 1
        check_failure(capsys.readouterr(), "out of memory", "1 TiB", "--memory-limit")
    monkeypatch.setattr(metalens, "invert", fail(jax.errors.JaxRuntimeError("INTERNAL: x")))
    assert refine("--json") == 1
    check_failure(capsys.readouterr(), "INTERNAL: x")
    monkeypatch.setattr(metalens, "invert", fail(KeyboardInterrupt()))
    assert refine("--json") == 130
    check_failure(capsys.readouterr(), "interrupted")
    assert os.listdir() == ["maps.npz"]
