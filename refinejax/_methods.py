"""Methods by name, and which one suits a problem."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax

from refinejax._core import Refiner
from refinejax.refiners import Gradient, RandomSearch


class Method(NamedTuple):
    """A refiner, the steps it usually needs, and why it was chosen."""

    refiner: Refiner
    max_steps: int
    reason: str


def _adam() -> Method:
    return Method(Gradient(optax.adam, {"learning_rate": 1e-2}), 500, "")


def _lbfgs() -> Method:
    return Method(Gradient(optax.lbfgs), 200, "")


def _random() -> Method:
    return Method(RandomSearch(), 1000, "")


METHODS: dict[str, Callable[[], Method]] = {"adam": _adam, "lbfgs": _lbfgs, "random": _random}


_NO_DERIVATIVES = (
    "method: {} needs derivatives and the forward model has none (differentiable=False); "
    'use "random" or "auto"'
)


def choose(method: str | Refiner, *, differentiable: bool, size: int) -> Method:
    """Return the method named, or the one that suits the problem, and say why.

    Args:
        method: "auto", a name in ``METHODS``, or a refiner.
        differentiable: whether derivatives of the forward model can be had.
        size: number of params of a sample.

    Raises:
        ValueError: for a name that is none, or a gradient method without gradients.
    """
    if isinstance(method, Refiner):
        if not differentiable and _uses_gradients(method):
            raise ValueError(_NO_DERIVATIVES.format(type(method).__name__))
        return Method(method, 500, f"{type(method).__name__}: as asked")
    if isinstance(method, str) and method == "auto":
        name, why = _auto(differentiable, size)
    elif isinstance(method, str) and method in METHODS:
        name, why = method, "as asked"
    else:
        names = ", ".join(["auto", *METHODS])
        raise ValueError(f"method: expected one of {names}, or a Refiner, got {method!r}")
    if name != "random" and not differentiable:
        raise ValueError(_NO_DERIVATIVES.format(name))
    return METHODS[name]()._replace(reason=f"{name}: {why}")


def _uses_gradients(refiner: Refiner) -> bool:
    """Whether it is a `Gradient`, or contains one."""
    parts = jax.tree.leaves(refiner, is_leaf=lambda part: isinstance(part, Gradient))
    return any(isinstance(part, Gradient) for part in parts)


def _auto(differentiable: bool, size: int) -> tuple[str, str]:
    if differentiable:
        params = "1 param" if size == 1 else f"{size} params"
        return "lbfgs", f"chosen because the forward model is differentiable ({params})"
    return "random", "chosen because the forward model gives no derivatives"
