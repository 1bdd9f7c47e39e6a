"""Judge how a case has ended, against SciPy in float64 and without units.

A sample that is called converged must be **right**: the weighted sum of squares S at its params,
in float64, exceeds the least one by at most

    S − S_min ≤ 0.05·s² + Σ (C·ε·(|y| + Σᵢ|Jᵢ·pᵢ|)/σ)² + share·(S_start − S_min)

with s² the variance of the residual: less than a quarter of a standard error away, or as near as
the rounding of observations and params allows. ``share`` is 0 for least squares; a method that sees
the gradient alone, or none, ends within its tolerance of it.
"""

from collections import Counter
from typing import Any, NamedTuple, cast

import numpy as np
from scipy.optimize import least_squares, lsq_linear

from benchmarks.core._drawn.calls import Answer, Broken, Refused, fit
from benchmarks.core._drawn.cases import FRAMES, Case
from benchmarks.core._drawn.data import Drawn, as_given, make
from benchmarks.core._drawn.models import FORMULAS, TIMES, Formula

RIGHT, LOCAL, OPEN, REFUSED = "right", "a local minimum", "not called converged", "refused"
WRONG, BROKEN = "wrong", "broken"
SHARES = {"lbfgs": 1e-5}
ROUNDING = 30  # units in the last place
EXCESS = 0.05  # of the variance of the noise
ERRORS = 0.05  # relative difference of standard errors


class Verdict(NamedTuple):
    """How a case has ended.

    Attributes:
        outcomes: of each sample; one for a case that was refused.
        faults: what is wrong, in words; none where nothing is.
    """

    outcomes: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def counts(self) -> Counter[str]:
        """How often each outcome is there."""
        return Counter(self.outcomes)


class Reference:
    """A sample in float64, without units: its curve, weights and bounds."""

    def __init__(self, case: Case, drawn: Drawn, index: int) -> None:
        frame = FRAMES[case.frame]
        self.formula: Formula = FORMULAS[frame.model]
        self.eps = float(np.finfo(frame.dtype).eps)
        self.scale, count = drawn.scale, len(TIMES)
        observed = drawn.observed[index] / drawn.unit
        sigma = np.ones(count) if drawn.sigma is None else drawn.sigma[index] / drawn.unit
        self.seen = ~drawn.hidden[index] & np.isfinite(observed) & np.isfinite(sigma)
        self.observed, self.sigma = np.where(self.seen, observed, 0), np.where(self.seen, sigma, 1)
        free = np.full(len(self.scale), np.inf)
        self.lower = -free if drawn.lower is None else drawn.lower / self.scale
        self.upper = free if drawn.upper is None else drawn.upper / self.scale
        self.start = np.clip(drawn.start[index] / self.scale, self.lower, self.upper)
        self.truth = np.clip(drawn.truth[index] / self.scale, self.lower, self.upper)

    def residual(self, params: Any) -> Any:
        """Return the weighted residual, (m,); 0 where nothing was observed."""
        value = self.formula.value(np, params, TIMES)
        return np.where(self.seen, (value - self.observed) / self.sigma, 0)

    def squares(self, params: np.ndarray) -> float:
        """Return the sum of squares."""
        with np.errstate(all="ignore"):
            return float(np.sum(self.residual(params) ** 2))

    def jacobian(self, params: np.ndarray) -> np.ndarray:
        """Return the derivatives of the residual, (m, n), by complex steps."""
        steps = 1e-30j * np.eye(len(params))
        return np.stack([self.residual(params + step).imag / 1e-30 for step in steps], axis=1)

    def least(self, start: np.ndarray) -> np.ndarray:
        """Return the params of the least sum of squares that is reached from a start."""
        free = self.upper > self.lower

        def full(q: Any) -> Any:
            whole = start.astype(q.dtype)
            whole[free] = q
            return whole

        columns = self.jacobian(start)[:, free]
        limits = self.lower[free], self.upper[free]
        if self.formula.linear:
            step = lsq_linear(
                columns, -self.residual(start), [x - start[free] for x in limits], tol=1e-14
            )
            return full(np.clip(start[free] + step.x, *limits))
        found = cast("Any", least_squares)(
            lambda q: self.residual(full(q)),
            start[free],
            jac=lambda q: self.jacobian(full(q))[:, free],
            bounds=limits,
            x_scale="jac" if np.all(np.any(columns, axis=0)) else 1.0,
            **dict.fromkeys(("ftol", "xtol", "gtol"), 1e-15),
        )
        return full(found.x)

    def floor(self, params: np.ndarray) -> float:
        """Return how much the rounding of observations and params adds to the sum of squares."""
        terms = np.abs(self.jacobian(params) * params).sum(axis=1)
        size = np.where(self.seen, np.abs(self.observed) / self.sigma, 0) + terms
        return float(np.sum((ROUNDING * self.eps * size) ** 2))


