"""How the losses of some samples fell, step by step."""

import numpy as np


class LossTraces:
    """The best loss after each step, of the first samples of a batch.

    Args:
        count: how many samples are recorded.
    """

    def __init__(self, count: int) -> None:
        self.known: list[dict[int, float]] = [{} for _ in range(count)]

    def __len__(self) -> int:
        """Return how many samples are recorded."""
        return len(self.known)

    def note(self, ids: np.ndarray, steps: np.ndarray, losses: np.ndarray) -> None:
        """Record the best losses of samples after so many steps each; others are passed over.

        Args:
            ids: numbers of the samples, shape (n,).
            steps: taken until then, shape (n,).
            losses: the best until then, shape (n,).
        """
        for i in np.flatnonzero((ids >= 0) & (ids < len(self.known))):
            self.known[ids[i]][int(steps[i])] = float(losses[i])

    def begin(self, ids: np.ndarray, losses: np.ndarray) -> None:
        """Record the losses at the start; a later stage does not change them.

        Args:
            ids: numbers of the samples, shape (n,).
            losses: at the start, shape (n,).
        """
        for i in np.flatnonzero((ids >= 0) & (ids < len(self.known))):
            self.known[ids[i]].setdefault(0, float(losses[i]))

    def array(self) -> np.ndarray:
        """Return losses of shape (K, T + 1), T the most steps of any of these samples.

        A sample keeps its last loss after its end. Steps that were not recorded, of samples that
        an earlier run had finished, are NaN.
        """
        length = 1 + max((max(row, default=0) for row in self.known), default=0)
        found = np.full((len(self.known), length), np.nan)
        for losses, row in zip(found, self.known, strict=True):
            for step, loss in row.items():
                losses[step] = loss
            if row:
                losses[max(row) :] = row[max(row)]
        lowest = np.fmin.accumulate(found, axis=1)
        return np.where(np.isnan(found), np.nan, lowest)


def join_traces(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    """Return the losses of two stages, one after the other; the first of the second is known.

    Args:
        first: of the earlier stage, shape (K, S + 1); None if there is none.
        second: of the later stage, shape (K, T + 1); None if there is none.
    """
    if first is None or second is None:
        return first
    return np.fmin.accumulate(np.concatenate([first, second[:, 1:]], axis=1), axis=1)
