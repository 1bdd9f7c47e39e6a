"""The protocol of inner loops, and how they are unrolled."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from refinejax._core import Problem, Scalar


class InnerLoop(Protocol):
    """A way through a task, s₀ = begin, s_t = advance(s_{t−1}), with losses L_t that are to be low.

    A pytree: its numbers are leaves, its sizes static. All depends on the meta-params: estimators
    return the gradient by them of the mean of L_t over t = 0 … horizon − 1, or of the last L_t.
    Optional: ``deployed()``, the loop as it is when it is used and not trained; scores are of that.
    ``at(step)``, the loop as it is in that step of a training.
    """

    @property
    def horizon(self) -> int:
        """Steps of an episode (its most, where they vary)."""
        ...

    @property
    def shortest(self) -> int | None:
        """Fewest steps of an episode, their number being log-uniform; None if all are as long."""
        ...

    @property
    def whole(self) -> bool:
        """Whether the loss after each step counts, and not the last one alone."""
        ...

    def init(self, key: PRNGKeyArray) -> PyTree:
        """Return the first meta-params: any pytree of floating arrays."""
        ...

    def sample(self, key: PRNGKeyArray) -> PyTree:
        """Draw a task."""
        ...

    def begin(self, meta: PyTree, task: PyTree, key: PRNGKeyArray) -> PyTree:
        """Return the state at the start."""
        ...

    def advance(self, meta: PyTree, task: PyTree, state: PyTree, key: PRNGKeyArray) -> PyTree:
        """Return the state after a step: the same structure, shapes and dtypes."""
        ...

    def loss(self, meta: PyTree, task: PyTree, state: PyTree, count: Int[Array, ""]) -> Scalar:
        """Return the loss that is trained, of the state after step ``count`` (from 0)."""
        ...

    def score(self, task: PyTree, state: PyTree) -> Scalar:
        """Return the loss that is reported, without logarithms, weights or penalties."""
        ...


def advance_steps(
    inner: Any,
    meta: Any,
    task: Any,
    state: Any,
    key: PRNGKeyArray,
    *,
    first: Any,
    count: int,
    length: Any = None,
    segment: int = 0,
) -> tuple[Any, Scalar]:
    """Take steps, and return the state and the mean loss after them (or the last one).

    Args:
        inner: the inner loop.
        meta: meta-params.
        task: the task.
        state: where it stands.
        key: of the episode; step t has the key fold_in(key, t).
        first: number of the first step.
        count: of the steps; static.
        length: steps from this number on do not count; None: all do.
        segment: steps whose inside is not kept for the reverse pass but computed again
            (`jax.checkpoint`); 0: all is kept.

    Returns:
        The state after the steps, and the mean loss over those that count, or the last loss.
    """

    def advance(state: Any, t: Any) -> Any:
        return inner.advance(meta, task, state, jax.random.fold_in(key, t))

    def body(state: Any, t: Any) -> tuple[Any, Array]:
        state = advance(state, t)
        return state, inner.loss(meta, task, state, t)

    first = jnp.asarray(first, jnp.int32)
    if not inner.whole:
        state, _ = _scan(lambda s, t: (advance(s, t), None), state, first, count - 1, segment)
        return body(state, first + count - 1)
    state, losses = _scan(body, state, first, count, segment)
    if length is None:
        return state, jnp.mean(losses)
    counts = first + jnp.arange(count) < length
    return state, jnp.sum(jnp.where(counts, losses, 0)) / jnp.maximum(jnp.sum(counts), 1)


def _scan(
    body: Callable[[Any, Any], tuple[Any, Any]], state: Any, first: Any, count: int, segment: int
) -> tuple[Any, Any]:
    """Scan over steps, with `jax.checkpoint` around each whole segment of them."""
    times = first + jnp.arange(count)
    whole = count // segment * segment if segment else 0
    values = []
    if whole:
        part = jax.checkpoint(lambda state, times: jax.lax.scan(body, state, times))
        state, found = jax.lax.scan(part, state, times[:whole].reshape(-1, segment))
        values.append(jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), found))
    if whole < count:
        state, found = jax.lax.scan(body, state, times[whole:])
        values.append(found)
    return state, jax.tree.map(lambda *parts: jnp.concatenate(parts), *values) if values else None


def draw_length(inner: Any, window: int, key: PRNGKeyArray) -> Int[Array, ""]:
    """Draw how long an episode is: a multiple of the window, log-uniform from the shortest.

    Args:
        inner: the inner loop.
        window: steps of an update; static.
        key: of the draw.

    Returns:
        The length in steps.
    """
    most = inner.horizon // window
    if inner.shortest is None:
        return jnp.int32(most * window)
    least = -(-inner.shortest // window)
    low, high = jnp.log(least * 1.0), jnp.log(most + 1.0)
    drawn = jnp.exp(low + (high - low) * jax.random.uniform(key))
    return jnp.clip(jnp.floor(drawn).astype(jnp.int32), least, most) * window


def mean_length(inner: Any, window: int) -> float:
    """Return the mean length that `draw_length` draws.

    Args:
        inner: the inner loop.
        window: steps of an update.
    """
    most = inner.horizon // window
    if inner.shortest is None:
        return float(most * window)
    lengths = np.arange(-(-inner.shortest // window), most + 1)
    chances = np.diff(np.log(np.append(lengths, most + 1)))
    return float(window * lengths @ chances / chances.sum())


def scores(inner: Any, meta: Any, key: PRNGKeyArray, steps: int) -> Float[Array, " k"]:
    """Return the scores at the start and after each step on one random task.

    Args:
        inner: the inner loop; its ``deployed()``, if there is one, is run.
        meta: meta-params.
        key: of the task and the episode.
        steps: how many; static.
    """
    deployed = getattr(inner, "deployed", None)
    inner = inner if deployed is None else deployed()
    one, two = jax.random.split(key)
    task = inner.sample(one)
    first, run = jax.random.split(two)
    state = inner.begin(meta, task, first)

    def body(state: Any, t: Any) -> tuple[Any, Array]:
        state = inner.advance(meta, task, state, jax.random.fold_in(run, t))
        return state, inner.score(task, state)

    rest = jax.lax.scan(body, state, jnp.arange(steps))[1]
    return jnp.concatenate([inner.score(task, state)[None], rest])


class FirstOrder(Problem):
    """An objective whose gradient is a constant to those who differentiate it once more.

    f(x₀) + ∇f(x₀)·(x − x₀) at x₀ = x: value and gradient are those of f, second derivatives 0, as
    if the gradient did not depend on the params (Andrychowicz et al. 2016, arXiv:1606.04474, §2.1;
    first-order MAML, Finn et al. 2017, §5.2).

    Attributes:
        objective: f.
    """

    objective: Any

    def __call__(self, params: PyTree) -> Scalar:
        """Return the loss."""
        fixed = jax.lax.stop_gradient(params)
        loss, slope = jax.lax.stop_gradient(jax.value_and_grad(self.objective)(fixed))
        moves = jax.tree.map(lambda g, x, y: jnp.vdot(g, x - y), slope, params, fixed)
        return loss + sum(jax.tree.leaves(moves))
