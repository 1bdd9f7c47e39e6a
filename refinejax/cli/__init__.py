"""The command line. The only place that prints."""

import argparse
import importlib
import io
import sys
from collections.abc import Sequence

from refinejax import __version__
from refinejax.commands.files import InputError
from refinejax.commands.options import EXIT_CODES, INTERRUPTED, Parser

_DESCRIPTION = """\
Refine predictions through forward models.

commands:
  metalens           lens parameters from wrapped phase maps
  simulate metalens  make phase maps, with noise, to try it on
  train refiner      a learned refiner, from a configuration
  latent             inputs for which a trained model predicts what is asked
  experiments        compare runs by seed, with verdicts, and keep a log
  doctor             versions, devices, precision, cache, and what is wrong with them

example:
  refinejax simulate metalens --count 64 --size 64 --noise grain --error 0.05 --output maps.npz
  refinejax metalens maps.npz --output refined.npz --report report
"""


_COMMANDS = {
    "metalens": "refinejax.apps.metalens.command",
    "simulate": "refinejax.apps.metalens.simulate",
    "train": "refinejax.cli.train",
    "latent": "refinejax.apps.latent.command",
    "experiments": "refinejax.cli.experiments",
    "doctor": "refinejax.cli.doctor",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks µ is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser(arguments).parse_args(arguments)
    try:
        return options.run(options)
    except (InputError, ValueError) as error:
        return _fail(str(error), 2)
    except OSError as error:
        named = error.filename is not None
        return _fail(f"{error.filename}: {error.strerror}" if named else str(error), 1)
    except ImportError as error:
        return _fail(str(error), 1)
    except MemoryError as error:
        return _fail(_memory(error), 1)
    except RuntimeError as error:
        import jax

        if not isinstance(error, jax.errors.JaxRuntimeError):
            raise
        return _fail(_memory(error), 1)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)


def _fail(text: str, code: int) -> int:
    print("refinejax: error: " + " ".join(text.split()), file=sys.stderr)
    return code


def _memory(error: Exception) -> str:
    """Say what to do if memory ran out, on the host or on a device."""
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return (
            f"out of memory ({error}); --lanes or --memory-limit refine fewer maps at once, and "
            "--count makes fewer"
        )
    return str(error)


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser, with one command where it is known which: the others need JAX."""
    parser = Parser(prog="refinejax", description=_DESCRIPTION, epilog=EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"refinejax {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    named = [name for name in arguments[:1] if name in _COMMANDS]
    for name in named or _COMMANDS:
        importlib.import_module(_COMMANDS[name]).add(commands)
    return parser
