"""A problem in scaled params: each divided by the size of a step in it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from refinejax._core import Coordinates, Problem, Scalar, as_problem
from refinejax._trees import Bounds
from refinejax.problems.normal import Normal, Product
from refinejax.problems.space import ParameterSpace
from refinejax.problems.units import curvature_in_units, normal_in_units


class ProblemInUnits(Problem):
    """A problem as a function of params divided by a scale.

    Attributes:
        problem: a function of the params.
        space: its bounds; or None.
        scale: the unit of each param, powers of two, like the params.
    """

    problem: Problem
    space: ParameterSpace | None
    scale: PyTree

    def __call__(self, scaled: PyTree) -> Scalar:
        """Return the loss of the problem."""
        return self.problem(self.decode(scaled))

    def residual(self, scaled: PyTree) -> PyTree:
        """Return the residual of the problem."""
        return self.problem.residual(self.decode(scaled))

    def normal(self, scaled: PyTree, basis: Array | None = None) -> Normal:
        """Return the quadratic model in scaled coordinates; with ``basis`` as a function of z."""
        return normal_in_units(self.problem, self.decode(scaled), self._factor(scaled), basis)

    def curvature(self, scaled: PyTree) -> Product | None:
        """Return products with M in scaled coordinates; None where the problem has none."""
        return curvature_in_units(self.problem, self.decode(scaled), self._factor(scaled))

    def map_problem(self, change: Callable[[Any], Any]) -> "ProblemInUnits":
        """Return ``change(problem)`` in the same coordinates and bounds."""
        return self.replace(problem=as_problem(change(self.problem)))

    def encode(self, params: PyTree) -> PyTree:
        """Return params, moved onto the bounds, divided by the scale.

        Args:
            params: of one sample.
        """
        inside = params if self.space is None else self.space.clip(params)
        return jax.tree.map(lambda p, s: p / jnp.asarray(s, p.dtype), inside, self.scale)

    def decode(self, scaled: PyTree) -> PyTree:
        """Return the params: the inverse of `encode`, exactly.

        Args:
            scaled: params divided by the scale.
        """
        return jax.tree.map(lambda u, s: u * jnp.asarray(s, u.dtype), scaled, self.scale)

    def _factor(self, scaled: PyTree) -> Array:
        scale = jax.tree.map(lambda u, s: jnp.broadcast_to(s, u.shape), scaled, self.scale)
        return ravel_pytree(scale)[0]

    @property
    def bounds(self) -> Bounds | None:
        """The bounds in scaled coordinates."""
        if self.space is None:
            return None
        lower, upper = (jax.tree.map(jnp.divide, b, self.scale) for b in self.space.bounds)
        return lower, upper


def scaled_coordinates(
    problem: Problem, space: ParameterSpace | None, scale: PyTree = None
) -> Coordinates:
    """Return the coordinates of ``problem`` divided by a scale; unchanged without one.

    Args:
        problem: a function of the params.
        space: with bounds, and the scale to use where no other is given; or None.
        scale: powers of two, like the params; or None.
    """
    if space is not None and scale is None:
        scale = space.scale
    if scale is None:
        return Coordinates(problem, _same, _same)
    scaled = ProblemInUnits(problem, space, scale)
    return Coordinates(scaled, scaled.encode, scaled.decode)


def _same(params: Any) -> Any:
    return params
