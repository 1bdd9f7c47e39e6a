"""What a result shows of a candidate: a column for each number that was asked about."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refinejax.apps.latent.classes import NotInClasses
from refinejax.apps.latent.targets import Target


def asked(targets: Sequence[Any], constraints: Sequence[Any]) -> list[Any]:
    """Return the targets that have columns, in their order.

    Every head of numbers once, every target of classes, and of the constraints those about heads
    that no target is about.

    Args:
        targets: of the heads.
        constraints: what must hold.
    """
    named = {target.task for target in targets}
    held: list[Any] = [c for c in constraints if isinstance(c, Target)]
    others = [c for c in held if c.task not in named]
    found: list[Any] = []
    for target in [*targets, *others]:
        again = any(one.task == target.task and not one.of_class for one in found)
        if target.of_class or not again:
            found.append(target)
    return found


def column_names(
    shown: Sequence[Any], sizes: Mapping[str, int], classes: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """Return their names: the head's, ``name[i]`` of vectors, "name: p" of a probability.

    Where a head has several of these, they say of what: "name: p(A)", "name: p(not A, B)".

    Args:
        shown: resolved targets, as `asked` returns them.
        sizes: of the heads' outputs.
        classes: names of the classes of heads that have such.
    """
    names: list[str] = []
    for target in shown:
        task, size = target.task, sizes[target.task]
        if not target.of_class:
            names += [task] if size == 1 else [f"{task}[{j}]" for j in range(size)]
        elif sum(one.task == task for one in shown) == 1:
            names.append(f"{task}: p")
        else:
            names.append(_unlike(f"{task}: p({_said(target, classes.get(task))})", names))
    return tuple(names)


def _said(target: Any, names: Sequence[str] | None) -> str:
    """Return the classes that a target is about, by its mask, which is the same for all samples."""
    negated = isinstance(target, NotInClasses)
    chosen = np.flatnonzero(np.asarray(target.mask)[0] ^ negated)
    listed = ", ".join(str(i) if names is None else names[int(i)] for i in chosen)
    return f"not {listed}" if negated else listed


def _unlike(name: str, others: Sequence[str]) -> str:
    """Return the name, numbered where it is there already."""
    again = sum(other == name or other.startswith(f"{name} ") for other in others)
    return f"{name} {again + 1}" if again else name
