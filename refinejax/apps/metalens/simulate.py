"""`refinejax simulate`: observations to try it on."""

import argparse
from pathlib import Path
from typing import Any

from refinejax.apps import metalens
from refinejax.commands.files import print_json, writable, write
from refinejax.commands.options import Parser, count, seed
from refinejax.physics.noise import COMPONENTS, PhaseNoise


def add(commands: Any) -> None:
    """Add the command."""
    simulate = commands.add_parser("simulate", description="Make observations to try it on.")
    models = simulate.add_subparsers(required=True, metavar="MODEL", parser_class=Parser)
    parser = models.add_parser(
        "metalens",
        help="wrapped phase maps of a lens",
        description="Make phase maps of lenses drawn from the ranges. The file holds phase, truth, "
        "wavelength\nand, with --error, initial.",
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
    option("--seed", metavar="S", type=seed, default=0, help="(default: 0)")
    option("--output", metavar="FILE", type=Path, required=True, help="where to write")
    option("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=_simulate)


def _simulate(options: argparse.Namespace) -> int:
    writable(options.output)
    made = metalens.simulate(
        options.count,
        options.size,
        noise=_noise(options.noise, options.grain),
        error=options.error,
        key=options.seed,
    )
    write(options.output, **made)
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
