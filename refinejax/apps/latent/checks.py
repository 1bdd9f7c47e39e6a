"""Complaints about what is asked of a model, before anything is compiled; each names the task."""

import difflib
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from refinejax._core import as_pytree, kinds
from refinejax.apps.latent.objective import Functions
from refinejax.apps.latent.pessimism import Ensemble, MonteCarlo
from refinejax.apps.latent.targets import InClasses, NotInClasses, Target
from refinejax.networks.network import Network


class Heads(NamedTuple):
    """What is known of a model's heads.

    Attributes:
        model: with ``encode``, ``heads`` and perhaps ``decode``.
        members: whether outputs have a leading axis of members.
        decodes: whether there is a decoder.
        trained: the `MultiTaskModel` behind it, or None.
        classes: names of the classes of heads that have such.
        scales: the unit in which misses of a head count.
        ranges: least and greatest output of heads that are bounded.
    """

    model: Any
    members: bool
    decodes: bool
    trained: Any
    classes: Mapping[str, tuple[str, ...]]
    scales: Mapping[str, Any]
    ranges: Mapping[str, tuple[Any, Any]]


def describe_heads(
    heads: Any,
    encode: Any,
    decode: Any,
    scales: Mapping[str, Any] | None,
    ranges: Mapping[str, tuple[Any, Any]] | None,
) -> Heads:
    """Find out what was given as heads.

    Raises:
        ValueError: if it is neither functions, nor a model, or a part is given twice.
    """
    inner = heads.model if isinstance(heads, Ensemble | MonteCarlo) else heads
    trained = inner if hasattr(inner, "tasks") and hasattr(inner, "heads") else None
    if trained is not None and isinstance(heads, Ensemble):  # what is known of one is of all
        trained = jax.tree.map(lambda leaf: leaf[0], trained)
    if trained is not None and (encode is not None or decode is not None):
        raise ValueError("encode: the model has an encoder and a decoder of its own; leave it out")
    members = isinstance(heads, Ensemble | MonteCarlo)
    if trained is not None and not members:
        model, decodes = heads, trained.decodes
    else:
        model = Functions(_outputs(heads), _function(encode, "encode"), _function(decode, "decode"))
        decodes = decode is not None
    known = trained.tasks if trained is not None else ()
    return Heads(
        model=model,
        members=members,
        decodes=decodes,
        trained=trained,
        classes={task.name: task.classes for task in known if task.classes},
        scales={**({} if trained is None else trained.scales), **(scales or {})},
        ranges={**{t.name: t.bounds for t in known if t.bounds}, **(ranges or {})},
    )


def _function(function: Any, name: str) -> Any:
    if function is None:
        return None
    if isinstance(function, nnx.Module):
        return Network.of(function)
    if not callable(function):
        raise ValueError(f"{name}: expected a function of one sample, got {function!r}")
    return as_pytree(function)


def _outputs(heads: Any) -> Any:
    if isinstance(heads, Mapping):
        if not heads:
            raise ValueError("heads: expected a function for each task by name, got none")
        return {str(name): _function(head, f"heads[{name!r}]") for name, head in heads.items()}
    return _function(heads, "heads")


class Shapes(NamedTuple):
    """Sizes of what a model gives for a sample.

    Attributes:
        latent: Z.
        heads: numbers of each head, by name.
    """

    latent: int
    heads: dict[str, int]


def measure(info: Heads, samples: np.ndarray) -> Shapes:
    """Return the sizes of latent and heads.

    Raises:
        ValueError: if heads, encoder or decoder do not take or give what they must.
    """
    leaves, structure = jax.tree.flatten(info.model)
    types = tuple((np.shape(leaf), jax.dtypes.result_type(leaf)) for leaf in leaves)
    dtype = samples.dtype.name
    known = _measured(
        structure, types, samples.shape[1], dtype, info.members, info.decodes, kinds(info.model)
    )
    return Shapes(known.latent, dict(known.heads))


