"""Learning to optimize: the loss along the way of a refiner whose numbers are the meta-params."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import PRNGKeyArray, PyTree

from refinejax._core import Refiner, Scalar, State, as_problem
from refinejax.learned.builders import Builder
from refinejax.learned.update import unguarded
from refinejax.meta.inner import FirstOrder
from refinejax.tasks.distribution import judge

_TINY = 1e-30
SCALES = ("log", "plain", "relative")


class Way(struct.PyTreeNode):
    """Where a refiner stands on a task.

    Attributes:
        state: of the refiner.
        first: f(x₀), of the loss that is trained.
        moved: squared length of the last step.
    """

    state: State
    first: Scalar
    moved: Scalar


class Trajectory(struct.PyTreeNode):
    """Train a refiner on the loss after each of its steps (an `InnerLoop`; meta-params: refiner).

    The mean over steps of h(f(x_t)) + penalty·‖x_t − x_{t−1}‖², h being the identity (Andrychowicz
    et al. 2016, arXiv:1606.04474, eq. 3), the logarithm, so that no task outweighs the others, or
    division by f(x₀). `Problem.draw` shows another minibatch in each step. The
    guard of a `LearnedUpdate` is off: a refused step teaches nothing.

    Attributes:
        tasks: distribution of tasks (see `tasks.distribution`).
        build: makes the refiner from a key; static.
        penalty: on the squared length of steps, in coordinates of refinement.
        horizon: steps; static.
        shortest: fewest steps of an episode, their number being log-uniform; None: all take
            ``horizon``; static.
        scale: "log", "plain" or "relative": h; static.
        whole: count the loss after each step, not the last alone; static.
        judged: take ``tasks.query(task)`` for f in the loss, as it also is in `score`; static.
        second_order: differentiate the gradients of the objective too; static.
        guarded: leave the guard on, as it is when the refiner is used (`deployed`); static.

    Raises:
        ValueError: for horizons below 1, an unknown scale, or ``shortest`` without ``whole``.
    """

    tasks: Any
    build: Builder = struct.field(pytree_node=False)
    penalty: Any = 0.0
    horizon: int = struct.field(pytree_node=False, default=20)
    shortest: int | None = struct.field(pytree_node=False, default=None)
    scale: str = struct.field(pytree_node=False, default="log")
    whole: bool = struct.field(pytree_node=False, default=True)
    judged: bool = struct.field(pytree_node=False, default=False)
    second_order: bool = struct.field(pytree_node=False, default=True)
    guarded: bool = struct.field(pytree_node=False, default=False)

    def __post_init__(self) -> None:
        """Check the sizes."""
        if self.horizon < 1:
            raise ValueError(f"horizon: expected 1 step or more, got {self.horizon}")
        if self.scale not in SCALES:
            raise ValueError(f"scale: expected one of {', '.join(SCALES)}, got {self.scale!r}")
        if self.shortest is not None:
            if not 1 <= self.shortest <= self.horizon:
                raise ValueError(
                    f"shortest: expected 1 to {self.horizon} steps, the horizon, got "
                    f"{self.shortest}"
                )
            if not self.whole:
                raise ValueError(
                    "shortest: horizons that vary need whole=True, as the last step is another one "
                    "in each episode"
                )

    def deployed(self) -> "Trajectory":
        """Return it with the guard on."""
        return self.replace(guarded=True)

    def init(self, key: PRNGKeyArray) -> Refiner:
        """Return the untrained refiner."""
        return self.build(key)

    def sample(self, key: PRNGKeyArray) -> PyTree:
        """Draw a task."""
        return self.tasks.sample(key)

    def begin(self, meta: Refiner, task: PyTree, key: PRNGKeyArray) -> Way:
        """Evaluate the start."""
        one, two, three = jax.random.split(key, 3)
        space = self._space(task, two)
        params = space.encode(self.tasks.initial(task, one))
        state = self._refiner(meta).init(space.objective, params, three)
        way = Way(state, state.loss, jnp.zeros_like(state.loss))
        return way.replace(first=jax.lax.stop_gradient(self._value(task, way, judged=self.judged)))

    def advance(self, meta: Refiner, task: PyTree, state: Way, key: PRNGKeyArray) -> Way:
        """Take a step of the refiner."""
        one, two = jax.random.split(key)
        after = self._refiner(meta).step(self._space(task, one).objective, state.state, two)
        steps = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), after.params, state.state.params)
        moved = sum(jax.tree.leaves(steps))
        return state.replace(state=after, moved=jnp.asarray(moved, state.moved.dtype))

    def loss(self, meta: Refiner, task: PyTree, state: Way, count: Any) -> Scalar:
        """Return h(f) and the penalty."""
        del meta, count
        value = self._value(task, state, judged=self.judged)
        if self.scale == "log":
            value = jnp.log(jnp.maximum(value, _TINY))
        elif self.scale == "relative":
            value = value / state.first
        return value + self.penalty * state.moved

    def score(self, task: PyTree, state: Way) -> Scalar:
        """Return what the params are judged by."""
        return self._value(task, state, judged=hasattr(self.tasks, "query"))

    def _refiner(self, meta: Refiner) -> Refiner:
        return meta if self.guarded else unguarded(meta)

    def _value(self, task: PyTree, way: Way, *, judged: bool) -> Scalar:
        if not judged:
            return way.state.loss
        decode = as_problem(self.tasks.objective(task)).coordinates().decode
        return judge(self.tasks, task)(decode(way.state.params)).astype(way.state.loss.dtype)

    def _space(self, task: PyTree, key: PRNGKeyArray) -> Any:
        space = as_problem(self.tasks.objective(task)).draw(key).coordinates()
        return space if self.second_order else space.replace(objective=FirstOrder(space.objective))
