"""The exact meta-gradient: backpropagation through all steps."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import PRNGKeyArray, PyTree

from refinejax._core import Scalar
from refinejax.meta.estimator import Fresh
from refinejax.meta.inner import advance_steps, draw_length


class FullUnroll(Fresh):
    """Backpropagation through whole episodes.

    The gradient of the mean loss, exact for the tasks drawn. With an inner loop of
    ``second_order=False`` the first-order estimate, which drops the Hessians.

    Attributes:
        segment: steps whose inside is computed again in the reverse pass instead of kept, so that
            memory grows with horizon / segment + segment; about the root of the horizon is best.
            0: all is kept; static.

    Raises:
        ValueError: for segments below 0, and as `Fresh`.
    """

    segment: int = struct.field(pytree_node=False, default=0)

    def __post_init__(self) -> None:
        """Check the sizes."""
        super().__post_init__()
        if self.segment < 0:
            raise ValueError(f"segment: expected 0 steps or more, got {self.segment}")

    def estimate(
        self, meta: PyTree, tasks: PyTree, keys: PRNGKeyArray
    ) -> tuple[Scalar, PyTree, Scalar]:
        """Return loss, gradient, and the share of parts that were finite."""

        def one(meta: Any, part: Any) -> tuple[Scalar, PyTree]:
            return jax.value_and_grad(self._mean)(meta, *part)

        return self.average(one, meta, (tasks, keys))

    def _mean(self, meta: PyTree, tasks: PyTree, keys: PRNGKeyArray) -> Scalar:
        return jnp.mean(jax.vmap(self._loss, in_axes=(None, 0, 0))(meta, tasks, keys))

    def _loss(self, meta: PyTree, task: PyTree, key: PRNGKeyArray) -> Scalar:
        inner = self.inner
        first, run = jax.random.split(key)
        far = jax.random.fold_in(key, 2)
        length = None if inner.shortest is None else draw_length(inner, 1, far)
        return advance_steps(
            inner,
            meta,
            task,
            inner.begin(meta, task, first),
            run,
            first=0,
            count=inner.horizon,
            length=length,
            segment=self.segment,
        )[1]
