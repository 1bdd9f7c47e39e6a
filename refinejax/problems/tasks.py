"""Distributions of problems, to learn from."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import PRNGKeyArray, PyTree


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
        """Return what is minimized."""
        ...

    def initial(self, task: PyTree, key: PRNGKeyArray) -> PyTree:
        """Return the params to begin at."""
        ...
