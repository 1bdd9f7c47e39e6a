"""Applications by name: what each one adds to the command line, to training and to the models.

An application describes itself in its module ``application.py``, as ``APPLICATION``. Everything in
it that needs JAX is a reference ``"module:name"``, imported when it is used, so that
``refinejax --help`` starts without JAX. Applications of other packages are found by the entry point
group ``refinejax.applications``, whose value is such a reference to their ``APPLICATION``.
"""

import importlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BUILT_IN = ("refinejax.apps.metalens", "refinejax.apps.latent")
GROUP = "refinejax.applications"


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        summary: one line for ``refinejax --help``.
        add: reference to a function that adds its parser to the subparsers of argparse.
    """

    summary: str
    add: str


@dataclass(frozen=True)
class Application:
    """What an application adds.

    Attributes:
        name: of the application.
        commands: by name, such as "metalens"; of two words, such as "simulate metalens", for a
            command below another.
        trainings: kind for ``refinejax train KIND`` → reference to a function from a configuration
            to a plan (see `refinejax.training.plans`).
        tasks: name for ``[task] problems = NAME`` → reference to a function without arguments that
            need be given, which returns a task distribution.
        architectures: name → reference to a builder of models, ``build(config, key)``.
        pretrained: names of the package's folders with models that come with it, as
            ``"package:folder"``.
    """

    name: str
    commands: Mapping[str, Command] = field(default_factory=dict)
    trainings: Mapping[str, str] = field(default_factory=dict)
    tasks: Mapping[str, str] = field(default_factory=dict)
    architectures: Mapping[str, str] = field(default_factory=dict)
    pretrained: tuple[str, ...] = ()


def resolve(reference: str) -> Any:
    """Import what ``"module:name"`` refers to."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def applications() -> tuple[Application, ...]:
    """Return all applications: those of this package, then those of others by entry point."""
    own = [resolve(f"{package}.application:APPLICATION") for package in BUILT_IN]
    others = [point.load() for point in importlib.metadata.entry_points(group=GROUP)]
    return (*own, *others)


def registered(what: str) -> dict[str, Any]:
    """Return one mapping of all applications, such as "tasks".

    Raises:
        ValueError: if two applications use the same name.
    """
    found: dict[str, Any] = {}
    owner: dict[str, str] = {}
    for application in applications():
        for name, value in getattr(application, what).items():
            if name in found:
                raise ValueError(
                    f"{what}: {name!r} is registered by both {owner[name]} and {application.name}; "
                    "rename one"
                )
            found[name], owner[name] = value, application.name
    return found
