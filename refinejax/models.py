"""Trained models as folders that other people can load: architecture by name, config, weights."""

import json
import os
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jax

from refinejax import learned, networks
from refinejax._applications import applications, resolve, with_registered
from refinejax._files import canonical_json
from refinejax.checkpoint import load_card, load_tree, save_tree
from refinejax.checkpoint.leaves import compare, describe
from refinejax.checkpoint.versions import changes

# name: build(config, key) -> the model with new weights
Architectures = Mapping[str, Callable[[dict[str, Any], Any], Any]]

_OWN = "refinejax:_pretrained"  # models of no application


class Model(NamedTuple):
    """A trained model, its configuration and its origin.

    Attributes:
        value: the model itself, a pytree.
        architecture: the name of its builder.
        config: what the builder was given.
        provenance: its origin as given to `save_model`: task distribution, command of the
            training, evaluation.
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
    architectures: Architectures | None = None,
) -> None:
    """Write a model to a folder of its own; a model that was there before is replaced.

    Args:
        folder: where. ``model.json`` in it can be read by people.
        value: the model, a pytree of arrays, typed keys and numbers.
        architecture: the name of the builder that makes such a model.
        config: what the builder needs to know.
        provenance: where the model comes from: task distribution, training command, evaluation.
        architectures: builders by name; by default `known_architectures`.

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


def load_model(folder: str | os.PathLike[str], architectures: Architectures | None = None) -> Model:
    """Read what `save_model` wrote.

    Other versions of packages than those that wrote it are a note, not an error.

    Args:
        folder: where.
        architectures: builders by name; by default `known_architectures`.

    Returns:
        The model, its configuration and its origin.

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
    """Load a model that comes with the package, or with an application of another package.

    Args:
        name: one of `pretrained_folders`.

    Returns:
        The model, its configuration and its origin.

    Raises:
        ValueError: for an unknown name; lists the known ones.
    """
    known = pretrained_folders()
    if name not in known:
        there = ", ".join(sorted(known)) if known else "none in this version"
        raise ValueError(
            f"name: no pretrained model {name!r}; there are: {there}; a folder of your own is read "
            "with load_model"
        )
    return load_model(known[name])


def pretrained_folders() -> dict[str, Path]:
    """Return the folder of each pretrained model, of this package and of all applications.

    Raises:
        ValueError: if two have the same name.
    """
    found: dict[str, Path] = {}
    for reference in (_OWN, *(each for one in applications() for each in one.pretrained)):
        for card in sorted(_folder(reference).glob("*/model.json")):
            model = card.parent
            if model.name in found:
                raise ValueError(
                    f"pretrained: {model.name!r} is in {found[model.name].parent} and in "
                    f"{model.parent}; rename one"
                )
            found[model.name] = model
    return found


def _folder(reference: str) -> Path:
    """Return the folder that ``"package:folder"`` names."""
    package, _, folder = reference.partition(":")
    return Path(str(resources.files(package) / folder))


def known_architectures() -> Architectures:
    """Return the builders of models by name: of networks, learned refiners and applications.

    Raises:
        ValueError: if an application uses a name that is taken.
    """
    own = {**networks.ARCHITECTURES, **learned.ARCHITECTURES}
    known = with_registered("architectures", own)
    return {name: build if name in own else resolve(build) for name, build in known.items()}


def _build(name: Any, config: dict[str, Any], architectures: Architectures | None) -> Any:
    architectures = known_architectures() if architectures is None else architectures
    if name not in architectures:
        known = ", ".join(sorted(architectures)) or "none"
        raise ValueError(
            f"architecture: {name!r} is unknown; known: {known}; for one of your own pass "
            "architectures={name: build}, where build(config, key) makes it"
        )
    return architectures[name](config, jax.random.key(0))
