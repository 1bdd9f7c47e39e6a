"""A problem with the options of its diagnostics, as a result keeps it."""

from typing import Any, NamedTuple

from jaxtyping import PyTree

from refinejax._marks import check_unchanged
from refinejax.diagnostics.covariance import Covariance, covariance
from refinejax.diagnostics.goodness import GoodnessOfFit, goodness_of_fit
from refinejax.diagnostics.identifiability import Identifiability, identifiability


class Fit(NamedTuple):
    """A fitted problem, from which a result computes its diagnostics.

    Attributes:
        problem: with a leading sample axis.
        axes: as for `run_batch`.
        fixed: names or numbers of params that were given and not fitted.
        noise_given: whether ``problem.noise`` was stated; else it is 1 for want of another number,
            and nothing is computed that takes it for the standard deviation.
    """

    problem: Any
    axes: Any = None
    fixed: tuple[str | int, ...] = ()
    noise_given: bool = True

    def covariance(self, params: PyTree, noise: str = "white") -> Covariance:
        """Return `covariance` of the fits.

        Args:
            params: the fits, each leaf with a leading sample axis.
            noise: "white", "known" or "correlated".

        Raises:
            ValueError: for "known" if no noise was given; and as `covariance`.
        """
        if noise == "known" and not self.noise_given:
            raise ValueError(
                'noise: "known" needs the standard deviation of the observations, and none was '
                'given; refine with noise=…, or ask for covariance(noise="white"), which '
                "estimates it from the residual"
            )
        check_unchanged(self.problem)
        return covariance(self.problem, params, noise=noise, axes=self.axes, fixed=self.fixed)

    def identifiability(self, params: PyTree) -> Identifiability:
        """Return `identifiability` at the fits.

        Args:
            params: the fits, each leaf with a leading sample axis.
        """
        check_unchanged(self.problem)
        return identifiability(self.problem, params, axes=self.axes, fixed=self.fixed)

    def goodness_of_fit(self, params: PyTree) -> GoodnessOfFit:
        """Return `goodness_of_fit` of the fits.

        Args:
            params: the fits, each leaf with a leading sample axis.

        Raises:
            ValueError: if no noise was given; and as `goodness_of_fit`.
        """
        if not self.noise_given:
            raise ValueError(
                "goodness_of_fit: chi-square compares the residual with the standard deviation of "
                "the observations, and none was given; refine with noise=…"
            )
        check_unchanged(self.problem)
        return goodness_of_fit(self.problem, params, axes=self.axes, fixed=self.fixed)
