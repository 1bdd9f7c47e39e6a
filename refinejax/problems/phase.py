"""Fitting wrapped phase maps: views of a problem whose basins are wider than a fringe.

For any model of phase in turns (φ/2π) that is given pixel by pixel, `Pointwise(function, (u, v))`:

- `slope_problem`: slopes of the phase over blocks of pixels. They are free of the piston and of
  fringes: the basin of attraction is half a turn a pixel, not half a turn a window.
- `free_piston`: the phase itself, up to a constant that is one more unknown. The basin is half a
  turn across the window in all that is not constant.
- `held_piston`: that constant held at a value. To move it to a whole number puts the fit on a rung
  of the fringe ladder: the params that differ by a whole number of turns in the middle.

In turns the wrap is exact and costs a rounding: d − round(d). The residual is in radians.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, PyTree

from refinejax._core import Scalar
from refinejax.physics.slopes import Blocks, circle
from refinejax.problems.inverse import InverseProblem
from refinejax.problems.pointwise import Pointwise
from refinejax.problems.space import ParameterSpace

RADIAN = 1 / (2 * math.pi)  # [turns]


def turn_difference(prediction: Array, observation: Array) -> Array:
    """Return prediction − observation less the nearest whole number [turns].

    Args:
        prediction: phase [turns].
        observation: phase [turns], of the same shape.
    """
    difference = prediction - observation
    return difference - jnp.round(difference)


def turn_problem(
    model: Pointwise,
    turns: Float[Array, "... n n"],
    *,
    space: ParameterSpace | None = None,
    context: PyTree = None,
) -> InverseProblem:
    """Return the problem of fitting a phase map; its loss is the mean squared residual [rad²].

    Args:
        model: phase in turns at coordinates (u, v).
        turns: the map, wrapped or not, in turns; NaN is missing.
        space: as for `InverseProblem`.
        context: as for `InverseProblem`.
    """
    noise = np.asarray(RADIAN, turns.dtype)
    return InverseProblem(
        model, turns, noise=noise, difference=turn_difference, space=space, context=context
    )


class FreePiston(struct.PyTreeNode):
    """(params, piston) → phase + piston [turns]; the function of a `Pointwise`.

    Attributes:
        function: (params, [context,] u, v) → phase [turns].
    """

    function: Any

    def __call__(self, params: tuple[PyTree, Scalar], *rest: Any) -> Array:
        """Return the phase at coordinates."""
        inner, piston = params
        return self.function(inner, *rest) + piston


def free_piston(problem: InverseProblem) -> InverseProblem:
    """Return the problem with params (params, piston): a constant phase [turns] is unknown too.

    Args:
        problem: with a `Pointwise` model of phase in turns.
    """
    space = problem.space
    if space is not None:
        dtype = jnp.result_type(*jax.tree.leaves(space.lower))
        low, high = (jnp.asarray(end, dtype) for end in (-jnp.inf, jnp.inf))
        space = ParameterSpace((), (space.lower, low), (space.upper, high))
    forward = problem.forward.replace(function=FreePiston(problem.forward.function))
    return problem.replace(forward=forward, space=space)


def held_piston(problem: InverseProblem, piston: Any) -> InverseProblem:
    """Return the problem with a constant phase [turns] added to the model: one for each sample.

    Args:
        problem: with a phase map in turns as observation.
        piston: a number, or one for each sample [turns].
    """
    shift = jnp.reshape(jnp.asarray(piston), (*jnp.shape(piston), 1, 1))
    return problem.replace(observation=problem.observation - shift)


def piston(problem: InverseProblem, params: PyTree) -> Scalar:
    """Return the constant phase by which the observation leads the model, on average [turns].

    The mean of the residuals on the circle, in (−½, ½].

    Args:
        problem: of one sample, with a residual in radians.
        params: where.
    """
    seen = ~jnp.isnan(problem.observation)
    sine, cosine = circle(problem.residual(params) * RADIAN)
    sine, cosine = (jnp.sum(jnp.where(seen, part, 0)) for part in (sine, cosine))
    return -jnp.arctan2(sine, cosine) * RADIAN


class Slopes(struct.PyTreeNode):
    """Phase model → its mean slopes over blocks of pixels [turns a pixel].

    Each is the difference of the phase across a block, over its length: exact, also where the phase
    is curved.

    Attributes:
        function: (params, [context,] u, v) → phase [turns].
        pixels: along each side of a block; static.
    """

    function: Any
    pixels: int = struct.field(pytree_node=False)

    def __call__(self, *args: Any) -> Array:
        """Return slopes at middles (u, v) of blocks that reach (±du, ±dv) from there."""
        *rest, u, v, du, dv = args
        ahead = self.function(*rest, u + du, v + dv)
        return (ahead - self.function(*rest, u - du, v - dv)) / self.pixels


def slope_problem(
    model: Pointwise,
    slopes: tuple[Float[Array, "m m"], Float[Array, "m m"]],
    blocks: Blocks,
    *,
    space: ParameterSpace | None = None,
    context: PyTree = None,
) -> InverseProblem:
    """Return the problem of fitting the slopes of a phase map, wrapped to half a turn a pixel.

    Args:
        model: phase in turns at coordinates (u, v), each from −½ to ½ over the window.
        slopes: along u and v [turns a pixel]; NaN is missing.
        blocks: where.
        space: as for `InverseProblem`.
        context: as for `InverseProblem`.
    """
    lines = [blocks.middles(differences=kind) for kind in (True, False)]
    along, beside = np.meshgrid(*lines)  # differences run along the last axis here
    reach, none = np.full(along.shape, blocks.span / 2), np.zeros(along.shape)
    sides = (along, beside.T), (beside, along.T), (reach, none), (none, reach)
    # In one flat array: sums over the last axis of a small image are not vectorized.
    grid = [np.concatenate([part.ravel() for part in parts]) for parts in sides]
    coordinates = tuple(jnp.asarray(part, slopes[0].dtype) for part in grid)
    forward = Pointwise(Slopes(model.function, blocks.width), coordinates, model.reorder)
    observation = jnp.concatenate([part.ravel() for part in slopes])
    return InverseProblem(
        forward, observation, difference=turn_difference, space=space, context=context
    )
