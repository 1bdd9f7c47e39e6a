"""Arrays: by dtype, shape and values."""

import hashlib
import weakref
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from refinejax._fingerprint._walk import Walk, visit
from refinejax._trees import as_numpy

_digests: dict[int, tuple[Any, bytes]] = {}


@visit.register(jax.Array)
def _jax_array(value: jax.Array, walk: Walk) -> None:
    """By content, which never changes: it is read once in the life of an array."""
    if isinstance(value, Tracer):
        walk.opaque(value)
        return
    number = id(value)
    if (found := _digests.get(number)) is None or found[0]() is not value:
        try:
            content = _content(as_numpy(value))
        except RuntimeError:  # deleted, or on devices of other processes
            walk.opaque(value)
            return
        found = (weakref.ref(value, lambda _: _digests.pop(number, None)), content)
        _digests[number] = found
    walk.put("jax array", str(value.dtype), found[1])


def _content(array: np.ndarray) -> bytes:
    digest = hashlib.blake2b(f"{array.dtype.str} {array.dtype} {array.shape}".encode())
    if array.nbytes:
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.digest()


@visit.register(np.generic)
@visit.register(np.ndarray)
def _array(value: Any, walk: Walk) -> None:
    array = np.asarray(value)
    if array.dtype.hasobject:
        walk.put("array", str(array.dtype), str(array.shape))
        walk.each(array.ravel().tolist(), "items")
        return
    walk.put("array", type(value).__qualname__, _content(array))
    if isinstance(value, np.ma.MaskedArray):
        walk.visit(np.ma.getmaskarray(value))
