"""Structures of pytrees: by their classes and static values."""

import dataclasses
from typing import Any

import jax

from refinejax._fingerprint._walk import Walk, visit


@visit.register(jax.tree_util.PyTreeDef)
def _structure(value: Any, walk: Walk) -> None:
    """By its classes and static values; those of a dataclass by their names."""
    with walk.tree():
        _node(value, walk)


def _node(value: Any, walk: Walk) -> None:
    node = value.node_data()
    children = value.children()
    if node is None:
        walk.put("leaf", value.num_leaves)
        return
    kind, aux = node
    walk.visit(kind)
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    static = [f.name for f in fields if not f.metadata.get("pytree_node", True)]
    data = [f.name for f in fields if f.metadata.get("pytree_node", True)]
    if isinstance(aux, tuple) and len(static) == len(aux) and len(data) == len(children):
        for name, part in zip(static, aux, strict=True):
            walk.visit(part, f".{name}")
    else:
        walk.visit(list(aux) if isinstance(aux, list) else aux)
        data = [""] * len(children)
    for name, child in zip(data, children, strict=True):
        walk.path.append(f".{name}" if name else "")
        _node(child, walk)
        walk.path.pop()
