"""Write and read the leaves of a pytree. The only module that imports Orbax."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Sharding

from refinejax._trees import is_key
from refinejax.checkpoint.leaves import Leaf, describe

_ARRAYS, _META = "arrays", "meta"
_ANYWHERE = object()  # stands for None in `shardings`, which jax.tree would drop


def check_one_process(name: str) -> None:
    """Raise unless this is the only process of the computation.

    Args:
        name: the function that needs a single process, for the error.

    Raises:
        ValueError: if ``jax.process_count()`` is above 1.
    """
    if jax.process_count() > 1:
        raise ValueError(
            f"{name}: expected a single process, got {jax.process_count()}; use the devices of one "
            "machine"
        )


def write_step(folder: Path, step: int, tree: Any, meta: Mapping[str, Any]) -> None:
    """Write a pytree and a table as a step of an Orbax ``CheckpointManager``.

    Files that a killed process left half written are removed.

    Args:
        folder: of the manager.
        step: the number of the step.
        tree: the pytree.
        meta: the table, as JSON can hold it.
    """
    options = ocp.CheckpointManagerOptions(
        enable_async_checkpointing=False, cleanup_tmp_directories=True
    )
    items: dict[str, Any] = {_META: ocp.args.JsonSave(dict(meta))}
    if data := _data(tree):
        items[_ARRAYS] = ocp.args.PyTreeSave(data)
    with _quiet(), ocp.CheckpointManager(folder, options=options) as manager:
        manager.save(step, args=ocp.args.Composite(**items), force=True)


def read_meta(folder: Path, step: int) -> dict[str, Any]:
    """Return the table of a step.

    Args:
        folder: of the manager.
        step: the number of the step.
    """
    return _restore(folder, step, _META, ocp.args.JsonRestore())


def read_step(folder: Path, step: int, saved: list[Leaf], like: Any, shardings: Any = None) -> Any:
    """Return the pytree of a step.

    Args:
        folder: of the manager.
        step: the number of the step.
        saved: the leaves as they were written.
        like: a pytree whose leaves give structure, types and devices.
        shardings: a pytree prefix of ``like`` with shardings, or None to leave the choice to
            ``like``.
    """

    def read(item: Any, how: Any) -> Any:
        return _restore(folder, step, _ARRAYS, ocp.args.PyTreeRestore(item=item, restore_args=how))

    return _assemble(read, saved, like, shardings)


def _restore(folder: Path, step: int, item: str, args: Any) -> Any:
    options = ocp.CheckpointManagerOptions(
        enable_async_checkpointing=False, read_only=True, create=False, save_interval_steps=0
    )
    with _quiet(), ocp.CheckpointManager(folder, options=options) as manager:
        return manager.restore(step, args=ocp.args.Composite(**{item: args}))[item]


def write_tree(folder: Path, tree: Any) -> None:
    """Write a pytree to a new folder.

    Args:
        folder: must not exist.
        tree: the pytree.
    """
    if data := _data(tree):
        with _quiet(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            checkpointer.save(folder, args=ocp.args.PyTreeSave(data))
        (folder / "commit_success.txt").unlink(missing_ok=True)  # names the writer's folders
    else:
        folder.mkdir()


def read_tree(folder: Path, saved: list[Leaf], like: Any) -> Any:
    """Return the pytree that `write_tree` wrote.

    Args:
        folder: where.
        saved: the leaves as they were written.
        like: a pytree whose leaves give structure, types and devices.
    """

    def read(item: Any, how: Any) -> Any:
        args = ocp.args.PyTreeRestore(item=item, restore_args=how)
        with _quiet(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            return checkpointer.restore(folder, args=args)

    return _assemble(read, saved, like, None)


def _data(tree: Any) -> dict[str, Any]:
    """Return the arrays to write, by number. Orbax takes neither empty arrays nor typed keys."""
    found = {}
    for i, leaf in enumerate(jax.tree.leaves(tree)):
        if not hasattr(leaf, "dtype") or not leaf.size:
            continue
        leaf = jax.random.key_data(leaf) if is_key(leaf) else leaf
        found[str(i)] = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
    return found


def _assemble(read: Callable[[Any, Any], Any], saved: list[Leaf], like: Any, shardings: Any) -> Any:
    """Read all leaves, convert them to the types of ``like`` and place them on its devices."""
    models, structure = jax.tree.flatten(like)
    paths = [leaf.path for leaf in describe(like, "")]
    model = dict(zip(paths, models, strict=True))
    place = {
        path: _target(model[path], sharding)
        for path, sharding in zip(paths, _sharding_of_leaves(shardings, like), strict=True)
    }
    how: dict[str, Any] = {}
    for i, leaf in enumerate(saved):
        if leaf.kind != "number" and 0 not in leaf.shape:
            direct = leaf.kind == "array" and place[leaf.path] is not None
            how[str(i)] = (
                ocp.ArrayRestoreArgs(sharding=place[leaf.path])
                if direct
                else ocp.RestoreArgs(restore_type=np.ndarray)
            )
    data = read(dict.fromkeys(how, 0), how) if how else {}
    found = {
        leaf.path: _restored(leaf, data.get(str(i)), model[leaf.path], place[leaf.path])
        for i, leaf in enumerate(saved)
    }
    return jax.tree.unflatten(structure, [found[path] for path in paths])


def _sharding_of_leaves(shardings: Any, like: Any) -> list[Sharding | None]:
    """Return the sharding of each leaf; None where none is given."""
    marked = jax.tree.map(
        lambda s: _ANYWHERE if s is None else s, shardings, is_leaf=lambda s: s is None
    )
    found = jax.tree.leaves(jax.tree.broadcast(marked, like))
    return [None if sharding is _ANYWHERE else sharding for sharding in found]


def _target(like: Any, sharding: Sharding | None) -> Sharding | None:
    """Return where to place an array; None for NumPy, or where JAX may choose."""
    if sharding is not None or not isinstance(like, jax.Array | jax.ShapeDtypeStruct):
        return sharding
    # An uncommitted array must stay uncommitted: a program over many devices copies it to them,
    # and refuses a committed one.
    movable = isinstance(like, jax.Array) and not like.committed
    return None if movable else like.sharding


def _restored(leaf: Leaf, data: Any, like: Any, target: Sharding | None) -> Any:
    """Convert a leaf to the type of ``like``: array, NumPy scalar, typed key or number."""
    if leaf.kind == "number":
        return leaf.number()
    if leaf.kind == "key":
        data = _keys(leaf, data)
    elif data is None:
        data = np.zeros(leaf.shape, jnp.dtype(leaf.dtype))
    if isinstance(like, np.ndarray | np.generic) and target is None:
        return data if isinstance(like, np.ndarray) else data[()]
    if isinstance(data, np.ndarray):
        data = jnp.array(data)
    return data if target is None else jax.device_put(data, target)


def _keys(leaf: Leaf, data: Any) -> jax.Array:
    if data is None:
        one = jax.random.key_data(jax.random.key(0, impl=leaf.value))
        data = np.zeros((*leaf.shape, *one.shape), one.dtype)
    return jax.random.wrap_key_data(jnp.array(data), impl=leaf.value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Orbax, which logs errors that it also raises, with the traces of its threads."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
