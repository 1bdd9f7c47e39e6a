"""Meta-training: an estimator of the gradient, the common loop, and tasks that are held out."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray, PyTree

from refinejax._checks import check_positive
from refinejax._core import Scalar
from refinejax.meta.convergence import convergence, mean_score, traces
from refinejax.meta.curriculum import Curriculum
from refinejax.meta.estimator import Estimator
from refinejax.meta.trajectory import Trajectory
from refinejax.tasks.distribution import Split
from refinejax.training import Trained, TrainingConfig, train


class MetaTraining(struct.PyTreeNode):
    """A `TrainingTask` whose weights are meta-params.

    Its memory holds the estimator's, with its episodes under way, so that a training that is
    resumed goes on as if it had not been interrupted.

    Attributes:
        estimator: of the gradient.
        validation: the inner loop with held-out tasks.
        others: inner loops with other tasks, by name, validated too.
        curriculum: the way to the tasks; None for none.
        target: share of the score at the start, the steps to which are counted.
        first: meta-params to begin with; None: those of the inner loop.
        steps: of a validation; static.
        count: tasks of a validation; static.
        by: what the loss of a validation is: mean over steps of the score ("plain"), of its
            logarithm ("log") or of its ratio to the start ("relative"), as in a `Trajectory`, or
            the score after the last step ("last"); static.
    """

    estimator: Estimator
    validation: Any
    others: dict[str, Any]
    curriculum: Curriculum | None = None
    target: Any = 0.1
    first: PyTree = None
    steps: int = struct.field(pytree_node=False, default=20)
    count: int = struct.field(pytree_node=False, default=256)
    by: str = struct.field(pytree_node=False, default="last")

    def init(self, key: PRNGKeyArray) -> PyTree:
        """Return the first meta-params."""
        return self.estimator.init(key) if self.first is None else self.first

    def begin(self, weights: PyTree, key: PRNGKeyArray) -> tuple[PyTree, Scalar]:
        """Return the estimator's memory, and the difficulty reached: 0."""
        zero = jnp.float32(0)
        return self._estimator(zero, zero).begin(weights, key), zero

    def renew(
        self, weights: PyTree, memory: tuple[PyTree, Scalar], step: Any, key: PRNGKeyArray
    ) -> tuple[PyTree, Scalar]:
        """Return the memory after a step that was skipped: new episodes, the same difficulty."""
        reached = memory[1]
        return self._estimator(step, reached).begin(weights, key), reached

    def loss_and_grad(
        self, weights: PyTree, memory: tuple[PyTree, Scalar], step: Any, key: PRNGKeyArray
    ) -> tuple[Scalar, PyTree, tuple[PyTree, Scalar], dict[str, Scalar]]:
        """Ask the estimator."""
        episodes, reached = memory
        estimator = self._estimator(step, reached)
        loss, gradient, episodes, metrics = estimator.update(weights, episodes, key)
        if self.curriculum is not None:
            metrics = {**metrics, "difficulty": self.curriculum.difficulty(step, reached)}
            reached = self.curriculum.advance(reached, loss)
        return loss, gradient, (episodes, reached), metrics

    def validate(self, weights: PyTree, key: PRNGKeyArray) -> dict[str, Scalar]:
        """Return measures of `convergence` on held-out tasks, and on the others by name."""
        found = traces(self.validation, weights, key, count=self.count, steps=self.steps)
        result = {"loss": mean_score(found, self.by), **convergence(found, self.target)}
        for name, inner in self.others.items():
            other = traces(inner, weights, key, count=self.count, steps=self.steps)
            measured = convergence(other, self.target)
            result |= {f"{name}_{measure}": value for measure, value in measured.items()}
        return result

    def _estimator(self, step: Any, reached: Scalar) -> Estimator:
        """Return it as it is in this step of the training."""
        at = getattr(self.estimator.inner, "at", None)
        inner = self.estimator.inner if at is None else at(step)
        if self.curriculum is None:
            return self.estimator.replace(inner=inner)
        difficulty = self.curriculum.difficulty(step, reached)
        tasks = inner.tasks.replace(tasks=self.curriculum.tasks(inner.tasks.tasks, difficulty))
        return self.estimator.replace(inner=inner.replace(tasks=tasks))


