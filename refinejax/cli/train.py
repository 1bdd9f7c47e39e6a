"""`refinejax train`: a model from a configuration."""

import argparse
import tomllib
from pathlib import Path
from typing import Any

from refinejax._core import Status
from refinejax.apps.training import PLANS, train_model
from refinejax.commands.files import InputError, print_json
from refinejax.commands.options import EXIT_CODES, INTERRUPTED
from refinejax.commands.running import add_running, begin

_TRAIN = """\
Train a model on problems that are simulated on the way; multitask: on a CSV table.

FILE.toml has the tables [training] (steps, learning_rate, ...), [task] (what is simulated, or the
table and its columns) and one for the model: [network] of a predictor or a multitask model, else
[refiner]. DIR will hold checkpoints, metrics.jsonl (a line of numbers every few steps), and at the
end model: the weights that were best by validation, for load_model.
"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("train", description=_TRAIN, epilog=EXIT_CODES)
    option = parser.add_argument
    option("kind", choices=tuple(PLANS), metavar="KIND", help=f"one of {', '.join(PLANS)}")
    option("--config", metavar="FILE.toml", type=Path, required=True, help="what to train, and how")
    option("--out", metavar="DIR", type=Path, required=True, help="where to keep it")
    option("--resume", action="store_true", help="go on with an interrupted training in DIR")
    add_running(parser)
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    progress = begin(options)
    trained = train_model(
        options.kind,
        _read(options.config),
        options.out,
        resume=options.resume,
        progress=progress,
    )
    model = options.out / "model"
    loss = trained.loss if trained.loss < float("inf") else None
    if options.json:
        print_json(
            model=str(model),
            status=trained.status.name,
            loss=loss,
            step=trained.step,
            best_step=trained.best_step,
            skipped=trained.skipped,
        )
    else:
        print(f"{trained}\n{trained.explain()}\nwritten: {model}")
    if trained.status is Status.STOPPED:
        return INTERRUPTED
    return 1 if trained.status is Status.NONFINITE else 0


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise InputError(f"--config: {path} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"--config: {path} is not TOML ({error})") from error
