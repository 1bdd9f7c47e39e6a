"""The command line. The only place that prints."""

import argparse
import functools
import importlib.util
import io
import json
import os
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from refinejax import __version__
from refinejax._core import Status
from refinejax._methods import METHODS
from refinejax.apps import metalens
from refinejax.batch.result import BatchResult, write_npz
from refinejax.compiled import keep_compiled
from refinejax.doctor import Diagnosis, diagnose
from refinejax.physics.metalens import LASER_LINES, NAMES, UNITS
from refinejax.physics.noise import COMPONENTS, PhaseNoise

_INTERRUPTED = 130
_TRACED = 64  # samples whose way is shown in a report
_UNREADABLE = (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error)

_DESCRIPTION = """\
Refine predictions through forward models.

commands:
  metalens           lens parameters from wrapped phase maps
  simulate metalens  make phase maps, with noise, to try it on
  doctor             versions, devices, precision, cache, and what is wrong with them

example:
  refinejax simulate metalens --count 64 --size 64 --noise grain --error 0.05 --output maps.npz
  refinejax metalens maps.npz --output refined.npz --report report
"""

_METALENS = """\
Find the lens parameters that explain wrapped phase maps.

INPUT.npz holds
  phase       (B, N, N)     wrapped phase [rad]; NaN marks missing pixels
  initial     (B, 5)        optional: where to start (xc, yc, S, wavelength, focal_length) [µm]
  wavelength  () or (B,)    optional [µm]; without it only ratios of the parameters are determined

OUT.npz will hold params (B, 5), rmse (B,) [rad], initial_rmse, loss, status, steps, std (B, 5)
(NaN where unknown), at_bound (B, 5), margin_rung (B,) (log of the odds that the lens is on the
right fringe; with --wavelength lines also margin_line), names, method and notes. No sample is worse
than it came in.
"""

_EXIT_CODES = """\
exit codes: 0 done; 1 it could not be done (a disk is full, a package is missing); 2 wrong arguments
or input; 130 interrupted by Ctrl-C, with what was finished written to the output
"""


