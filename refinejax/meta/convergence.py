"""How fast, how far and how surely refinements converge, from their traces."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from refinejax._core import Scalar
from refinejax.meta.inner import scores

DIVERGED = 10.0  # times the score at the start
MEASURES = ("plain", "log", "relative", "last", "log_last")


def traces(
    inner: Any, meta: PyTree, key: PRNGKeyArray, *, count: int, steps: int, batch: int = 64
) -> Float[Array, "n k"]:
    """Return the scores at the start and after each step on ``count`` tasks.

    Args:
        inner: the inner loop.
        meta: its meta-params.
        key: of tasks and starts.
        count: of tasks; static.
        steps: of each; need not be the horizon; static.
        batch: tasks at once; static.
    """
    keys = jax.random.split(key, count)
    return jax.lax.map(lambda k: scores(inner, meta, k, steps), keys, batch_size=batch)


def mean_score(scores: Float[Array, "n k"], by: str) -> Scalar:
    """Return the loss of a validation: one number from the traces of many tasks.

    A score above 10 times the score at the start counts as 10 times that score.

    Args:
        scores: of each task, at the start and after each step.
        by: "plain", "log" or "relative": mean over tasks and steps, scaled as in a `Trajectory`;
            "last": mean score after the last step; "log_last": mean of its logarithm.

    Returns:
        The loss, a scalar.
    """
    start, after = scores[:, :1], scores[:, 1:]
    capped = jnp.where(after < DIVERGED * start, after, DIVERGED * start)
    if by in ("last", "log_last"):
        capped = capped[:, -1]
    if by in ("log", "log_last"):
        return jnp.mean(jnp.log(jnp.maximum(capped, 1e-30)))
    return jnp.mean(capped / start if by == "relative" else capped)


def convergence(scores: Float[Array, "n k"], target: Any) -> dict[str, Scalar]:
    """Return what traces say, of scores with a start and k − 1 steps.

    Args:
        scores: of each task, at the start and after each step.
        target: a share of the score at the start, to which it is to fall.

    Returns:
        ``final``: mean score after the last step, over those that are finite; ``log_final``: mean
        of its logarithm, infinite ones at 10 times the start; ``log_median``: its median;
        ``steps``: mean number of steps to
        the target, k where it is not reached; ``reached``: share that reach it; ``diverged``: share
        that end at 10 times the start or more, or not at a number.
    """
    start, final = scores[:, 0], scores[:, -1]
    hit = scores <= target * start[:, None]
    reached = jnp.any(hit, axis=1)
    steps = jnp.where(reached, jnp.argmax(hit, axis=1), scores.shape[1])
    lost = ~(final < DIVERGED * start)
    capped = jnp.where(lost, DIVERGED * start, final)
    finite = jnp.isfinite(final)
    logs = jnp.log(jnp.maximum(capped, 1e-30))
    return {
        "final": jnp.sum(jnp.where(finite, final, 0)) / jnp.sum(finite),
        "log_final": jnp.mean(logs),
        "log_median": jnp.median(logs),
        "steps": jnp.mean(steps.astype(final.dtype)),
        "reached": jnp.mean(reached),
        "diverged": jnp.mean(lost),
    }
