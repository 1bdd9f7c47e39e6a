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
    """

    problem: Any
    axes: Any = None
    fixed: tuple[str | int, ...] = ()

    def covariance(self, params: PyTree, noise: str = "white") -> Covariance:
        """Return `covariance` of the fits.

        Args:
            params: the fits, each leaf with a leading sample axis.
            noise: "white", "known" or "correlated".
        """
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
        """
        check_unchanged(self.problem)
        return goodness_of_fit(self.problem, params, axes=self.axes, fixed=self.fixed)
