"""The public names of refinejax: the list that both type checkers and the package read."""

from refinejax import apps as apps
from refinejax import batch as batch
from refinejax import checkpoint as checkpoint
from refinejax import compiled as compiled
from refinejax import diagnostics as diagnostics
from refinejax import experiments as experiments
from refinejax import learned as learned
from refinejax import meta as meta
from refinejax import models as models
from refinejax import networks as networks
from refinejax import physics as physics
from refinejax import plot as plot
from refinejax import problems as problems
from refinejax import refiners as refiners
from refinejax import report as report
from refinejax import tasks as tasks
from refinejax import training as training
from refinejax._core import Problem as Problem
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
from refinejax.batch.execution import Execution as Execution
from refinejax.compiled import keep_compiled as keep_compiled
from refinejax.models import load_model as load_model
from refinejax.models import pretrained as pretrained
from refinejax.models import save_model as save_model
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

__version__: str
__all__ = [
    "BatchResult",
    "Continuation",
    "Evolution",
    "Execution",
    "GaussNewton",
    "Gradient",
    "InverseProblem",
    "LevenbergMarquardt",
    "ParameterSpace",
    "Pointwise",
    "Problem",
    "RandomSearch",
    "Refiner",
    "Restarts",
    "Result",
    "Robust",
    "Sequential",
    "State",
    "Status",
    "Stop",
    "keep_compiled",
    "load_model",
    "pretrained",
    "refine",
    "run",
    "run_batch",
    "run_stream",
    "run_until",
    "save_model",
    "wrapped_difference",
]