@functools.lru_cache(maxsize=256)
def _measured(
    structure: Any, types: Any, width: int, dtype: str, members: bool, decodes: bool, classes: int
) -> Shapes:
    """Ask the model about shapes alone; once for each model."""
    del classes
    model = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*one) for one in types])
    one = jax.ShapeDtypeStruct((width,), dtype)
    try:
        latent = jax.eval_shape(lambda model, x: model.encode(x), model, one)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"encode: does not take a sample of {width} descriptors: {error}"
        ) from error
    if len(latent.shape) != 1:
        raise ValueError(f"encode: expected a latent of shape (Z,), got {latent.shape}")
    if decodes:
        decoded = jax.eval_shape(lambda model, z: model.decode(z), model, latent)
        if decoded.shape != one.shape:
            raise ValueError(f"decode: expected an input of {one.shape}, got {decoded.shape}")
    try:
        outputs = jax.eval_shape(lambda model, z: model.heads(z), model, latent)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"heads: they do not take a latent of shape {latent.shape}, what encode makes of a "
            f"sample of {width} descriptors: {error}"
        ) from error
    return Shapes(latent.shape[0], {name: _size(name, y, members) for name, y in outputs.items()})


def _size(name: str, output: Any, members: bool) -> int:
    shape = output.shape[1:] if members else output.shape
    if len(shape) > 1:
        raise ValueError(
            f"heads: {name!r} gives shape {output.shape} for one sample; expected a number or a "
            "vector (no batch axis: that is added by vmap)"
        )
    return int(np.prod(shape, dtype=int))


def resolve(
    targets: tuple[Target, ...], info: Heads, sizes: Mapping[str, int], count: int, dtype: Any
) -> tuple[Target, ...]:
    """Return the targets with every number as an array for each sample.

    Args:
        targets: as they were said.
        info: of the heads.
        sizes: of the heads' outputs.
        count: of samples, B.
        dtype: of the numbers.

    Raises:
        ValueError: names the task and what does not fit.
    """
    made = tuple(_resolve(target, info, sizes, count, dtype) for target in targets)
    _check_contradictions(made)
    return made


def _resolve(target: Any, info: Heads, sizes: Mapping[str, int], count: int, dtype: Any) -> Any:
    task = target.task
    if task not in sizes:
        close = difflib.get_close_matches(str(task), sizes, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(sizes)}"
        raise ValueError(f"targets: the model has no task {task!r}; {hint}")
    size = sizes[task]
    if target.of_class:
        target = _with_mask(target, info.classes.get(task), size, count)
    elif task in info.classes:
        names = ", ".join(info.classes[task])
        raise ValueError(
            f"targets: {task!r} is a head of classes ({names}); use InClasses or NotInClasses"
        )
    numbers = {"weight": _each(target.weight, task, "weight", (), count)}
    if not target.of_class:
        scale = target.scale if target.scale is not None else info.scales.get(task, 1.0)
        numbers["scale"] = _each(scale, task, "scale", (size,), count)
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
        raise ValueError(f"targets: {task!r}: {name} must be numbers, got {value!r}") from None
    if array.ndim > len(shape) and array.shape[0] == count:
        array = array.reshape((count, *(1,) * (len(shape) - array.ndim + 1), *array.shape[1:]))
    elif array.shape == (count,) and shape == (1,) and count > 1:
        array = array[:, None]
    try:
        return np.broadcast_to(array, (count, *shape))
    except ValueError:
        width = shape[0] if shape else 1
        raise ValueError(
            f"targets: {task!r} gives {width} number{'s' * (width > 1)}, {name} has shape "
            f"{array.shape}; expected one number{f', or {width}' * (width > 1)}, or that for each "
            f"of {count} samples"
        ) from None


def _check_number(task: str, name: str, value: np.ndarray, *, curve: bool) -> None:
    if name == "weight" and not np.all(value >= 0):
        raise ValueError(f"targets: {task!r}: expected a weight of 0 or more, got {value.min()}")
    if name == "scale" and not np.all(value > 0):
        raise ValueError(f"targets: {task!r}: expected a scale above 0, got {value.min()}")
    if name == "probability" and not np.all((value > 0) & (value < 1)):
        raise ValueError(
            f"targets: {task!r}: expected a probability between 0 and 1, got {value.flat[0]}"
        )
    if curve and np.any(np.all(np.isnan(value), axis=-1)):
        raise ValueError(f"targets: {task!r}: the curve is NaN everywhere; give some of its values")
    if not curve and np.any(np.isnan(value)):
        raise ValueError(f"targets: {task!r}: {name} is NaN; give a number")


