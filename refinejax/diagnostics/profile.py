"""Intervals by profile likelihood: one param is moved while the others are refitted."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from refinejax._core import Problem, Scalar, bounds_of
from refinejax._run import run_until
from refinejax._trees import Bounds, broadcast_like
from refinejax.diagnostics.covariance import covariance
from refinejax.diagnostics.quantiles import t_quantile
from refinejax.problems import Robust
from refinejax.problems.normal import Normal, normal_equations, residual_of
from refinejax.refiners import LevenbergMarquardt

_DOUBLINGS, _HALVINGS = 8, 18


class Pinned(Problem):
    """A problem as a function of its flat params without one, which is held at a value.

    Attributes:
        problem: of one sample.
        params: params with the structure and dtype that the problem takes.
        index: which of the flat params is held.
        value: its value.
    """

    problem: Any
    params: PyTree
    index: Any
    value: Any

    def others(self) -> Array:
        """Return the numbers of the free params, shape (n − 1,)."""
        number = jnp.arange(ravel_pytree(self.params)[0].size - 1)
        return number + (number >= self.index)

    def full(self, rest: Array) -> PyTree:
        """Return all params.

        Args:
            rest: the free params, shape (n − 1,).
        """
        flat, unravel = ravel_pytree(self.params)
        return unravel(flat.at[self.others()].set(rest).at[self.index].set(self.value))

    def __call__(self, rest: Array) -> Scalar:
        """Return the loss."""
        return self.problem(self.full(rest))

    def residual(self, rest: Array) -> PyTree:
        """Return the residual of the problem.

        Args:
            rest: the free params, shape (n − 1,).
        """
        return residual_of(self.problem)(self.full(rest))

    def normal(self, rest: Array, basis: Array | None = None) -> Normal:
        """Return the quadratic model of the loss in the free params.

        Args:
            rest: the free params, shape (n − 1,).
            basis: T, for the model as a function of z in rest + T·z.
        """
        model = normal_equations(self.problem, self.full(rest))
        free = self.others()
        model = model.replace(gradient=model.gradient[free], matrix=model.matrix[free][:, free])
        return model if basis is None else model.along(basis)

    @property
    def bounds(self) -> Bounds | None:
        """The bounds of the free params."""
        found = _flat_bounds(self.problem, self.params)
        return None if found is None else (found[0][self.others()], found[1][self.others()])


def _flat_bounds(problem: Any, params: PyTree) -> tuple[Array, Array] | None:
    bounds = bounds_of(problem)
    if bounds is None:
        return None

    def flat(bound: Any) -> Array:
        whole = jax.tree.map(
            lambda p, b: jnp.broadcast_to(jnp.asarray(b, p.dtype), jnp.shape(p)),
            params,
            broadcast_like(bound, params),
        )
        return ravel_pytree(whole)[0]

    return flat(bounds[0]), flat(bounds[1])


def profile_intervals(
    problem: Any,
    params: PyTree,
    *,
    level: float = 0.95,
    noise: str = "white",
    max_steps: int = 50,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of profile-likelihood intervals of one fit.

    S(v) is the least Σr² (and prior) over all params but one, which is held at v. The interval
    contains the v with

        (S(v) − S_min)/s² ≤ q²,   q the quantile of Student's t

    or, for known noise, of the normal distribution with s = 1 (Bates and Watts 1988, *Nonlinear
    Regression Analysis*, section 6.1.2). Unlike params ± q·std it follows the curvature of the
    model, and does not depend on the parametrization. Each end is found by doubling, then
    bisection. It is the bound if that comes first, ±∞ if the loss does not rise enough within 256
    times the half-width of the linearization, and NaN if the linearization has no standard error.

    Args:
        problem: of one sample.
        params: its fit, at the optimum.
        level: the probability.
        noise: "white" or "known".
        max_steps: of `LevenbergMarquardt` for each value.

    Returns:
        Lower and upper ends, each (n,).

    Raises:
        ValueError: for a level that is not between 0 and 1, another ``noise``, a robust loss, or a
            problem without a residual.
    """
    if noise not in ("white", "known"):
        raise ValueError(f"noise: a profile needs 'white' or 'known', got {noise!r}")
    if isinstance(problem, Robust):
        raise ValueError("problem: the profile of a robust loss is no likelihood")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a probability between 0 and 1, got {level}")
    batch = jax.tree.map(lambda x: np.asarray(x)[None], (problem, params))
    axes = jax.tree.map(lambda _: 0, problem)
    found = covariance(*batch, noise=noise, axes=axes).squeeze()
    flat, n = found.params, len(found.names)
    reach = t_quantile((1 + level) / 2, found.freedom if noise == "white" else np.asarray(np.inf))
    rise = float(reach) ** 2 * float(found.variance) / problem.weight()
    most = problem(params) + rise
    side, index = np.repeat([-1.0, 1.0], n), np.tile(np.arange(n), 2)
    std = found.std[index]
    # how the others follow, by linearization; undetermined ones stay
    path = np.nan_to_num(found.matrix[index] / std[:, None] ** 2)

    def inside(distance: np.ndarray) -> np.ndarray:
        step = np.nan_to_num(side * distance)
        start, value = flat + step[:, None] * path, flat[index] + step
        losses = _losses(problem, params, index, start, value, max_steps)
        return np.asarray(losses <= most)

    limit = _to_bounds(problem, params, flat)[(side > 0).astype(int), index]
    distance = _search(inside, float(reach) * std, limit)
    ends = np.where(np.isnan(std), np.nan, flat[index] + side * distance)
    return ends[:n], ends[n:]


@functools.partial(jax.jit, static_argnames="max_steps")
def _losses(
    problem: Any, params: Any, index: Any, start: Any, value: Any, max_steps: int
) -> Float[Array, " k"]:
    """Return the least loss for each held param, each refined from its own start."""
    dtype = ravel_pytree(params)[0].dtype

    def one(index: Array, start: Array, value: Array) -> Scalar:
        pinned = Pinned(problem, params, index, value.astype(dtype))
        rest = start.astype(dtype)[pinned.others()]
        if not rest.size:
            return pinned(rest)
        return run_until(LevenbergMarquardt(), pinned, rest, max_steps=max_steps).loss

    return jax.vmap(one)(jnp.asarray(index), jnp.asarray(start), jnp.asarray(value))


def _to_bounds(problem: Any, params: PyTree, flat: np.ndarray) -> np.ndarray:
    """Return the distances to the lower and the upper bound, (2, n)."""
    bounds = _flat_bounds(problem, params)
    if bounds is None:
        return np.full((2, len(flat)), np.inf)
    lower, upper = (np.asarray(bound, float) for bound in bounds)
    return np.stack([flat - lower, upper - flat])


def _search(inside: Any, first: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Return the distances at which ``inside`` ends: at most ``limit``, ∞ where it does not end."""
    low, high = np.zeros_like(first), np.minimum(first, limit)
    for _ in range(_DOUBLINGS):
        within = inside(high)
        low = np.where(within, high, low)
        grow = within & (high < limit)
        if not grow.any():
            break
        high = np.where(grow, np.minimum(2 * high, limit), high)
    held = inside(high)
    never = np.where(high >= limit, limit, np.inf)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        within = inside(middle)
        low, high = np.where(within, middle, low), np.where(within, high, middle)
    return np.where(held, never, (low + high) / 2)
