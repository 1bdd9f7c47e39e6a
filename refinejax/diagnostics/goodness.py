"""Whether the model explains the observation as well as the noise allows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import PyTree

from refinejax._equal import EqualByValue
from refinejax.diagnostics.algebra import solve
from refinejax.diagnostics.linear import linearize
from refinejax.diagnostics.params import is_fixed, names_of, numbers_of, touches_bound
from refinejax.diagnostics.quantiles import chi_square_tail
from refinejax.problems import Robust

_SMALL = 1e-3  # a p-value below it is called a misfit


@dataclass(frozen=True, repr=False, eq=False)
class GoodnessOfFit(EqualByValue):
    """The chi-square of B fits. NumPy, float64, each (B,).

    Attributes:
        chi_square: Σr², the residual in units of the noise.
        freedom: ν, numbers observed minus params determined.
        reduced: Σr²/ν: about 1 if model and noise are right; its square root is the factor by which
            the noise was underestimated. NaN for ν ≤ 0.
        p_value: the probability that noise alone gives a chi-square at least as great.
    """

    chi_square: np.ndarray
    freedom: np.ndarray
    reduced: np.ndarray
    p_value: np.ndarray

    def summary(self) -> str:
        """Return the median chi²/ν and how many samples have an unlikely chi-square."""
        reduced, p = np.atleast_1d(self.reduced), np.atleast_1d(self.p_value)
        known = np.isfinite(p)
        if not known.any():
            return f"{len(p)} samples: nothing to judge by"
        low, high = int(np.sum(p < _SMALL)), int(np.sum(p > 1 - _SMALL))
        lines = [f"{len(p)} samples, chi²/ν {np.median(reduced[known]):.3g} (median)"]
        if low:
            lines.append(
                f"  {low} with p < {_SMALL}: the model does not explain the observation, the fit "
                "is not at its optimum, or the noise is greater than stated"
            )
        if high:
            lines.append(
                f"  {high} with p > {1 - _SMALL}: the noise is smaller than stated, or correlated"
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        """Return the summary."""
        return f"GoodnessOfFit({self.summary()})"

    def squeeze(self) -> "GoodnessOfFit":
        """Drop the sample axis of a batch of one."""
        fields = ("chi_square", "freedom", "reduced", "p_value")
        return replace(self, **{name: getattr(self, name)[0] for name in fields})


def goodness_of_fit(
    problem: Any, params: PyTree, *, axes: Any = None, fixed: Sequence[str | int] = ()
) -> GoodnessOfFit:
    """Return chi-square, degrees of freedom and p-value, for noise of known size.

        χ² = Σr²,   p = P(χ²_ν > χ²) = Q(ν/2, χ²/2),   ν = m − rank J

    where r is the difference divided by ``problem.noise``, the standard deviation of independent
    Gaussian noise. Meaningless if ``problem.noise`` is not that (it is 1 by default). Pixels of
    infinite noise are not counted. Params at a bound, or fixed by equal bounds, do not count as
    fitted.

    Args:
        problem: with a leading sample axis, as for `run_batch`.
        params: the fits, each leaf with a leading sample axis.
        axes: as for `run_batch`.
        fixed: names or numbers of params that were given and not fitted.

    Returns:
        Chi-square, ν, chi²/ν and p-value, each (B,).

    Raises:
        ValueError: for a problem without a residual, or with a robust loss.
    """
    if isinstance(problem, Robust):
        raise ValueError("problem: a robust loss has no chi-square; pass the problem inside it")
    vary = numbers_of(names_of(problem, params), fixed)
    free = ~(touches_bound(problem, params) | is_fixed(problem, params))[:, vary]
    linear = linearize(problem, params, axes=axes, vary=vary, free=free)
    chi_square, freedom = linear.squares, solve(linear).freedom
    with np.errstate(divide="ignore", invalid="ignore"):
        reduced = np.where(freedom > 0, chi_square / freedom, np.nan)
    return GoodnessOfFit(chi_square, freedom, reduced, chi_square_tail(chi_square, freedom))
