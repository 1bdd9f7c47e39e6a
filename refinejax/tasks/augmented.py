"""Tasks in other units: random scales of the params and of the loss."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray, PyTree

from refinejax._core import Problem, Scalar, as_problem
from refinejax._trees import broadcast_like
from refinejax.problems.normal import Normal, Product
from refinejax.problems.units import curvature_in_units, normal_in_units
from refinejax.tasks.distribution import Number, judge


class RescaledTask(Problem):
    """The function x ↦ s·f(c∘x).

    Attributes:
        objective: f.
        scales: c, a pytree like the params.
        factor: s.
    """

    objective: Problem
    scales: PyTree
    factor: Any

    def __call__(self, params: PyTree) -> Scalar:
        """Return the loss."""
        return self.factor * self.objective(self._inside(params))

    def residual(self, params: PyTree) -> PyTree:
        """Return √s·r(c∘x); None where the objective has no residual."""
        found = self.objective.residual(self._inside(params))
        return jax.tree.map(lambda r: jnp.sqrt(self.factor).astype(r.dtype) * r, found)

    def normal(self, params: PyTree, basis: Array | None = None) -> Normal:
        """Return the quadratic model of s·f(c∘x); with ``basis`` as a function of z."""
        scales = ravel_pytree(self.scales)[0]
        model = normal_in_units(self.objective, self._inside(params), scales, basis)
        loss, gradient, matrix = (
            self.factor * x for x in (model.loss, model.gradient, model.matrix)
        )
        return Normal(loss, gradient, matrix, model.count)

    def curvature(self, params: PyTree) -> Product | None:
        """Return products with the matrix of `normal`; None where the objective has none."""
        scales = ravel_pytree(self.scales)[0]
        apply = curvature_in_units(self.objective, self._inside(params), scales)
        return None if apply is None else lambda v: self.factor * apply(v)

    def _inside(self, params: PyTree) -> PyTree:
        return jax.tree.map(jnp.multiply, self.scales, params)

    @property
    def bounds(self) -> Any:
        """Those of the objective in these units; None if it has none."""
        ends = self.objective.bounds
        if ends is None:
            return None
        return tuple(
            jax.tree.map(jnp.divide, broadcast_like(end, self.scales), self.scales) for end in ends
        )

    def draw(self, key: PRNGKeyArray) -> "RescaledTask":
        """Return it with another minibatch of the objective."""
        return self.replace(objective=self.objective.draw(key))


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

    def objective(self, task: tuple[PyTree, PyTree, Scalar]) -> RescaledTask:
        """Return s·f(c∘x)."""
        inner, scales, factor = task
        return RescaledTask(as_problem(self.tasks.objective(inner)), scales, factor)

    def query(self, task: tuple[PyTree, PyTree, Scalar]) -> RescaledTask:
        """Return what c∘x is judged by."""
        inner, scales, factor = task
        return RescaledTask(as_problem(judge(self.tasks, inner)), scales, jnp.ones_like(factor))

    def initial(self, task: tuple[PyTree, PyTree, Scalar], key: PRNGKeyArray) -> PyTree:
        """Return the start in these units."""
        inner, scales, _ = task
        return jax.tree.map(jnp.divide, self.tasks.initial(inner, key), scales)
