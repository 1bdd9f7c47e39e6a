"""The short way through the cascade, for maps that hold hardly any noise.

Where the slopes of a lens are about those of the map, a Gauss–Newton step with the piston unknown,
in float64, tells what the best lens leaves. If that is no more than the rounding of float32, the
rungs can be ranked at once, and the best one is climbed.
"""

from typing import NamedTuple

import numpy as np

from refinejax.apps.metalens.cascade.climb import CLEAN, bounds, climb
from refinejax.apps.metalens.cascade.rungs import Ladder, choose, ladder
from refinejax.apps.metalens.cascade.slopes import SlopeFit, fit_slopes
from refinejax.apps.metalens.problem import pistons, take
from refinejax.problems import InverseProblem, ParameterSpace, thinned

LONGEST = 5  # steps of a fit, at most
_SLOPE_STEPS = 2
_FEW = 32  # pixels along a side, which tell the piston well enough to unwrap by
_GLIDES = 3  # parts of the way to a rung, where the way is curved


class Leap(NamedTuple):
    """The outcome for B maps.

    Attributes:
        solved: which of them were, (B,).
        lenses: (B, 4) [µm].
        loss: there, (B,) [rad²]; infinite where the map is not solved.
        margin: of the rung, see `apps.metalens.cascade.rungs.Choice`, (B,).
        steps: taken, (B,).
        by_slopes: lenses that fit the slopes best, (B, 4) [µm].
    """

    solved: np.ndarray
    lenses: np.ndarray
    loss: np.ndarray
    margin: np.ndarray
    steps: np.ndarray
    by_slopes: np.ndarray


def leap(
    problem: InverseProblem,
    space: ParameterSpace,
    start: np.ndarray,
    *,
    given: bool,
    slopes: SlopeFit = fit_slopes,
) -> Leap:
    """Solve those of B maps that are solved fast.

    Args:
        problem: of the maps (see `exact_problem`), float32.
        space: its bounds.
        start: shape (B, 4) [µm].
        given: whether the start was given by the user, and is fitted too.
        slopes: the first stage.

    Returns:
        Which maps are solved, and their lenses.
    """
    count = len(start)
    lenses, misfit = slopes(problem, space, start, given=given, steps=_SLOPE_STEPS)
    found = Leap(
        np.zeros(count, bool),
        start.copy(),
        np.full(count, np.inf, start.dtype),
        np.full(count, np.nan),
        np.zeros(count, np.int32),
        lenses[:, 0],
    )
    rows, lenses = np.flatnonzero(np.isfinite(misfit[:, 0])), lenses[:, 0]
    if not len(rows):
        return found
    found.steps[rows] = _SLOPE_STEPS + 1
    led = pistons(take(thinned(problem, _FEW), rows), lenses[rows])
    here = ladder(problem, lenses[rows], led, rows=rows)
    choice = choose(here, *bounds(space))
    near = (here.least <= CLEAN) & np.all(np.isfinite(choice.lens), axis=1)
    rows, here, rungs = rows[near], _some(here, near), choice.rung[near]
    solved = _solve(found, problem, space, rows, choice.lens[near])
    rows, here, rungs = rows[~solved], _some(here, ~solved), rungs[~solved]
    if len(rows):
        lenses = _glide(problem, rows, here, rungs)
        found.steps[rows] += _GLIDES - 1
        _solve(found, problem, space, rows, np.clip(lenses, *bounds(space)))
    return found


def _solve(
    found: Leap,
    problem: InverseProblem,
    space: ParameterSpace,
    rows: np.ndarray,
    lenses: np.ndarray,
) -> np.ndarray:
    """Climb from lenses, store those that are solved, and return which they are."""
    way = climb(problem, space, rows, lenses.astype(found.lenses.dtype))
    solved = way.loss <= CLEAN
    at = rows[solved]
    found.solved[at] = True
    found.lenses[at], found.loss[at] = way.lenses[solved], way.loss[solved]
    found.margin[at] = way.margin[solved]
    found.steps[rows] += way.moves
    return solved


def _glide(
    problem: InverseProblem, rows: np.ndarray, here: Ladder, rungs: np.ndarray
) -> np.ndarray:
    """Return lenses on rungs, to which the piston is moved by steps, with fits in between."""
    held, lenses = here.best, here.lens
    for left in range(_GLIDES, 0, -1):
        held = held + (rungs - held) / left
        lenses = here.lens + held[:, None] * here.step
        if left > 1:
            here = ladder(problem, lenses, held, rows=rows)
    return lenses


def _some(here: Ladder, which: np.ndarray) -> Ladder:
    return Ladder(*(part[which] for part in here))
