"""Where the starts of a sample are, drawn by key, number of the sample and of the start."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from refinejax._trees import project
from refinejax.apps.latent.objective import LatentObjective

_DRAW = 2**31 - 3  # numbers that no step of a refiner has


def own_key(objective: LatentObjective, key: Array) -> Array:
    """Return the key of a row: a start of a sample.

    Args:
        objective: of the rows.
        key: data of the key of the run.
    """
    own = jax.random.wrap_key_data(key)
    for number in objective.key_ids:
        own = jax.random.fold_in(own, number)
    return own


def begin_row(objective: LatentObjective, key: Array, std: Array) -> Array:
    """Return where a row starts: the sample itself, or near to it.

    Args:
        objective: of the rows.
        key: a PRNG key.
        std: of the starts around the sample, in units of u.
    """
    u = objective.begin(objective.start[0])
    draw = jax.random.fold_in(own_key(objective, key), _DRAW)
    noise = std * jax.random.normal(draw, u.shape, u.dtype)
    return project(jnp.where(objective.key_ids[1] == 0, u, u + noise), objective.bounds)


def weight_factors(objective: LatentObjective, key: Array) -> Array:
    """Return factors of the targets' weights, of mean 1, uniform on a simplex; 1 for start 0.

    Args:
        objective: of the rows.
        key: data of the key of the run.
    """
    draw = jax.random.fold_in(own_key(objective, key), _DRAW - 1)
    count = len(objective.targets)
    shares = jax.random.exponential(draw, (count,), objective.stiffness.dtype)
    return jnp.where(objective.key_ids[1] == 0, 1, count * shares / jnp.sum(shares))
