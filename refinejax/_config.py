"""Tables of TOML as frozen dataclasses, with errors that name the key."""

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

Config = TypeVar("Config")

_KINDS = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}


def read_config(
    kind: Callable[..., Config], table: Mapping[str, Any], where: str = "config"
) -> Config:
    """Return the object that a table describes.

    Args:
        kind: a dataclass, or another class or function, whose arguments are annotated as int,
            float, str, bool, None, tuples of these, a mapping, or a union, of which the first type
            is read.
        table: a value for each argument; those with a default may be absent. Lists become tuples,
            so that the result is hashable.
        where: the name of the table in errors.

    Returns:
        ``kind(**table)``.

    Raises:
        ValueError: for a key that is unknown (with the nearest known one), missing, of the wrong
            type, or refused by ``kind`` itself. The error begins with ``where.key``.
    """
    if not isinstance(table, Mapping):
        raise ValueError(f"{where}: expected a table, got {table!r}")
    arguments = inspect.signature(kind).parameters
    for key in table:
        if key not in arguments:
            raise ValueError(f"{where}.{key}: no such key; {suggest(key, arguments)}")
    for name, argument in arguments.items():
        if name not in table and argument.default is inspect.Parameter.empty:
            raise ValueError(f"{where}.{name}: missing; the keys are {', '.join(arguments)}")
    hints = typing.get_type_hints(kind)
    values = {key: _read(f"{where}.{key}", hints[key], table[key]) for key in table}
    try:
        return kind(**values)
    except ValueError as error:
        if str(error).partition(":")[0] in arguments:  # it names the key, not the table
            raise ValueError(f"{where}.{error}") from error
        raise


def check_tables(config: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raise unless every top-level table is known.

    Args:
        config: tables by name, as ``tomllib`` returns them.
        known: the names that are allowed.
        where: the name of the file or argument in the error.

    Raises:
        ValueError: for another table; names it and lists the known ones.
    """
    known = list(known)
    for name in config:
        if name not in known:
            tables = ", ".join(f"[{other}]" for other in known)
            raise ValueError(f"{where}: unknown [{name}]; the tables are {tables}")


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "did you mean …?" with the nearest known name, or a list of all.

    Args:
        name: a name that is not known.
        known: the names that are.
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"


def _read(where: str, hint: Any, value: Any) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _read(where, next(kind for kind in inner if kind is not type(None)), value)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        if len(kinds) == len(value):
            return tuple(_read(where, k, v) for k, v in zip(kinds, value, strict=True))
    if origin is Mapping and isinstance(value, Mapping):
        return dict(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint in _KINDS and type(value) is hint:
        return value
    raise ValueError(f"{where}: expected {_expected(hint)}, got {value!r}")


def _expected(hint: Any) -> str:
    if typing.get_origin(hint) is Mapping:
        return "a table"
    if typing.get_origin(hint) is not tuple:
        return _KINDS.get(hint, str(hint))
    inner = typing.get_args(hint)
    count = "" if inner[-1] is Ellipsis else f"{len(inner)} "
    return f"a list of {count}{getattr(inner[0], '__name__', inner[0])}"
