"""What there is to know of a model beforehand: its functions, sizes and classes."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from refinejax._core import as_pytree, kinds
from refinejax.apps.latent.objective import Functions
from refinejax.apps.latent.pessimism import Ensemble, MonteCarlo
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
