"""The params of a problem as a population sees them: flat, and mapped onto the bounds."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from refinejax._core import bounds_of
from refinejax._trees import project
from refinejax.refiners.population.bound_transform import BoundTransform


class SearchSpace:
    """The params of an objective in flat coordinates; lives within a trace."""

    def __init__(self, objective: Any, params: Any, std: Any) -> None:
        bounds = bounds_of(objective)
        self.start, self.unravel = ravel_pytree(project(params, bounds))
        self.objective, self.n, self.dtype = objective, self.start.size, self.start.dtype
        if jax.tree.structure(std) == jax.tree.structure(params):
            std = ravel_pytree(
                jax.tree.map(lambda s, p: jnp.broadcast_to(s, jnp.shape(p)), std, params)
            )[0]
        self.width = jnp.broadcast_to(jnp.asarray(std, self.dtype), self.start.shape)
        self.transform = BoundTransform.of(bounds, params, self.width)

    def losses(self, x: Float[Array, "p n"]) -> Float[Array, " p"]:
        """Return the losses of candidates, shape (p,).

        Args:
            x: candidates in flat params, shape (p, n).
        """
        return jax.vmap(lambda row: self.objective(self.unravel(row)))(x)

    def restart_center(self, std: Any, key: PRNGKeyArray) -> Float[Array, " n"]:
        """Return the center of a restart, drawn at random, in the coordinates of the transform.

        Args:
            std: of the normal draw where the bounds are infinite, in initial standard deviations;
                elsewhere the draw is uniform.
            key: for the draw.
        """
        one, other = jax.random.split(key)
        low, high = self.transform.lower, self.transform.upper
        finite = jnp.isfinite(high - low)
        unit = jax.random.uniform(one, low.shape, self.dtype)
        noise = jax.random.normal(other, low.shape, self.dtype)
        near = jnp.clip(self.start + std * self.width * noise, low, high)
        within = jnp.where(finite, low, 0) + unit * jnp.where(finite, high - low, 0)
        return self.transform.leave(jnp.where(finite, within, near))
