"""Methods of refinement, and ways to compose them."""

from refinejax.refiners.bfgs import BFGS as BFGS
from refinejax.refiners.continuation import Continuation as Continuation
from refinejax.refiners.continuation import Geometric as Geometric
from refinejax.refiners.evolution import Evolution as Evolution
from refinejax.refiners.gauss_newton import GaussNewton as GaussNewton
from refinejax.refiners.gradient import Gradient as Gradient
from refinejax.refiners.halting import Halting as Halting
from refinejax.refiners.levenberg_marquardt import LevenbergMarquardt as LevenbergMarquardt
from refinejax.refiners.memetic import Memetic as Memetic
from refinejax.refiners.random_search import RandomSearch as RandomSearch
from refinejax.refiners.regrowth import BIPOP as BIPOP
from refinejax.refiners.regrowth import IPOP as IPOP
from refinejax.refiners.restarts import Restarts as Restarts
from refinejax.refiners.sequential import Sequential as Sequential
