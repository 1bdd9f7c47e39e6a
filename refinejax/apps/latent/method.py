"""Which refiner searches: by name, or by the number of unknowns."""

from typing import Any, NamedTuple

import optax

from refinejax._checks import check_count
from refinejax._core import Refiner
from refinejax._methods import LARGEST, METHODS
from refinejax.refiners import BFGS, Gradient

_RATE = 5e-2  # of Adam, where a typical change is 1
_LONGEST = 1.0  # step of BFGS: longer ones leave more starts on a network's plateaus


class SearchMethod(NamedTuple):
    """A refiner, the most steps of a start, and why it was chosen.

    Attributes:
        refiner: the method.
        max_steps: the most steps of a start.
        reason: why it was chosen.
    """

    refiner: Refiner
    max_steps: int
    reason: str


def _bfgs(why: str) -> SearchMethod:
    return SearchMethod(BFGS(longest=_LONGEST), 200, f"bfgs: {why}")


def _adam(why: str) -> SearchMethod:
    return SearchMethod(Gradient(optax.adam, {"learning_rate": _RATE}), 500, f"adam: {why}")


def choose_method(method: Any, max_steps: int | None, size: int) -> SearchMethod:
    """Return the method for an unknown of this many numbers.

    Args:
        method: "auto", "bfgs", a name as for `refine`, or a `Refiner`.
        max_steps: the most steps; None for those of the method.
        size: how many numbers are searched for.

    Raises:
        ValueError: for an unknown name, or Levenberg–Marquardt.
    """
    if max_steps is not None:
        check_count("max_steps", max_steps)
    chosen = _choose(method, size)
    return chosen if max_steps is None else chosen._replace(max_steps=int(max_steps))


def _choose(method: Any, size: int) -> SearchMethod:
    if isinstance(method, Refiner):
        return SearchMethod(method, 300, f"{type(method).__name__}: as asked")
    if method == "auto":
        few = size <= LARGEST
        make, count = (_bfgs, "few") if few else (_adam, "many")
        return make(f"chosen because {size} numbers are {count}")
    if method in ("bfgs", "adam"):
        return {"bfgs": _bfgs, "adam": _adam}[method]("as asked")
    if method == "lm":
        raise ValueError("method: targets are no sum of squares; use 'auto', 'adam' or 'cma_es'")
    if method in METHODS:
        known = METHODS[method]()
        return SearchMethod(known.refiner, known.max_steps, f"{method}: as asked")
    names = ", ".join(["auto", "bfgs", *(name for name in METHODS if name != "lm")])
    raise ValueError(f"method: expected one of {names}, or a Refiner, got {method!r}")
