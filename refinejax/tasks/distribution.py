"""Distributions of problems, to learn from."""

from typing import Any, Protocol, runtime_checkable

import jax
from flax import struct
from jaxtyping import PRNGKeyArray, PyTree

Number = float | jax.Array  # a leaf; a configuration gives it as a number
STREAMS = {"train": 0, "validation": 1, "test": 2}


@runtime_checkable
class TaskDistribution(Protocol):
    """Problems of a kind: what a learned refiner is trained and tested on.

    A pytree: its numbers (noise, ranges) are leaves, its sizes static, so that a curriculum or a
    test under another noise does not compile anew. A task is a pytree of its data, which can be
    batched and stored.
    """

    def sample(self, key: PRNGKeyArray) -> PyTree:
        """Draw a task."""
        ...

    def objective(self, task: PyTree) -> Any:
        """Return the objective to be minimized."""
        ...

    def initial(self, task: PyTree, key: PRNGKeyArray) -> PyTree:
        """Return the params to begin at."""
        ...


@runtime_checkable
class JudgedTasks(TaskDistribution, Protocol):
    """Problems whose solution is judged by another loss than the one that is minimized.

    Few-shot learning: `objective` is the loss on the support set, `query` that on the query set.
    Sparse recovery: `objective` is the lasso, `query` the distance from the truth.
    """

    def query(self, task: PyTree) -> Any:
        """Return what params are judged by, a function of them."""
        ...


class Split(struct.PyTreeNode):
    """A part of a distribution that draws from a stream of keys of its own.

    ``sample(fold_in(key, stream))``: tasks for training, validation and test are drawn anew also
    where the same seed was used for all. Two parts share a task only where the distribution itself
    gives the same one for different keys, as one of few tasks may; what tasks are drawn from, such
    as the rows of a data set, they share.

    Attributes:
        tasks: the distribution.
        part: "train", "validation" or "test"; static.

    Raises:
        ValueError: for an unknown part.
    """

    tasks: Any
    part: str = struct.field(pytree_node=False, default="train")

    def __post_init__(self) -> None:
        """Check."""
        if self.part not in STREAMS:
            raise ValueError(f"part: expected one of {', '.join(STREAMS)}, got {self.part!r}")

    def sample(self, key: PRNGKeyArray) -> PyTree:
        """Draw a task of this part."""
        return self.tasks.sample(jax.random.fold_in(key, STREAMS[self.part]))

    def objective(self, task: PyTree) -> Any:
        """Return the objective to be minimized."""
        return self.tasks.objective(task)

    def initial(self, task: PyTree, key: PRNGKeyArray) -> PyTree:
        """Return the params to begin at."""
        return self.tasks.initial(task, key)

    def query(self, task: PyTree) -> Any:
        """Return what params are judged by: `judge` of the distribution."""
        return judge(self.tasks, task)


def judge(tasks: Any, task: PyTree) -> Any:
    """Return the loss that params are judged by: ``tasks.query(task)``, or the objective.

    Args:
        tasks: a task distribution.
        task: one of its tasks.
    """
    query = getattr(tasks, "query", tasks.objective)
    return query(task)
