"""`refinejax metalens`: lens parameters from phase maps."""

import argparse
import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from refinejax._core import Status
from refinejax._methods import METHODS
from refinejax.apps import metalens
from refinejax.apps.metalens.checks import check_maps
from refinejax.apps.metalens.solve import PREDICTOR
from refinejax.batch import BatchResult
from refinejax.commands.files import InputError, check_writable, print_json, read_npz, write_npz
from refinejax.commands.options import BATCH, INTERRUPTED, add_shared, count
from refinejax.commands.running import begin, execution_of
from refinejax.models import load_model, pretrained
from refinejax.networks.predictor import Predictor
from refinejax.physics.metalens.lens import LASER_LINES, NAMES

_TRACED = 64  # samples whose way is shown in a report

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


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command.

    Args:
        parser: of the command.
    """
    parser.description = _METALENS
    option = parser.add_argument
    option("input", metavar="INPUT.npz", type=Path, help="phase maps")
    option(
        "--output", metavar="OUT.npz", type=Path, required=True, help="where to write the result"
    )
    names = ", ".join(["auto", "cascade", "learned", *METHODS])
    methods = f"one of {names} (default: auto, the cascade, which needs no start)"
    option("--method", metavar="M", default="auto", help=methods)
    option(
        "--predict",
        metavar="MODEL",
        nargs="?",
        const=PREDICTOR,
        help="start from what a network predicts, and not from the file: a folder with a trained "
        f"predictor, or the name of one that comes with refinejax (default: {PREDICTOR}, "
        "for maps of 64 × 64 pixels)",
    )
    option(
        "--wavelength",
        metavar="W",
        help="in µm, for all maps; 'lines' for one of the laser lines, chosen for each map; or "
        "'unknown' to ignore the one in the file",
    )
    option("--report", metavar="DIR", type=Path, help="write an HTML page and PNGs there")
    option(
        "--max-steps",
        metavar="K",
        type=count,
        help="most steps a map (default: by the method)",
    )
    add_shared(parser, "seed", *BATCH)


def run(options: argparse.Namespace) -> int:
    """Read maps, refine, write the result, and a report if asked to.

    Args:
        options: of the command.

    Returns:
        The exit code: 130 if it was interrupted.

    Raises:
        InputError: if the input or an option cannot be used.
        ValueError: for maps or numbers that do not fit.
        OSError: if a file cannot be written.
        ImportError: if a report needs a package that is missing.
    """
    progress = begin(options)
    check_writable(options.output)
    arrays = read_npz(
        options.input, {"phase": "the maps"}, "make one with `refinejax simulate metalens`"
    )
    if options.output.exists() and options.output.samefile(options.input):
        raise InputError(f"--output: {options.output} is the input; name another file")
    lines = LASER_LINES if options.wavelength == "lines" else None
    wavelength = None if lines else _wavelength(options.wavelength, arrays)
    maps, _ = check_maps(arrays["phase"])
    if options.report is not None:
        _reportable(options.report, arrays, len(maps))
    given: Any = arrays.get("initial")
    if options.predict is not None:
        predictor = _predictor(options.predict)
        found = metalens.predict_lenses(maps, wavelength=wavelength, predictor=predictor)
        arrays["initial"] = np.asarray(found.params)
        given = predictor if options.method == "learned" else arrays["initial"]  # it draws more
    result = metalens.invert(
        maps,
        wavelength=wavelength,
        lines=lines,
        initial=given,
        method=options.method,
        key=options.seed,
        max_steps=options.max_steps,
        execution=execution_of(options),
        progress=progress,
        checkpoint=options.checkpoint,
        time_limit=options.time_limit,
        trace=_TRACED if options.report is not None else 0,
    )
    if lines:
        wavelength = result.params[:, NAMES.index("wavelength")]
    initial = metalens.starts(arrays.get("initial"), wavelength, maps)
    answer = _LensAnswer(
        maps,
        initial,
        result,
        rmse=metalens.residual_rmse(maps, result.params),
        initial_rmse=metalens.residual_rmse(maps, initial),
    )
    _save(options.output, answer)
    page = _report(options, answer, arrays.get("truth")) if options.report is not None else None
    _print_metalens(options, answer, page)
    return INTERRUPTED if np.any(result.status == int(Status.STOPPED)) else 0


@dataclasses.dataclass(frozen=True)
class _LensAnswer:
    """Maps, starts and answers; RMSE [rad] of each map after and before, (B,)."""

    maps: np.ndarray
    initial: np.ndarray
    result: BatchResult
    rmse: np.ndarray
    initial_rmse: np.ndarray


def _save(path: Path, answer: _LensAnswer) -> None:
    result = answer.result
    write_npz(
        path,
        params=result.params,
        rmse=answer.rmse,
        initial_rmse=answer.initial_rmse,
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


def _report(options: argparse.Namespace, answer: _LensAnswer, truth: np.ndarray | None) -> Path:
    from refinejax.apps.metalens.report import LensReport, write_lens_report

    assert answer.result.trace is not None
    shown = LensReport(
        phase=answer.maps,
        initial=answer.initial,
        rmse=answer.rmse,
        initial_rmse=answer.initial_rmse,
        truth=None if truth is None else np.atleast_2d(truth),
        trace=np.sqrt(answer.result.trace),
        title=f"refinejax metalens: {options.input.name}",
        start="initial" if options.predict is None else "predicted",
    )
    return write_lens_report(options.report, answer.result, shown)


def _predictor(name: str) -> Predictor:
    """Load a predictor from a folder, or one that comes with the package."""
    model = load_model(name) if Path(name).is_dir() else pretrained(name)
    if not isinstance(model.value, Predictor):
        raise InputError(
            f"--predict: {name} is a model of kind {model.architecture!r}; expected a predictor"
        )
    return model.value


def _print_metalens(options: argparse.Namespace, answer: _LensAnswer, page: Path | None) -> None:
    result = answer.result
    if options.json:
        print_json(
            input=str(options.input),
            output=str(options.output),
            report=None if page is None else str(page),
            samples=len(result),
            converged=int(np.sum(result.converged)),
            statuses=result.counts(),
            rmse=_quantiles(answer.rmse),
            initial_rmse=_quantiles(answer.initial_rmse),
            undecided={name: int(np.sum(result.undecided(name))) for name in result.margins},
            method=result.method,
            notes=list(result.notes),
            seconds=round(result.seconds, 3),
        )
        return
    print(result.summary())
    print(f"\n  residual RMSE [rad] {'10 %':>10} {'median':>10} {'90 %':>10}")
    for label, values in (("before", answer.initial_rmse), ("after", answer.rmse)):
        numbers = [f"{value:>10.4g}" for value in _quantiles(values).values() if value is not None]
        print(f"  {label:<19} {' '.join(numbers)}")
    print(f"\nwritten: {options.output}")
    if page is not None:
        print(f"report:  {page}")


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
