"""Meta-training: an estimator of the gradient, the common loop, and tasks that are held out."""

import dataclasses
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
from refinejax.batch.execution import Execution
from refinejax.meta.convergence import MEASURES, convergence, mean_score, traces
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
        validate_by: measure that is the loss of a validation, one of `convergence.MEASURES`;
            static.
    """

    estimator: Estimator
    validation: Any
    others: dict[str, Any]
    curriculum: Curriculum | None = None
    target: Any = 0.1
    first: PyTree = None
    steps: int = struct.field(pytree_node=False, default=20)
    count: int = struct.field(pytree_node=False, default=256)
    validate_by: str = struct.field(pytree_node=False, default="last")

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
        """Return the memory after a step that was skipped: new episodes, the same difficulty.

        Args:
            weights: meta-params.
            memory: before the step.
            step: of the training.
            key: of the new episodes.
        """
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
        result = {"loss": mean_score(found, self.validate_by), **convergence(found, self.target)}
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
    validate_by: str | None = None,
) -> MetaTraining:
    """Return the `TrainingTask` of a meta-training.

    Args:
        estimator: as for `meta_train`.
        others: as for `meta_train`.
        curriculum: as for `meta_train`.
        target: as for `meta_train`.
        steps: as for `meta_train`.
        count: as for `meta_train`.
        mesh: devices over which the tasks of an update are divided, along its first axis.
        initial: as for `meta_train`.
        validate_by: as for `meta_train`.

    Returns:
        The task, for `refinejax.training.train`.

    Raises:
        ValueError: names the argument that does not fit.
    """
    if not isinstance(estimator, Estimator):
        raise ValueError(
            f"estimator: expected FullUnroll, pes(...), maml(...) or the like, got "
            f"{type(estimator).__name__}"
        )
    if not isinstance(others or {}, Mapping):
        raise ValueError(f"others: expected distributions by name, got {type(others).__name__}")
    if validate_by is not None and validate_by not in MEASURES:
        raise ValueError(f"validate_by: expected one of {', '.join(MEASURES)}, got {validate_by!r}")
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
        validate_by=_measure(inner) if validate_by is None else validate_by,
    )


def _measure(inner: Any) -> str:
    """Return the measure of `mean_score` that equals the loss of the training."""
    return inner.scale if isinstance(inner, Trajectory) and inner.whole else "last"


def _mesh(execution: Execution | None) -> Mesh | None:
    """Return the mesh; no other option applies, as the estimator holds the sizes."""
    if execution is None:
        return None
    options = dataclasses.asdict(dataclasses.replace(execution, mesh=None))
    for name, value in options.items():
        if value is not None:
            raise ValueError(
                f"execution: a meta-training takes mesh alone, got {name}={value!r}; sizes such as "
                "batch and lanes are fields of the estimator"
            )
    return execution.mesh


def meta_train(
    estimator: Estimator,
    config: TrainingConfig,
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    others: Mapping[str, Any] | None = None,
    curriculum: Curriculum | None = None,
    target: Any = 0.1,
    steps: int | None = None,
    count: int = 256,
    execution: Execution | None = None,
    initial: PyTree = None,
    validate_by: str | None = None,
    description: Mapping[str, Any] | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> Trained:
    """Train meta-params by an estimator of their gradient: `train` on tasks drawn on the way.

    Training and validation draw from parts of the distribution that share no task (see
    `tasks.Split`). Validation notes how fast and how far held-out tasks converge
    (`convergence`), in the log as ``validation_steps``, ``validation_final`` … The meta-params
    with the lowest validation loss are returned. Early stopping, checkpoints and exact resume work
    as in `train`.

    Args:
        estimator: `FullUnroll`, `TruncatedUnroll`, `Antithetic`, what `maml` returns …
        config: how to train.
        checkpoint: as for `train`, whose rule of resume holds here too.
        others: distributions out of the one that is trained on, by name, to validate on too.
        curriculum: the way to the tasks.
        target: share of the score at the start, the steps to which are counted.
        steps: of a validation; by default the horizon.
        count: tasks of a validation.
        execution: how; of its options ``mesh`` alone applies: devices over which the tasks of a
            step are divided, along its first axis. Validations run on one device.
        initial: meta-params to begin with, say of an earlier training; by default those of the
            inner loop.
        validate_by: measure by which the best meta-params are chosen: "plain", "log", "relative",
            "last" or "log_last" (see `mean_score`); by default the loss of the training.
        description: as for `train`.
        progress: as for `train`.
        time_limit: as for `train`.

    Returns:
        The outcome; its weights are the best meta-params by validation.

    Raises:
        ValueError: as `train`, and for an argument that is no estimator, a curriculum that begins
            with another kind of tasks, an option of execution that does not apply, a batch that the
            devices of the mesh do not divide.
        OSError: if the folder cannot be written.
    """
    task = meta_task(
        estimator,
        others=others,
        curriculum=curriculum,
        target=target,
        steps=steps,
        count=count,
        mesh=_mesh(execution),
        initial=initial,
        validate_by=validate_by,
    )
    return train(
        task,
        config,
        checkpoint,
        description=description,
        progress=progress,
        time_limit=time_limit,
    )