class InputError(Exception):
    """Wrong arguments or input; the text says how to mend it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks µ is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (InputError, ValueError) as error:
        return _fail(str(error), 2)
    except OSError as error:
        named = error.filename is not None
        return _fail(f"{error.filename}: {error.strerror}" if named else str(error), 1)
    except ImportError as error:
        return _fail(str(error), 1)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        return _fail(_memory(error), 1)
    except KeyboardInterrupt:
        return _fail("interrupted", _INTERRUPTED)


def _fail(text: str, code: int) -> int:
    print("refinejax: error: " + " ".join(text.split()), file=sys.stderr)
    return code


def _memory(error: Exception) -> str:
    """Say what to do if memory ran out, on the host or on a device."""
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return (
            f"out of memory ({error}); --lanes or --memory-limit refine fewer maps at once, and "
            "--count makes fewer"
        )
    return str(error)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="refinejax", description=_DESCRIPTION, epilog=_EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"refinejax {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    _add_metalens(commands)
    _add_simulate(commands)
    doctor = commands.add_parser("doctor", description="Versions, devices, precision, cache.")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.set_defaults(run=_doctor)
    return parser


class _Parser(argparse.ArgumentParser):
    """Keeps the lines of the texts as they are; an error is one line, with the remedy."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> Any:
        """Print one line and exit with 2."""
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def _integer(text: str, bits: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected an integer, got {text!r}") from None
    if abs(number) >= 2**bits:
        raise argparse.ArgumentTypeError(f"expected an integer below 2^{bits}, got {text}")
    return number


_count = functools.partial(_integer, bits=31)
_seed = functools.partial(_integer, bits=63)


def _add_metalens(commands: Any) -> None:
    parser = commands.add_parser("metalens", description=_METALENS, epilog=_EXIT_CODES)
    add = parser.add_argument
    add("input", metavar="INPUT.npz", type=Path, help="phase maps")
    add("--output", metavar="OUT.npz", type=Path, required=True, help="where to write the result")
    names = ", ".join(["auto", "cascade", *METHODS])
    methods = f"one of {names} (default: auto, the cascade, which needs no start)"
    add("--method", metavar="M", default="auto", help=methods)
    add(
        "--wavelength",
        metavar="W",
        help="in µm, for all maps; 'lines' for one of the laser lines, chosen for each map; or "
        "'unknown' to ignore the one in the file",
    )
    add("--report", metavar="DIR", type=Path, help="write an HTML page and PNGs there")
    add(
        "--max-steps",
        metavar="K",
        type=_count,
        help="most steps a map (default: by the method)",
    )
    add("--seed", metavar="S", type=_seed, default=0, help="for methods that draw (default: 0)")
    add(
        "--lanes",
        metavar="L",
        type=_count,
        help="maps under way at once (default: by the hardware)",
    )
    add("--memory-limit", metavar="SIZE", help="choose the lanes to stay within, such as 30GB")
    add(
        "--time-limit",
        metavar="SEC",
        type=float,
        help="end after so long with what is done",
    )
    add("--checkpoint", metavar="DIR", type=Path, help="keep finished maps there; a rerun resumes")
    add(
        "--cache",
        metavar="DIR",
        nargs="?",
        const="",
        help="keep compiled programs there (default: in the user's folder for caches); the next "
        "run starts in a fraction of the time",
    )
    add("--progress", action=argparse.BooleanOptionalAction, help="draw a progress bar on stderr")
    add("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=_metalens)


def _add_simulate(commands: Any) -> None:
    simulate = commands.add_parser("simulate", description="Make observations to try it on.")
    models = simulate.add_subparsers(required=True, metavar="MODEL", parser_class=_Parser)
    parser = models.add_parser(
        "metalens",
        help="wrapped phase maps of a lens",
        description="Make phase maps of lenses drawn from the ranges. The file holds phase, truth, "
        "wavelength\nand, with --error, initial.",
    )
    add = parser.add_argument
    add("--count", metavar="B", type=_count, default=64, help="how many maps (default: 64)")
    add("--size", metavar="N", type=_count, default=64, help="pixels along a side (default: 64)")
    add(
        "--noise",
        metavar="NAMES",
        default="all",
        help=f"all, none, or some of {','.join(COMPONENTS)}, with commas (default: all)",
    )
    add("--grain", choices=("gaussian", "poisson"), default="gaussian", help="kind of sensor grain")
    add(
        "--error",
        metavar="E",
        type=float,
        help="also write initial: the truth plus Gaussian errors of this share of each range",
    )
    add("--seed", metavar="S", type=_seed, default=0, help="(default: 0)")
    add("--output", metavar="FILE", type=Path, required=True, help="where to write")
    add("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=_simulate)


def _metalens(options: argparse.Namespace) -> int:
    if options.cache is not None:
        keep_compiled(options.cache or None)
    _writable(options.output)
    arrays = _read(options.input)
    if options.output.exists() and options.output.samefile(options.input):
        raise InputError(f"--output: {options.output} is the input; name another file")
    lines = LASER_LINES if options.wavelength == "lines" else None
    wavelength = None if lines else _wavelength(options.wavelength, arrays)
    maps, _ = metalens.check_maps(arrays["phase"])
    if options.report is not None:
        _reportable(options.report, arrays, len(maps))
    progress = options.progress
    result = metalens.invert(
        maps,
        wavelength=wavelength,
        lines=lines,
        initial=arrays.get("initial"),
        method=options.method,
        key=options.seed,
        max_steps=options.max_steps,
        lanes=options.lanes,
        memory_limit=options.memory_limit,
        progress=sys.stderr.isatty() and not options.json if progress is None else progress,
        checkpoint=options.checkpoint,
        time_limit=options.time_limit,
    )
    if lines:
        wavelength = result.params[:, NAMES.index("wavelength")]
    initial = metalens.starts(arrays.get("initial"), wavelength, maps)
    rmse, initial_rmse = (metalens.residual_rmse(maps, p) for p in (result.params, initial))
    _save(options.output, result, rmse, initial_rmse)
    page = None
    if options.report is not None:
        page = _report(options, maps, wavelength, initial, result, rmse, initial_rmse, arrays)
    _print_metalens(options, result, rmse, initial_rmse, page)
    return _INTERRUPTED if np.any(result.status == int(Status.STOPPED)) else 0


def _save(path: Path, result: BatchResult, rmse: np.ndarray, initial_rmse: np.ndarray) -> None:
    _write(
        path,
        params=result.params,
        rmse=rmse,
        initial_rmse=initial_rmse,
        loss=result.loss,
        status=result.status,
        steps=result.steps,
        std=result.std,
        at_bound=result.at_bound,
        **{f"margin_{name}": margin for name, margin in result.margins.items()},
        names=np.array(NAMES),
        method=np.array(result.method),
        notes=np.array(result.notes, dtype=str),
    )


def _report(
    options: argparse.Namespace,
    maps: np.ndarray,
    wavelength: Any,
    initial: np.ndarray,
    result: BatchResult,
    rmse: np.ndarray,
    initial_rmse: np.ndarray,
    arrays: dict[str, np.ndarray],
) -> Path:
    from refinejax.report import ReportData, write_report  # needs matplotlib, an extra

    some = slice(None, _TRACED)
    trace = metalens.convergence(
        maps[some],
        initial[some],
        wavelength=wavelength if np.ndim(wavelength) == 0 else wavelength[some],
        method=options.method,
        num_steps=int(max(1, result.steps.max())),
        key=options.seed,
    )
    return write_report(
        options.report,
        ReportData(
            observed=lambda i: maps[i],
            predicted=lambda i: metalens.predict(result.params[i], maps.shape[-1]),
            names=NAMES,
            units=UNITS,
            initial=initial,
            params=result.params,
            std=result.std,
            truth=np.atleast_2d(arrays["truth"]) if "truth" in arrays else None,
            rmse=rmse,
            initial_rmse=initial_rmse,
            status=result.status,
            steps=result.steps,
            margins=result.margins,
            method=result.method,
            trace=trace,
            title=f"refinejax metalens: {options.input.name}",
            notes=list(result.notes),
        ),
    )


def _print_metalens(
    options: argparse.Namespace,
    result: BatchResult,
    rmse: np.ndarray,
    initial_rmse: np.ndarray,
    page: Path | None,
) -> None:
    if options.json:
        _print_json(
            input=str(options.input),
            output=str(options.output),
            report=None if page is None else str(page),
            samples=len(result),
            converged=int(np.sum(result.converged)),
            statuses=result.counts(),
            rmse=_quantiles(rmse),
            initial_rmse=_quantiles(initial_rmse),
            undecided={name: int(np.sum(result.undecided(name))) for name in result.margins},
            method=result.method,
            notes=list(result.notes),
            seconds=round(result.seconds, 3),
        )
        return
    print(result.summary())
    print(f"\n  residual RMSE [rad] {'10 %':>10} {'median':>10} {'90 %':>10}")
    for label, values in (("before", initial_rmse), ("after", rmse)):
        numbers = [f"{value:>10.4g}" for value in _quantiles(values).values() if value is not None]
        print(f"  {label:<19} {' '.join(numbers)}")
    print(f"\nwritten: {options.output}")
    if page is not None:
        print(f"report:  {page}")


def _simulate(options: argparse.Namespace) -> int:
    _writable(options.output)
    made = metalens.simulate(
        options.count,
        options.size,
        noise=_noise(options.noise, options.grain),
        error=options.error,
        key=options.seed,
    )
    _write(options.output, **made)
    shapes = {name: list(array.shape) for name, array in made.items()}
    if options.json:
        _print_json(output=str(options.output), arrays=shapes)
    else:
        print(f"written: {options.output}: " + ", ".join(f"{k} {v}" for k, v in shapes.items()))
    return 0


def _noise(names: str, grain: Any) -> PhaseNoise:
    if names == "all":
        noise = PhaseNoise.all()
    elif names == "none":
        noise = PhaseNoise.none()
    else:
        noise = PhaseNoise.only(*(name.strip() for name in names.split(",")))
    return noise.replace(grain_kind=grain)


def _doctor(options: argparse.Namespace) -> int:
    diagnosis = diagnose()
    if options.json:
        _print_json(**diagnosis._asdict())
    else:
        _print_diagnosis(diagnosis)
    return 1 if diagnosis.problems else 0


def _print_diagnosis(diagnosis: Diagnosis) -> None:
    facts = dict(diagnosis.facts)
    for name, version in facts.pop("versions").items():
        print(f"{name:<18} {version or 'not installed'}")
    for name, fact in facts.items():
        print(f"{name:<18} {', '.join(fact) if isinstance(fact, list) else fact}")
    for text in diagnosis.problems:
        print(f"\nproblem: {text}")
    for text in diagnosis.advice:
        print(f"\nadvice: {text}")
    if not diagnosis.problems:
        print("\nno problems found")


def _read(path: Path) -> dict[str, np.ndarray]:
    """Read an npz file; say what is wrong with it if anything is."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; make one with `refinejax simulate metalens`")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not a complete zip archive")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except _UNREADABLE as error:
        raise InputError(
            f"{path}: not an .npz file of plain arrays ({error}); write it with numpy.savez"
        ) from error
    if "phase" not in arrays:
        have = ", ".join(arrays) or "nothing"
        raise InputError(f"{path}: no array named phase, which must hold the maps; it has {have}")
    return arrays


def _wavelength(option: str | None, arrays: dict[str, np.ndarray]) -> Any:
    if option is None:
        return arrays.get("wavelength")
    if option == "unknown":
        return None
    try:
        return float(option)
    except ValueError:
        raise InputError(
            f"--wavelength: expected µm, 'lines' or 'unknown', got {option!r}"
        ) from None


def _writable(path: Path) -> None:
    """Find out before the work is done whether its result can be written."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{path}: the folder {folder} does not exist; mkdir -p {folder}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    if path.exists() and not path.is_file():  # it would be replaced, even /dev/null
        raise InputError(f"{path}: is not a regular file; give the name of a new one")
    try:
        handle, probe = tempfile.mkstemp(dir=folder)
    except OSError as error:
        raise OSError(f"{path}: cannot write to {folder} ({error.strerror})") from error
    os.close(handle)
    os.unlink(probe)


def _write(path: Path, **arrays: Any) -> None:
    try:
        write_npz(path, **arrays)
    except OSError as error:
        why = error.strerror or error
        raise OSError(f"{path}: cannot be written ({why}); make room, or name another") from error


def _reportable(folder: Path, arrays: dict[str, np.ndarray], count: int) -> None:
    """Find out before the work is done whether it can be reported."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--report: {folder} is a file; name a folder")
    if "truth" in arrays and np.atleast_2d(arrays["truth"]).shape != (count, len(NAMES)):
        raise InputError(
            f"truth: expected shape ({count}, {len(NAMES)}), got {arrays['truth'].shape}; leave it "
            "out if it is not known"
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("--report needs matplotlib; pip install 'refinejax[plot]'")


def _quantiles(values: np.ndarray) -> dict[str, float | None]:
    finite = values[np.isfinite(values)]
    levels = {"low": 0.1, "median": 0.5, "high": 0.9}
    if not finite.size:
        return dict.fromkeys(levels)
    return {name: float(np.quantile(finite, level)) for name, level in levels.items()}


def _print_json(**content: Any) -> None:
    print(json.dumps(content, allow_nan=False))
