"""Learning rates that follow what happens: hypergradient descent, and less on a plateau."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

Direction = Callable[[], optax.GradientTransformation]


class HypergradientState(NamedTuple):
    """What `hypergradient` remembers.

    Attributes:
        rate: α.
        before: the direction u of the step before, like the params.
        inner: the state of the direction.
    """

    rate: Any
    before: PyTree
    inner: Any


def hypergradient(
    rate: Any,
    hyper_rate: Any,
    direction: Direction = optax.identity,
    multiplicative: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Return x ← x − α·u with a rate α that descends along its own gradient, −∇f(x)·u_before.

    α ← α + β·∇f·u_before (Baydin et al. 2018, arXiv:1703.04782, eq. 5; algorithms 4 to 6), or
    ``multiplicative`` α ← α·(1 + β·cos∠(∇f, u_before)) (eq. 8), which has no unit. The additive
    rate may turn negative where ``hyper_rate`` is too large, as in the paper.

    As a refiner: ``Gradient(hypergradient, {"rate": 1e-3, "hyper_rate": 1e-5})``.

    Args:
        rate: the first α.
        hyper_rate: β.
        direction: makes the optax transformation that gives u; ``optax.identity`` for gradient
            descent (SGD-HD), ``optax.scale_by_adam`` for Adam-HD, ``optax.trace`` with a decay for
            momentum.
        multiplicative: the second form.
    """
    inner = optax.with_extra_args_support(direction())

    def init(params: PyTree) -> HypergradientState:
        dtype = _precise(params)
        zeros = jax.tree.map(jnp.zeros_like, params)
        return HypergradientState(jnp.asarray(rate, dtype), zeros, inner.init(params))

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, HypergradientState]:
        dtype = state.rate.dtype
        along = optax.tree.vdot(
            optax.tree.cast(updates, dtype), optax.tree.cast(state.before, dtype)
        )
        if multiplicative:
            lengths = _length(updates) * _length(state.before)
            change = state.rate * along / jnp.where(lengths > 0, lengths, 1)
        else:
            change = along
        now = (state.rate + hyper_rate * change).astype(state.rate.dtype)
        u, memory = inner.update(updates, state.inner, params, **extra)
        steps = jax.tree.map(lambda d: (-now * d).astype(d.dtype), u)
        return steps, HypergradientState(now, u, memory)

    return optax.GradientTransformationExtraArgs(init, update)


def _precise(params: PyTree) -> Any:
    """Return float32 or better: what changes by little does not move in bfloat16."""
    return jnp.promote_types(optax.tree.dtype(params, "highest"), jnp.float32)


def _length(tree: PyTree) -> Any:
    """Return the norm, whose derivative at 0 is 0."""
    squared = optax.tree.norm(tree, squared=True)
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)


class PlateauState(NamedTuple):
    """What `plateau` remembers.

    Attributes:
        rate: now.
        best: least loss so far.
        idle: steps since then.
        cooling: steps for which the rate stays as it is.
        inner: the state of the direction.
    """

    rate: Any
    best: Any
    idle: Any
    cooling: Any
    inner: Any


def plateau(
    rate: Any,
    factor: Any = 0.5,
    patience: Any = 10,
    tolerance: Any = 1e-4,
    cooldown: Any = 0,
    least: Any = 0.0,
    *,
    direction: Direction = optax.scale_by_adam,
) -> optax.GradientTransformationExtraArgs:
    """Return x ← x − α·u with α cut by ``factor`` after ``patience`` steps without a better loss.

    The rule of ``optax.contrib.reduce_on_plateau``, as a whole optimizer, and with numbers that may
    be traced: ``Gradient(plateau, {"rate": 0.1, "factor": 0.3})`` does not compile anew for other
    floats (whole numbers are static there: say ``"patience": 10.0``).

    Args:
        rate: the first α.
        factor: by which it is multiplied, in (0, 1).
        patience: steps.
        tolerance: "better" is by more than this share of the best loss.
        cooldown: steps after a cut in which none are counted.
        least: the rate is not cut below this share of the first.
        direction: makes the optax transformation that gives u.

    Raises:
        ValueError: in ``update``, without ``value=``, the loss (`Gradient` gives it).
    """
    inner = optax.with_extra_args_support(direction())

    def init(params: PyTree) -> PlateauState:
        dtype = _precise(params)
        infinite, none = jnp.asarray(jnp.inf, dtype), jnp.int32(0)
        return PlateauState(jnp.asarray(rate, dtype), infinite, none, none, inner.init(params))

    def update(
        updates: PyTree, state: Any, params: PyTree = None, *, value: Any = None, **extra: Any
    ) -> tuple[PyTree, PlateauState]:
        if value is None:
            raise ValueError("value: expected the loss at the params, got None; pass value=loss")
        value = jnp.asarray(value, state.best.dtype)
        better = value < (1 - tolerance) * state.best
        idle = jnp.where(better, 0, state.idle + 1)
        cooling = state.cooling > 0
        cut = ~cooling & (idle >= patience)
        lower = jnp.maximum(state.rate * factor, jnp.asarray(rate) * least).astype(state.rate.dtype)
        after = state._replace(
            rate=jnp.where(cut, lower, state.rate),
            best=jnp.where(better, value, state.best),
            idle=jnp.where(cut | cooling, 0, idle).astype(jnp.int32),
            cooling=jnp.where(cut, cooldown, jnp.maximum(state.cooling - 1, 0)).astype(jnp.int32),
        )
        u, memory = inner.update(updates, state.inner, params, value=value, **extra)
        steps = jax.tree.map(lambda d: (-after.rate * d).astype(d.dtype), u)
        return steps, after._replace(inner=memory)

    return optax.GradientTransformationExtraArgs(init, update)
