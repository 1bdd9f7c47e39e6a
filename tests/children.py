"""Processes that call a function of a test module, and what happens to them at a file operation."""

import inspect
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PATIENCE = 900  # seconds after which a process is taken to hang; no test waits for them to pass
CALL = """
import importlib.util, sys
tests, path, name, function, *arguments = sys.argv[1:]
sys.path.insert(0, tests)
spec = importlib.util.spec_from_file_location(name, path)
sys.modules[name] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
getattr(module, function)(*arguments)
"""
OPERATIONS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree"}


def start(
    function: Callable, *arguments: object, devices: int = 1, warnings: str = "ignore"
) -> subprocess.Popen:
    """Start a process that calls a function of a test module with texts, its pipes open.

    Args:
        function: at the top level of its module.
        arguments: given to it as texts.
        devices: how many the process has.
        warnings: what it does with them, as for ``python -W``.
    """
    path = Path(inspect.getfile(function))
    flags = f"--xla_force_host_platform_device_count={devices} {os.environ.get('XLA_FLAGS', '')}"
    places = [Path(__file__).parent, path, function.__module__, function.__name__]
    command = [sys.executable, "-W", warnings, "-c", CALL, *places, *arguments]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen([str(x) for x in command], text=True, env=environment, **pipes)


def call(function: Callable, *arguments: object, **options) -> str:
    """Call a function as `start` does, and return what it printed."""
    process = start(function, *arguments, **options)
    printed, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return printed


def expect(process: subprocess.Popen, line: str) -> None:
    """Wait until a process says a line; that it says another or ends is an error."""
    assert process.stdout.readline() == f"{line}\n", process.communicate()[1]


def at_file_operation(number: int, words: str, act: Callable[[], None]) -> None:
    """Act at that file operation of this process from now on, before it is done.

    Args:
        number: of the operation, from 1.
        words: that the path of such an operation contains.
        act: what is done then, in the thread of the operation.
    """
    counter = itertools.count(1)

    def note(event: str, arguments: tuple) -> None:
        concerned = event in OPERATIONS and any(words in str(path) for path in arguments)
        if concerned and next(counter) == number:
            act()

    sys.addaudithook(note)
