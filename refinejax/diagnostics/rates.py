"""How fast refinements converge, from their traces: rate, efficiency, stability."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import ArrayLike, Bool, Float

from refinejax._equal import EqualByValue

_SETTLED = 0.02  # of the way down in logarithms: nearer to the end than this, nothing is fitted
_FEWEST = 4  # points of a line with a standard error


@dataclass(frozen=True, eq=False)
class Rates(EqualByValue):
    """Convergence of n traces over T steps.

    Attributes:
        rate: r in L_t − floor ≈ C·exp(−r·t), shape (n,) [1/step]; NaN where too few steps were
            taken to fit a line.
        rate_error: its standard error, shape (n,) [1/step].
        fitted: number of steps from the start in the fit, shape (n,).
        steps_to_target: steps until the loss fell to the target, shape (n,); infinite if it never
            did.
        efficiency: how early the decrease came, shape (n,): the mean over steps of the share of the
            whole decrease (of the logarithm) made by then. 1 if the first step made it all, about ½
            for a steady rate, near 0 if the last step did; NaN without a decrease.
        stability: share of the steps that did not raise the loss, shape (n,).
        setback: largest factor by which the loss rose above the best before, shape (n,); 1 if it
            never did, infinite where the loss was infinite, or NaN between other losses.
        diverged: whether the last loss is above the first or infinite, shape (n,). NaN at the end
            of a trace count as its end: a sample that became NaN is known by its status.
    """

    rate: Float[np.ndarray, " n"]
    rate_error: Float[np.ndarray, " n"]
    fitted: Float[np.ndarray, " n"]
    steps_to_target: Float[np.ndarray, " n"]
    efficiency: Float[np.ndarray, " n"]
    stability: Float[np.ndarray, " n"]
    setback: Float[np.ndarray, " n"]
    diverged: Bool[np.ndarray, " n"]

    def summary(self) -> str:
        """Return a line of medians and shares."""
        known = np.isfinite(self.rate)
        rate = np.median(self.rate[known]) if np.any(known) else np.nan
        error = np.median(self.rate_error[known]) if np.any(known) else np.nan
        reached = np.isfinite(self.steps_to_target)
        steps = f"{np.median(self.steps_to_target[reached]):.0f} steps" if reached.any() else "—"
        down = 100 * self.stability.mean()
        return (
            f"{len(self.rate):,} traces · rate {rate:.3g} ± {error:.1g} per step (median) · target "
            f"reached by {100 * reached.mean():.1f} %, in {steps} · {down:.1f} % of steps went "
            f"down · {int(self.diverged.sum()):,} diverged"
        )


def convergence_rates(
    traces: Float[ArrayLike, "n steps+1"], *, floor: float = 0.0, target: float = 1e-3
) -> Rates:
    """Measure how fast, how early and how steadily losses fall.

    The rate is the least-squares slope of log(L_t − floor) against t, from the start until the best
    loss has made 98 % of its way (in logarithms): later steps say nothing about the rate. Its
    standard error is multiplied by √((1 + ρ)/(1 − ρ)), with ρ ≥ 0 the correlation of neighboring
    deviations, because the losses of a trace are not independent (Bayley & Hammersley 1946). That
    suffices up to a correlation of about 0.6; at 0.9 the error is half of what it should be.

    Args:
        traces: losses at the start and after each step, shape (n, T + 1); NaN after a trace's end.
        floor: the greatest lower bound of the losses, such as the loss of the noise.
        target: share of the excess over the floor at the start.

    Returns:
        Rates and counts of each trace.

    Raises:
        ValueError: for another shape, no step, or a start that is infinite or not above the floor.
    """
    losses = np.asarray(traces, float)
    if losses.ndim != 2 or losses.shape[0] == 0 or losses.shape[1] < 2:
        raise ValueError(
            f"traces: expected shape (samples, steps + 1) with 1 step or more, got {losses.shape}"
        )
    if np.any(np.isinf(losses[:, 0])):
        raise ValueError("traces: expected finite losses at the start, got an infinite one")
    if not np.all(losses[:, 0] > floor):
        raise ValueError(
            "floor: expected less than every loss at the start, got "
            f"{floor:g} and {np.nanmin(losses[:, 0]):g}"
        )
    excess = losses - floor
    best = np.maximum(np.fmin.accumulate(excess, axis=1), np.finfo(np.float64).tiny)
    logs = np.log(best / best[:, :1])
    fits = [_fit(*pair) for pair in zip(excess, logs, strict=True)]
    rate, error, fitted = np.array(fits).T
    hit = best <= target * best[:, :1]
    end = logs[:, -1:]
    shares = np.divide(logs, end, out=np.full_like(logs, np.nan), where=end < 0)
    last = np.array([row[_length(row) - 1] for row in excess])
    return Rates(
        rate=rate,
        rate_error=error,
        fitted=fitted,
        steps_to_target=np.where(hit.any(axis=1), hit.argmax(axis=1), np.inf),
        efficiency=shares[:, 1:].mean(axis=1),
        stability=np.array([_stability(row) for row in excess]),
        setback=np.array([_setback(row) for row in excess]),
        diverged=~(last <= excess[:, 0]),
    )


def _length(row: np.ndarray) -> int:
    """Return the number of entries before the NaN at the end."""
    known = np.flatnonzero(~np.isnan(row))
    return int(known[-1]) + 1


def _fit(excess: np.ndarray, logs: np.ndarray) -> tuple[float, float, float]:
    """Return slope, standard error and last step of the line through one trace."""
    settled = np.flatnonzero(logs <= (1 - _SETTLED) * logs[-1])
    end = int(settled[0]) + 1 if logs[-1] < 0 else _length(excess)
    known = np.flatnonzero(np.isfinite(excess[:end]) & (excess[:end] > 0))
    if len(known) < _FEWEST:
        return np.nan, np.nan, float(end - 1)
    t, y = known - known.mean(), np.log(excess[known])
    spread = t @ t
    slope = t @ y / spread
    off = y - y.mean() - slope * t
    variance = off @ off / (len(t) - 2)
    together = off[1:] @ off[:-1] / (off @ off) if variance > 0 else 0.0
    factor = (1 + np.clip(together, 0, 0.99)) / (1 - np.clip(together, 0, 0.99))
    return -slope, float(np.sqrt(variance / spread * factor)), float(end - 1)


def _stability(row: np.ndarray) -> float:
    row = row[: _length(row)]
    return float(np.mean(row[1:] <= row[:-1])) if len(row) > 1 else 1.0


def _setback(row: np.ndarray) -> float:
    row = row[: _length(row)]
    before = np.fmin.accumulate(row)[:-1]
    rises = np.where(np.isfinite(row[1:]), row[1:], np.inf) / np.maximum(before, 1e-300)
    return float(max(rises.max(initial=1.0), 1.0))
