"""Episodes under way, for estimators that look at a window of steps at a time."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from refinejax._core import Scalar
from refinejax._trees import select
from refinejax.meta.inner import advance_steps, draw_length, mean_length


class Lane(struct.PyTreeNode):
    """An episode under way.

    Attributes:
        task: what it is about.
        key: of its random numbers.
        count: steps taken; 0: it begins, and what ``state`` holds does not matter.
        length: at which it ends and gives way to another.
        state: of the inner loop; a pair of them for antithetic estimators.
        noise: what such an estimator remembers of its perturbations; ().
        weight: of its windows, mean length / length: a long episode has more windows, and would
            count as often as it has; so all episodes count alike, as in `FullUnroll`.
    """

    task: PyTree
    key: PRNGKeyArray
    count: Int[Array, ""]
    length: Int[Array, ""]
    state: PyTree
    noise: PyTree = ()
    weight: Any = 1.0


def check_window(inner: Any, window: int, lanes: int) -> None:
    """Insist on windows that fit.

    Raises:
        ValueError: if they do not.
    """
    if window < 1 or inner.horizon % window:
        raise ValueError(
            f"window: expected a divisor of the horizon of {inner.horizon} steps, got {window}"
        )
    if window < inner.horizon and not inner.whole:
        raise ValueError(
            f"window: the loss is that of the last step alone, which a window of {window} of "
            f"{inner.horizon} steps does not see; let all steps count, or take window="
            f"{inner.horizon}"
        )
    if lanes < 1:
        raise ValueError(f"lanes: expected 1 or more, got {lanes}")


def new_lane(inner: Any, window: int, key: PRNGKeyArray, state: PyTree, noise: PyTree) -> Lane:
    """Return a lane with a new task, whose state is still to be made."""
    draw, run, far = jax.random.split(key, 3)
    length = draw_length(inner, window, far)
    weight = mean_length(inner, window) / length
    return Lane(inner.sample(draw), run, jnp.int32(0), length, state, noise, weight)


def stagger(lane: Lane, window: int, key: PRNGKeyArray) -> Lane:
    """Cut a first episode short, so that lanes do not end at the same time ever after."""
    most = lane.length // window
    return lane.replace(length=window * jax.random.randint(key, (), 1, most + 1))


def renew(inner: Any, window: int, lane: Lane, key: PRNGKeyArray) -> Lane:
    """Put a new task where an episode has ended."""
    fresh = new_lane(inner, window, key, lane.state, lane.noise)
    return select(lane.count >= lane.length, fresh, lane)


def run_window(
    inner: Any, meta: PyTree, lane: Lane, state: PyTree, window: int
) -> tuple[PyTree, Scalar]:
    """Take the steps of a window from ``state``, or from the start of an episode that begins."""
    first, run = jax.random.split(lane.key)
    start = inner.begin(meta, lane.task, first)
    state = select(lane.count == 0, start, jax.lax.stop_gradient(state))
    state, loss = advance_steps(inner, meta, lane.task, state, run, lane.count, window)
    return state, loss * jnp.asarray(lane.weight, loss.dtype)


def finish(lane: Lane, window: int, kept: Any) -> Lane:
    """Count the steps taken; an episode that is lost ends."""
    return lane.replace(count=jnp.where(kept, lane.count + window, lane.length))
