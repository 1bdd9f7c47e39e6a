"""Quadratic models in coordinates in which they are round, so that float32 does not lose half.

The matrix M = 2c·JᵀJ of normal equations has the squared condition of J: what the data determine
less well than √ε of the best drowns in rounding. So a model is kept as a function of z = R·x, with
RᵀR about M, and the columns of J·R⁻¹, all of one length, are formed along R⁻¹: nothing is squared
that is not round. Each step brings R up to date by the triangle of the matrix it solved; R is upper
triangular. (QR of J would do the same, with J kept.)
"""

from typing import Any

import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from refinejax._core import Scalar
from refinejax.problems.normal import Normal, normal_equations
from refinejax.refiners.least_squares.dense import dot, invert_upper
from refinejax.refiners.least_squares.model import Model, nonzero, root


class White(struct.PyTreeNode):
    """A quadratic model of the loss as a function of z = R·x, in the dtype of the loss.

    Attributes:
        gradient: of the loss by z, shape (n,).
        matrix: the Gauss–Newton matrix in z, shape (n, n).
        triangle: R, upper triangular, shape (n, n).
        basis: R⁻¹.
        count: how many numbers the loss is the mean of.
    """

    gradient: Float[Array, " n"]
    matrix: Float[Array, "n n"]
    triangle: Float[Array, "n n"]
    basis: Float[Array, "n n"]
    count: Scalar

    def plain(self) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
        """Return gradient and matrix by x, with what rounding leaves of it."""
        matrix = dot(self.triangle.T, dot(self.matrix, self.triangle))
        return dot(self.gradient, self.triangle), matrix

    def sizes(self) -> Float[Array, " n"]:
        """Return √diag of the matrix by x: lengths of the columns of J, up to a factor."""
        return root(jnp.sum(self.triangle * dot(self.matrix, self.triangle), axis=0))

    def loosened(self, held: Bool[Array, " n"], size: Float[Array, " n"]) -> "White":
        """Return the model in coordinates in which what is held does not mix with what is free.

        That is as it is, or by x/size where R mixes them.
        """
        mixed = jnp.any((held[:, None] != held[None, :]) & (self.triangle != 0))
        gradient, matrix = self.plain()
        return White(
            jnp.where(mixed, gradient / size, self.gradient),
            jnp.where(mixed, matrix / size[:, None] / size[None, :], self.matrix),
            jnp.where(mixed, jnp.diag(size), self.triangle),
            jnp.where(mixed, jnp.diag(1 / size), self.basis),
            self.count,
        )


def first_model(objective: Any, params: Any) -> tuple[Scalar, White]:
    """Return loss and model at ``params``, each param scaled."""
    model = normal_equations(objective, params)
    gradient, matrix, count = _like(model)
    size = nonzero(root(jnp.diagonal(matrix)))
    scaled = matrix / size[:, None] / size[None, :]
    white = White(gradient / size, scaled, jnp.diag(size), jnp.diag(1 / size), count)
    return model.loss, white


def model_along(objective: Any, params: Any, triangle: Array) -> tuple[Scalar, White]:
    """Return loss and model at ``params``, as a function of z = R·x."""
    basis = invert_upper(triangle)
    model = normal_equations(objective, params, basis.astype(ravel_pytree(params)[0].dtype))
    gradient, matrix, count = _like(model)
    return model.loss, White(gradient, matrix, triangle, basis, count)


def summary(loss: Scalar, white: White) -> Model:
    """Return what `judge` looks at."""
    return Model(loss, dot(white.gradient, white.triangle), white.matrix, white.sizes())


def _like(model: Normal) -> tuple[Array, Array, Array]:
    """Return gradient, matrix and count in the dtype of the loss."""
    parts = (model.gradient, model.matrix, model.count)
    gradient, matrix, count = (jnp.asarray(part, model.loss.dtype) for part in parts)
    return gradient, matrix, count
