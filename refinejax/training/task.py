"""The protocol of a task that can be trained."""

import re
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from refinejax._core import Scalar
from refinejax._files import hash_parts
from refinejax._trees import as_numpy


class TrainingTask(Protocol):
    """Weights to be found, how their loss falls, and how good they are.

    A pytree, such as a ``flax.struct.PyTreeNode``: its numbers and data are leaves, its functions
    and sizes static, so that new numbers do not compile anew. All methods are pure and are traced.
    Data are simulated in them from the key, or are leaves.
    """

    def init(self, key: PRNGKeyArray, /) -> Any:
        """Return the first weights: any pytree of floating arrays."""
        ...

    def begin(self, weights: Any, key: PRNGKeyArray, /) -> Any:
        """Return what the estimator of the gradient carries from step to step, or ()."""
        ...

    def loss_and_grad(
        self, weights: Any, memory: Any, step: Int[Array, ""], key: PRNGKeyArray, /
    ) -> tuple[Scalar, Any, Any, dict[str, Scalar]]:
        """Return loss, gradient (a pytree like the weights), memory, and numbers to be logged.

        A step of which the loss or the gradient is not finite is skipped, and the memory begun
        anew: by ``begin``, or, where there is one, by ``renew(weights, memory, step, key)``, which
        is given the memory before the step and may keep of it what it knows to be finite.
        """
        ...

    def validate(self, weights: Any, key: PRNGKeyArray, /) -> dict[str, Scalar]:
        """Return numbers from held-out data, among them "loss": the lower the better.

        The key is the same each time.
        """
        ...


def check_task(task: Any) -> None:
    """Raise `ValueError` unless it is a `TrainingTask`, before it is traced.

    Args:
        task: to be checked.

    Raises:
        ValueError: if it lacks a method, or is no pytree of arrays and numbers.
    """
    methods = ("init", "begin", "loss_and_grad", "validate")
    if lacking := [name for name in methods if not callable(getattr(task, name, None))]:
        raise ValueError(
            f"task: expected a TrainingTask, {type(task).__name__} has no {', '.join(lacking)}"
        )
    for path, leaf in jax.tree_util.tree_flatten_with_path(task)[0]:
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex):
            raise ValueError(
                f"task{jax.tree_util.keystr(path)}: expected arrays and numbers as leaves, got "
                f"{type(leaf).__name__}; make the task a flax.struct.PyTreeNode, and all else a "
                "field with pytree_node=False"
            )


def fingerprint(task: Any) -> int:
    """Return a number that tells tasks apart: 64 bits of a hash of their leaves and structure.

    Of the structure classes, sizes, settings and the names of functions enter, the same in every
    process.

    Args:
        task: that is hashed.
    """
    structure = re.sub(r" at 0x[0-9a-f]+", "", repr(jax.tree.structure(task)))
    parts = [as_numpy(leaf) for leaf in jax.tree.leaves(task)]
    return int(hash_parts([structure, *parts])[:16], 16)
