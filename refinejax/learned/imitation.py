"""Learning to refine by example: the step to the optimum, from states on the way of a teacher."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import PRNGKeyArray

from refinejax._core import Refiner, Scalar, State, as_problem
from refinejax.learned.builders import Builder
from refinejax.learned.masked import masked_gradient
from refinejax.learned.units import units_of

_NEAR = 1e-3  # distance from the optimum, in units of the bounds, that is near


class Examples(NamedTuple):
    """A teacher's way on one task.

    Attributes:
        points: params in the coordinates of refinement at the start and after each step; a leading
            axis of length + 1.
        optimum: params in the same coordinates at which the teacher ends.
    """

    points: Any
    optimum: Any


class Imitation(struct.PyTreeNode):
    """Train a refiner on trajectories of another: (state, gradient) → the step to the optimum.

    The student begins at each point x_k of the teacher's way to the optimum x*, and takes a few
    steps; its loss is log(|x − x*|² + ε²) after each, x in units of the bounds, averaged over
    points, steps and tasks: relative to where it began up to a constant, so that points near the
    optimum count as much as those far off.

    Attributes:
        tasks: distribution of tasks (see `tasks.distribution`).
        teacher: the refiner whose way is followed, say Adam.
        finish: the refiner that goes on from there to the optimum, say Levenberg–Marquardt.
        build: makes the student from a key; static.
        length: of the teacher's way, steps; static.
        stride: steps of the teacher from example to example; static.
        settle: steps to the optimum; static.
        steps: the student takes from each; more than one for a student with memory; static.
        batch: tasks of a training step; static.
        parts: equal parts of the batch; a part whose gradient is not finite is left out; static.
        held_out: tasks of a validation; static.
    """

    tasks: Any
    teacher: Refiner
    finish: Refiner
    build: Builder = struct.field(pytree_node=False)
    length: int = struct.field(pytree_node=False, default=40)
    stride: int = struct.field(pytree_node=False, default=8)
    settle: int = struct.field(pytree_node=False, default=30)
    steps: int = struct.field(pytree_node=False, default=1)
    batch: int = struct.field(pytree_node=False, default=64)
    parts: int = struct.field(pytree_node=False, default=16)
    held_out: int = struct.field(pytree_node=False, default=256)

    def init(self, key: PRNGKeyArray) -> Refiner:
        """Return the untrained student: its numbers are the weights."""
        return self.build(key)

    def begin(self, weights: Refiner, key: PRNGKeyArray) -> tuple[()]:
        """Return nothing: every step begins with new tasks."""
        del weights, key
        return ()

    def loss_and_grad(
        self, weights: Refiner, memory: tuple[()], step: Any, key: PRNGKeyArray
    ) -> tuple[Scalar, Refiner, tuple[()], dict[str, Scalar]]:
        """Draw tasks, follow the teacher, and return the student's loss and its gradient."""
        del step
        keys = jax.random.split(key, self.batch)

        def loss(student: Refiner, key: PRNGKeyArray) -> tuple[Scalar, tuple[()]]:
            return self._loss(student, key), ()

        found = masked_gradient(loss, weights, keys, self.parts)
        return found.loss, found.gradient, memory, {"finite": jnp.mean(found.kept)}

    def validate(self, weights: Refiner, key: PRNGKeyArray) -> dict[str, Scalar]:
        """Return the mean loss on other tasks."""
        keys = jax.random.split(key, self.held_out)
        losses = jax.lax.map(lambda k: self._loss(weights, k), keys, batch_size=self.batch)
        return {"loss": jnp.nanmean(losses), "finite": jnp.mean(jnp.isfinite(losses))}

    def examples(self, key: PRNGKeyArray) -> tuple[Any, Examples]:
        """Return a task and the teacher's way on it; the same for the same key.

        Args:
            key: of the task, the start and the teacher.
        """
        draw, first, one, other = jax.random.split(key, 4)
        task = self.tasks.sample(draw)
        space = as_problem(self.tasks.objective(task)).coordinates()
        start = space.encode(self.tasks.initial(task, first))
        ends, points = _follow(self.teacher, space.objective, start, one, self.length)
        optimum, _ = _follow(self.finish, space.objective, ends, other, self.settle)
        return task, Examples(points, optimum)

    def _loss(self, student: Refiner, key: PRNGKeyArray) -> Scalar:
        one, other = jax.random.split(key)
        task, examples = jax.lax.stop_gradient(self.examples(one))
        objective = as_problem(self.tasks.objective(task)).coordinates().objective
        points = jax.tree.map(lambda leaf: leaf[:: self.stride], examples.points)

        def study(point: Any) -> Scalar:
            units = units_of(objective, point)
            optimum = units.encode(examples.optimum)
            _, ends = _follow(student, objective, point, other, self.steps)
            away = jax.vmap(units.encode)(jax.tree.map(lambda leaf: leaf[1:], ends)) - optimum
            return jnp.mean(jnp.log(jnp.sum(away**2, axis=-1) + _NEAR**2))

        return jnp.mean(jax.vmap(study)(points))


def _follow(
    refiner: Refiner, objective: Any, params: Any, key: PRNGKeyArray, steps: int
) -> tuple[Any, Any]:
    """Return the params after so many steps, and those at the start and after each."""
    first, rest = jax.random.split(key)
    state = refiner.init(objective, params, first)

    def advance(state: State, key: PRNGKeyArray) -> tuple[State, Any]:
        state = refiner.step(objective, state, key)
        return state, state.params

    state_, ways = jax.lax.scan(advance, state, jax.random.split(rest, steps))
    whole = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), state.params, ways)
    return state_.params, whole
