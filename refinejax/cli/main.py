"""`refinejax COMMAND`: finds the command, runs it, and says in one line what went wrong.

Only the command that is asked for is imported: ``refinejax --help`` needs no JAX.
"""

import argparse
import io
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from refinejax import __version__
from refinejax._applications import Command, applications, resolve, with_registered
from refinejax.commands.files import InputError
from refinejax.commands.options import EXIT_CODES, INTERRUPTED, Parser

COMMANDS = {
    "train": Command(
        "a model, from a configuration",
        "refinejax.cli.train:add_options",
        "refinejax.cli.train:run",
    ),
    "experiments": Command(
        "compare runs by seed, with verdicts, and keep a log",
        "refinejax.cli.experiments:add_options",
        "refinejax.cli.experiments:run",
    ),
    "doctor": Command(
        "versions, devices, precision, compilation cache, and their problems",
        "refinejax.cli.doctor:add_options",
        "refinejax.cli.doctor:run",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: as typed after ``refinejax``; by default those of this process.

    Returns:
        The exit code, see `commands.options.EXIT_CODES`.

    Raises:
        SystemExit: by argparse, for ``--help``, ``--version`` and wrong arguments.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks µ is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        options = _parse(sys.argv[1:] if arguments is None else arguments)
        return options.run(options)
    except (InputError, ValueError) as error:
        return _fail(str(error), 2)
    except OSError as error:
        named = error.filename is not None
        return _fail(f"{error.filename}: {error.strerror}" if named else str(error), 1)
    except ImportError as error:
        return _fail(str(error), 1)
    except MemoryError as error:
        return _fail(_explain_memory(error), 1)
    except RuntimeError as error:
        import jax

        if not isinstance(error, jax.errors.JaxRuntimeError):
            raise
        return _fail(_explain_memory(error), 1)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)


def _fail(text: str, code: int) -> int:
    print("refinejax: error: " + " ".join(text.split()), file=sys.stderr)
    return code


def _explain_memory(error: Exception) -> str:
    """Say what to do if memory ran out, on the host or on a device."""
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return (
            f"out of memory ({error}); --lanes or --memory-limit refine fewer samples at once, and "
            "--count makes fewer"
        )
    return str(error)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the arguments, with the options of the command that they name."""
    commands = with_registered("commands", COMMANDS)
    parser = Parser(prog="refinejax", description=_describe(commands), epilog=EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"refinejax {__version__}")
    _add_commands(parser, commands, list(arguments), "COMMAND")
    return parser.parse_args(arguments)


def _add_commands(
    parser: argparse.ArgumentParser,
    commands: Mapping[str, Command],
    arguments: list[str],
    metavar: str,
) -> None:
    """Add a parser for each command; only the one that is asked for gets its options.

    Commands of two words are below their first word.
    """
    choices = parser.add_subparsers(required=True, metavar=metavar, parser_class=Parser)
    asked = arguments[0] if arguments else None
    for name, command in commands.items():
        if " " not in name:
            added = choices.add_parser(name, epilog=EXIT_CODES)
            if name == asked:
                resolve(command.options)(added)
                added.set_defaults(run=resolve(command.run))
    for group in dict.fromkeys(name.partition(" ")[0] for name in commands if " " in name):
        below = {
            name.partition(" ")[2]: command
            for name, command in commands.items()
            if name.startswith(f"{group} ")
        }
        added: Any = choices.add_parser(group, description=_list(below), epilog=EXIT_CODES)
        _add_commands(added, below, arguments[1:] if group == asked else [], group.upper())


def _describe(commands: Mapping[str, Command]) -> str:
    """Return the text of ``refinejax --help``."""
    parts = ["Refine predictions through forward models.", _list(commands)]
    examples = [one.example for one in applications() if one.example]
    if examples:
        lines = "".join(examples).splitlines()
        parts.append("\n".join(["examples:", *(f"  {line}" for line in lines)]))
    return "\n\n".join(parts)


def _list(commands: Mapping[str, Command]) -> str:
    """Return a line for each command."""
    width = max(map(len, commands))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in commands.items()]
    return "\n".join(["commands:", *lines])
