"""Configurations as frozen dataclasses, read from plain mappings (a TOML table, say)."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

Config = TypeVar("Config")


def read_config(kind: type[Config], config: Mapping[str, Any], where: str = "config") -> Config:
    """Return the dataclass that a mapping describes; lists become tuples, and so it is hashable.

    Args:
        kind: the dataclass: of int, float, str, bool, None and tuples of them.
        config: its fields, those with a default being optional.
        where: what to call the mapping in errors.

    Raises:
        ValueError: names the keys that are unknown, missing, or of the wrong type.
    """
    if not isinstance(config, Mapping):
        raise ValueError(f"{where}: expected a table, got {config!r}")
    hints = typing.get_type_hints(kind)
    fields: Any = dataclasses.fields(kind)  # pyright: ignore[reportArgumentType]
    names = [field.name for field in fields]
    unknown = [key for key in config if key not in names]
    if unknown:
        raise ValueError(
            f"{where}: unknown {_listed(unknown)}; expected some of {', '.join(names)}"
        )
    missing = [
        field.name
        for field in fields
        if field.name not in config
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{where}: {_listed(missing)} missing; the keys are {', '.join(names)}")
    return kind(**{key: _read(f"{where}.{key}", hints[key], config[key]) for key in config})


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names))


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
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise ValueError(f"{where}: expected {_said(hint)}, got {value!r}")


def _said(hint: Any) -> str:
    if typing.get_origin(hint) is not tuple:
        words = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
        return words.get(hint, str(hint))
    inner = typing.get_args(hint)
    count = "" if inner[-1] is Ellipsis else f"{len(inner)} "
    return f"a list of {count}{getattr(inner[0], '__name__', inner[0])}"
