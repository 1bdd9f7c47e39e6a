"""Gradients by meta-params: the contract, and what estimators without memory share."""

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PRNGKeyArray, PyTree

from refinejax._checks import check_positive
from refinejax._core import Scalar
from refinejax.learned.masked import divide, masked_average

Metrics = dict[str, Scalar]


class Estimator(struct.PyTreeNode, abc.ABC):
    """An estimate of the gradient by meta-params of the mean loss of an inner loop over tasks.

    Called with tasks it has the contract of ``jax.value_and_grad``: ``(meta, tasks, keys) → (loss,
    gradient)``, tasks and keys with a leading axis, whole episodes. `update` draws the tasks
    itself, and may keep episodes that have not ended in a memory; `begin` makes that. Tasks whose
    loss or gradient is NaN or infinite are left out of both means, and counted.

    Attributes:
        inner: the inner loop that is unrolled.
    """

    inner: Any

    def init(self, key: PRNGKeyArray) -> PyTree:
        """Return the first meta-params.

        Args:
            key: of the random numbers.
        """
        return self.inner.init(key)

    @abc.abstractmethod
    def begin(self, meta: PyTree, key: PRNGKeyArray) -> PyTree:
        """Return the memory.

        Args:
            meta: meta-params.
            key: of the first tasks.
        """

    @abc.abstractmethod
    def update(
        self, meta: PyTree, memory: PyTree, key: PRNGKeyArray
    ) -> tuple[Scalar, PyTree, PyTree, Metrics]:
        """Return loss, gradient, memory and numbers for the log.

        Args:
            meta: meta-params.
            memory: of the last update, or from `begin`.
            key: of the tasks and the episodes.
        """

    @abc.abstractmethod
    def __call__(self, meta: PyTree, tasks: PyTree, keys: PRNGKeyArray) -> tuple[Scalar, PyTree]:
        """Return loss and gradient of whole episodes.

        Args:
            meta: meta-params.
            tasks: with a leading axis.
            keys: one for each task.
        """


class Fresh(Estimator):
    """An estimator that begins with new tasks each time.

    Attributes:
        batch: tasks an update; static.
        parts: of the batch, each left out as a whole if it is not finite; static. None: each task
            by itself.
        clip: longest gradient of a part; longer ones are shortened to it. None: none are.
        mesh: devices over which the batch is divided, along its first axis; static.

    Raises:
        ValueError: for fewer than 1 task, or parts that do not divide them.
    """

    batch: int = struct.field(pytree_node=False, default=32)
    parts: int | None = struct.field(pytree_node=False, default=None)
    clip: Any = None
    mesh: Mesh | None = struct.field(pytree_node=False, default=None)

    def __post_init__(self) -> None:
        """Check the sizes."""
        check_positive("batch", self.batch)
        if self.parts is not None:
            check_positive("parts", self.parts)
            if self.batch % self.parts:
                raise ValueError(
                    f"parts: expected a divisor of the batch of {self.batch}, got {self.parts}"
                )

    def begin(self, meta: PyTree, key: PRNGKeyArray) -> tuple[()]:
        """Return nothing."""
        del meta, key
        return ()

    def update(
        self, meta: PyTree, memory: PyTree, key: PRNGKeyArray
    ) -> tuple[Scalar, PyTree, PyTree, Metrics]:
        """Draw tasks, and return loss and gradient."""
        one, two = jax.random.split(key)
        tasks = jax.vmap(self.inner.sample)(jax.random.split(one, self.batch))
        keys = jax.random.split(two, self.batch)
        loss, gradient, share = self.estimate(meta, tasks, keys)
        return loss, gradient, memory, {"finite": share}

    def __call__(self, meta: PyTree, tasks: PyTree, keys: PRNGKeyArray) -> tuple[Scalar, PyTree]:
        """Return loss and gradient."""
        return self.estimate(meta, tasks, keys)[:2]

    @abc.abstractmethod
    def estimate(
        self, meta: PyTree, tasks: PyTree, keys: PRNGKeyArray
    ) -> tuple[Scalar, PyTree, Scalar]:
        """Return loss, gradient, and the share of parts that were finite.

        Args:
            meta: meta-params.
            tasks: with a leading axis.
            keys: one for each task.
        """

    def average(
        self,
        one: Callable[[PyTree, PyTree], tuple[Scalar, PyTree]],
        meta: PyTree,
        samples: PyTree,
    ) -> tuple[Scalar, PyTree, Scalar]:
        """Average loss and gradient over equal parts of the samples.

        Args:
            one: (meta, part) → (loss, gradient).
            meta: meta-params.
            samples: pytree with a leading axis.

        Returns:
            Mean loss and gradient over the finite parts, and their share.
        """
        count = jax.tree.leaves(samples)[0].shape[0]
        samples = divide(samples, count if self.parts is None else self.parts)
        samples = over_devices(samples, self.mesh, axes=2)

        def without_aux(meta: PyTree, part: PyTree) -> tuple[tuple[Scalar, PyTree], PyTree]:
            loss, gradient = one(meta, part)
            return (loss, ()), gradient

        found = masked_average(without_aux, meta, samples, self.clip)
        return found.loss, found.gradient, jnp.mean(found.kept)


class EachTask(Fresh):
    """An estimator that looks at each task by itself."""

    def estimate(
        self, meta: PyTree, tasks: PyTree, keys: PRNGKeyArray
    ) -> tuple[Scalar, PyTree, Scalar]:
        """Return loss, gradient, and the share of parts that were finite."""

        def part(meta: PyTree, samples: Any) -> tuple[Scalar, PyTree]:
            found = jax.vmap(self.one, in_axes=(None, 0, 0))(meta, *samples)
            return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), found)

        return self.average(part, meta, (tasks, keys))

    @abc.abstractmethod
    def one(self, meta: PyTree, task: PyTree, key: PRNGKeyArray) -> tuple[Scalar, PyTree]:
        """Return loss and gradient of one task.

        Args:
            meta: meta-params.
            task: one task.
            key: of the episode.
        """


def over_devices(tree: PyTree, mesh: Mesh | None, axes: int = 1) -> PyTree:
    """Divide a leading axis over the devices of a mesh.

    Args:
        tree: pytree of arrays.
        mesh: devices; its first axis is used. None leaves the tree unchanged.
        axes: leading axes to choose from; the first whose size the devices divide is taken.

    Returns:
        The same arrays, with a constraint on their sharding.

    Raises:
        ValueError: if none can be.
    """
    if mesh is None:
        return tree
    name = mesh.axis_names[0]
    devices, sizes = mesh.shape[name], jax.tree.leaves(tree)[0].shape[:axes]
    usable = [axis for axis, size in enumerate(sizes) if size % devices == 0]
    if not usable:
        raise ValueError(
            f"mesh: {' × '.join(map(str, sizes))} tasks or lanes cannot be divided over "
            f"{devices} devices; choose a multiple"
        )
    automatic = Mesh(mesh.devices, mesh.axis_names)  # whatever the types of its axes
    sharding = NamedSharding(automatic, PartitionSpec(*[None] * usable[0], name))
    return jax.lax.with_sharding_constraint(tree, sharding)