def judge(case: Case) -> Verdict:
    """Refine a case and judge how it has ended.

    Args:
        case: what was drawn.
    """
    drawn = make(case)
    answer = fit(case, drawn)
    if isinstance(answer, Refused):
        return Verdict((REFUSED,), () if _refusable(case) else (f"refused: {answer.said}",))
    if isinstance(answer, Broken):
        return Verdict((BROKEN,), (answer.said,))
    if case.bounds == "inverted":
        return Verdict((WRONG,), ("lower bounds above upper bounds were accepted",))
    given = as_given(case, drawn)
    found = [_sample(case, given, answer, i) for i in range(len(drawn.start))]
    faults = [f"sample {i}: {fault}" for i, (_, said) in enumerate(found) for fault in said]
    return Verdict(tuple(outcome for outcome, _ in found), tuple(faults))


def _refusable(case: Case) -> bool:
    """Return whether a case may be refused: all others are plain fits."""
    frame = FRAMES[case.frame]
    odd = case.bounds in ("inverted", "pairs", "with None", "equal") and frame.bounded
    said = frame.noise != "none" and case.said != "true"
    missing = case.missing in ("all of one", "few", "infinite", "mask")
    started = case.start in ("NaN", "shared")
    arrays = case.arrays in ("big-endian", "float64", "list")
    return odd or said or missing or started or arrays or frame.dtype == "float16"


def _sample(case: Case, given: Drawn, answer: Answer, index: int) -> tuple[str, list[str]]:
    reference = Reference(case, given, index)
    params = answer.params[index] / reference.scale
    faults = [*_always(case, given, answer, index)]
    if not answer.converged[index]:
        return OPEN, faults
    if not np.all(np.isfinite(params)):
        return WRONG, [*faults, "converged with params that are not finite"]
    if not reference.seen.any():
        return WRONG, [*faults, "converged where nothing was observed"]
    outcome, fault = _compare(case, reference, params)
    errors = [*_errors(case, reference, answer, index, params)] if outcome == RIGHT else []
    wrong = [*errors, *_loss(case, given, reference, answer.loss[index], params)]
    return (WRONG if wrong else outcome), [*faults, *fault, *wrong]


def _always(case: Case, given: Drawn, answer: Answer, index: int) -> Any:
    """Yield what must never be, converged or not."""
    params = answer.params[index]
    if answer.loss[index] > answer.initial_loss[index]:
        yield f"loss {answer.loss[index]:g} above the initial {answer.initial_loss[index]:g}"
    if given.lower is not None and given.upper is not None and case.start != "NaN":
        # bounds are given in the dtype, rounded to the nearest
        room = np.finfo(FRAMES[case.frame].dtype).eps * np.abs(np.stack([given.lower, given.upper]))
        if np.any(params < given.lower - room[0]) or np.any(params > given.upper + room[1]):
            yield f"params {params} outside {given.lower}, {given.upper}"


def _compare(case: Case, reference: Reference, params: np.ndarray) -> tuple[str, list[str]]:
    start = reference.start
    if not np.all(np.isfinite(start)):
        return WRONG, ["converged from a start that is not finite"]
    least = reference.least(reference.truth)
    here, there = reference.squares(params), reference.squares(least)
    freedom = max(int(reference.seen.sum()) - len(params), 1)
    share = SHARES.get(FRAMES[case.frame].method, 0.0)
    allowed = EXCESS * there / freedom + max(reference.floor(params), reference.floor(least))
    allowed += share * max(reference.squares(start) - there, 0)
    if here - there <= allowed:
        return RIGHT, []
    words = f"converged at {params} (S = {here:g}) where {least} has S = {there:g}"
    if not reference.formula.linear:
        inside = np.clip(params, reference.lower, reference.upper)
        polished = reference.squares(reference.least(inside))
        if here - polished <= allowed:
            return LOCAL, []
    return WRONG, [f"{words}; allowed {allowed:g}"]


def _loss(case: Case, given: Drawn, reference: Reference, loss: float, params: np.ndarray) -> Any:
    """Yield the loss, if it is not the mean square there."""
    unit = given.unit if given.sigma is None else 1.0
    count, tiny = reference.seen.sum(), np.finfo(FRAMES[case.frame].dtype).tiny
    expected = reference.squares(params) / count * unit**2
    allowed = 1e-3 * expected + reference.floor(params) / count * unit**2 + tiny
    if abs(loss - expected) > allowed:
        yield f"loss {loss:g} where the mean square is {expected:g}"


def _errors(
    case: Case, reference: Reference, answer: Answer, index: int, params: np.ndarray
) -> Any:
    """Yield standard errors that are off, where the linear theory gives them."""
    if answer.std is None or case.spread < 1e-2:
        return
    std = answer.std[index] / reference.scale
    columns, freedom = reference.jacobian(params), int(reference.seen.sum()) - len(params)
    width = reference.upper - reference.lower
    edge = np.where(np.isfinite(width), 1e-3 * width, 0)
    at_bound = (params - reference.lower <= edge) | (reference.upper - params <= edge)
    if freedom < 1 or np.any(at_bound):
        if freedom < 0 and np.any(np.isfinite(std) & (std >= 0) & ~at_bound):
            yield f"standard errors {std} with fewer observations than params"
        return
    variance = reference.squares(params) / freedom
    expected = np.sqrt(variance * np.diagonal(np.linalg.inv(columns.T @ columns)))
    told = np.isfinite(std)
    if np.any(np.abs(std - expected)[told] > ERRORS * expected[told]):
        yield f"standard errors {std} where {expected} are right"
