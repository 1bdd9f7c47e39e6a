"""Choosing among candidates: far from each other, or such that none is better in everything."""

import numpy as np
from jaxtyping import Bool, Float, Int


def pareto_front(losses: Float[np.ndarray, "n t"]) -> Bool[np.ndarray, " n"]:
    """Return True for what nothing else dominates: is as low in every loss and lower in one.

    Rows with a NaN are never part of it.

    Args:
        losses: one row a candidate, shape (n, t).
    """
    losses = np.asarray(losses, float)
    finite = np.all(np.isfinite(losses), axis=1)
    front = finite.copy()
    for i in np.flatnonzero(finite):
        no_worse = np.all(losses <= losses[i], axis=1)
        better = np.any(losses < losses[i], axis=1)
        front[i] = not np.any(finite & no_worse & better)
    return front


def spread_out(
    points: Float[np.ndarray, "n d"], losses: Float[np.ndarray, " n"], count: int
) -> Int[np.ndarray, " k"]:
    """Choose points greedily, each the one whose nearest chosen one is farthest (Gonzalez 1985).

    Args:
        points: of which to choose, in units in which distances compare.
        losses: the first to be chosen has the least; a NaN is chosen last.
        count: how many.

    Returns:
        Numbers of the points chosen, shape (count,).
    """
    ranked = np.where(np.isnan(losses), np.inf, losses)
    usable = np.isfinite(ranked) & np.all(np.isfinite(points), axis=1)
    chosen = [int(np.argmin(ranked))]
    points = np.where(usable[:, None], points, 0)
    nearest = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < count:
        open_ = np.ones(len(points), bool)
        open_[chosen] = False
        reach = np.where(open_, np.where(usable, nearest, -1.0), -2.0)
        chosen.append(int(np.argmax(reach)))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return np.array(chosen)
