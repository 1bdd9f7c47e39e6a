"""Lenses are moved to the rungs of the fringe ladder that fit best, in float64."""

from typing import NamedTuple

import numpy as np

from refinejax.apps.metalens.cascade.rungs import choose, ladder, losses
from refinejax.problems import InverseProblem, ParameterSpace

CLEAN = 1e-6  # rad²; float32 fits no phase map better
MOVES = 5  # from rung to rung, at most

_LITTLE = 1e-2  # log-likelihood; a seventh of a standard error


class Climb(NamedTuple):
    """Lenses on the rungs that fit best.

    Attributes:
        lenses: (B, 4) [µm].
        loss: there, (B,) [rad²]; infinite where nothing was found.
        margin: of the rung, see `apps.metalens.cascade.rungs.Choice`, (B,).
        margin_before: that where the climb began, (B,).
        moves: taken, (B,).
    """

    lenses: np.ndarray
    loss: np.ndarray
    margin: np.ndarray
    margin_before: np.ndarray
    moves: np.ndarray


def climb(
    problem: InverseProblem,
    space: ParameterSpace,
    rows: np.ndarray,
    lenses: np.ndarray,
    *,
    moves: int = MOVES,
) -> Climb:
    """Return the optima of the rungs around lenses that fit best.

    A move is a Gauss–Newton step on the rung that it goes to. What it promises is what the linear
    model of the phase leaves; moves go on where that is less than the loss there.

    Args:
        problem: of maps (see `exact_problem`).
        space: its bounds.
        rows: B of the maps.
        lenses: near to optima, (B, 4) [µm].
        moves: at most.
    """
    lower, upper = bounds(space)
    count = len(lenses)
    unknown = np.full(count, np.nan)
    found = Climb(
        lenses.copy(), np.full(count, np.inf), unknown.copy(), unknown, np.zeros(count, np.int32)
    )
    cost = np.full(count, np.inf)
    trial, todo = lenses.copy(), np.arange(count)
    for move in range(1 + moves):
        if not len(todo):
            break
        here = ladder(problem, trial[todo], rows=rows[todo])
        choice = choose(here, lower, upper)
        least = here.least + here.unit * choice.own
        better = (least <= cost[todo] + _LITTLE * here.unit) & (
            here.loss <= found.loss[todo] + CLEAN
        )
        at = todo[better]
        found.lenses[at], found.loss[at], cost[at] = trial[at], here.loss[better], least[better]
        found.margin[at] = choice.margin[better]
        if move == 0:
            found.margin_before[:] = choice.margin
        gain = here.loss - least
        going = (gain > (_LITTLE * here.unit if move == 0 else CLEAN)) | (choice.rung != 0)
        going &= np.all(np.isfinite(choice.lens), axis=1) & (move < moves)
        todo = todo[going]
        trial[todo] = choice.lens[going]
        found.moves[todo] += 1
        last = ((gain <= CLEAN) & (choice.rung == 0))[going]  # the rung is known
        ended = np.zeros(len(todo), bool)
        ended[last] = _improve(found, problem, rows, todo[last], trial) | (move > 0)
        todo = todo[~ended]
    return found


def _improve(
    found: Climb, problem: InverseProblem, rows: np.ndarray, todo: np.ndarray, lenses: np.ndarray
) -> np.ndarray:
    """Take lenses over where they fit better, on the same rung, and return where they do, (B,).

    Not all that are nearer to an optimum do: a step along a curved valley leaves it at first.
    """
    if not len(todo):
        return np.zeros(0, bool)
    loss = losses(problem, lenses[todo], rows=rows[todo])
    better = loss <= found.loss[todo]
    at = todo[better]
    found.lenses[at], found.loss[at] = lenses[at], loss[better]
    return better


def bounds(space: ParameterSpace) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of (xc, yc, S, focal_length) [µm] in float64.

    Args:
        space: bounds.
    """
    lower, upper = space.bounds
    return np.asarray(lower, float), np.asarray(upper, float)
