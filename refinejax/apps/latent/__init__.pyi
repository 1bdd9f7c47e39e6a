"""The public names of this application."""

from refinejax.apps.latent.choice import pareto_front as pareto_front
from refinejax.apps.latent.classes import InClasses as InClasses
from refinejax.apps.latent.classes import NotInClasses as NotInClasses
from refinejax.apps.latent.closeness import Closeness as Closeness
from refinejax.apps.latent.closeness import LogDensity as LogDensity
from refinejax.apps.latent.closeness import Mahalanobis as Mahalanobis
from refinejax.apps.latent.closeness import Neighbors as Neighbors
from refinejax.apps.latent.closeness import TrustRegion as TrustRegion
from refinejax.apps.latent.constraints import Equality as Equality
from refinejax.apps.latent.constraints import Inequality as Inequality
from refinejax.apps.latent.description import LatentModel as LatentModel
from refinejax.apps.latent.fitting import Fitted as Fitted
from refinejax.apps.latent.fitting import fit as fit
from refinejax.apps.latent.multitask import MultiTaskModel as MultiTaskModel
from refinejax.apps.latent.pessimism import Ensemble as Ensemble
from refinejax.apps.latent.pessimism import MonteCarlo as MonteCarlo
from refinejax.apps.latent.result import LatentResult as LatentResult
from refinejax.apps.latent.search import optimize_latent as optimize_latent
from refinejax.apps.latent.settings import Search as Search
from refinejax.apps.latent.targets import AtLeast as AtLeast
from refinejax.apps.latent.targets import AtMost as AtMost
from refinejax.apps.latent.targets import Between as Between
from refinejax.apps.latent.targets import Curve as Curve
from refinejax.apps.latent.targets import Match as Match
from refinejax.apps.latent.targets import Maximize as Maximize
from refinejax.apps.latent.targets import Minimize as Minimize
from refinejax.apps.latent.targets import Target as Target

__all__ = [
    "AtLeast",
    "AtMost",
    "Between",
    "Closeness",
    "Curve",
    "Ensemble",
    "Equality",
    "Fitted",
    "InClasses",
    "Inequality",
    "LatentModel",
    "LatentResult",
    "LogDensity",
    "Mahalanobis",
    "Match",
    "Maximize",
    "Minimize",
    "MonteCarlo",
    "MultiTaskModel",
    "Neighbors",
    "NotInClasses",
    "Search",
    "Target",
    "TrustRegion",
    "fit",
    "optimize_latent",
    "pareto_front",
]
