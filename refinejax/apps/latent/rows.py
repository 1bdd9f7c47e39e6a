"""Asking the same of every row of an objective, in chunks of one size: one program serves all.

A row is one start of one sample. With chunks of one size, whatever the number of rows, a row is
also computed by the same arithmetic in any company.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from refinejax._trees import structure_hash
from refinejax.batch.layout import Layout
from refinejax.batch.sources import describe


def each(
    ask: Callable[..., Any],
    objective: Any,
    size: int,
    rows: tuple[Any, ...] = (),
    common: tuple[Any, ...] = (),
) -> Any:
    """Return what ``ask(objective, *rows, *common)`` says of every row, as NumPy arrays.

    Args:
        ask: a function (static: defined once) of a row's objective.
        objective: its own leaves have a leading axis, by its ``batch_axes``.
        size: rows asked at once.
        rows: further arguments with that axis.
        common: further arguments that all rows share.
    """
    count = _count(objective)
    layout, leaves = describe(objective, None, count)
    data, shared = layout.split(leaves)
    answers = []
    for first in range(0, count, size):
        index = np.minimum(np.arange(first, first + size), count - 1)
        part = jax.tree.map(lambda leaf, index=index: np.asarray(leaf)[index], (data, rows))
        answer = _each(
            shared, *part, common, layout=layout, ask=ask, classes=structure_hash(common)
        )
        stop = min(size, count - first)
        answers.append(jax.tree.map(lambda leaf, stop=stop: np.asarray(leaf)[:stop], answer))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *answers)


@functools.partial(jax.jit, static_argnames=("layout", "ask", "classes"))
def _each(
    shared: list[Any],
    data: list[Any],
    rows: tuple[Any, ...],
    common: tuple[Any, ...],
    *,
    layout: Layout,
    ask: Callable[..., Any],
    classes: int,
) -> Any:
    del classes

    def one(data: list[Any], rows: tuple[Any, ...]) -> Any:
        return jax.tree.map(jnp.asarray, ask(layout.join(data, shared), *rows, *common))

    return jax.vmap(one)(data, rows)


def placed(objective: Any) -> Any:
    """Return the objective with what all rows share on the device: moved once, not at each call.

    Args:
        objective: of the rows.
    """
    layout, leaves = describe(objective, None, _count(objective))
    data, shared = layout.split(leaves)
    return layout.join(data, jax.device_put(shared))


def changed(objective: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Return the objective with ``change`` made to every leaf that belongs to rows.

    Args:
        objective: of the rows.
        change: of an array with a leading axis of rows.
    """
    layout, leaves = describe(objective, None, _count(objective))
    data, shared = layout.split(leaves)
    return layout.join([change(np.asarray(leaf)) for leaf in data], shared)


def _count(objective: Any) -> int:
    return len(objective.start[0])
