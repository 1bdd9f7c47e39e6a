"""What commands do that compile and run for a while."""

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refinejax.batch import Execution


def begin(options: argparse.Namespace) -> bool:
    """Keep compiled programs if asked to, and decide whether to draw a progress bar.

    Without ``--progress`` or ``--no-progress`` one is drawn on a terminal, and none beside JSON.

    Args:
        options: with the shared options "cache", "progress" and "json".

    Returns:
        Whether to draw a progress bar.

    Raises:
        ValueError: if the folder of ``--cache`` cannot be written.
    """
    if options.cache is not None:
        from refinejax.compiled import keep_compiled  # which needs JAX

        keep_compiled(options.cache or None)
    if options.progress is not None:
        return options.progress
    return sys.stderr.isatty() and not options.json


def execution_of(options: argparse.Namespace) -> "Execution":
    """Return how a batch is executed.

    Args:
        options: with the shared options "lanes", "threads" and "memory_limit", or some of them.

    Raises:
        ValueError: if the options do not fit together.
    """
    from refinejax.batch import Execution  # needs JAX

    found = vars(options)
    return Execution(
        lanes=found.get("lanes"),
        threads=found.get("threads"),
        memory_limit=found.get("memory_limit"),
    )
