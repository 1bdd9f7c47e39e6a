"""Problems to be solved: inverse problems, parameter spaces, robust losses."""

from refinejax._core import bounds_of as bounds_of
from refinejax._trees import project as project
from refinejax.problems.black_box import BlackBox as BlackBox
from refinejax.problems.grids import thinned as thinned
from refinejax.problems.inverse import InverseProblem as InverseProblem
from refinejax.problems.normal import Normal as Normal
from refinejax.problems.normal import normal_equations as normal_equations
from refinejax.problems.pointwise import Pointwise as Pointwise
from refinejax.problems.robust import Robust as Robust
from refinejax.problems.robust import cauchy as cauchy
from refinejax.problems.robust import huber as huber
from refinejax.problems.robust import tukey as tukey
from refinejax.problems.space import ParameterSpace as ParameterSpace
