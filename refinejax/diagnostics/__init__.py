"""How far a fit can be trusted: which params the data determine, and how precisely."""

from refinejax.diagnostics.covariance import Covariance as Covariance
from refinejax.diagnostics.covariance import covariance as covariance
from refinejax.diagnostics.covariance import standard_errors as standard_errors
from refinejax.diagnostics.fit import Fit as Fit
from refinejax.diagnostics.goodness import GoodnessOfFit as GoodnessOfFit
from refinejax.diagnostics.goodness import goodness_of_fit as goodness_of_fit
from refinejax.diagnostics.identifiability import Identifiability as Identifiability
from refinejax.diagnostics.identifiability import identifiability as identifiability
from refinejax.diagnostics.profile import profile_intervals as profile_intervals
from refinejax.diagnostics.rates import Rates as Rates
from refinejax.diagnostics.rates import convergence_rates as convergence_rates
