"""Refine predictions through forward models, for one sample or a million, and say what came of it.

A network, a fit or a guess gives parameters; a forward model says what those parameters would have
been observed as; refinejax moves the parameters until the model explains the observation.

What is named here is imported when it is first asked for: a part that needs no JAX, such as
`refinejax.experiments`, does not wait for it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refinejax._core import Objective as Objective
    from refinejax._core import Refiner as Refiner
    from refinejax._core import Result as Result
    from refinejax._core import State as State
    from refinejax._core import Status as Status
    from refinejax._core import Stop as Stop
    from refinejax._refine import refine as refine
    from refinejax._run import run as run
    from refinejax._run import run_until as run_until
    from refinejax.batch import BatchResult as BatchResult
    from refinejax.batch import run_batch as run_batch
    from refinejax.batch import run_stream as run_stream
    from refinejax.compiled import keep_compiled as keep_compiled
    from refinejax.models import pretrained as pretrained
    from refinejax.physics.phase import wrapped_difference as wrapped_difference
    from refinejax.problems import InverseProblem as InverseProblem
    from refinejax.problems import ParameterSpace as ParameterSpace
    from refinejax.problems import Pointwise as Pointwise
    from refinejax.problems import Robust as Robust
    from refinejax.refiners import Continuation as Continuation
    from refinejax.refiners import Evolution as Evolution
    from refinejax.refiners import GaussNewton as GaussNewton
    from refinejax.refiners import Gradient as Gradient
    from refinejax.refiners import LevenbergMarquardt as LevenbergMarquardt
    from refinejax.refiners import RandomSearch as RandomSearch
    from refinejax.refiners import Restarts as Restarts
    from refinejax.refiners import Sequential as Sequential

__version__ = "0.1.0.dev0"

_NAMES = {
    "refinejax._core": ("Objective", "Refiner", "Result", "State", "Status", "Stop"),
    "refinejax._refine": ("refine",),
    "refinejax._run": ("run", "run_until"),
    "refinejax.batch": ("BatchResult", "run_batch", "run_stream"),
    "refinejax.compiled": ("keep_compiled",),
    "refinejax.models": ("pretrained",),
    "refinejax.physics.phase": ("wrapped_difference",),
    "refinejax.problems": ("InverseProblem", "ParameterSpace", "Pointwise", "Robust"),
    "refinejax.refiners": (
        "Continuation",
        "Evolution",
        "GaussNewton",
        "Gradient",
        "LevenbergMarquardt",
        "RandomSearch",
        "Restarts",
        "Sequential",
    ),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
_PARTS = ("batch", "compiled", "diagnostics", "physics", "problems", "refiners")


def __getattr__(name: str) -> Any:
    """Import what has this name (PEP 562)."""
    if name in _PARTS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_PARTS})
