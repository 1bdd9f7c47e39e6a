"""Which directions of the params the data do not determine."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import PyTree

from refinejax._equal import EqualByValue
from refinejax.diagnostics.algebra import decompose
from refinejax.diagnostics.linear import linearize
from refinejax.diagnostics.null_space import Decomposition, describe_null_space
from refinejax.diagnostics.params import flatten, names_of, numbers_of

_MOST = 1000  # samples that a summary describes


@dataclass(frozen=True, repr=False, eq=False)
class Identifiability(EqualByValue):
    """The singular values of the Jacobian at B fits of n params. NumPy, float64.

    Attributes:
        names: of the params, n.
        params: the fits, (B, n).
        singular_values: of the Jacobian with unit columns, greatest first, (B, n); NaN where the
            Jacobian is not finite.
        rank: how many exceed ``tolerance``, (B,); 0 where the Jacobian is not finite.
        condition: greatest over least singular value, (B,); ∞ where the least is 0.
        vectors: right singular vectors in scaled coordinates, (B, n, n), one per row; the last
            n − rank span the null space: the directions that the data do not determine.
        scale: from scaled coordinates to params, (B, n): the step in one param alone that changes
            the residual by 1; 1 for a param without effect.
        tolerance: below it a singular value cannot be told from 0 in the dtype of the params, (B,).
    """

    names: tuple[str, ...]
    params: np.ndarray
    singular_values: np.ndarray
    rank: np.ndarray
    condition: np.ndarray
    vectors: np.ndarray
    scale: np.ndarray
    tolerance: np.ndarray

    def __len__(self) -> int:
        """Return the number of samples."""
        return int(self.rank.size)

    @property
    def complete(self) -> np.ndarray:
        """True where the data determine all params, (B,)."""
        return self.rank == len(self.names)

    def directions(self, sample: int = 0) -> np.ndarray:
        """Return the directions that the data of a sample do not determine.

        Args:
            sample: number of the sample.

        Returns:
            Steps in the units of the params, (n − rank, n). To first order, and in the precision of
            the params, none of them changes the residual.
        """
        rank, vectors, scale = (self._of(name, sample) for name in ("rank", "vectors", "scale"))
        return vectors[int(rank) :] * scale

    def explain(self, sample: int = 0) -> tuple[str, ...]:
        """Return a sentence for each direction that the data of a sample do not determine.

        Args:
            sample: number of the sample.
        """
        values = self._of("singular_values", sample)
        if not np.all(np.isfinite(values)):
            return ("the derivative of the prediction is not finite",)
        rank, vectors = int(self._of("rank", sample)), self._of("vectors", sample)
        if rank == len(self.names):
            return ()
        params, scale = self._of("params", sample), self._of("scale", sample)
        limit = float(self._of("tolerance", sample))
        found = Decomposition(values, vectors, rank, limit)
        return describe_null_space(self.names, params, scale, found)

    def summary(self) -> str:
        """Return rank, condition and the undetermined directions, as text.

        At most 1000 samples with undetermined directions are described.
        """
        rank, condition = np.atleast_1d(self.rank), np.atleast_1d(self.condition)
        lacking = np.flatnonzero(rank < len(self.names))
        finite = condition[np.isfinite(condition)]
        lines = [
            f"{len(rank)} samples, {len(self.names)} params: {len(rank) - len(lacking)} determined "
            f"in full; condition {np.median(finite) if finite.size else np.inf:.3g} (median)"
        ]
        chosen = lacking[np.linspace(0, len(lacking) - 1, min(len(lacking), _MOST)).astype(int)]
        found = Counter(text for i in chosen for text in self.explain(int(i)))
        what = f"of {len(chosen)} described" if len(chosen) < len(lacking) else "samples"
        lines += [f"  {number} {what}: {text}" for text, number in found.most_common(5)]
        if len(found) > 5:
            lines.append(f"  and {len(found) - 5} more kinds: see explain(sample)")
        return "\n".join(lines)

    def __repr__(self) -> str:
        """Return the summary."""
        return f"Identifiability({self.summary()})"

    def _of(self, name: str, sample: int) -> Any:
        array = getattr(self, name)
        return array if self.rank.ndim == 0 else array[sample]

    def squeeze(self) -> "Identifiability":
        """Drop the sample axis of a batch of one."""
        arrays = [name for name in self.__dataclass_fields__ if name != "names"]
        return replace(self, **{name: getattr(self, name)[0] for name in arrays})


def identifiability(
    problem: Any, params: PyTree, *, axes: Any = None, fixed: Sequence[str | int] = ()
) -> Identifiability:
    """Return which directions of the params the data determine, by the Jacobian's singular values.

        J·diag(scale) = U·diag(singular_values)·vectors

    The columns are scaled to length 1: the answer does not depend on the units of the params, and
    the condition is at most √n times the least that any scaling gives (van der Sluis 1969, Numer.
    Math. 14, 14, theorem 3.5). A singular value counts as 0 below 2·n·ε times the greatest, with ε
    of the dtype of the params. Priors and bounds are ignored.

    Args:
        problem: with a leading sample axis, as for `run_batch`.
        params: the points to linearize at, each leaf with a leading sample axis.
        axes: as for `run_batch`.
        fixed: names or numbers of params that are known; they are left out.

    Returns:
        Singular values, rank, condition and directions of each sample.

    Raises:
        ValueError: for a problem without a residual, or an unknown name or number in ``fixed``.
    """
    flat, names = flatten(params), names_of(problem, params)
    vary = numbers_of(names, fixed)
    every = np.ones((len(flat), len(vary)), bool)
    linear = linearize(problem, params, axes=axes, vary=vary, free=every)
    safe = np.all(np.isfinite(linear.triangle), axis=(1, 2)) & np.all(
        np.isfinite(linear.size), axis=1
    )
    found = decompose(np.where(safe[:, None, None], linear.triangle, 0), linear.eps)
    values = np.where(safe[:, None], found.values, np.nan)
    least = values[:, -1]
    condition = np.divide(values[:, 0], least, out=np.full_like(least, np.inf), where=least != 0)
    scale = np.where(linear.size > 0, 1 / np.where(linear.size > 0, linear.size, 1), 1)
    return Identifiability(
        tuple(names[i] for i in vary),
        flat[:, vary],
        values,
        found.kept.sum(axis=1),
        condition,
        found.vectors,
        scale,
        found.tolerance,
    )
