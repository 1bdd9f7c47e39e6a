"""The fingerprint of a function or an object: equal where code and what it reads are equal.

A function is its bytecode, constants, defaults, the values in its closure, the globals that its
code names (of the user's own modules, recursively; of an installed package name and version), and
its own attributes. An object is its class and its attributes, an array its dtype, shape and
values. No memory address, file name or line number enters, so other processes find the same.

Not seen: what code reaches by a name computed at run time (``globals()[name]``), and what installed
packages keep in their globals.
"""

from typing import Any

from refinejax._fingerprint import arrays, functions, structures, values
from refinejax._fingerprint._walk import Walk, visit

__all__ = ["Walk", "arrays", "fingerprint", "functions", "structures", "values", "visit"]


def fingerprint(value: Any, name: str = "") -> str:
    """Return the fingerprint of ``value``, the same in every process.

    Args:
        value: a function, an object, a pytree or its structure.
        name: of the value, for errors.

    Raises:
        ValueError: names the path to what cannot be compared: an open file, a lock, a generator.
    """
    walk = Walk(name, lasting=True)
    walk.visit(value)
    return walk.digest().hex()
