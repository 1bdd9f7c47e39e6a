"""Sentences about the directions that the data do not determine."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_SMALL = 1e-3  # of the greatest component of a direction: smaller ones are not named


class Decomposition(NamedTuple):
    """Singular values and vectors of a Jacobian in scaled coordinates.

    Attributes:
        values: singular values, (n,).
        vectors: right singular vectors, one per row, (n, n).
        rank: how many singular values are not 0.
        tolerance: below it a singular value counts as 0.
    """

    values: np.ndarray
    vectors: np.ndarray
    rank: int
    tolerance: float


def describe_null_space(
    names: Sequence[str],
    params: np.ndarray,
    scale: np.ndarray,
    found: Decomposition,
) -> tuple[str, ...]:
    """Return a sentence for each of the n − rank undetermined directions of a sample.

    Params without effect come first, then params that scale together, then other combinations, each
    of as few params as possible.

    Args:
        names: of the params, n.
        params: the fit, (n,).
        scale: from scaled coordinates to params, (n,).
        found: the singular values and vectors of the Jacobian in scaled coordinates.
    """
    values, vectors, rank, tolerance = found
    null = vectors[rank:]
    lone = np.linalg.norm(null, axis=0) >= 1 - _SMALL
    sentences = [f"{name} has no effect" for name, alone in zip(names, lone, strict=True) if alone]
    null = _without(null, np.eye(len(names))[lone])
    moves = params / scale  # params times the lengths of their columns: the step of scaling all

    def is_scaling(step: np.ndarray) -> bool:
        length = np.linalg.norm(step)
        effect = np.linalg.norm(values[:, None] * vectors @ step[:, None])
        return bool(np.count_nonzero(step) > 1 and effect <= 4 * tolerance * length)

    every = np.where(lone, 0, moves)
    if len(null) and is_scaling(every):
        sentences.append(_scaling(names, every))
        null = _without(null, every[None] / np.linalg.norm(every))
    for step in _sparse(null):
        part = np.where(step != 0, moves, 0)
        sentences.append(
            _scaling(names, part) if is_scaling(part) else _move(names, step * scale, step)
        )
    return tuple(sentences)


def _without(null: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the rows' span orthogonal to ``taken``."""
    count = len(null) - len(taken)
    if not len(taken) or count <= 0:
        return null[: max(count, 0)]
    rest = null - null @ np.linalg.pinv(taken) @ taken
    return np.linalg.svd(rest, full_matrices=False)[2][:count]


def _sparse(null: np.ndarray) -> np.ndarray:
    """Return a basis of the span with few params in each row, by Gaussian elimination."""
    rows = null.copy()
    left = list(range(len(rows)))
    while left:
        i, j = np.unravel_index(np.argmax(np.abs(rows[left])), rows[left].shape)
        pivot = left.pop(int(i))
        rows[pivot] /= rows[pivot, j]
        for other in range(len(rows)):
            if other != pivot:
                rows[other] -= rows[other, j] * rows[pivot]
    peaks = np.max(np.abs(rows), axis=1, keepdims=True, initial=0)
    return np.where(np.abs(rows) > _SMALL * peaks, rows, 0)


def _scaling(names: Sequence[str], step: np.ndarray) -> str:
    some = [name for name, part in zip(names, step, strict=True) if part]
    return f"{', '.join(some)} scale together: only their ratios are determined"


def _move(names: Sequence[str], step: np.ndarray, scaled: np.ndarray) -> str:
    """Return by how much to move each param; the one with the greatest effect moves by 1."""
    if np.count_nonzero(step) == 1:
        return f"{names[int(np.argmax(np.abs(step)))]} has no effect"
    step = step / step[np.argmax(np.abs(scaled))]
    some = [(name, part) for name, part in zip(names, step, strict=True) if part]
    parts = [f"{name} by {part:.3g}".replace("-", "−") for name, part in some]
    moves = ", ".join(parts[:-1]) + " and " + parts[-1]
    return (
        f"only a combination of {', '.join(name for name, _ in some)} is determined: moving "
        f"{moves}, or by a small part of that, changes nothing"
    )
