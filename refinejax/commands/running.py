"""What commands share that compile and run for a while."""

import argparse
import sys

from refinejax.compiled import keep_compiled


def add_running(parser: argparse.ArgumentParser) -> None:
    """Add the options --cache, --progress and --json."""
    option = parser.add_argument
    option(
        "--cache",
        metavar="DIR",
        nargs="?",
        const="",
        help="keep compiled programs there (default: in the user's folder for caches); the next "
        "run starts in a fraction of the time",
    )
    option(
        "--progress", action=argparse.BooleanOptionalAction, help="draw a progress bar on stderr"
    )
    option("--json", action="store_true", help="print one JSON object and nothing else")


def begin(options: argparse.Namespace) -> bool:
    """Keep compiled programs if asked to, and return whether a progress bar is to be drawn.

    Unless it is said, one is drawn on a terminal, and none beside JSON.
    """
    if options.cache is not None:
        keep_compiled(options.cache or None)
    if options.progress is not None:
        return options.progress
    return sys.stderr.isatty() and not options.json
