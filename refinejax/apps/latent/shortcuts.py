"""Short forms of targets: values by name, modes, tables of a TOML file."""

import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from refinejax.apps.latent.classes import InClasses, NotInClasses
from refinejax.apps.latent.targets import (
    AtLeast,
    AtMost,
    Between,
    Curve,
    Match,
    Maximize,
    Minimize,
    Target,
)

MODES = {"max": Maximize, "min": Minimize, "maximize": Maximize, "minimize": Minimize}


def as_targets(
    targets: Any, classes: Mapping[str, int], *, sizes: Mapping[str, int] | None = None
) -> tuple[Target, ...]:
    """Return targets as objects, however they were given.

    Args:
        targets: a `Target`, or a sequence of them; a mapping from heads to "max", "min", a value, a
            (low, high) tuple, a class, a list of classes, or an array as a curve; or one of these
            but a list, for the only head.
        classes: the width of each head of logits that is known to be one, by name: for such a value
            is a class.
        sizes: numbers of every head, where known: for a vector one value may mean its class or all
            of its numbers, and is refused.

    Raises:
        ValueError: if nothing is asked, or something cannot be understood; names the task.
    """

    def read(name: str, value: Any) -> Target:
        return _said(name, value, name in classes, (sizes or {}).get(name, 1))

    if isinstance(targets, Target):
        return (targets,)
    if isinstance(targets, Mapping):
        found = [read(name, value) for name, value in targets.items()]
    elif isinstance(targets, str | numbers.Real):
        found = [read(_only(targets, sizes or {}), targets)]
    else:
        found = [] if targets is None else list(targets)
    wrong = [one for one in found if not isinstance(one, Target)]
    if wrong or not found:
        raise ValueError(
            "targets: expected Maximize, Match and the like, or a mapping from heads to values, "
            f"got {wrong[0] if wrong else targets!r}"
        )
    return tuple(found)


def _only(value: Any, sizes: Mapping[str, int]) -> str:
    """Return the head that a value without a name is about: the only one."""
    if len(sizes) != 1:
        raise ValueError(
            f"targets: {value!r} is about one of {', '.join(sizes)}; say {{name: {value!r}}}"
        )
    return next(iter(sizes))


def _said(name: str, value: Any, of_class: bool, width: int = 1) -> Target:
    """Read one value for one head."""
    if isinstance(value, Target):
        return value
    if isinstance(value, str) and value in MODES:
        if of_class:
            raise ValueError(f"targets: {name!r} is a head of classes; name one instead of {value}")
        return MODES[value](name)
    if of_class:
        return InClasses(name, value)
    if isinstance(value, numbers.Real) or (np.ndim(value) == 0 and not isinstance(value, str)):
        if width > 1:
            raise ValueError(
                f"targets: {name!r} gives {width} numbers, and {value!r} may be a class or a value "
                f"for all of them: say InClasses({name!r}, {value!r}) or Match({name!r}, {value!r})"
                f", or classes={{{name!r}: {width}}}"
            )
        return Match(name, value)
    if isinstance(value, tuple) and len(value) == 2:
        return Between(name, *value)
    if isinstance(value, str):
        raise ValueError(
            f"targets: {name!r}: expected a value, (low, high), 'max' or 'min', got {value!r}; "
            "if it is a class, say InClasses(...)"
        )
    return Curve(name, np.asarray(value, float))


def _mode(task: str, value: Any) -> Target:
    if not isinstance(value, str) or value not in MODES:
        raise ValueError(
            f"targets: {task!r}: mode: expected one of {', '.join(MODES)}, got {value!r}"
        )
    return MODES[value](task)


_WORDS: dict[str, Callable[[str, Any], Target]] = {
    "match": Match,
    "at_least": AtLeast,
    "at_most": AtMost,
    "curve": Curve,
    "classes": InClasses,
    "not_classes": NotInClasses,
    "between": lambda task, value: Between(task, *value),
    "mode": _mode,
}


def read_targets(table: Mapping[str, Any], where: str = "targets") -> tuple[Target, ...]:
    """Read targets from a table of tables, as TOML gives it.

    ``[targets.density]`` with ``match = 5.0`` and ``weight = 2.0``: each table has the name of a
    head and one of "match", "between", "at_least", "at_most", "curve", "classes", "not_classes" or
    "mode"; beside it "weight", "scale" and, for classes, "probability". Several targets of one head
    are a list of tables, ``[[targets.density]]``.

    Args:
        table: by head, tables of entries.
        where: name of the table, for messages.

    Returns:
        The targets, in the order of the tables.

    Raises:
        ValueError: names the table, the unknown entry and the known ones.
    """
    if not isinstance(table, Mapping):
        raise ValueError(f"{where}: expected a table for each task, [{where}.TASK], got {table!r}")
    found = []
    for name, entry in table.items():
        for one in entry if isinstance(entry, list) else [entry]:
            found.append(_read(name, one, f"{where}.{name}"))
    return tuple(found)


def _read(name: str, entry: Any, where: str) -> Target:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where}: expected a table, such as {{match = 5.0}}, got {entry!r}")
    words = [word for word in entry if word in _WORDS]
    if len(words) != 1:
        raise ValueError(f"{where}: expected one of {', '.join(_WORDS)}, got {', '.join(entry)}")
    value = entry[words[0]]
    if words[0] == "between" and not (isinstance(value, Sequence) and len(value) == 2):
        raise ValueError(f"{where}: between expects [low, high], got {value!r}")
    if isinstance(value, bool):
        raise ValueError(f"{where}: {words[0]} = {value} is not understood; expected numbers")
    target = _WORDS[words[0]](name, value)
    rest = {key: number for key, number in entry.items() if key != words[0]}
    for key, number in rest.items():
        known = key in ("weight", "scale", "probability") and hasattr(target, key)
        if not known or isinstance(number, bool) or not isinstance(number, numbers.Real):
            raise ValueError(
                f"{where}: {key} = {number!r} is not understood; beside {words[0]} there may be "
                f"{'weight and probability' if target.of_class else 'weight and scale'}, numbers"
            )
    return target.replace(**rest)
