"""Methods by name, and which one suits a problem."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import optax

from refinejax._core import Refiner
from refinejax.refiners import (
    Evolution,
    Gradient,
    LevenbergMarquardt,
    RandomSearch,
    Sequential,
)
from refinejax.refiners.population.strategies import NAMES as STRATEGIES


class Method(NamedTuple):
    """A refiner, the steps it usually needs, why it was chosen, and whether as a local one."""

    refiner: Refiner
    max_steps: int
    reason: str
    local: bool = False


LARGEST = 100  # params, beyond which the normal equations of a sample no longer are small


def _lm() -> Method:
    return Method(LevenbergMarquardt(), 100, "")


def _adam() -> Method:
    return Method(Gradient(optax.adam, {"learning_rate": 1e-2}), 500, "")


def _lbfgs() -> Method:
    return Method(Gradient(optax.lbfgs), 200, "")


def _random() -> Method:
    return Method(RandomSearch(), 1000, "")


def _population(strategy: str) -> Method:
    return Method(Evolution(strategy), 500, "")


_GRADIENTS = {"lm": _lm, "lbfgs": _lbfgs, "adam": _adam}
POPULATIONS = dict.fromkeys(["cma_es", "ga", "de", "pso", *map(str.lower, STRATEGIES)])
METHODS: dict[str, Callable[[], Method]] = {
    **_GRADIENTS,
    "random": _random,
    **{name: functools.partial(_population, name) for name in POPULATIONS},
}


_NO_DERIVATIVES = (
    "method: {} needs derivatives and the forward model has none (differentiable=False); "
    'use "cma_es" or "auto"'
)


def choose(
    method: str | Refiner, *, differentiable: bool, size: int, forward_mode: bool = True
) -> Method:
    """Return the method named, or the one that suits the problem, and say why.

    Args:
        method: "auto", a name in ``METHODS``, or a refiner.
        differentiable: whether derivatives of the forward model can be had.
        size: number of params of a sample.
        forward_mode: whether derivatives can be had in forward mode (not with ``jax.custom_vjp``).

    Raises:
        ValueError: for a name that is none, or a gradient method without gradients.
    """
    if isinstance(method, Refiner):
        if not differentiable and method.uses_derivatives:
            raise ValueError(_NO_DERIVATIVES.format(type(method).__name__))
        return Method(method, 500, f"{type(method).__name__}: as asked")
    local = False
    if isinstance(method, str) and method == "auto":
        name, why = _auto(differentiable, size, forward_mode)
        local = differentiable
    elif isinstance(method, str) and method in METHODS:
        name, why = method, "as asked"
    else:
        names = ", ".join(["auto", *METHODS])
        raise ValueError(f"method: expected one of {names}, or a Refiner, got {method!r}")
    if name in _GRADIENTS and not differentiable:
        raise ValueError(_NO_DERIVATIVES.format(name))
    return METHODS[name]()._replace(reason=f"{name}: {why}", local=local)


def beyond(local: Refiner, name: str) -> Method:
    """Return what finds a better basin, and then by a local method its bottom."""
    population = Evolution("cma_es", population_size=32, std=0.2)
    return Method(Sequential(population, local, steps=200), 400, f"cma_es and {name}")


def _auto(differentiable: bool, size: int, forward_mode: bool) -> tuple[str, str]:
    if not differentiable:
        return "cma_es", "chosen because the forward model gives no derivatives"
    params = "1 param" if size == 1 else f"{size} params"
    if not forward_mode:
        return (
            "lbfgs",
            f"chosen because the forward model has reverse-mode derivatives only ({params})",
        )
    if size > LARGEST:
        return "lbfgs", f"chosen because {params} are too many for normal equations"
    return "lm", f"Levenberg–Marquardt, chosen because the loss is a sum of squares ({params})"
