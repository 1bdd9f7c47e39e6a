"""Targets resolved against a model: every number an array; errors name the task."""

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np

from refinejax.apps.latent.classes import InClasses, NotInClasses
from refinejax.apps.latent.description import Heads
from refinejax.apps.latent.targets import Target


def resolve(
    targets: tuple[Target, ...],
    info: Heads,
    sizes: Mapping[str, int],
    count: int,
    dtype: Any,
    where: str = "targets",
) -> tuple[Target, ...]:
    """Return the targets with every number as an array for each sample.

    Args:
        targets: as they were said.
        info: of the heads.
        sizes: of the heads' outputs.
        count: of samples, B.
        dtype: of the numbers.
        where: what to call them in errors.

    Raises:
        ValueError: names the task and what does not fit.
    """
    try:
        made = tuple(_resolve(target, info, sizes, count, dtype) for target in targets)
        _check_contradictions(made)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return made


def _resolve(target: Any, info: Heads, sizes: Mapping[str, int], count: int, dtype: Any) -> Any:
    task = target.task
    if task not in sizes:
        close = difflib.get_close_matches(str(task), sizes, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(sizes)}"
        raise ValueError(f"the model has no task {task!r}; {hint}")
    size = sizes[task]
    if target.of_class:
        target = _with_mask(target, info.classes.get(task), size, count)
    elif task in info.classes:
        names = ", ".join(info.classes[task])
        raise ValueError(f"{task!r} is a head of classes ({names}); use InClasses or NotInClasses")
    numbers = {"weight": _each(target.weight, task, "weight", (), count)}
    if not target.of_class:
        scale = target.scale if target.scale is not None else info.scales.get(task, 1.0)
        numbers["scale"] = _each(scale, task, "scale", (size,), count)
    if "values" in target.numbers and np.shape(target.values)[-1:] != (size,):
        raise ValueError(
            f"{task!r} gives {size} numbers, the curve has shape {np.shape(target.values)}"
        )
    for name in target.numbers:
        shape = () if target.of_class else (size,)
        numbers[name] = _each(getattr(target, name), task, name, shape, count)
    for name, value in numbers.items():
        _check_number(task, name, value, curve=name == "values")
    target = target.replace(**{name: value.astype(dtype) for name, value in numbers.items()})
    if not target.of_class:
        _check_range(target, info.ranges.get(task))
    return target


def _each(value: Any, task: str, name: str, shape: tuple[int, ...], count: int) -> np.ndarray:
    """Broadcast a number to every sample; a leading axis of samples is taken for that."""
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError):
        raise ValueError(f"{task!r}: {name} must be numbers, got {value!r}") from None
    if array.ndim > len(shape) and array.shape[0] == count:
        array = array.reshape((count, *(1,) * (len(shape) - array.ndim + 1), *array.shape[1:]))
    elif array.shape == (count,) and shape == (1,) and count > 1:
        array = array[:, None]
    try:
        return np.broadcast_to(array, (count, *shape))
    except ValueError:
        width = shape[0] if shape else 1
        raise ValueError(
            f"{task!r} gives {width} number{'s' * (width > 1)}, {name} has shape "
            f"{array.shape}; expected one number{f', or {width}' * (width > 1)}, or that for each "
            f"of {count} samples"
        ) from None


def _check_number(task: str, name: str, value: np.ndarray, *, curve: bool) -> None:
    if np.any(np.isinf(value)) and name not in ("low", "high"):
        raise ValueError(f"{task!r}: expected a finite {name}, got inf")
    if name == "weight" and not np.all(value >= 0):
        raise ValueError(f"{task!r}: expected a weight of 0 or more, got {value.min()}")
    if name == "scale" and not np.all(value > 0):
        raise ValueError(f"{task!r}: expected a scale above 0, got {value.min()}")
    if name == "probability" and not np.all((value > 0) & (value < 1)):
        raise ValueError(f"{task!r}: expected a probability between 0 and 1, got {value.flat[0]}")
    if curve and np.any(np.all(np.isnan(value), axis=-1)):
        raise ValueError(f"{task!r}: the curve is NaN everywhere; give some of its values")
    if not curve and np.any(np.isnan(value)):
        raise ValueError(f"{task!r}: {name} is NaN; give a number")


def _check_range(target: Any, known: tuple[Any, Any] | None) -> None:
    """Raise `ValueError` for bounds upside down, or values that the head cannot produce."""
    low, high = target.range()
    if np.any(np.asarray(low) > np.asarray(high)):
        raise ValueError(
            f"{target.task!r}: low {np.max(low)} is above high {np.min(high)}; swap them"
        )
    if known is None:
        return
    values = [target.values] if hasattr(target, "values") else [low, high]
    least, greatest = known
    # A range must meet what the head can produce, a value must be within it.
    if len(values) == 1:
        outside = (values[0] < least) | (values[0] > greatest)
    else:
        outside = (np.asarray(values[0]) > greatest) | (np.asarray(values[1]) < least)
    if np.any(outside):
        raise ValueError(
            f"{target.task!r} cannot reach the target: the head gives {least} to "
            f"{greatest} only; ask for something within"
        )


def _check_contradictions(targets: tuple[Any, ...]) -> None:
    """Refuse ranges of one task that have nothing in common."""
    for task in dict.fromkeys(t.task for t in targets if not t.of_class):
        ranges = [t.range() for t in targets if t.task == task and not t.of_class]
        low = np.max(np.stack(np.broadcast_arrays(*[np.asarray(r[0], float) for r in ranges])), 0)
        high = np.min(np.stack(np.broadcast_arrays(*[np.asarray(r[1], float) for r in ranges])), 0)
        if len(ranges) > 1 and np.any(low > high):
            raise ValueError(
                f"{task!r} has contradictory ranges: {np.max(low)} or more and "
                f"{np.min(high)} or less; widen one of them"
            )
    for task in dict.fromkeys(t.task for t in targets if t.of_class):
        masks = [t.mask for t in targets if t.task == task and t.of_class]
        if not np.all(np.any(np.logical_and.reduce(masks), axis=-1)):
            raise ValueError(
                f"{task!r} has contradictory classes: none is asked for and not excluded"
            )


def _with_mask(target: Any, names: Any, size: int, count: int) -> Any:
    """Turn the classes of a target into a mask."""
    task = target.task
    if size < 2:
        raise ValueError(
            f"{task!r} gives {size} logit; a choice of classes needs two or more: for one "
            "logit use AtLeast(task, 0.0) or AtMost"
        )
    chosen = sorted({_number(one, task, names, size) for one in target.classes})
    if not chosen or len(chosen) == size:
        raise ValueError(
            f"{task!r} has {size} classes and {len(chosen)} of them are named: there is "
            "nothing to search for; name some, but not all"
        )
    if not isinstance(target, InClasses | NotInClasses):
        raise ValueError(f"{task!r}: {type(target).__name__} is no target for classes")
    mask = np.isin(np.arange(size), chosen) ^ isinstance(target, NotInClasses)
    return target.replace(classes=(), mask=np.broadcast_to(mask, (count, size)))


def _number(one: Any, task: str, names: Any, size: int) -> int:
    if isinstance(one, str):
        if names is None or one not in names:
            there = ", ".join(names) if names else "the head has no names; give a number"
            raise ValueError(f"{task!r} has no class {one!r}: {there}")
        return list(names).index(one)
    if isinstance(one, bool) or not hasattr(one, "__index__") or not 0 <= int(one) < size:
        raise ValueError(f"{task!r} has classes 0 to {size - 1}, got {one!r}")
    return int(one)
