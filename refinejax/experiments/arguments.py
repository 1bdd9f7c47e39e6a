"""Argument checks that the modules of this package share."""

import math
from collections.abc import Iterable, Sequence
from typing import Any


def check_looks(looks: Sequence[int]) -> None:
    """Raise unless looks are ascending integers of 2 or more.

    Args:
        looks: numbers of seeds.

    Raises:
        ValueError: if they are not.
    """
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 2 for n in looks)
    if not whole or sorted(set(looks)) != list(looks):
        raise ValueError(
            f"looks: expected numbers of seeds, 2 or more, ascending, such as (3, 6, 10), got "
            f"{looks!r}"
        )


def check_direction(direction: str) -> None:
    """Raise unless the direction is "higher" or "lower".

    Args:
        direction: the value to check.

    Raises:
        ValueError: if it is neither.
    """
    if direction not in ("higher", "lower"):
        raise ValueError(f"direction: expected 'higher' or 'lower', got {direction!r}")


def check_number(name: str, value: Any, least: float = -math.inf) -> None:
    """Raise unless a value is a finite number, not less than ``least``.

    Args:
        name: of the argument, for the error.
        value: the value to check.
        least: the smallest value allowed.

    Raises:
        ValueError: if it is not.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < least:
        bound = "" if least == -math.inf else f" of {least:g} or more"
        raise ValueError(f"{name}: expected a finite number{bound}, got {value!r}")


def check_texts(record: Any, names: Iterable[str]) -> None:
    """Raise unless fields of a record are non-empty texts.

    Args:
        record: the record.
        names: of the fields.

    Raises:
        ValueError: if one is empty or not a text (names it).
    """
    for name in names:
        value = getattr(record, name)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{name}: expected a text that is not empty, got {value!r}")
