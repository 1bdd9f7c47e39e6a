"""Options that several commands have: one name, one meaning and one text for each."""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

INTERRUPTED = 130
EXIT_CODES = """\
exit codes: 0 done; 1 it could not be done (a disk is full, a package is missing); 2 wrong arguments
or input; 130 interrupted by Ctrl-C, with what was finished written to the output
"""


class Parser(argparse.ArgumentParser):
    """Keeps the lines of the texts as they are; an error is one line, with the remedy."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> Any:
        """Print one line and exit with 2.

        Args:
            message: of argparse.
        """
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def _integer(text: str, bits: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected an integer, got {text!r}") from None
    if abs(number) >= 2**bits:
        raise argparse.ArgumentTypeError(f"expected an integer below 2^{bits}, got {text}")
    return number


count = functools.partial(_integer, bits=31)
seed = functools.partial(_integer, bits=63)


def _lanes(parser: argparse.ArgumentParser) -> None:
    text = "samples under way at once (default: by the hardware)"
    parser.add_argument("--lanes", metavar="L", type=count, help=text)


def _threads(parser: argparse.ArgumentParser) -> None:
    text = "engines, one a thread (default: by the hardware); not with --memory-limit"
    parser.add_argument("--threads", metavar="N", type=count, help=text)


def _memory_limit(parser: argparse.ArgumentParser) -> None:
    text = "choose the lanes to stay within, such as 30GB"
    parser.add_argument("--memory-limit", metavar="SIZE", help=text)


def _time_limit(parser: argparse.ArgumentParser) -> None:
    text = "end after so long; keep the finished part"
    parser.add_argument("--time-limit", metavar="SEC", type=float, help=text)


def _checkpoint(parser: argparse.ArgumentParser) -> None:
    text = "keep finished samples there; a rerun resumes"
    parser.add_argument("--checkpoint", metavar="DIR", type=Path, help=text)


def _seed(parser: argparse.ArgumentParser) -> None:
    text = "of all that is drawn at random (default: 0)"
    parser.add_argument("--seed", metavar="S", type=seed, default=0, help=text)


def _cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache",
        metavar="DIR",
        nargs="?",
        const="",
        help="keep compiled programs there (default: in the user's folder for caches); the next "
        "run starts in a fraction of the time",
    )


def _progress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, help="draw a progress bar on stderr"
    )


def _json(parser: argparse.ArgumentParser) -> None:
    text = "print one JSON object and nothing else"
    parser.add_argument("--json", action="store_true", help=text)


_SHARED: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "lanes": _lanes,
    "threads": _threads,
    "memory_limit": _memory_limit,
    "time_limit": _time_limit,
    "checkpoint": _checkpoint,
    "seed": _seed,
    "cache": _cache,
    "progress": _progress,
    "json": _json,
}


# what a command has that refines a batch, see `commands.running`
BATCH = (
    *("lanes", "threads", "memory_limit", "time_limit", "checkpoint"),
    *("cache", "progress", "json"),
)


def add_shared(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add options that several commands have.

    Args:
        parser: of a command.
        names: "lanes", "threads", "memory_limit" (`batch.Execution`), "time_limit", "checkpoint",
            "seed", "cache", "progress" (see `commands.running.begin`) or "json".

    Raises:
        KeyError: for another name.
    """
    for name in names:
        _SHARED[name](parser)
