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
        options: reference to ``options(parser)``, which adds the options of the command to its
            `argparse.ArgumentParser`, and may set its ``description``.
        run: reference to ``run(options) -> int``, from the `argparse.Namespace` to the exit code.
            ``ValueError``, ``OSError`` and ``commands.files.InputError`` become one line on stderr.
    """

    summary: str
    options: str
    run: str


@dataclass(frozen=True)
class Application:
    """What an application adds.

    Attributes:
        name: of the application.
        commands: by name; of two words, such as "simulate NAME", for a command below another.
        example: lines of shell for ``refinejax --help``.
        trainings: kind for ``refinejax train KIND`` → reference to a function from a configuration
            to a plan (see `refinejax.training.plans`).
        tasks: name for ``[task] problems = NAME`` → reference to a class or function that returns a
            task distribution; its arguments, all annotated and with defaults, are the keys of
            ``[task.distribution]`` (see `refinejax.tasks.task_distribution`).
        architectures: name → reference to a builder of models, ``build(config, key)``.
        pretrained: folders with models that come with the application, as ``"package:folder"``;
            each model is a folder in such a folder.
    """

    name: str
    commands: Mapping[str, Command] = field(default_factory=dict)
    example: str = ""
    trainings: Mapping[str, str] = field(default_factory=dict)
    tasks: Mapping[str, str] = field(default_factory=dict)
    architectures: Mapping[str, str] = field(default_factory=dict)
    pretrained: tuple[str, ...] = ()


TRAININGS = {"refiner": "refinejax.meta.plans:plan_refiner"}  # what the kernel itself trains


def trainings() -> dict[str, str]:
    """Return the kinds of ``refinejax train KIND``: those of this package, then of applications.

    Returns:
        Kind → reference to a function from a configuration to a `TrainingPlan` of
        `refinejax.training.plans`.

    Raises:
        ValueError: if two register the same kind.
    """
    return with_registered("trainings", TRAININGS)


def with_registered(what: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return entries of this package, then what applications register.

    Args:
        what: the field of `Application`, such as "commands".
        own: entries of this package by name, which no application may use.

    Raises:
        ValueError: if an application uses the name of an entry of this package or of another one.
    """
    others = registered(what)
    for name in others:
        if name in own:
            raise ValueError(
                f"{what}: an application registers {name!r}, a name of refinejax; rename it"
            )
    return {**own, **others}


def resolve(reference: str) -> Any:
    """Import what ``"module:name"`` refers to.

    Args:
        reference: module, colon, name.

    Returns:
        The object of that name.

    Raises:
        ImportError: if there is no such module, or it has no such name.
    """
    module, _, name = reference.partition(":")
    found = importlib.import_module(module)
    if not hasattr(found, name):
        raise ImportError(f"{reference!r}: the module {module} has no {name!r}")
    return getattr(found, name)


def applications() -> tuple[Application, ...]:
    """Return all applications: those of this package, then those of others by entry point.

    Raises:
        ImportError: if one of another package cannot be imported; names its entry point.
        ValueError: if an entry point refers to something else than an `Application`.
    """
    own = [resolve(f"{package}.application:APPLICATION") for package in BUILT_IN]
    points = importlib.metadata.entry_points(group=GROUP)
    return (*own, *map(_load, sorted(points, key=lambda point: point.name)))


def _load(point: importlib.metadata.EntryPoint) -> Application:
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"application {point.name!r} cannot be imported from {point.value} ({error}); mend or "
            "uninstall the package that registers it"
        ) from error
    if not isinstance(found, Application):
        raise ValueError(
            f"application {point.name!r}: {point.value} is a {type(found).__name__}; expected an "
            "Application"
        )
    return found


def registered(what: str) -> dict[str, Any]:
    """Return one mapping of all applications, by name.

    Args:
        what: "commands", "trainings", "tasks" or "architectures".

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
