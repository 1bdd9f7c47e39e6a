"""A model before the search: its functions, sizes and classes."""

import functools
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from refinejax._trees import as_pytree, structure_hash
from refinejax.apps.latent.objective import Functions
from refinejax.apps.latent.pessimism import Ensemble, MonteCarlo
from refinejax.networks.network import Network


class Heads(NamedTuple):
    """A model, and the classes, units and ranges of its heads.

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


@dataclass(frozen=True)
class LatentModel:
    """A model of functions of one sample, with units, ranges and classes of its heads.

    Attributes:
        heads: of a latent (Z,): functions by name, or one that gives all by name; or a model that
            has heads, encoder and decoder of its own.
        encode: x (D,) → z (Z,). None: heads take the input itself.
        decode: z → x. With it the search is over the latent.
        scales: by head, the unit in which misses count, where a target has none of its own.
        ranges: by head, (least, greatest) output of heads that are bounded, to refuse what they
            cannot produce; where nothing else is known, the unit of misses is the width.
        classes: by head of logits, names of the classes or their number: a value for such a head is
            a class.
    """

    heads: Any
    encode: Callable[..., Any] | None = None
    decode: Callable[..., Any] | None = None
    scales: Mapping[str, Any] | None = None
    ranges: Mapping[str, tuple[Any, Any]] | None = None
    classes: Mapping[str, Any] | None = None


def describe_heads(given: LatentModel) -> Heads:
    """Return a model with the classes, units and ranges of its heads.

    Args:
        given: what was given.

    Raises:
        ValueError: if it is neither functions, nor a model, or a part is given twice, or does not
            fit.
    """
    heads, encode, decode = given.heads, given.encode, given.decode
    scales, ranges, classes = given.scales, given.ranges, given.classes
    inner = heads.model if isinstance(heads, Ensemble | MonteCarlo) else heads
    trained = inner if hasattr(inner, "tasks") and hasattr(inner, "heads") else None
    if trained is not None and isinstance(heads, Ensemble):  # one stands for all
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
    ends = {t.name: t.bounds for t in known if t.bounds}
    ends.update({name: _ends(name, both) for name, both in (ranges or {}).items()})
    widths = {name: high - low for name, (low, high) in ends.items()}
    usable = {name: width for name, width in widths.items() if np.all(np.isfinite(width))}
    named = {task.name: task.classes for task in known if task.classes}
    named.update({name: _classes(name, some) for name, some in (classes or {}).items()})
    return Heads(
        model=model,
        members=members,
        decodes=decodes,
        trained=trained,
        classes=named,
        scales={**usable, **({} if trained is None else trained.scales), **(scales or {})},
        ranges=ends,
    )


def _ends(name: str, both: Any) -> tuple[Any, Any]:
    try:
        low, high = (np.asarray(end, float) for end in both)
        upside_down = not np.all(low < high)
    except (TypeError, ValueError):
        raise ValueError(f"ranges: {name!r}: expected (least, greatest), got {both!r}") from None
    if upside_down:
        raise ValueError(f"ranges: {name!r}: expected the least below the greatest, got {both!r}")
    return (low[()], high[()])


def _classes(name: str, some: Any) -> tuple[str, ...]:
    """Return the names of classes that were given as names or as their number."""
    listed = isinstance(some, Sequence | np.ndarray) and not isinstance(some, str)
    if listed and np.ndim(some):
        found = tuple(map(str, some))
    elif isinstance(some, numbers.Integral) and not isinstance(some, bool):
        found = tuple(map(str, range(int(some))))
    else:
        found = ()
    if len(set(found)) < max(len(found), 2):
        raise ValueError(
            f"classes: {name!r}: expected two or more different names, or their number, got "
            f"{some!r}"
        )
    return found


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
        for name, head in heads.items():
            if isinstance(head, Ensemble | MonteCarlo):
                raise ValueError(
                    f"heads[{name!r}]: {type(head).__name__} goes around all heads, not one: each "
                    "of its members gives a mapping from names to outputs"
                )
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

    Args:
        info: the model and its heads.
        samples: shape (B, D).

    Raises:
        ValueError: if heads, encoder or decoder do not take or give what they must.
    """
    leaves, structure = jax.tree.flatten(info.model)
    types = tuple((np.shape(leaf), jax.dtypes.result_type(leaf)) for leaf in leaves)
    dtype = samples.dtype.name
    kind = _Kind(structure, types, info.members, info.decodes, structure_hash(info.model))
    known = _measured(kind, samples.shape[1], dtype)
    parts = (("ranges", info.ranges), ("scales", info.scales), ("classes", info.classes))
    for name, given in parts:
        unknown = sorted(set(given) - set(known.heads))
        if unknown:
            raise ValueError(
                f"{name}: the model has no task {unknown[0]!r}; there are: {', '.join(known.heads)}"
            )
    for name, names in info.classes.items():
        if len(names) != known.heads[name]:
            raise ValueError(
                f"classes: {name!r} has {len(names)} classes, and the head gives "
                f"{known.heads[name]} logits"
            )
    return Shapes(known.latent, dict(known.heads))


class _Kind(NamedTuple):
    """What the shapes of a model's outputs depend on, beside the sample's; hashable."""

    structure: Any
    types: Any
    members: bool
    decodes: bool
    classes: int


@functools.lru_cache(maxsize=256)
def _measured(kind: _Kind, width: int, dtype: str) -> Shapes:
    """Ask the model about shapes alone; once for each model."""
    model = jax.tree.unflatten(kind.structure, [jax.ShapeDtypeStruct(*one) for one in kind.types])
    one = jax.ShapeDtypeStruct((width,), dtype)
    try:
        latent = jax.eval_shape(lambda model, x: model.encode(x), model, one)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"encode: does not take a sample of {width} descriptors: {error}"
        ) from error
    if len(latent.shape) != 1:
        raise ValueError(f"encode: expected a latent of shape (Z,), got {latent.shape}")
    if kind.decodes:
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
    if not isinstance(outputs, Mapping):
        raise ValueError(
            f"heads: expected outputs by name, a mapping, got {type(outputs).__name__}; give "
            "functions by name, or one that returns a mapping"
        )
    return Shapes(
        latent.shape[0], {name: _size(name, y, kind.members) for name, y in outputs.items()}
    )


def _size(name: str, output: Any, members: bool) -> int:
    shape = output.shape[1:] if members else output.shape
    if len(shape) > 1:
        raise ValueError(
            f"heads: {name!r} gives shape {output.shape} for one sample; expected a number or a "
            "vector (no batch axis: that is added by vmap)"
        )
    return int(np.prod(shape, dtype=int))
