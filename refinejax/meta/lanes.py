"""Episodes under way, for estimators that look at a window of steps at a time."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from refinejax._core import Scalar
from refinejax._trees import select
from refinejax.meta.inner import advance_steps, draw_length, mean_length


class Episode(struct.PyTreeNode):
    """An episode under way.

    Attributes:
        task: what it is about.
        key: of its random numbers.
        count: steps taken; 0: it begins, and ``state`` is not read.
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
    """Raise `ValueError` unless the window divides the horizon and sees a loss.

    Args:
        inner: the inner loop.
        window: steps of an update.
        lanes: episodes under way.

    Raises:
        ValueError: for another window, or fewer than 1 lane.
    """
    if window < 1 or inner.horizon % window:
        raise ValueError(
            f"window: expected a divisor of the horizon of {inner.horizon} steps, got {window}"
        )
    if window < inner.horizon and not inner.whole:
        raise ValueError(
            f"window: only the last step has a loss, which a window of {window} of "
            f"{inner.horizon} steps does not see; let all steps count, or take window="
            f"{inner.horizon}"
        )
    if lanes < 1:
        raise ValueError(f"lanes: expected 1 or more, got {lanes}")


def new_episode(
    inner: Any, window: int, key: PRNGKeyArray, state: PyTree, noise: PyTree
) -> Episode:
    """Return an episode with a new task, at step 0.

    Args:
        inner: the inner loop.
        window: steps of an update; static.
        key: of the random numbers.
        state: a state of the right structure, which is not read.
        noise: noise of the right structure, which is not read.
    """
    draw, run, far = jax.random.split(key, 3)
    length = draw_length(inner, window, far)
    weight = mean_length(inner, window) / length
    return Episode(inner.sample(draw), run, jnp.int32(0), length, state, noise, weight)


def stagger(lane: Episode, window: int, key: PRNGKeyArray) -> Episode:
    """Cut a first episode short, so that lanes do not end at the same time ever after.

    Args:
        lane: the episode.
        window: steps of an update; static.
        key: of the random numbers.

    Returns:
        The episode with a random length of at most its own.
    """
    most = lane.length // window
    return lane.replace(length=window * jax.random.randint(key, (), 1, most + 1))


def renew(inner: Any, window: int, lane: Episode, key: PRNGKeyArray) -> Episode:
    """Replace an episode that has ended.

    Args:
        inner: the inner loop.
        window: steps of an update; static.
        lane: the episode.
        key: of the random numbers.

    Returns:
        A new episode where this one has ended, else this one.
    """
    fresh = new_episode(inner, window, key, lane.state, lane.noise)
    return select(lane.count >= lane.length, fresh, lane)


def run_window(
    inner: Any, meta: PyTree, lane: Episode, state: PyTree, window: int
) -> tuple[PyTree, Scalar]:
    """Take the steps of a window from ``state``, or from the start of an episode that begins.

    Args:
        inner: the inner loop.
        meta: meta-params.
        lane: the episode.
        state: where it is; not read at step 0, where the episode begins.
        window: steps of an update; static.

    Returns:
        The state after the window, and its weighted mean loss.
    """
    first, run = jax.random.split(lane.key)
    start = inner.begin(meta, lane.task, first)
    state = select(lane.count == 0, start, jax.lax.stop_gradient(state))
    state, loss = advance_steps(inner, meta, lane.task, state, run, first=lane.count, count=window)
    return state, loss * jnp.asarray(lane.weight, loss.dtype)


def finish(lane: Episode, window: int, kept: Any) -> Episode:
    """Count the steps taken; an episode that is lost ends.

    Args:
        lane: the episode.
        window: steps of an update; static.
        kept: whether the window was finite.

    Returns:
        The episode after the window; one that was lost has ended.
    """
    return lane.replace(count=jnp.where(kept, lane.count + window, lane.length))
