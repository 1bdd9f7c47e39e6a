"""The problem of fitting a lens to phase maps exactly, and functions of many maps at once."""

import functools
import operator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from refinejax._chunks import by_chunks
from refinejax._compiler import REORDER
from refinejax.physics import metalens
from refinejax.problems import InverseProblem, ParameterSpace, Pointwise
from refinejax.problems.phase import RADIAN, piston, turn_problem


@functools.cache
def lens_model(size: int, dtype: Any) -> Pointwise:
    """Return the phase of a lens [turns]: (params, wavelength) → (n, n).

    Args:
        size: N, pixels along a side.
        dtype: of the maps.
    """
    u, v = metalens.pixel_grid(size, dtype)
    return Pointwise(metalens.turns_at, (u[:1], v[:, :1]), reorder=True)


def exact_problem(
    maps: Any, wavelength: Any, space: ParameterSpace | None = None
) -> InverseProblem:
    """Return the problem of B maps [rad] with known wavelengths [µm].

    Args:
        maps: shape (B, N, N) [rad].
        wavelength: shape (B,) [µm].
        space: bounds of the lenses, or None.
    """
    turns = maps * np.asarray(RADIAN, maps.dtype)
    return turn_problem(
        lens_model(maps.shape[-1], maps.dtype), turns, space=space, context=wavelength
    )


def take(problem: InverseProblem, rows: slice | np.ndarray) -> InverseProblem:
    """Return the problem of some samples; of all in their order, without a copy.

    Args:
        problem: of maps (see `exact_problem`).
        rows: which maps.
    """
    count = len(problem.context)
    if not isinstance(rows, slice) and len(rows) == count and np.all(rows == np.arange(count)):
        rows = slice(None)
    return problem.replace(observation=problem.observation[rows], context=problem.context[rows])


def losses(problem: InverseProblem, lenses: Any) -> np.ndarray:
    """Return the loss of each map, shape (B,).

    Args:
        problem: of maps (see `exact_problem`).
        lenses: shape (B, 4) [µm].
    """
    return _of_each(_losses, problem, lenses)


def pistons(problem: InverseProblem, lenses: np.ndarray) -> np.ndarray:
    """Return the piston of each map, shape (B,).

    Args:
        problem: of maps (see `exact_problem`).
        lenses: shape (B, 4) [µm].
    """
    return _of_each(_pistons, problem, lenses)


def _of_each(function: Any, problem: InverseProblem, lenses: Any) -> np.ndarray:
    return by_chunks(
        lambda rows: function(take(problem, rows), jax.tree.map(operator.itemgetter(rows), lenses)),
        len(jax.tree.leaves(lenses)[0]),
    )


@functools.partial(jax.jit, compiler_options=REORDER)
def _losses(problem: InverseProblem, lenses: Array) -> Array:
    return _each(problem, lambda one, lens: one(lens), lenses)


@functools.partial(jax.jit, compiler_options=REORDER)
def _pistons(problem: InverseProblem, lenses: Array) -> Array:
    return _each(problem, piston, lenses)


def _each(problem: InverseProblem, function: Any, lenses: Array) -> Array:
    def one(turns: Array, wavelength: Array, lens: Array) -> Array:
        return function(problem.replace(observation=turns, context=wavelength), lens)

    return jax.vmap(one)(problem.observation, problem.context, lenses)
