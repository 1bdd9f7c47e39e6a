"""Covariances, standard errors and intervals of fitted params."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import PyTree

from refinejax._equal import EqualByValue
from refinejax.diagnostics.algebra import solve
from refinejax.diagnostics.linear import linearize
from refinejax.diagnostics.params import flatten, is_fixed, names_of, numbers_of, touches_bound
from refinejax.diagnostics.quantiles import t_quantile
from refinejax.problems import Robust

_FAR = 0.3  # standard errors; a fit this near to its optimum has errors a few percent greater
NOISES = ("white", "known", "correlated")


@dataclass(frozen=True, repr=False, eq=False)
class Covariance(EqualByValue):
    """Covariances of the n fitted params of B samples. NumPy, float64.

    Attributes:
        names: of the params, n.
        params: the fits, (B, n).
        matrix: covariances of the errors, (B, n, n), in the units of the params. NaN in rows and
            columns of params that the data do not determine or that lie on a bound; 0 for fixed
            params (also by equal bounds).
        determined: False where the linearization gives no error, (B, n).
        at_bound: True where a param lies on a bound; the errors of the others hold it there.
        freedom: numbers observed minus params determined, (B,).
        shift: the Gauss–Newton step to the optimum, (B, n): 0 but for rounding at an optimum. If it
            is not small beside the standard errors, the fit was not finished.
        noise: the assumption about the noise: "white", "known" or "correlated".
        variance: s², of a number observed, in units of ``problem.noise`` squared, (B,); 1 for known
            noise, NaN without degrees of freedom.
        rounded: True where s² is the variance of rounding in the dtype of the fit, (B,): the
            residual, or the known noise, is smaller.
    """

    names: tuple[str, ...]
    params: np.ndarray
    matrix: np.ndarray
    determined: np.ndarray
    at_bound: np.ndarray
    freedom: np.ndarray
    shift: np.ndarray
    noise: str
    variance: np.ndarray
    rounded: np.ndarray

    @property
    def std(self) -> np.ndarray:
        """Standard errors, (B, n)."""
        return np.sqrt(np.diagonal(self.matrix, axis1=-2, axis2=-1))

    @property
    def correlation(self) -> np.ndarray:
        """Correlations of the errors, (B, n, n); NaN where a standard error is 0 or NaN."""
        std = np.where(self.std > 0, self.std, np.nan)
        return self.matrix / std[..., :, None] / std[..., None, :]

    def intervals(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of intervals that contain each param with probability ``level``.

            params ± q·std

        where q is the quantile of Student's t for the degrees of freedom if the noise is estimated
        as white (Seber and Wild 2003, eq. 5.11), else of the normal distribution. The intervals are
        not clipped to the bounds.

        Args:
            level: the probability, between 0 and 1.

        Returns:
            Lower and upper ends, each (B, n).

        Raises:
            ValueError: for a level that is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level: expected a probability between 0 and 1, got {level}")
        freedom = self.freedom if self.noise == "white" else np.full_like(self.freedom, np.inf)
        reach = t_quantile((1 + level) / 2, freedom)[..., None] * self.std
        return self.params - reach, self.params + reach

    @property
    def notes(self) -> tuple[str, ...]:
        """Params without a standard error, and unfinished fits, as sentences."""
        bound, lost = np.atleast_2d(self.at_bound), ~np.atleast_2d(self.determined)
        short = np.atleast_1d(self.freedom) <= 0
        found = []
        if bound.any():
            found.append(
                f"{self._where(bound)} at a bound: it has no standard error, and those of the "
                "others hold it there"
            )
        if (lost & ~bound).any():
            found.append(
                f"{self._where(lost & ~bound)} not determined by the data: no standard error; "
                "see identifiability()"
            )
        if short.any() and self.noise == "white":
            found.append(
                f"{int(short.sum())} of {len(short)} samples: not more observations than params, "
                "so the size of the noise is unknown"
            )
        if (coarse := np.atleast_1d(self.rounded)).any():
            found.append(
                f"{int(coarse.sum())} of {len(coarse)} samples: the noise is smaller than the "
                "rounding of the observation in the dtype of the fit, from which the standard "
                "errors are computed; subtract an offset, or refine in float64"
            )
        if (short_of := self._unfinished()).any():
            found.append(
                f"{self._where(short_of)} not at the optimum, which is more than "
                f"{_FAR} standard errors away: take more steps, or refine in float64"
            )
        return tuple(found)

    def _unfinished(self) -> np.ndarray:
        """Return True where the optimum is farther than the errors and rounding allow."""
        shift, std = np.abs(np.atleast_2d(self.shift)), np.atleast_2d(self.std)
        rounding = 1e-5 * np.abs(np.atleast_2d(self.params))
        return (shift > _FAR * std) & (shift > rounding)

    def _where(self, flags: np.ndarray) -> str:
        """Name the params and count the samples."""
        names = [self.names[i] for i in np.flatnonzero(np.any(flags, axis=0))]
        return f"{int(flags.any(axis=1).sum())} of {len(flags)} samples: {', '.join(names)}"

    def summary(self) -> str:
        """Return the params with their standard errors (medians of several samples), and notes."""
        params, std = np.atleast_2d(self.params), np.atleast_2d(self.std)
        lines = [f"{len(params)} samples, {self.noise} noise"]
        for i, name in enumerate(self.names):
            known = std[np.isfinite(std[:, i]), i]
            error = f"{np.median(known):.3g}" if known.size else "not known"
            value = f"{params[0, i]:.6g} ± " if len(params) == 1 else "± "
            lines.append(f"  {name:<16} {value}{error}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def __repr__(self) -> str:
        """Return the summary."""
        return f"Covariance({self.summary()})"

    def squeeze(self) -> "Covariance":
        """Drop the sample axis of a batch of one."""
        arrays = ("params", "matrix", "determined", "at_bound", "freedom", "shift")
        arrays += ("variance", "rounded")
        return replace(self, **{name: getattr(self, name)[0] for name in arrays})


def covariance(
    problem: Any,
    params: PyTree,
    *,
    noise: str = "white",
    axes: Any = None,
    fixed: Sequence[str | int] = (),
) -> Covariance:
    """Return the covariance of least-squares fits, by linearization at the fit.

    With J the Jacobian of the residual r over the m numbers observed,

        white:       s²·(JᵀJ)⁻¹,  s² = Σr²/(m − rank J)
        known:       (JᵀJ)⁻¹, s² = 1
        correlated:  (JᵀJ)⁻¹ JᵀCJ (JᵀJ)⁻¹

    (Seber and Wild 2003, *Nonlinear Regression*, eq. 2.21, 5.10; the last is the sandwich of White
    1980 and Conley 1999.) White: independent noise of equal size; ``problem.noise`` is a relative
    weight. Known: ``problem.noise`` is the standard deviation, also where it is the default of 1.
    Correlated: C is estimated from the residual, as noise that is stationary and isotropic over the
    last two axes of the observation (the last axis of a signal), with correlation lengths up to a
    quarter of it: see `diagnostics.spectrum`. Longer correlations cannot be told from the model.

    Infinite noise is no weight: such pixels are not counted in m. In all three the numbers observed
    are uncertain by their rounding at least: s² is at least the mean of (ε·|y|)², with y the
    observation or prediction in units of its noise and ε of the dtype of the fit.

    A prior counts as information: ½·m·∇²prior is added to JᵀJ. With a robust loss the covariance is
    the one of the M-estimator. Params on a bound are held there.

    Args:
        problem: with a leading sample axis, as for `run_batch`.
        params: the fits, each leaf with a leading sample axis.
        noise: "white", "known" or "correlated".
        axes: as for `run_batch`.
        fixed: names or numbers of params that were given and not fitted: their error is 0.

    Returns:
        The covariances. A param is determined if it is orthogonal to every direction along which
        the prediction, to the precision of the params, does not change.

    Raises:
        ValueError: for another ``noise``, a problem without a residual, "known" with a robust loss,
            "correlated" with an observation that is not one array, or an unknown name or number in
            ``fixed``.
    """
    if noise not in NOISES:
        raise ValueError(f"noise: expected one of {', '.join(NOISES)}, got {noise!r}")
    if noise == "known" and isinstance(problem, Robust):
        raise ValueError("noise: with a robust loss it is not known; use 'white' or 'correlated'")
    flat, names = flatten(params), names_of(problem, params)
    vary = numbers_of(names, fixed)
    held, given = (of(problem, params)[:, vary] for of in (touches_bound, is_fixed))
    free = ~(held | given)
    linear = linearize(
        problem, params, axes=axes, vary=vary, free=free, correlated=noise == "correlated"
    )
    found = solve(linear, known=noise == "known")
    matrix = np.zeros((*flat.shape, flat.shape[1]))
    either = given[:, :, None] | given[:, None, :]
    matrix[:, np.array(vary)[:, None], np.array(vary)] = np.where(either, 0, found.covariance)
    parts = (
        (True, found.determined | given),
        (False, held),
        (0.0, np.where(given, 0, found.shift)),
    )
    determined, bound, shift = (_widen(flat.shape, vary, *part) for part in parts)
    return Covariance(
        names=names,
        params=flat,
        matrix=matrix,
        determined=determined,
        at_bound=bound,
        freedom=found.freedom,
        shift=shift,
        noise=noise,
        variance=found.variance,
        rounded=found.rounded,
    )


def _widen(shape: Any, vary: list[int], fixed: Any, values: np.ndarray) -> np.ndarray:
    """Return columns at their places in an array that holds ``fixed`` elsewhere."""
    whole = np.full(shape, fixed)
    whole[:, vary] = values
    return whole


def standard_errors(
    problem: Any, params: PyTree, *, axes: Any = None, fixed: Sequence[str | int] = ()
) -> np.ndarray:
    """Return standard errors for white noise: the square roots of the diagonal of `covariance`.

    Args:
        problem: with a leading sample axis, as for `run_batch`.
        params: the fits, each leaf with a leading sample axis.
        axes: as for `run_batch`.
        fixed: names or numbers of params that were given and not fitted: their error is 0.

    Returns:
        Standard errors, (B, n); NaN where a param is not determined or lies on a bound.

    Raises:
        ValueError: as `covariance`.
    """
    return covariance(problem, params, axes=axes, fixed=fixed).std
