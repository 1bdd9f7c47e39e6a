"""The result of a search."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from refinejax._core import Status
from refinejax.apps.latent.choice import pareto_front, spread_out
from refinejax.apps.latent.constraints import TOLERANCE
from refinejax.batch.result import count_statuses


@dataclass(frozen=True)
class CandidateLosses:
    """Losses of B × R candidates.

    Attributes:
        targets: of each target, of the round trip, without weights, shape (B, R, targets).
        roundtrip: their weighted sum with the penalties of closeness, shape (B, R): what counts.
        total: what was minimized, with the alignment of the latents, shape (B, R).
        initial: the same where each start began, shape (B, R).
        violation: largest excess over a constraint, shape (B, R); 0 without constraints.
    """

    targets: Float[np.ndarray, "B R targets"]
    roundtrip: Float[np.ndarray, "B R"]
    total: Float[np.ndarray, "B R"]
    initial: Float[np.ndarray, "B R"]
    violation: Float[np.ndarray, "B R"]


@dataclass(frozen=True)
class SampleScores:
    """What the model says of the samples as they came, neither decoded nor moved into bounds.

    Attributes:
        score: shape (B, T), see ``columns``.
        loss: the round-trip loss, shape (B,).
        violation: of the constraints, shape (B,).
    """

    score: Float[np.ndarray, "B T"]
    loss: Float[np.ndarray, " B"]
    violation: Float[np.ndarray, " B"]


@dataclass(frozen=True)
class ModelAnswers:
    """What the model says of the candidates.

    Attributes:
        latent: where the search ended, shape (B, R, Z).
        prediction: outputs of every head for ``latent``, (B, R, ...) by name.
        roundtrip: the same for the latent of ``optimized_input``: what counts.
        gap: largest difference of the two over the T, shape (B, R); 0 in a search over the input.
        std: standard deviation over an ensemble, shape (B, R, T); 0 without one.
    """

    latent: Float[np.ndarray, "B R Z"]
    prediction: dict[str, np.ndarray]
    roundtrip: dict[str, np.ndarray]
    gap: Float[np.ndarray, "B R"]
    std: Float[np.ndarray, "B R T"]


@dataclass(frozen=True, repr=False)
class LatentResult:
    """Candidates for each of B samples, from each of R starts; all arrays are NumPy's.

    Attributes:
        optimized_input: what the search hands out, x, shape (B, R, D); within its bounds.
        optimized_target: what the model says of that, shape (B, R, T), see ``columns``.
        columns: names of the T: heads (``name[i]`` for vectors), and "name: p" for the probability
            that a head of classes gives the classes asked for.
        losses: of the candidates, and by how much they break constraints.
        sample: what the model says of the samples as they came.
        answers: latents, outputs of all heads, the gap of the round trip, spread of an ensemble.
        distances: to data or start, (B, R) by name of the measure.
        steps: shape (B, R).
        status: `Status` as int8, shape (B, R).
        best: the start with the least round-trip loss among starts that keep the constraints (if
            none does, with the least violation), shape (B,).
        trajectory: T of what comes back at the start and after each step, shape (B, R, steps, T),
            of all rounds one after another where there are constraints; None unless asked for.
            The best is not always the last: a refiner such as Adam hands out the best on its way.
        scale: of each descriptor, in which distances between candidates count, shape (D,).
        seconds: wall time, with compilation.
        method: what was used.
    """

    optimized_input: Float[np.ndarray, "B R D"]
    optimized_target: Float[np.ndarray, "B R T"]
    columns: tuple[str, ...]
    losses: CandidateLosses
    sample: SampleScores
    answers: ModelAnswers
    distances: dict[str, np.ndarray]
    steps: Int[np.ndarray, "B R"]
    status: Int[np.ndarray, "B R"]
    best: Int[np.ndarray, " B"]
    trajectory: Float[np.ndarray, "B R steps T"] | None
    scale: Float[np.ndarray, " D"]
    seconds: float
    method: str

    @property
    def input(self) -> Float[np.ndarray, "B D"]:
        """The best input of each sample."""
        return self._chosen(self.optimized_input)

    @property
    def target(self) -> Float[np.ndarray, "B T"]:
        """What the model says of the best input of each sample."""
        return self._chosen(self.optimized_target)

    def _chosen(self, values: np.ndarray) -> np.ndarray:
        return values[np.arange(len(self.best)), self.best]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.best)

    @property
    def feasible(self) -> Bool[np.ndarray, "B R"]:
        """True where every constraint is kept, to 1e-3 of its scale."""
        return self.losses.violation <= TOLERANCE

    @property
    def improved(self) -> Bool[np.ndarray, " B"]:
        """True where the best input is better than the sample as it came.

        It keeps the constraints at a lower round-trip loss, or it breaks them less. An input that
        comes out of a decoder can be worse than the sample that was encoded.
        """
        loss, broken = self._chosen(self.losses.roundtrip), self._chosen(self.losses.violation)
        kept, before = broken <= TOLERANCE, self.sample.violation <= TOLERANCE
        less = kept | (broken < self.sample.violation)
        better = np.where(before, kept & (loss < self.sample.loss), less)
        return np.isfinite(loss) & (better | ~np.isfinite(self.sample.loss))

    def select(
        self, k: int, *, diverse: bool = True, slack: float = 0.01
    ) -> Int[np.ndarray, "B k"]:
        """Choose k candidates of each sample, the best one first.

        Args:
            k: how many, at most R.
            diverse: each next one is the farthest from those chosen, among good ones: they
                keep the constraints, and their round-trip loss is above the best by no more
                than a share of how far the best has come from ``sample.loss``. If there are fewer
                than k, the next in order of loss follow. False: in order of loss.
            slack: that share.

        Returns:
            Numbers of starts, for ``result.optimized_input[b, chosen[b]]``.

        Raises:
            ValueError: if k is not within 1 to R, or slack below 0.
        """
        starts = self.losses.total.shape[1]
        if not hasattr(k, "__index__") or not 1 <= int(k) <= starts:
            raise ValueError(f"k: expected 1 to {starts}, the number of starts, got {k!r}")
        if not slack >= 0:
            raise ValueError(f"slack: expected a share of 0 or more, got {slack!r}")
        return np.stack([self._select(b, int(k), diverse, slack) for b in range(len(self))])

    def _select(self, b: int, k: int, diverse: bool, slack: float) -> np.ndarray:
        rank = ranking(self.losses.roundtrip[b], self.losses.violation[b])
        order = np.argsort(rank, kind="stable")
        if not diverse:
            return order[:k]
        best, loss = order[0], self.losses.roundtrip[b]
        moved = abs(float(self.sample.loss[b] - loss[best]))
        gained = moved if np.isfinite(moved) else 0.0
        kept = (
            self.losses.violation[b] <= max(TOLERANCE, self.losses.violation[b, best])
        ) & np.isfinite(loss)
        good = np.flatnonzero(kept & (loss <= loss[best] + slack * gained))
        if len(good) <= k:
            return np.concatenate([order[np.isin(order, good)], order[~np.isin(order, good)]])[:k]
        points = self.optimized_input[b, good] / self.scale
        return good[spread_out(points, rank[good], k)]

    def pareto(self) -> Bool[np.ndarray, "B R"]:
        """Return True for candidates that no other of the same sample beats in every target.

        Among candidates that keep the constraints, by ``losses.targets``.
        """
        losses = np.where(self.feasible[..., None], self.losses.targets, np.nan)
        return np.stack([pareto_front(one) for one in losses])

    def counts(self) -> dict[str, int]:
        """Return how many starts ended in each status, most frequent first."""
        return count_statuses(self.status)

    def summary(self) -> str:
        """Return a few lines: what was asked about before and after, and what to know of it."""
        samples, starts = self.losses.total.shape
        lines = [f"{samples} samples from {starts} starts each, {self.seconds:.2f} s"]
        wide = max(map(len, self.columns), default=0)
        best = self.target
        for i, name in enumerate(self.columns[:12]):
            before, after = np.median(self.sample.score[:, i]), np.median(best[:, i])
            lines.append(f"  {name:<{wide}}  {before:>10.4g} → {after:<10.4g} (medians)")
        if len(self.columns) > 12:
            lines.append(f"  … and {len(self.columns) - 12} more")
        gap = self._chosen(self.answers.gap)
        if np.any(gap > 0):
            lines.append(f"  gap between search and round trip: at most {np.nanmax(gap):.3g}")
        as_before = int(np.sum(~self.improved))
        if as_before:
            lines.append(f"  no better than the sample itself: {as_before} samples")
        broken = int(np.sum(~(self._chosen(self.losses.violation) <= TOLERANCE)))
        if broken:
            lines.append(f"  constraints not kept: {broken} samples")
        for name, distance in self.distances.items():
            lines.append(f"  {name}: median distance {np.median(self._chosen(distance)):.3g}")
        for name, number in self.counts().items():
            lines.append(f"  {number:>8}  {name:<15} {Status[name].explain()}")
        return "\n".join([*lines, f"  method: {self.method}"])

    def __repr__(self) -> str:
        """Return the summary."""
        return f"LatentResult({self.summary()})"


def ranking(loss: np.ndarray, violation: np.ndarray) -> Float[np.ndarray, "... n"]:
    """Return places, from 0, along the last axis.

    Candidates that keep the constraints come first, by loss, then others, by violation; those that
    are not finite have the place ∞.

    Args:
        loss: of candidates, shape (..., n).
        violation: of constraints, shape (..., n).
    """
    lost = ~(np.isfinite(loss) & np.isfinite(violation))
    broken = ~(violation <= TOLERANCE)
    order = np.lexsort((np.where(broken, violation, loss), broken, lost), axis=-1)
    place = np.empty(np.shape(loss))
    np.put_along_axis(place, order, np.broadcast_to(np.arange(loss.shape[-1]), place.shape), -1)
    return np.where(lost, np.inf, place)
