"""Meta-learning: initializations and update rules learned from a distribution of tasks.

An inner loop (`Trajectory`: a refiner on its way; `Adaptation`: a few steps from params that are
learned) is unrolled; an estimator gives the gradient by the meta-params; `meta_train` trains them.
"""

from refinejax.meta.adaptation import Adaptation as Adaptation
from refinejax.meta.adaptation import Learner as Learner
from refinejax.meta.antithetic import Antithetic as Antithetic
from refinejax.meta.antithetic import es as es
from refinejax.meta.antithetic import nres as nres
from refinejax.meta.antithetic import pes as pes
from refinejax.meta.convergence import convergence as convergence
from refinejax.meta.convergence import traces as traces
from refinejax.meta.curriculum import Curriculum as Curriculum
from refinejax.meta.estimator import Estimator as Estimator
from refinejax.meta.families import anil as anil
from refinejax.meta.families import fomaml as fomaml
from refinejax.meta.families import imaml as imaml
from refinejax.meta.families import maml as maml
from refinejax.meta.families import meta_sgd as meta_sgd
from refinejax.meta.families import reptile as reptile
from refinejax.meta.full import FullUnroll as FullUnroll
from refinejax.meta.implicit import Implicit as Implicit
from refinejax.meta.inner import InnerLoop as InnerLoop
from refinejax.meta.reptile import Reptile as Reptile
from refinejax.meta.training import MetaTraining as MetaTraining
from refinejax.meta.training import meta_task as meta_task
from refinejax.meta.training import meta_train as meta_train
from refinejax.meta.trajectory import Trajectory as Trajectory
from refinejax.meta.truncated import TruncatedUnroll as TruncatedUnroll
from refinejax.meta.warm_starts import WarmStarts as WarmStarts
from refinejax.meta.warm_starts import fit_warm_starts as fit_warm_starts
