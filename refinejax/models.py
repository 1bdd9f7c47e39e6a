"""Trained models as folders that other people can load: architecture by name, config, weights."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from refinejax import learned, networks
from refinejax._applications import registered, resolve
from refinejax._files import canonical_json
from refinejax.checkpoint import load_card, load_tree, save_tree
from refinejax.checkpoint.leaves import compare, describe
from refinejax.checkpoint.versions import changes

Architectures = Mapping[str, Callable[[dict[str, Any], Any], Any]]

# name: build(config, key) -> the model with new weights; applications register theirs by name
ARCHITECTURES: Architectures = {**networks.ARCHITECTURES, **learned.ARCHITECTURES}

_PRETRAINED = Path(__file__).parent / "_pretrained"


class Model(NamedTuple):
    """A trained model, and what is known about it.

    Attributes:
        value: the model itself, a pytree.
        architecture: the name of its builder.
        config: what the builder was given.
        provenance: where it comes from, as whoever saved it has written: task distribution, command
            of the training, evaluation.
        versions: of the packages that wrote it, by name.
        notes: for people, such as that it was written with other versions.
    """

    value: Any
    architecture: str
    config: dict[str, Any]
    provenance: dict[str, Any]
    versions: dict[str, str]
    notes: tuple[str, ...] = ()


def save_model(
    folder: str | os.PathLike[str],
    value: Any,
    *,
    architecture: str,
    config: Mapping[str, Any],
    provenance: Mapping[str, Any] | None = None,
    architectures: Architectures = ARCHITECTURES,
) -> None:
    """Write a model to a folder of its own; a model that was there before is replaced.

    Args:
        folder: where. ``model.json`` in it can be read by people.
        value: the model, a pytree of arrays, typed keys and numbers.
        architecture: the name of the builder that makes such a model.
        config: what the builder needs to know.
        provenance: where the model comes from: task distribution, training command, evaluation.
        architectures: builders by name.

    Raises:
        ValueError: for an unknown architecture; if the builder makes other leaves from ``config``
            than ``value`` has (names the first); if JSON cannot hold ``config`` or ``provenance``.
        FileExistsError: if the folder holds other things than a model.
        OSError: if it cannot be written.
    """
    plain = json.loads(canonical_json(config, "config"))
    canonical_json(provenance, "provenance")
    expected = describe(_build(architecture, plain, architectures), "value")
    try:
        compare(describe(value, "value"), expected, "the one given", "value")
    except ValueError as error:
        raise ValueError(
            f"config: architecture {architecture!r} makes another model of it ({error}); it must "
            "say all that the builder needs"
        ) from error
    card = {"architecture": architecture, "config": plain, "provenance": dict(provenance or {})}
    save_tree(folder, value, card)


def load_model(
    folder: str | os.PathLike[str], architectures: Architectures = ARCHITECTURES
) -> Model:
    """Read what `save_model` wrote.

    Other versions of packages than those that wrote it are a note, not an error.

    Args:
        folder: where.
        architectures: builders by name.

    Raises:
        FileNotFoundError: if the folder holds no model.
        ValueError: if a file is missing or damaged, the format is newer than this version reads,
            the architecture is unknown, or its builder now makes other leaves (names the first).
    """
    card = load_card(folder)
    missing = [name for name in ("architecture", "config", "provenance") if name not in card]
    if missing:
        raise ValueError(f"folder: {folder} holds weights, but no model: no {', '.join(missing)}")
    architecture, config = card["architecture"], card["config"]
    value = load_tree(folder, _build(architecture, config, architectures))
    changed = changes(card["versions"])
    notes = (f"written with {changed}",) if changed else ()
    return Model(value, architecture, config, card["provenance"], card["versions"], notes)


def pretrained(name: str) -> Model:
    """Load a model that comes with the package.

    Raises:
        ValueError: if there is none of this name; lists those there are.
    """
    known = sorted(path.parent.name for path in _PRETRAINED.glob("*/model.json"))
    if name not in known:
        there = ", ".join(known) if known else "none in this version"
        raise ValueError(
            f"name: no pretrained model {name!r}; there are: {there}; a folder of your own is read "
            "with load_model"
        )
    return load_model(_PRETRAINED / name, ARCHITECTURES)


def _build(name: Any, config: dict[str, Any], architectures: Architectures) -> Any:
    others = registered("architectures")
    if name not in architectures and name not in others:
        known = ", ".join(sorted((*architectures, *others)))
        raise ValueError(
            f"architecture: {name!r} is unknown; known: {known}; for one of your own pass "
            "architectures={name: build}, where build(config, key) makes it"
        )
    build = architectures[name] if name in architectures else resolve(others[name])
    return build(config, jax.random.key(0))
