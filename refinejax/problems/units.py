"""Quadratic models in other units: of z ↦ f(offset + c∘z)."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from refinejax.problems.normal import Normal, Product, curvature, normal_equations


def normal_in_units(
    objective: Any, params: PyTree, scale: Float[Array, " n"], basis: Array | None = None
) -> Normal:
    """Return the quadratic model of an objective in params divided by ``scale``.

    Args:
        objective: with a residual, or its own normal equations.
        params: where, in its own units.
        scale: c, the unit of each of the flat params.
        basis: T, upper triangular, shape (n, n), for the model as a function of z in params / c +
            T·z.

    Raises:
        ValueError: if the objective has no residual.
    """
    if basis is not None:
        return normal_equations(objective, params, scale[:, None] * basis)
    model = normal_equations(objective, params)
    return model.along(jnp.diag(scale.astype(model.gradient.dtype)))


def curvature_in_units(objective: Any, params: PyTree, scale: Float[Array, " n"]) -> Product | None:
    """Return products with the matrix of `normal_in_units`; None where the objective has none.

    Args:
        objective: with a residual, or its own products.
        params: where, in its own units.
        scale: c, the unit of each of the flat params.
    """
    apply = curvature(objective, params)
    return None if apply is None else lambda v: scale * apply(scale * v)
