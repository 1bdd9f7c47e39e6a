"""Refine predictions through forward models, for one sample or a million, and say what came of it.

A network, a fit or a guess gives parameters; a forward model says what those parameters would have
been observed as; refinejax moves the parameters until the model explains the observation.
"""

from refinejax._core import Objective as Objective
from refinejax._core import Refiner as Refiner
from refinejax._core import Result as Result
from refinejax._core import State as State
from refinejax._core import Status as Status
from refinejax._core import Stop as Stop
from refinejax._refine import refine as refine
from refinejax._run import run as run
from refinejax._run import run_until as run_until
from refinejax.batch import BatchResult as BatchResult
from refinejax.batch import run_batch as run_batch
from refinejax.batch import run_stream as run_stream
from refinejax.compiled import keep_compiled as keep_compiled
from refinejax.physics.phase import wrapped_difference as wrapped_difference
from refinejax.problems import InverseProblem as InverseProblem
from refinejax.problems import ParameterSpace as ParameterSpace
from refinejax.problems import Pointwise as Pointwise
from refinejax.problems import Robust as Robust
from refinejax.refiners import Continuation as Continuation
from refinejax.refiners import Evolution as Evolution
from refinejax.refiners import GaussNewton as GaussNewton
from refinejax.refiners import Gradient as Gradient
from refinejax.refiners import LevenbergMarquardt as LevenbergMarquardt
from refinejax.refiners import RandomSearch as RandomSearch
from refinejax.refiners import Restarts as Restarts
from refinejax.refiners import Sequential as Sequential

__version__ = "0.1.0.dev0"
