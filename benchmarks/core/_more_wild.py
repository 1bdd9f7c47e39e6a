"""The 53 least-squares problems of Moré and Wild, with their starts.

Moré and Wild 2009, SIAM J. Optim. 20, 172 (Benchmarking derivative-free optimization algorithms):
22 residual functions (`_residuals`) at several sizes, from the usual start or ten times that.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.core._residuals import (
    bard,
    bdqrtic,
    box,
    brown_almost_linear,
    brown_dennis,
    chebyquad,
    cube,
    freudenstein_roth,
    heart_eight,
    helical_valley,
    jennrich_sampson,
    kowalik_osborne,
    linear_full_rank,
    linear_rank_one,
    linear_rank_one_zeros,
    mancino,
    meyer,
    osborne_one,
    osborne_two,
    powell_singular,
    rosenbrock,
    watson,
)

# Sums of squares at the minimum: MGH, and optimagic's list. All others are 0.
LEAST = {
    "linear_full_rank 9": 36,
    "linear_rank_one 7": 8.38028,
    "linear_rank_one_zeros 7": 9.88060,
    "freudenstein_roth 2": 48.9843,
    "bard 3": 8.21488e-3,
    "kowalik_osborne 4": 3.07506e-4,
    "meyer 3": 87.9459,
    "watson 6": 2.28767e-3,
    "watson 9": 1.39976e-6,
    "watson 12": 4.72238e-10,
    "jennrich_sampson 2": 124.362,
    "brown_dennis 4": 85822.2,
    "chebyquad 8": 3.51687e-3,
    "chebyquad 10": 4.77271e-3,
    "chebyquad 11": 2.79976e-3,
    "osborne_one 5": 5.46489e-5,
    "osborne_two 11": 4.01377e-2,
    "bdqrtic 8": 10.2390,
    "bdqrtic 10": 18.2812,
    "bdqrtic 11": 22.2606,
    "bdqrtic 12": 26.2728,
}


class Problem(NamedTuple):
    """Residuals and where to start.

    Attributes:
        name: of the function, with the number of params and "×10" for the far start.
        residual: params of shape (n,) → residuals of shape (m,).
        start: shape (n,).
        least: the lowest sum of squares in the literature, to six digits; not always the global
            minimum.
    """

    name: str
    residual: Callable[[Array], Array]
    start: np.ndarray
    least: float


def _mancino_start(n: int) -> np.ndarray:
    i = np.arange(1, n + 1)
    root = np.sqrt(i[:, None] / i)
    angle = np.log(root)
    sums = np.sum(root * (np.sin(angle) ** 5 + np.cos(angle) ** 5), axis=1)
    return -8.710996e-4 * ((i - 50.0) ** 3 + sums)


def problems() -> list[Problem]:
    """Return all 53, in the order of the paper's list."""
    ones = np.ones
    table: list[tuple[Callable[..., Array], list[np.ndarray | list[float]], str]] = [
        (partial(linear_full_rank, m=45), [ones(9)], "both"),
        (partial(linear_rank_one, m=35), [ones(7)], "both"),
        (partial(linear_rank_one_zeros, m=35), [ones(7)], "both"),
        (rosenbrock, [[-1.2, 1]], "both"),
        (helical_valley, [[-1, 0, 0]], "both"),
        (powell_singular, [[3, -1, 0, 1]], "both"),
        (freudenstein_roth, [[0.5, -2]], "both"),
        (bard, [ones(3)], "both"),
        (kowalik_osborne, [[0.25, 0.39, 0.415, 0.39]], "near"),
        (meyer, [[0.02, 4000, 250]], "near"),
        (watson, [0.5 * ones(n) for n in (6, 9, 12)], "both"),
        (box, [[0, 10, 20]], "near"),
        (jennrich_sampson, [[0.3, 0.4]], "near"),
        (brown_dennis, [[25, 5, -5, -1]], "both"),
        (chebyquad, [np.arange(1, n + 1) / (n + 1) for n in range(6, 12)], "near"),
        (brown_almost_linear, [0.5 * ones(10)], "near"),
        (osborne_one, [[0.5, 1.5, 1, 0.01, 0.02]], "near"),
        (osborne_two, [[1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5]], "both"),
        (bdqrtic, [ones(n) for n in (8, 10, 11, 12)], "near"),
        (cube, [0.5 * ones(n) for n in (5, 6, 8)], "near"),
        (mancino, [_mancino_start(5)], "both"),
        (mancino, [_mancino_start(n) for n in (8, 10)], "near"),
        (mancino, [_mancino_start(12)], "both"),
        (heart_eight, [[-0.3, -0.39, 0.3, -0.344, -1.2, 2.69, 1.59, -1.5]], "both"),
    ]
    return [
        _problem(function, np.asarray(start, float), factor)
        for function, starts, which in table
        for start in starts
        for factor in ((1, 10) if which == "both" else (1,))
    ]


def _problem(function: Callable[..., Array], start: np.ndarray, factor: int) -> Problem:
    plain = function.func if isinstance(function, partial) else function
    name = f"{plain.__name__} {len(start)}"
    far = " ×10" if factor == 10 else ""
    return Problem(name + far, function, factor * start, LEAST.get(name, 0.0))


def sum_of_squares(problem: Problem, params: np.ndarray) -> float:
    """Return Σr² in float64; infinite where it is NaN."""
    with jax.enable_x64(True), np.errstate(all="ignore"):
        residual = np.asarray(problem.residual(jnp.asarray(params, "float64")))
    total = float(np.sum(residual**2))
    return total if np.isfinite(total) else np.inf
