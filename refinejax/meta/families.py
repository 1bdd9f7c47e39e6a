"""Initializations that are learned, each an estimator: MAML and its kin."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from refinejax._checks import check_above_zero
from refinejax._core import Refiner
from refinejax.learned.rates import learned_rates
from refinejax.meta.adaptation import Adaptation
from refinejax.meta.full import FullUnroll
from refinejax.meta.implicit import Implicit
from refinejax.meta.reptile import Reptile
from refinejax.refiners import Gradient


def maml(
    tasks: Any,
    refiner: Refiner,
    *,
    steps: int = 1,
    weights: Any = None,
    anneal: int = 0,
    **options: Any,
) -> FullUnroll:
    """Return MAML: the gradient through all steps of any refiner (Finn et al. 2017, algorithm 1).

    Args:
        tasks: distribution of tasks with a ``query``.
        refiner: takes the steps, say ``Gradient(optax.sgd, {"learning_rate": 0.01})``; Adam needs
            ``eps_root`` above 0, as its derivative at a gradient of 0 is infinite without.
        steps: how many.
        weights: of the query loss after each step (MAML++), as many as steps; None: only the last
            counts.
        anneal: steps of a training in which the weights move to the last loss alone (MAML++); 0:
            they stay.
        options: of `FullUnroll`: batch, parts, clip, segment, mesh.
    """
    weights = _weights(weights)
    inner = Adaptation(tasks, refiner, weights, anneal=anneal, horizon=steps)
    return FullUnroll(inner, **options)


def fomaml(tasks: Any, refiner: Refiner, **options: Any) -> FullUnroll:
    """Return first-order MAML: Hessians are left out (Finn et al. 2017, §5.2).

    Arguments are those of `maml`, but for the refiner: one that needs a residual, as
    Levenberg–Marquardt, cannot take its steps, which are by the gradient alone.
    """
    whole = maml(tasks, refiner, **options)
    return whole.replace(inner=whole.inner.replace(second_order=False))


def anil(
    tasks: Any, refiner: Refiner, *, head: str | tuple[str, ...] = ("head",), **options: Any
) -> FullUnroll:
    """Return ANIL: steps move the head alone (Raghu et al. 2020, arXiv:1909.09157, §4).

    Arguments are those of `maml`, and ``head``: names of the entries of the params that are moved.
    """
    names = (head,) if isinstance(head, str) else tuple(head)
    whole = maml(tasks, refiner, **options)
    return whole.replace(inner=whole.inner.replace(adapts=names))


def meta_sgd(
    tasks: Any,
    *,
    rate: float = 0.01,
    steps: int = 1,
    per_step: bool = False,
    weights: Any = None,
    anneal: int = 0,
    **options: Any,
) -> FullUnroll:
    """Return Meta-SGD: a learning rate for each param is learned too (Li et al. 2017, algorithm 1).

    Arguments are those of `maml`, and ``rate``, the first learning rate; ``per_step``: each step
    has rates of its own (MAML++).
    """
    learned = FirstRates(rate, steps if per_step else 0)
    weights = _weights(weights)
    inner = Adaptation(tasks, weights=weights, anneal=anneal, learned=learned, horizon=steps)
    return FullUnroll(inner, **options)


def reptile(tasks: Any, refiner: Refiner, *, steps: int = 5, **options: Any) -> Reptile:
    """Return Reptile: toward where the steps end (Nichol et al. 2018, algorithm 1)."""
    return Reptile(Adaptation(tasks, refiner, horizon=steps), **options)


def imaml(
    tasks: Any,
    refiner: Refiner,
    *,
    strength: Any = 1.0,
    steps: int = 16,
    iterations: int = 5,
    **options: Any,
) -> Implicit:
    """Return iMAML: the gradient of where the steps end, not of the way (Rajeswaran et al. 2019).

    Arguments are those of `fomaml`, and ``strength``: λ, by which params are held to the start;
    ``iterations``: of conjugate gradients.
    """
    check_above_zero("strength", strength)
    inner = Adaptation(tasks, refiner, proximal=strength, horizon=steps)
    return Implicit(inner, iterations=iterations, **options)


def _weights(weights: Any) -> Any:
    """Return the weights of losses as an array.

    Raises:
        ValueError: if one is negative, or none is above 0.
    """
    if weights is None or isinstance(weights, Tracer):
        return weights
    array = np.asarray(weights, float)
    if not (np.all(array >= 0) and 0 < array.sum() < np.inf):
        raise ValueError(f"weights: expected numbers of 0 or more, one above, got {weights!r}")
    return jnp.asarray(array, float)


@dataclasses.dataclass(frozen=True)
class FirstRates:
    """Makes a refiner whose learning rates are the same for all params, but can be learned.

    Attributes:
        rate: the first learning rate.
        steps: that have rates of their own; 0: all share them.
    """

    rate: float
    steps: int = 0

    def __call__(self, params: PyTree) -> Gradient:
        """Return the refiner for such params."""
        lead = (self.steps,) if self.steps else ()
        rates = jax.tree.map(lambda x: jnp.full(lead + x.shape, self.rate, x.dtype), params)
        return Gradient(learned_rates, {"rates": rates, "per_step": self.steps > 0})
