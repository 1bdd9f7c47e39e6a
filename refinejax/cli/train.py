"""`refinejax train`: a model from a configuration."""

import argparse
from pathlib import Path

from refinejax._applications import trainings
from refinejax._core import Status
from refinejax.commands.files import print_json, read_toml
from refinejax.commands.options import INTERRUPTED, add_shared
from refinejax.commands.running import begin

_TRAIN = """\
Train a model: on problems that are simulated on the way, or on a table.

FILE.toml has the tables [training] (steps, learning_rate, ...), [task] (the problems, or the
table and its columns) and one for the model: [network] or
[refiner]. DIR will hold checkpoints, metrics.jsonl (a line of numbers every few steps), and at the
end model: the weights that were best by validation, for load_model. The same command goes on with
a training that was interrupted.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command.

    Args:
        parser: of the command.
    """
    parser.description = _TRAIN
    option = parser.add_argument
    kinds = tuple(trainings())
    option("kind", choices=kinds, metavar="KIND", help=f"one of {', '.join(kinds)}")
    option("--config", metavar="FILE.toml", type=Path, required=True, help="what to train, and how")
    option("--output", metavar="DIR", type=Path, required=True, help="where to keep it")
    add_shared(parser, "cache", "progress", "json", "time_limit")


def run(options: argparse.Namespace) -> int:
    """Train a model and write it.

    Args:
        options: of the command.

    Returns:
        The exit code: 1 if the training ended without a finite loss.

    Raises:
        InputError: if the configuration cannot be read.
        ValueError: if it does not describe a training.
        OSError: if the folder cannot be written.
    """
    from refinejax.training.plans import train_model  # JAX is imported when it is needed

    progress = begin(options)
    trained = train_model(
        options.kind,
        read_toml(options.config, "--config"),
        options.output,
        progress=progress,
        time_limit=options.time_limit,
    )
    model = options.output / "model"
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
