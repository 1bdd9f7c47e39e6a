"""`refinejax latent`: inputs for which a trained model predicts the targets."""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refinejax._config import check_tables, read_config
from refinejax._core import Status
from refinejax.apps.latent import (
    LatentResult,
    Mahalanobis,
    MultiTaskModel,
    Search,
    optimize_latent,
)
from refinejax.apps.latent.shortcuts import read_targets
from refinejax.apps.latent.tables import numbers_of, read_table, write_table
from refinejax.commands.files import InputError, check_writable, print_json, read_toml
from refinejax.commands.options import BATCH, INTERRUPTED, add_shared, count, seed
from refinejax.commands.running import begin, execution_of
from refinejax.models import load_model

_LATENT = """\
Search for descriptors for which a trained model predicts the targets.

MODEL is a folder that `refinejax train multitask` has written (DIR/model). FILE.toml gives targets
for its tasks, and says how to search:

  [targets.density]                  one of match, between = [low, high], at_least, at_most,
  match = 5.0                        curve = [...], mode = "max" or "min"; weight, scale
  [targets.phase]
  classes = ["A"]                    or not_classes
  [constraints.cost]
  at_most = 3.0                      what must hold
  [search]
  restarts = 16                      also over, std, alignment, method, max_steps, key,
  mahalanobis = 1.0                  bounds ("data" or "none"); weight of the distance to the data

START.csv has a column for each descriptor; a search starts from each of its lines. OUT.csv will
have --select lines for each: sample, start, the descriptors, what the model says of them, loss,
violation and status.
"""


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """The table [search].

    Attributes:
        restarts: as for `optimize_latent`.
        std: as for `optimize_latent`.
        over: as for `optimize_latent`.
        alignment: as for `optimize_latent`.
        method: as for `optimize_latent`.
        max_steps: as for `optimize_latent`.
        key: as for `optimize_latent`.
        bounds: "data", those of the training data, or "none".
        mahalanobis: weight of the distance to the training data; 0 for none.

    Raises:
        ValueError: for other bounds, or a weight below 0.
    """

    restarts: int = 8
    std: float = 0.3
    over: str = "auto"
    alignment: float = 0.5
    method: str = "auto"
    max_steps: int | None = None
    key: int = 0
    bounds: str = "data"
    mahalanobis: float = 0.0

    def __post_init__(self) -> None:
        """Check what nothing else does."""
        if self.bounds not in ("data", "none"):
            raise ValueError(f"search.bounds: expected 'data' or 'none', got {self.bounds!r}")
        if not self.mahalanobis >= 0:
            raise ValueError(f"search.mahalanobis: expected 0 or more, got {self.mahalanobis}")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command.

    Args:
        parser: of the command.
    """
    parser.description = _LATENT
    option = parser.add_argument
    option("model", metavar="MODEL", type=Path, help="folder of a trained model")
    option(
        "--targets",
        metavar="FILE.toml",
        type=Path,
        required=True,
        help="targets, search",
    )
    option("--start", metavar="START.csv", type=Path, required=True, help="samples to start from")
    option("--output", metavar="OUT.csv", type=Path, required=True, help="where to write")
    option("--select", metavar="K", type=count, default=1, help="answers a sample (default: 1)")
    option("--seed", metavar="S", type=seed, help="in place of key in FILE.toml")
    add_shared(parser, *BATCH)


def run(options: argparse.Namespace) -> int:
    """Read a model, targets and starts, search, and write the answers.

    Args:
        options: of the command.

    Returns:
        The exit code: 130 if it was interrupted.

    Raises:
        InputError: if a file or an option cannot be used.
        ValueError: for targets or settings that do not fit the model.
        OSError: if the output cannot be written.
    """
    progress = begin(options)
    check_writable(options.output)
    model = _model(options.model)
    tables = _tables(options.targets)
    search = read_config(SearchConfig, tables.get("search", {}), "search")
    if not 1 <= options.select <= search.restarts:
        raise InputError(f"--select: expected 1 to restarts = {search.restarts}")
    result = _search(model, tables, search, options, progress)
    chosen = result.select(options.select)
    _write(options.output, model, result, chosen)
    if options.json:
        _print_json(options, result)
    else:
        print(f"{result.summary()}\n\nwritten: {options.output}")
    stopped = int(Status.STOPPED) in result.status
    return INTERRUPTED if stopped else 0


def _search(
    model: MultiTaskModel,
    tables: Mapping[str, Any],
    search: SearchConfig,
    options: argparse.Namespace,
    progress: bool,
) -> LatentResult:
    starts = numbers_of(read_table(options.start), model.columns, str(options.start))
    near = Mahalanobis.of_moments(
        model.input_mean, model.covariance, weight=search.mahalanobis or 1.0
    )
    return optimize_latent(
        model,
        read_targets(tables.get("targets", {})),
        starts.astype(np.float32),
        search=Search(
            over=search.over, restarts=search.restarts, std=search.std, alignment=search.alignment
        ),
        bounds="data" if search.bounds == "data" else None,
        constraints=read_targets(tables.get("constraints", {}), "constraints"),
        closeness=[near] if search.mahalanobis else [],
        method=search.method,
        max_steps=search.max_steps,
        key=search.key if options.seed is None else options.seed,
        execution=execution_of(options),
        progress=progress,
        checkpoint=options.checkpoint,
        time_limit=options.time_limit,
    )


def _model(folder: Path) -> MultiTaskModel:
    model = load_model(folder)
    if not isinstance(model.value, MultiTaskModel):
        raise InputError(
            f"MODEL: {folder} is of kind {model.architecture!r}; expected one of `refinejax train "
            "multitask`"
        )
    return model.value


def _tables(path: Path) -> dict[str, Any]:
    tables = read_toml(path, "--targets")
    check_tables(tables, ("targets", "constraints", "search"), f"--targets: {path}")
    return tables


def _write(path: Path, model: MultiTaskModel, result: LatentResult, chosen: np.ndarray) -> None:
    samples, k = chosen.shape
    index = (np.repeat(np.arange(samples), k), chosen.ravel())
    columns = ("sample", "start", *model.columns, *result.columns, "loss", "violation", "status")
    parts = (
        index[0],
        index[1],
        *result.optimized_input[index].T,
        *result.optimized_target[index].T,
        result.losses.roundtrip[index],
        result.losses.violation[index],
        [Status(int(code)).name for code in result.status[index]],
    )
    write_table(path, columns, list(zip(*parts, strict=True)))


def _print_json(options: argparse.Namespace, result: LatentResult) -> None:
    best = result.target
    print_json(
        output=str(options.output),
        samples=len(result),
        starts=result.losses.total.shape[1],
        before={n: _median(result.sample.score[:, i]) for i, n in enumerate(result.columns)},
        after={n: _median(best[:, i]) for i, n in enumerate(result.columns)},
        kept=int(np.sum(np.any(result.feasible, axis=1))),
        statuses=result.counts(),
        method=result.method,
        seconds=round(result.seconds, 3),
    )


def _median(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else None