def meta_task(
    estimator: Estimator,
    *,
    others: Mapping[str, Any] | None = None,
    curriculum: Curriculum | None = None,
    target: Any = 0.1,
    steps: int | None = None,
    count: int = 256,
    mesh: Mesh | None = None,
    initial: PyTree = None,
) -> MetaTraining:
    """Return what `refinejax.training.train` trains; see `meta_train` for the arguments."""
    if not isinstance(estimator, Estimator):
        raise ValueError(
            f"estimator: expected FullUnroll, pes(...), maml(...) or the like, got "
            f"{type(estimator).__name__}"
        )
    if not isinstance(others or {}, Mapping):
        raise ValueError(f"others: expected distributions by name, got {type(others).__name__}")
    for name, number in (("steps", steps), ("count", count)):
        if number is not None:
            check_positive(name, number)
    if initial is not None:
        expected = jax.tree.structure(jax.eval_shape(estimator.init, jax.random.key(0)))
        if jax.tree.structure(initial) != expected:
            raise ValueError(
                f"initial: expected meta-params like those of the inner loop, {expected}, got "
                f"{jax.tree.structure(initial)}"
            )
    inner = estimator.inner
    tasks = inner.tasks.tasks if isinstance(inner.tasks, Split) else inner.tasks
    if curriculum is not None:
        curriculum.check(tasks)
    if mesh is not None:
        estimator = estimator.replace(mesh=mesh)

    def held_out(tasks: Any) -> Any:
        return inner.replace(tasks=Split(tasks, "validation"))

    return MetaTraining(
        estimator.replace(inner=inner.replace(tasks=Split(tasks, "train"))),
        held_out(tasks),
        {name: held_out(other) for name, other in (others or {}).items()},
        curriculum,
        target,
        initial,
        steps=inner.horizon if steps is None else steps,
        count=count,
        by=inner.scale if isinstance(inner, Trajectory) and inner.whole else "last",
    )


def meta_train(
    estimator: Estimator,
    config: TrainingConfig,
    folder: str | os.PathLike[str] | None = None,
    *,
    others: Mapping[str, Any] | None = None,
    curriculum: Curriculum | None = None,
    target: Any = 0.1,
    steps: int | None = None,
    count: int = 256,
    mesh: Mesh | None = None,
    initial: PyTree = None,
    description: Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: bool = False,
) -> Trained:
    """Train meta-params by an estimator of their gradient: `train` on tasks drawn on the way.

    Training and validation draw from parts of the distribution that share no task (see
    `problems.tasks.Split`). Validation notes how fast and how far held-out tasks converge
    (`convergence`), in the log as ``validation_steps``, ``validation_final`` … The meta-params that
    were best by what is trained, on held-out tasks, are returned; early stopping, checkpoints and
    exact resume are those of `train`.

    Args:
        estimator: `FullUnroll`, `TruncatedUnroll`, `Antithetic`, what `maml` returns …
        config: how to train.
        folder: for checkpoints and the log; None for neither.
        others: distributions out of the one that is trained on, by name, to validate on too.
        curriculum: the way to the tasks.
        target: share of the score at the start, the steps to which are counted.
        steps: of a validation; by default the horizon.
        count: tasks of a validation.
        mesh: devices over which the tasks of a step are divided, along its first axis; validations
            run on one.
        initial: meta-params to begin with, say of an earlier training; by default those of the
            inner loop.
        description: as for `train`.
        resume: as for `train`.
        progress: as for `train`.

    Raises:
        ValueError: as `train`, and for what is no estimator, a curriculum that begins with another
            kind of tasks, a batch that cannot be divided over the mesh.
        OSError: if the folder cannot be written.
    """
    task = meta_task(
        estimator,
        others=others,
        curriculum=curriculum,
        target=target,
        steps=steps,
        count=count,
        mesh=mesh,
        initial=initial,
    )
    return train(task, config, folder, description=description, resume=resume, progress=progress)
