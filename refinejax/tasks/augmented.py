"""Tasks in other units: random scales of the params and of the loss."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import PRNGKeyArray, PyTree

from refinejax._core import Scalar
from refinejax._trees import broadcast_like, offer
from refinejax.problems.normal import Normal, curvature, normal_equations
from refinejax.tasks.distribution import Number, judge


class Scaled(struct.PyTreeNode):
    """The function x ↦ s·f(c∘x).

    Attributes:
        objective: f.
        scales: c, a pytree like the params.
        factor: s.
    """

    objective: Any
    scales: PyTree
    factor: Any

    def __call__(self, params: PyTree) -> Scalar:
        """Return the loss."""
        return self.factor * self.objective(self._inside(params))

    @property
    def residual(self) -> Any:
        """√s·r(c∘x), of an objective that has a residual; else None."""
        inner = offer(self.objective, "residual")
        if inner is None:
            return None

        def residual(params: PyTree) -> Any:
            found = inner(self._inside(params))
            return jax.tree.map(lambda r: jnp.sqrt(self.factor).astype(r.dtype) * r, found)

        return residual

    @property
    def normal(self) -> Any:
        """The quadratic model of s·f(c∘x), if f has one or a residual; else None."""
        if offer(self.objective, "normal") is None and offer(self.objective, "residual") is None:
            return None

        def normal(params: PyTree) -> Normal:
            model = normal_equations(self.objective, self._inside(params))
            scales = ravel_pytree(self.scales)[0].astype(model.gradient.dtype)
            model = model.along(jnp.diag(scales))
            loss, gradient, matrix = (
                self.factor * x for x in (model.loss, model.gradient, model.matrix)
            )
            return Normal(loss, gradient, matrix, model.count)

        return normal

    @property
    def curvature(self) -> Any:
        """Products with the matrix of ``normal``, if f has it or a residual; else None."""
        if offer(self.objective, "curvature") is None and offer(self.objective, "residual") is None:
            return None

        def at(params: PyTree) -> Any:
            apply = curvature(self.objective, self._inside(params))
            scales = ravel_pytree(self.scales)[0]
            return lambda v: self.factor * scales * apply(scales * v)

        return at

    def _inside(self, params: PyTree) -> PyTree:
        return jax.tree.map(jnp.multiply, self.scales, params)

    @property
    def bounds(self) -> Any:
        """Those of the objective in these units; None if it has none."""
        ends = offer(self.objective, "bounds")
        if ends is None:
            return None
        return tuple(
            jax.tree.map(jnp.divide, broadcast_like(end, self.scales), self.scales) for end in ends
        )

    def draw(self, key: PRNGKeyArray) -> "Scaled":
        """Return it with a minibatch, where ``objective`` has such.

        Args:
            key: of the minibatch.
        """
        draw = offer(self.objective, "draw")
        return self if draw is None else self.replace(objective=draw(key))


class Augmented(struct.PyTreeNode):
    """A distribution whose params and losses are in random units.

    The random scaling by which a learned optimizer comes to work at scales it was not trained on: a
    task f becomes s·f(c∘x), its start c⁻¹∘x₀, with log cᵢ uniform in ±``params``, one for each
    param, and log s in ±``loss`` (Lv et al. 2017, arXiv:1703.03633, §4.1, where ``params`` is 3).
    What params are judged by is not scaled, but for c.

    Attributes:
        tasks: the distribution.
        params: largest |log c|.
        loss: largest |log s|.
    """

    tasks: Any
    params: Number = 3.0
    loss: Number = 0.0

    def sample(self, key: PRNGKeyArray) -> tuple[PyTree, PyTree, Scalar]:
        """Draw a task, c and s."""
        one, two, three, four = jax.random.split(key, 4)
        task = self.tasks.sample(one)
        leaves, structure = jax.tree.flatten(jax.eval_shape(self.tasks.initial, task, two))
        keys = jax.random.split(three, len(leaves))
        scales = [
            jnp.exp(self.params * jax.random.uniform(k, x.shape, x.dtype, -1, 1))
            for k, x in zip(keys, leaves, strict=True)
        ]
        factor = jnp.exp(self.loss * jax.random.uniform(four, minval=-1))
        return task, jax.tree.unflatten(structure, scales), factor

    def objective(self, task: tuple[PyTree, PyTree, Scalar]) -> Scaled:
        """Return s·f(c∘x)."""
        inner, scales, factor = task
        return Scaled(self.tasks.objective(inner), scales, factor)

    def query(self, task: tuple[PyTree, PyTree, Scalar]) -> Scaled:
        """Return what c∘x is judged by."""
        inner, scales, factor = task
        return Scaled(judge(self.tasks, inner), scales, jnp.ones_like(factor))

    def initial(self, task: tuple[PyTree, PyTree, Scalar], key: PRNGKeyArray) -> PyTree:
        """Return the start in these units."""
        inner, scales, _ = task
        return jax.tree.map(jnp.divide, self.tasks.initial(inner, key), scales)
