"""A folder with one pytree that others can load, and a card that describes it."""

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refinejax._files import canonical_json, hash_json, write_json
from refinejax.checkpoint.arrays import check_one_process, read_tree, write_tree
from refinejax.checkpoint.leaves import Leaf, compare, describe
from refinejax.checkpoint.sums import checksums, damage
from refinejax.checkpoint.versions import check_format, versions

_FORMAT = 1
_CARD = "model.json"
_WEIGHTS = "weights-"
_OURS = ("format", "versions", "leaves", "weights", "files", "sha256")


def save_tree(folder: str | os.PathLike[str], tree: Any, card: Mapping[str, Any]) -> None:
    """Write a pytree and its card to a folder, replacing an earlier one.

    The folder holds ``model.json`` (the card, the format, package versions, the description of each
    leaf, the SHA-256 of every file and of itself) and the weights, by Orbax, in a folder that
    ``model.json`` names. ``model.json`` is replaced last and atomically: until then the folder
    holds the earlier pytree.

    Args:
        folder: where; made if it does not exist.
        tree: a pytree of arrays, typed keys and Python numbers.
        card: a description, as JSON can hold it.

    Raises:
        ValueError: for another leaf (names it), a card that JSON cannot hold or that uses a
            reserved name, or several processes.
        FileExistsError: if the folder holds other files.
        OSError: if the folder cannot be written.
    """
    check_one_process("save_tree")
    folder = Path(folder).absolute()
    content = {
        **json.loads(canonical_json(_checked(card), "card")),
        "format": _FORMAT,
        "versions": versions(),
        "leaves": [leaf._asdict() for leaf in describe(tree, "weights")],
        "weights": f"{_WEIGHTS}{uuid.uuid4().hex[:12]}",
    }
    _check_free(folder)
    weights = folder / content["weights"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_tree(weights, tree)
        content["files"] = checksums(weights)
        content["sha256"] = hash_json(content, "card")
        write_json(folder / _CARD, content, indent=1)
    except Exception as error:  # Orbax reports a full disk as a ValueError
        for part in folder.glob(f"{weights.name}*"):
            shutil.rmtree(part, ignore_errors=True)
        raise OSError(
            f"folder: cannot write to {folder} ({error}); make room, or name another folder"
        ) from error
    for old in folder.glob(f"{_WEIGHTS}*"):
        if old != weights:
            shutil.rmtree(old)


def _checked(card: Mapping[str, Any]) -> dict[str, Any]:
    if taken := sorted(set(card) & set(_OURS)):
        raise ValueError(f"card: {', '.join(taken)}: these names are taken; use others")
    return dict(card)


def _check_free(folder: Path) -> None:
    if not folder.is_dir() or (folder / _CARD).is_file():
        return
    others = [path.name for path in folder.iterdir() if not path.name.startswith(_WEIGHTS)]
    if others:
        raise FileExistsError(
            f"folder: {folder} holds other things ({', '.join(sorted(others)[:3])}); name a new "
            "folder"
        )


def load_card(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the card that `save_tree` wrote, after checking that it is intact.

    Args:
        folder: where.

    Raises:
        FileNotFoundError: if the folder has no ``model.json``.
        ValueError: if it is damaged or was edited, or has a newer format.
    """
    path = Path(folder).absolute() / _CARD
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"folder: {path.parent} is no model: it has no {_CARD}; is it the right folder, and "
            "was its writing finished?"
        ) from error
    except ValueError as error:
        raise ValueError(f"folder: {path} is damaged ({error}); get it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"folder: {path} is damaged (it is no table); get it again")
    check_format(content.get("format"), _FORMAT, str(path))
    sum_there = content.pop("sha256", None)
    if sum_there != hash_json(content, "card"):
        raise ValueError(
            f"folder: {path} is not as it was written: its checksum differs; get it again"
        )
    return content


def load_tree(folder: str | os.PathLike[str], like: Any) -> Any:
    """Return the pytree that `save_tree` wrote.

    Args:
        folder: where.
        like: a pytree of the same structure whose leaves give the expected types, as for
            `Checkpoints.restore`.

    Raises:
        FileNotFoundError: if the folder holds no model.
        ValueError: if a file is missing or damaged; for a leaf whose dtype or shape differs from
            ``like`` (names it); for a newer format.
    """
    folder, card = Path(folder).absolute(), load_card(folder)
    weights = folder / card["weights"]
    if (why := damage(weights, card["files"])) is not None:
        raise ValueError(f"folder: {weights} is damaged ({why}); get it again")
    saved = [Leaf.read(entry) for entry in card["leaves"]]
    compare(saved, describe(like, "weights"), str(folder), "weights")
    return read_tree(weights, saved, like)
