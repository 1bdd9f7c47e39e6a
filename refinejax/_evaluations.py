"""Counts of evaluations of a problem."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool


class Evaluations(NamedTuple):
    """How often a problem was evaluated; whole numbers, or int32 arrays.

    Attributes:
        values: for its loss or residual.
        derivatives: for a derivative at a point: a gradient, or a Jacobian, whatever the number of
            its columns or products. Each also counts among the values.
    """

    values: Any
    derivatives: Any

    def plus(self, other: "Evaluations") -> "Evaluations":
        """Return the sum.

        Args:
            other: to be added.
        """
        return jax.tree.map(jnp.add, self, other)

    def where(self, condition: Bool[Array, ""]) -> "Evaluations":
        """Return the numbers where the condition holds, else 0.

        Args:
            condition: a truth value.
        """
        return jax.tree.map(lambda count: jnp.where(condition, count, 0), self)

    def minus(self, other: "Evaluations") -> "Evaluations":
        """Return the difference.

        Args:
            other: to be subtracted.
        """
        return jax.tree.map(jnp.subtract, self, other)
