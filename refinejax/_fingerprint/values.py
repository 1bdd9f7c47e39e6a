"""Numbers, texts and containers."""

import enum
from typing import Any

import jax

from refinejax._fingerprint._walk import Walk, visit


@visit.register(type(None))
@visit.register(bool)
@visit.register(int)
@visit.register(float)
@visit.register(complex)
@visit.register(str)
@visit.register(bytes)
@visit.register(type(...))
@visit.register(type(NotImplemented))
def _atom(value: Any, walk: Walk) -> None:
    walk.put(type(value).__qualname__, repr(value))


@visit.register
def _enum(value: enum.Enum, walk: Walk) -> None:
    walk.put("enum", type(value).__qualname__, value.name)
    walk.visit(value.value)


@visit.register
def _tuple(value: tuple, walk: Walk) -> None:
    walk.put(type(value).__qualname__)
    walk.each(value, "tuple")


@visit.register
def _list(value: list, walk: Walk) -> None:
    if not walk.again(value):
        walk.mutable(value)
        walk.each(value, type(value).__qualname__)


@visit.register
def _dict(value: dict, walk: Walk) -> None:
    """In its order, which code can see."""
    if not walk.again(value):
        walk.mutable(value)
        walk.put(type(value).__qualname__, len(value))
        for key, item in value.items():
            walk.visit(key)
            walk.visit(item, f"[{key!r}]")


@visit.register(set)
@visit.register(frozenset)
def _set(value: Any, walk: Walk) -> None:
    if isinstance(value, set):
        walk.mutable(value)
    walk.put(type(value).__qualname__, *sorted(walk.apart(item) for item in value))


@visit.register
def _slice(value: slice, walk: Walk) -> None:
    walk.each((value.start, value.stop, value.step), "slice")


@visit.register
def _bytearray(value: bytearray, walk: Walk) -> None:
    walk.mutable(value)
    walk.put("bytearray", bytes(value))


@visit.register(jax.Device)
def _device(value: Any, walk: Walk) -> None:
    walk.put("device", repr(value))
