"""Initializations that are learned, each an estimator: MAML and its kin."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh
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
    batch: int = 32,
    parts: int | None = None,
    clip: Any = None,
    segment: int = 0,
    mesh: Mesh | None = None,
) -> FullUnroll:
    """Return MAML: the gradient through all steps of any refiner (Finn et al. 2017, algorithm 1).

    Args:
        tasks: task distribution with a ``query``.
        refiner: takes the steps, say ``Gradient(optax.sgd, {"learning_rate": 0.01})``; Adam needs
            ``eps_root`` above 0, as its derivative at a gradient of 0 is infinite without.
        steps: of the refiner on each task.
        weights: of the query loss after each step (MAML++), as many as steps; None: only the loss
            after the last step counts.
        anneal: steps of a training in which the weights move to the last loss alone (MAML++); 0:
            they stay.
        batch: tasks of an update.
        parts: equal parts of the batch, each left out as a whole if it is not finite; None: each
            task by itself.
        clip: largest norm of a part's gradient; None: no limit.
        segment: steps that the reverse pass computes again, see `FullUnroll`.
        mesh: devices over which the batch is divided.

    Returns:
        The estimator.

    Raises:
        ValueError: names the argument that does not fit.
    """
    weights = _weights(weights)
    inner = Adaptation(tasks, refiner, weights, anneal=anneal, horizon=steps)
    return FullUnroll(inner, batch=batch, parts=parts, clip=clip, segment=segment, mesh=mesh)


def fomaml(
    tasks: Any,
    refiner: Refiner,
    *,
    steps: int = 1,
    weights: Any = None,
    anneal: int = 0,
    batch: int = 32,
    parts: int | None = None,
    clip: Any = None,
    segment: int = 0,
    mesh: Mesh | None = None,
) -> FullUnroll:
    """Return first-order MAML, which leaves the Hessians out (Finn et al. 2017, §5.2).

    Args:
        tasks: as for `maml`.
        refiner: as for `maml`, but one that steps by the gradient alone: Levenberg–Marquardt, which
            needs a residual, cannot.
        steps: as for `maml`.
        weights: as for `maml`.
        anneal: as for `maml`.
        batch: as for `maml`.
        parts: as for `maml`.
        clip: as for `maml`.
        segment: as for `maml`.
        mesh: as for `maml`.

    Returns:
        The estimator.
    """
    weights = _weights(weights)
    inner = Adaptation(tasks, refiner, weights, anneal=anneal, horizon=steps, second_order=False)
    return FullUnroll(inner, batch=batch, parts=parts, clip=clip, segment=segment, mesh=mesh)


def anil(
    tasks: Any,
    refiner: Refiner,
    *,
    head: str | tuple[str, ...] = ("head",),
    steps: int = 1,
    weights: Any = None,
    anneal: int = 0,
    batch: int = 32,
    parts: int | None = None,
    clip: Any = None,
    segment: int = 0,
    mesh: Mesh | None = None,
) -> FullUnroll:
    """Return ANIL: steps move the head alone (Raghu et al. 2020, arXiv:1909.09157, §4).

    Args:
        tasks: as for `maml`; their params are a mapping.
        refiner: as for `maml`.
        head: names of the entries of the params that the refiner moves.
        steps: as for `maml`.
        weights: as for `maml`.
        anneal: as for `maml`.
        batch: as for `maml`.
        parts: as for `maml`.
        clip: as for `maml`.
        segment: as for `maml`.
        mesh: as for `maml`.

    Returns:
        The estimator.
    """
    names = (head,) if isinstance(head, str) else tuple(head)
    weights = _weights(weights)
    inner = Adaptation(tasks, refiner, weights, anneal=anneal, adapts=names, horizon=steps)
    return FullUnroll(inner, batch=batch, parts=parts, clip=clip, segment=segment, mesh=mesh)


def meta_sgd(
    tasks: Any,
    *,
    rate: float = 0.01,
    steps: int = 1,
    per_step: bool = False,
    weights: Any = None,
    anneal: int = 0,
    batch: int = 32,
    parts: int | None = None,
    clip: Any = None,
    segment: int = 0,
    mesh: Mesh | None = None,
) -> FullUnroll:
    """Return Meta-SGD, which also learns a learning rate for each param (Li et al. 2017, alg. 1).

    Args:
        tasks: as for `maml`.
        rate: the first learning rate of all params.
        steps: as for `maml`.
        per_step: whether each step has rates of its own (MAML++).
        weights: as for `maml`.
        anneal: as for `maml`.
        batch: as for `maml`.
        parts: as for `maml`.
        clip: as for `maml`.
        segment: as for `maml`.
        mesh: as for `maml`.

    Returns:
        The estimator.
    """
    learned = FirstRates(rate, steps if per_step else 0)
    weights = _weights(weights)
    inner = Adaptation(tasks, weights=weights, anneal=anneal, learned=learned, horizon=steps)
    return FullUnroll(inner, batch=batch, parts=parts, clip=clip, segment=segment, mesh=mesh)


def reptile(
    tasks: Any,
    refiner: Refiner,
    *,
    steps: int = 5,
    batch: int = 32,
    parts: int | None = None,
    clip: Any = None,
    mesh: Mesh | None = None,
) -> Reptile:
    """Return Reptile: toward where the steps end (Nichol et al. 2018, algorithm 1).

    Args:
        tasks: as for `maml`.
        refiner: as for `maml`; its steps are not differentiated.
        steps: as for `maml`.
        batch: as for `maml`.
        parts: as for `maml`.
        clip: as for `maml`.
        mesh: as for `maml`.

    Returns:
        The estimator.
    """
    inner = Adaptation(tasks, refiner, horizon=steps)
    return Reptile(inner, batch=batch, parts=parts, clip=clip, mesh=mesh)


def imaml(
    tasks: Any,
    refiner: Refiner,
    *,
    strength: Any = 1.0,
    steps: int = 16,
    iterations: int = 5,
    batch: int = 32,
    parts: int | None = None,
    clip: Any = None,
    mesh: Mesh | None = None,
) -> Implicit:
    """Return iMAML: the gradient of where the steps end, not of the way (Rajeswaran et al. 2019).

    Args:
        tasks: as for `maml`.
        refiner: as for `fomaml`.
        strength: λ of the term ½λ‖x − x₀‖² that holds params to the start.
        steps: as for `maml`.
        iterations: of conjugate gradients.
        batch: as for `maml`.
        parts: as for `maml`.
        clip: as for `maml`.
        mesh: as for `maml`.

    Returns:
        The estimator.

    Raises:
        ValueError: for a strength that is not above 0.
    """
    check_above_zero("strength", strength)
    inner = Adaptation(tasks, refiner, proximal=strength, horizon=steps)
    return Implicit(inner, iterations=iterations, batch=batch, parts=parts, clip=clip, mesh=mesh)


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
