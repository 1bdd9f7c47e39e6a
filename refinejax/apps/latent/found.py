"""The best candidate of each row so far, and the way to it."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from refinejax._core import Refiner, State
from refinejax._run import run
from refinejax.apps.latent.constraints import TOLERANCE, violation
from refinejax.apps.latent.objective import LatentObjective, Report
from refinejax.apps.latent.starts import own_key


@dataclass
class Found:
    """The best of each row so far.

    Attributes:
        report: of the best candidate of each row.
        steps: taken.
        status: of each row, shape (N,).
        paths: columns after each step, one array a round.
    """

    report: Any
    steps: np.ndarray
    status: np.ndarray
    paths: list[np.ndarray]

    @classmethod
    def nothing(cls, starts: np.ndarray) -> "Found":
        """Return it before anything was refined.

        Args:
            starts: where rows start, leading axis N.
        """
        count = len(starts)
        return cls(None, np.zeros(count, np.int32), np.zeros(count, np.int8), [])

    def add(
        self, open_: np.ndarray, report: Report, steps: np.ndarray, status: np.ndarray,
        equal: np.ndarray,
    ) -> None:  # fmt: skip
        """Take what a round has found for the rows in it, where it is better.

        Args:
            open_: numbers of the rows.
            report: of these rows.
            steps: taken.
            status: of each row, shape (N,).
            equal: True for equalities, shape (m,).
        """
        self.steps[open_] += steps
        self.status[open_] = status
        if self.report is None:
            self.report = report
            return
        before = jax.tree.map(lambda leaf: leaf[open_], self.report)
        better = _better(report, before, equal)
        self.report = jax.tree.map(
            lambda all_, some: put(all_, open_[better], some[better]), self.report, report
        )

    def add_path(self, path: np.ndarray, open_: np.ndarray) -> None:
        """Append what a round has gone through; rows that are not in it stay where they are.

        Args:
            path: shape (n, steps, T).
            open_: numbers of the rows.
        """
        if not self.paths:
            self.paths.append(path)
            return
        held = np.repeat(self.paths[-1][:, -1:], path.shape[1], axis=1)
        held[open_] = path
        self.paths.append(held)

    def path(self) -> np.ndarray | None:
        """Return all that rows went through, shape (N, steps, T)."""
        return np.concatenate(self.paths, axis=1) if self.paths else None


def _better(new: Any, old: Any, equal: np.ndarray) -> np.ndarray:
    """Return True where a candidate keeps the constraints at a lower loss, or breaks less."""
    kept, before = violation(new.excess, equal), violation(old.excess, equal)
    first, second = kept <= TOLERANCE, before <= TOLERANCE
    lower = np.where(first & second, new.score < old.score, first | (~second & (kept < before)))
    return lower & np.isfinite(new.score) | ~np.isfinite(old.score)


def put(all_: np.ndarray, index: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Return a copy with some rows replaced.

    Args:
        all_: of all rows.
        index: numbers of rows.
        some: of those rows.
    """
    copy = np.array(all_)
    copy[index] = some
    return copy


@dataclass(frozen=True)
class SearchPath:
    """What the model says along a search of a row; equal where the number of steps is.

    Attributes:
        steps: the most steps of a start.
    """

    steps: int

    def __call__(
        self, objective: LatentObjective, start: Array, ended: Array, refiner: Refiner, key: Array
    ) -> Float[Array, "steps T"]:
        """Return the columns at the start and after each step; after the last one they stay."""
        own = own_key(objective, key)
        params = run(refiner, objective, start, own, num_steps=self.steps, record=_params).trace
        columns = jax.lax.map(lambda p: objective.report(p).columns, params)
        return columns[jnp.minimum(jnp.arange(self.steps + 1), ended)]


def _params(state: State) -> Any:
    return state.params
