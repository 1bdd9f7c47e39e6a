"""Applications by name, and how little is imported to list them."""

import importlib.metadata
import pkgutil
import subprocess
import sys

import pytest
from children import PATIENCE

from refinejax import apps, cli
from refinejax._applications import (
    BUILT_IN,
    Application,
    Command,
    applications,
    registered,
    resolve,
)
from refinejax.cli.main import COMMANDS

HEAVY = ("jax", "numpy", "flax", "optax", "matplotlib", "orbax", "evosax", "scipy")
LIGHT = (
    ("--help",),
    ("--version",),
    ("simulate", "--help"),
    ("nope",),
    (),
)


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_to_list_commands_imports_nothing_heavy(arguments):
    script = (
        "import sys\n"
        "from refinejax.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_the_tuple_of_names_has_every_application_of_this_package():
    found = {f"{apps.__name__}.{m.name}" for m in pkgutil.iter_modules(apps.__path__) if m.ispkg}
    assert set(BUILT_IN) == found
    assert [one.name for one in applications()[: len(found)]] == [
        name.rpartition(".")[2] for name in BUILT_IN
    ]


@pytest.mark.parametrize("what", ["trainings", "tasks", "architectures"])
def test_references_resolve(what):
    for reference in registered(what).values():
        assert callable(resolve(reference))


@pytest.mark.parametrize("command", [*registered("commands").values(), *COMMANDS.values()])
def test_commands_resolve(command):
    assert callable(resolve(command.options))
    assert callable(resolve(command.run))


@pytest.mark.parametrize("name", BUILT_IN)
def test_names_of_an_application_are_there_and_hide_no_module(name):
    package = importlib.import_module(name)
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert not modules & set(package.__all__)
    assert set(package.__all__) <= set(dir(package))
    for each in package.__all__:
        assert getattr(package, each) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        package.nope


def point(value, name="other"):
    return importlib.metadata.EntryPoint(name, value, "refinejax.applications")


def with_points(monkeypatch, *points):
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)


SUMMARY = "a command of another package"
OTHER = Application("other", commands={"other": Command(SUMMARY, "json:dumps", "json:loads")})
TWICE = Application("twice", commands={"metalens": Command("", "json:dumps", "json:loads")})


def test_an_application_of_another_package(monkeypatch, capsys):
    with_points(monkeypatch, point(f"{__name__}:OTHER"))
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert f"other              {SUMMARY}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        ("no_such_module:APPLICATION", 1, ("'other'", "no_such_module", "uninstall")),
        ("json:nope", 1, ("'other'", "json:nope", "nope")),
        ("json:dumps", 2, ("'other'", "json:dumps", "function", "Application")),
        (f"{__name__}:TWICE", 2, ("'metalens'", "metalens and twice", "rename")),
    ],
)
def test_an_application_that_cannot_be_used_is_named(monkeypatch, capsys, value, code, words):
    with_points(monkeypatch, point(value))
    assert cli.main(["doctor"]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for word in words:
        assert word in error


def test_a_reference_without_its_name_says_so():
    with pytest.raises(ImportError, match="'json:nope': the module json has no 'nope'"):
        resolve("json:nope")
