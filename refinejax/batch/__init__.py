"""The batch engine: refine any number of samples with a fixed number of lanes.

A ``vmap`` ped ``while_loop`` runs every lane until the slowest is done. Here lanes whose sample has
ended are given the next one, so that the cost follows the sum of steps and not the maximum.
"""

from refinejax.batch.execution import Execution as Execution
from refinejax.batch.result import BatchResult as BatchResult
from refinejax.batch.run import run_batch as run_batch
from refinejax.batch.stream import run_stream as run_stream
