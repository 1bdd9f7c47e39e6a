"""A problem together with how its fits are to be judged: what a result keeps."""

from typing import Any, NamedTuple

from jaxtyping import PyTree

from refinejax.diagnostics.covariance import Covariance, covariance
from refinejax.diagnostics.goodness import GoodnessOfFit, goodness_of_fit
from refinejax.diagnostics.identifiability import Identifiability, identifiability


class Fit(NamedTuple):
    """A problem with a leading sample axis, its `axes`, and params that were given, not fitted."""

    problem: Any
    axes: Any = None
    fixed: tuple[str | int, ...] = ()

    def covariance(self, params: PyTree, noise: str = "white") -> Covariance:
        """Return `covariance` of the fits."""
        return covariance(self.problem, params, noise=noise, axes=self.axes, fixed=self.fixed)

    def identifiability(self, params: PyTree) -> Identifiability:
        """Return `identifiability` at the fits."""
        return identifiability(self.problem, params, axes=self.axes, fixed=self.fixed)

    def goodness_of_fit(self, params: PyTree) -> GoodnessOfFit:
        """Return `goodness_of_fit` of the fits."""
        return goodness_of_fit(self.problem, params, axes=self.axes, fixed=self.fixed)