def _check_range(target: Any, known: tuple[Any, Any] | None) -> None:
    """Refuse what is upside down, or what the head cannot produce."""
    low, high = target.range()
    if np.any(np.asarray(low) > np.asarray(high)):
        raise ValueError(
            f"targets: {target.task!r}: low {np.max(low)} is above high {np.min(high)}; swap them"
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
            f"targets: {target.task!r} cannot be what is asked: the head gives {least} to "
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
                f"targets: {task!r} has contradictory ranges: {np.max(low)} or more and "
                f"{np.min(high)} or less; widen one of them"
            )
    for task in dict.fromkeys(t.task for t in targets if t.of_class):
        masks = [t.mask for t in targets if t.task == task and t.of_class]
        if not np.all(np.any(np.logical_and.reduce(masks), axis=-1)):
            raise ValueError(
                f"targets: {task!r} has contradictory classes: none is asked for and not excluded"
            )


def _with_mask(target: Any, names: Any, size: int, count: int) -> Any:
    """Turn the classes of a target into a mask."""
    task = target.task
    if size < 2:
        raise ValueError(
            f"targets: {task!r} gives {size} logit; a choice of classes needs two or more: for one "
            "logit use AtLeast(task, 0.0) or AtMost"
        )
    chosen = sorted({_number(one, task, names, size) for one in target.classes})
    if not chosen or len(chosen) == size:
        raise ValueError(
            f"targets: {task!r} has {size} classes and {len(chosen)} of them are named: there is "
            "nothing to search for; name some, but not all"
        )
    if not isinstance(target, InClasses | NotInClasses):
        raise ValueError(f"targets: {task!r}: {type(target).__name__} is no target for classes")
    mask = np.isin(np.arange(size), chosen) ^ isinstance(target, NotInClasses)
    return target.replace(classes=(), mask=np.broadcast_to(mask, (count, size)))


def _number(one: Any, task: str, names: Any, size: int) -> int:
    if isinstance(one, str):
        if names is None or one not in names:
            there = ", ".join(names) if names else "the head has no names; give a number"
            raise ValueError(f"targets: {task!r} has no class {one!r}: {there}")
        return list(names).index(one)
    if isinstance(one, bool) or not hasattr(one, "__index__") or not 0 <= int(one) < size:
        raise ValueError(f"targets: {task!r} has classes 0 to {size - 1}, got {one!r}")
    return int(one)


def check_initial(initial: Any, info: Heads) -> np.ndarray:
    """Return the samples as a table of floating numbers.

    Raises:
        ValueError: if they are none, of another width than the model's, or not finite.
    """
    table = np.asarray(initial)
    if not np.issubdtype(table.dtype, np.floating):
        try:
            table = table.astype(float)
        except (TypeError, ValueError):
            raise ValueError("initial: expected numbers, shape (B, D)") from None
    table = table.astype(jax.dtypes.canonicalize_dtype(table.dtype))
    table = table[None] if table.ndim == 1 else table
    if table.ndim != 2 or not table.size:
        raise ValueError(f"initial: expected samples, shape (B, D) or (D,), got {table.shape}")
    names = getattr(info.trained, "columns", None)
    if names is not None and table.shape[1] != len(names):
        raise ValueError(
            f"initial: the model has {len(names)} descriptors ({', '.join(names[:4])}"
            f"{' …' * (len(names) > 4)}), got {table.shape[1]} columns"
        )
    if not np.all(np.isfinite(table)):
        row, column = np.argwhere(~np.isfinite(table))[0]
        name = f" ({names[column]})" if names is not None else ""
        raise ValueError(
            f"initial: sample {row}, descriptor {column}{name} is {table[row, column]}; impute it "
            "or leave the sample out"
        )
    return table


def check_bounds(
    bounds: Any, width: int, dtype: Any, info: Heads
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return bounds of each descriptor, or None.

    Raises:
        ValueError: for what is no pair, has another length, or a lower one above the upper one.
    """
    if bounds is None:
        return None
    if isinstance(bounds, str):
        if bounds != "data" or info.trained is None:
            raise ValueError(
                f"bounds: expected (lower, upper), or 'data' for a model, got {bounds!r}"
            )
        bounds = (info.trained.lower, info.trained.upper)
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ValueError(f"bounds: expected (lower, upper), got {bounds!r}")
    try:
        low, high = (np.broadcast_to(np.asarray(b, dtype), (width,)) for b in bounds)
    except (TypeError, ValueError):
        raise ValueError(
            f"bounds: expected numbers, one or {width} at each end, for {width} descriptors"
        ) from None
    if not np.all(low <= high):
        wrong = int(np.argmax(~(low <= high)))
        raise ValueError(
            f"bounds: descriptor {wrong}: lower {low[wrong]} is above upper {high[wrong]}; "
            "swap them"
        )
    return low, high
