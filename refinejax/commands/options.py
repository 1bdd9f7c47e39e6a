"""What the commands' options share."""

import argparse
import functools
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
        """Print one line and exit with 2."""
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
