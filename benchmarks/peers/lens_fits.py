"""Fit the lens of `benchmarks.lens` by `LevenbergMarquardt` under the batch engine, and by peers.

A peer comes in several settings, and each with a few numbers (tolerances; for Adam rates), of which
the best is found on maps of their own. All work in float32, peers in units of the ranges. Those in
JAX are jitted, and run by ``lax.map`` one by one or in vmapped groups. theseus is left out: it
cannot be installed from PyPI alone.
"""

import functools
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np
from jax import Array

from benchmarks.lens import Maps, image, turns_at
from benchmarks.peers.jax_fits import (
    STEPS,
    Candidate,
    grid,
    image_residual,
    jaxopt,
    jitted,
    optimistix,
    raw_image,
    wrapped,
)
from benchmarks.peers.numpy_fits import NumpyLens, scipy_lm
from refinejax import (
    InverseProblem,
    LevenbergMarquardt,
    Pointwise,
    Stop,
    run_batch,
    run_until,
    wrapped_difference,
)
from refinejax.problems.phase import turn_problem

OURS = "refinejax `run_batch`"
SINGLE = "refinejax `run_until`, by `lax.map`"


def pointwise() -> Iterator[Candidate]:
    """Yield peers with the model as a function of coordinates, the residual in turns."""
    yield from _ours(_turn_problem, "turns")
    yield from optimistix(wrapped, "wrapped", all_settings=True)
    yield from jaxopt(wrapped, "wrapped", all_settings=True)
    for dtype in ("float32", "float64"):
        settings = {"model": f"NumPy {dtype}", "jac": "analytic", "x_scale": "ranges"}
        lens = NumpyLens(dtype)
        solve = functools.partial(scipy_lm, lens.residual, lens.jacobian, data="turns")
        yield Candidate("SciPy `lm`", settings, solve, share=1 / 16)
    if find_spec("torch"):
        from benchmarks.peers import torch_lens

        settings = {"steps": torch_lens.STEPS, "residual": "cos and sin"}
        rates = (1e-2, 3e-3, 1e-3)
        yield Candidate("PyTorch Adam", settings, torch_lens.adam, rates, share=1 / 128)


def images() -> Iterator[Candidate]:
    """Yield peers with the model as an image, written without tuning."""
    yield from _ours(_image_problem, "image")
    yield from optimistix(image_residual, "image", all_settings=False)
    yield from jaxopt(image_residual, "image", all_settings=False)
    value, slope = jax.jit(raw_image), jax.jit(jax.jacfwd(raw_image))
    settings = {"model": "JAX, jitted", "jac": "jacfwd", "x_scale": "ranges"}
    solve = functools.partial(scipy_lm, value, slope, data="radians")
    yield Candidate("SciPy `lm`", settings, solve, share=1 / 16)


def _turn_problem(turns: Any) -> InverseProblem:
    return turn_problem(Pointwise(turns_at, grid(), reorder=True), turns)


def _image_problem(radians: Any) -> InverseProblem:
    return InverseProblem(image, radians, difference=wrapped_difference)


def _ours(problem: Any, residual: str) -> Iterator[Candidate]:
    """`LevenbergMarquardt` under the batch engine, and one sample after the other."""

    def batch(maps: Maps, tolerance: float) -> np.ndarray:
        data = maps.radians if residual == "image" else maps.turns
        stop = Stop(loss=tolerance)
        return run_batch(
            LevenbergMarquardt(), problem(data), maps.starts, max_steps=STEPS, stop=stop
        ).params

    def single(data: Array, start: Array, tolerance: Any) -> Array:
        stop = Stop(loss=tolerance)
        return run_until(
            LevenbergMarquardt(), problem(data), start, max_steps=STEPS, stop=stop
        ).params

    settings = {"residual": residual}
    yield Candidate(OURS, {**settings, "lanes": "default"}, batch, share=1.0)
    yield jitted(SINGLE, settings, single, 1)
