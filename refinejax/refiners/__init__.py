"""Methods of refinement, and ways to compose them."""

from refinejax.refiners.compose.continuation import Continuation as Continuation
from refinejax.refiners.compose.continuation import Geometric as Geometric
from refinejax.refiners.compose.memetic import Memetic as Memetic
from refinejax.refiners.compose.restarts import Restarts as Restarts
from refinejax.refiners.compose.sequential import Sequential as Sequential
from refinejax.refiners.gradient.bfgs import BFGS as BFGS
from refinejax.refiners.gradient.gradient import Gradient as Gradient
from refinejax.refiners.least_squares.gauss_newton import GaussNewton as GaussNewton
from refinejax.refiners.least_squares.levenberg_marquardt import (
    LevenbergMarquardt as LevenbergMarquardt,
)
from refinejax.refiners.population.evolution import Evolution as Evolution
from refinejax.refiners.population.halting import Halting as Halting
from refinejax.refiners.population.regrowth import BIPOP as BIPOP
from refinejax.refiners.population.regrowth import IPOP as IPOP
from refinejax.refiners.random_search import RandomSearch as RandomSearch
