"""Coarser grids of problems that are given pixel by pixel."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from refinejax.problems.inverse import InverseProblem
from refinejax.problems.pointwise import Pointwise


def thinned(problem: InverseProblem, pixels: int) -> InverseProblem:
    """Return the problem on every s-th pixel along each side, with at least ``pixels`` left.

    Nothing is averaged: the loss is of fewer pixels, an estimate of the whole at a fraction of
    its cost (with s beyond the finest fringe it may have minima of its own). It ranks starts,
    ``Restarts(..., coarse=lambda problem: thinned(problem, 32))``, and is the first of two grids::

        rough = run_batch(refiner, thinned(problem, 32), start, max_steps=100)
        result = run_batch(LevenbergMarquardt(), problem, rough.params, max_steps=100)

    Two calls and not one chain, as grids of other shapes are other programs. To widen the basin,
    and not only to save time, let ``refiner`` be a `Continuation` whose window or scale grows.

    Args:
        problem: with a `Pointwise` model, whose coordinates span the last axes of the observation;
            of one sample or of many. Noise is a number or broadcasts against the observation.
        pixels: along each side.

    Raises:
        ValueError: if the model is not pointwise, or ``pixels`` is below 1.
    """
    forward = getattr(problem, "forward", None)
    if not isinstance(forward, Pointwise):
        raise ValueError(
            "problem: expected an InverseProblem with a Pointwise forward model, got "
            f"{type(problem).__name__} with {type(forward).__name__}; of a wrapped problem, thin "
            "the one within"
        )
    if pixels < 1:
        raise ValueError(f"pixels: expected 1 or more, got {pixels}")
    grid = jnp.broadcast_shapes(*[jnp.shape(x) for x in jax.tree.leaves(forward.coordinates)])
    sides = [(size, _every(max(size // pixels, 1), size)) for size in grid]

    def thin(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: _thin(leaf, sides), tree)

    coarse = forward.replace(coordinates=thin(forward.coordinates))
    return problem.replace(
        forward=coarse, observation=thin(problem.observation), noise=thin(problem.noise)
    )


def _every(stride: int, size: int) -> slice:
    """Return the middle ones of all pixels that are ``stride`` apart."""
    return slice((size - 1) % stride // 2, None, stride)


def _thin(array: Any, sides: list[tuple[int, slice]]) -> Any:
    """Slice the trailing axes that are the grid's; leave those along which it broadcasts."""
    shape = jnp.shape(array)
    sides = sides[-len(shape) :] if shape else []
    axes = zip(shape[len(shape) - len(sides) :], sides, strict=True)
    cuts = [some if length == size else slice(None) for length, (size, some) in axes]
    return array[(..., *cuts)] if cuts else array
