"""`refinejax damped-sine`: reads signals, fits them, writes the result and a report."""

import argparse
from pathlib import Path

import numpy as np

from damped_sine.problem import fit, guess, rmse
from refinejax.commands.files import check_writable, print_json, read_npz, write_npz
from refinejax.commands.options import add_shared
from refinejax.commands.running import begin, execution_of

ABOUT = """\
Find height, decay and frequency of damped sines.

INPUT.npz holds
  times    (n,)      when the signals are observed, equally spaced [s]
  signals  (B, n)    [V]; NaN marks missing values
  truth    (B, 3)    optional: height [V], decay [1/s], frequency [Hz], for the report

OUT.npz will hold params (B, 3), std (B, 3), rmse (B,) [V] and status (B,).
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command.

    Args:
        parser: of the command.
    """
    parser.description = ABOUT
    option = parser.add_argument
    option("input", metavar="INPUT.npz", type=Path, help="signals")
    option("--output", metavar="OUT.npz", type=Path, required=True, help="where to write")
    option("--report", metavar="DIR", type=Path, help="write an HTML page there")
    option("--noise", metavar="S", type=float, default=0.1, help="of a value [V] (default: 0.1)")
    # what every command has in common looks and works the same everywhere
    add_shared(parser, "lanes", "memory_limit", "cache", "progress", "json")


def run(options: argparse.Namespace) -> int:
    """Fit signals.

    Args:
        options: of the command.

    Returns:
        The exit code, 0. Errors are raised: refinejax prints them as one line.

    Raises:
        InputError: if the input cannot be read or the output cannot be written.
    """
    progress = begin(options)
    check_writable(options.output)
    content = {"times": "when the signals are observed", "signals": "the signals"}
    arrays = read_npz(options.input, content, "make one with `refinejax simulate damped-sine`")
    times, signals = arrays["times"], arrays["signals"]
    execution = execution_of(options)
    result = fit(times, signals, options.noise, execution=execution, progress=progress)
    errors = rmse(times, signals, result.params)
    write_npz(
        options.output, params=result.params, std=result.std, rmse=errors, status=result.status
    )
    page = None
    if options.report is not None:
        from damped_sine.report import write  # needs matplotlib

        page = write(options.report, arrays, guess(times, signals), result)
    if options.json:
        median = float(np.median(errors))
        print_json(output=str(options.output), samples=len(result), rmse=median)
    else:
        print(f"{result.summary()}\n\nwritten: {options.output}")
        if page is not None:
            print(f"report:  {page}")
    return 0
