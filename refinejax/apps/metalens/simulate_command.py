"""`refinejax simulate metalens`: phase maps to try it on."""

import argparse
from pathlib import Path
from typing import Any

from refinejax.apps import metalens
from refinejax.commands.files import check_writable, print_json, write_npz
from refinejax.commands.options import add_shared, count
from refinejax.physics.noise import COMPONENTS, PhaseNoise


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command.

    Args:
        parser: of the command.
    """
    parser.description = (
        "Make phase maps of lenses drawn from the ranges. The file holds phase, truth, wavelength\n"
        "and, with --error, initial."
    )
    option = parser.add_argument
    option("--count", metavar="B", type=count, default=64, help="how many maps (default: 64)")
    option("--size", metavar="N", type=count, default=64, help="pixels along a side (default: 64)")
    option(
        "--noise",
        metavar="NAMES",
        default="all",
        help=f"all, none, or some of {','.join(COMPONENTS)}, with commas (default: all)",
    )
    option(
        "--grain", choices=("gaussian", "poisson"), default="gaussian", help="kind of sensor grain"
    )
    option(
        "--error",
        metavar="E",
        type=float,
        help="also write initial: the truth plus Gaussian errors of this share of each range",
    )
    option("--output", metavar="FILE", type=Path, required=True, help="where to write")
    add_shared(parser, "seed", "json")


def run(options: argparse.Namespace) -> int:
    """Make maps and write them.

    Args:
        options: of the command.

    Returns:
        The exit code, 0.

    Raises:
        InputError: if the output is no place for a file.
        ValueError: for numbers that do not fit.
        OSError: if the file cannot be written.
    """
    check_writable(options.output)
    made = metalens.simulate(
        options.count,
        options.size,
        noise=_noise(options.noise, options.grain),
        error=options.error,
        key=options.seed,
    )
    write_npz(options.output, **made)
    shapes = {name: list(array.shape) for name, array in made.items()}
    if options.json:
        print_json(output=str(options.output), arrays=shapes)
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
