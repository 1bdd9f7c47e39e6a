"""`refinejax simulate damped-sine`: signals to try it on."""

import argparse
from pathlib import Path

from damped_sine.problem import simulate
from refinejax.commands.files import check_writable, print_json, write_npz
from refinejax.commands.options import add_shared, count


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command.

    Args:
        parser: of the command.
    """
    parser.description = "Make damped sines: times, signals and truth."
    option = parser.add_argument
    option("--count", metavar="B", type=count, default=64, help="how many (default: 64)")
    option("--noise", metavar="S", type=float, default=0.1, help="of a value [V] (default: 0.1)")
    option("--output", metavar="FILE", type=Path, required=True, help="where to write")
    add_shared(parser, "seed", "json")


def run(options: argparse.Namespace) -> int:
    """Make signals and write them.

    Args:
        options: of the command.

    Returns:
        The exit code, 0.

    Raises:
        InputError: if the output cannot be written.
    """
    check_writable(options.output)
    made = simulate(options.count, options.noise, options.seed)
    write_npz(options.output, **made)
    shapes = {name: list(array.shape) for name, array in made.items()}
    if options.json:
        print_json(output=str(options.output), arrays=shapes)
    else:
        print(f"written: {options.output}: " + ", ".join(f"{k} {v}" for k, v in shapes.items()))
    return 0
