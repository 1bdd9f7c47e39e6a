"""Task distributions: problems of a kind, to learn from, and their names in configurations."""

from refinejax.tasks.augmented import Augmented as Augmented
from refinejax.tasks.classification import Classification as Classification
from refinejax.tasks.classification import MLPTraining as MLPTraining
from refinejax.tasks.damped_sine import DampedSines as DampedSines
from refinejax.tasks.diffusion import Diffusions as Diffusions
from refinejax.tasks.distribution import JudgedTasks as JudgedTasks
from refinejax.tasks.distribution import Split as Split
from refinejax.tasks.distribution import TaskDistribution as TaskDistribution
from refinejax.tasks.least_squares import LeastSquaresTasks as LeastSquaresTasks
from refinejax.tasks.names import task_distribution as task_distribution
from refinejax.tasks.names import task_names as task_names
from refinejax.tasks.noisy_quadratics import NoisyQuadratics as NoisyQuadratics
from refinejax.tasks.quadratics import Quadratics as Quadratics
from refinejax.tasks.rastrigins import Rastrigins as Rastrigins
from refinejax.tasks.sinusoids import Sinusoids as Sinusoids
from refinejax.tasks.sparse import Lassos as Lassos
from refinejax.tasks.sparse import SparseRecovery as SparseRecovery
