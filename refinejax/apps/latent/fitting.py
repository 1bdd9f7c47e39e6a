"""Training a `MultiTaskModel` on a table of descriptors and labels, some of which are missing."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, PRNGKeyArray

from refinejax._checks import check_positive
from refinejax._core import Scalar
from refinejax.apps.latent.closeness import check_data
from refinejax.apps.latent.labels import read_labels
from refinejax.apps.latent.multitask import MultiTaskModel, Task, build_multitask, read_tasks
from refinejax.training import Trained, TrainingConfig, train


class Fitted(NamedTuple):
    """A trained model, and how the training went.

    Attributes:
        model: with the weights that were best by validation.
        trained: as of `refinejax.training.train`.
        config: for `refinejax.models.save_model`, architecture "multitask".
    """

    model: MultiTaskModel
    trained: Trained
    config: dict[str, Any]


class MultiTask(struct.PyTreeNode):
    """Losses of a model on rows of a table: a training task.

    The squared error of standardized numbers (of bounded ones, in units of their range), the cross
    entropy of classes, and the squared error of the decoded input; the mean over the labels that
    there are, task by task, so that missing ones have no weight.

    Attributes:
        blank: the model, whose network is trained.
        inputs: shape (N, D).
        labels: by task, numbers (N, width), NaN where missing; classes (N,), −1 where missing.
        rows: to train on, shape (n,).
        held_out: to validate on, shape (m,).
        weights: of the tasks.
        reconstruction: weight of the decoded input.
        noise: added to the inputs in training, in standard deviations.
        batch: rows of a step; static.
    """

    blank: MultiTaskModel
    inputs: Float[Array, "N D"]
    labels: dict[str, Array]
    rows: Int[Array, " n"]
    held_out: Int[Array, " m"]
    weights: dict[str, Any]
    reconstruction: Any = 1.0
    noise: Any = 0.0
    batch: int = struct.field(pytree_node=False, default=64)

    def init(self, key: PRNGKeyArray) -> Any:
        """Return the first weights, those of the blank model."""
        del key
        return self.blank.network.weights

    def begin(self, weights: Any, key: PRNGKeyArray) -> tuple[()]:
        """Nothing is carried from step to step."""
        del weights, key
        return ()

    def loss_and_grad(
        self, weights: Any, memory: Any, step: Any, key: PRNGKeyArray
    ) -> tuple[Scalar, Any, Any, dict[str, Scalar]]:
        """Return loss and gradient on rows that are drawn."""
        del step
        pick, draw = jax.random.split(key)
        rows = jax.random.choice(pick, self.rows, (self.batch,))

        def loss(weights: Any) -> tuple[Scalar, dict[str, Scalar]]:
            return self._loss(weights, rows, draw)

        (value, parts), grad = jax.value_and_grad(loss, has_aux=True)(weights)
        return value, grad, memory, parts

    def validate(self, weights: Any, key: PRNGKeyArray) -> dict[str, Scalar]:
        """Return the loss on the rows held out, and its parts."""
        del key
        value, parts = self._loss(weights, self.held_out, None)
        return {"loss": value, **parts}

    def model(self, weights: Any) -> MultiTaskModel:
        """Return the model with other weights.

        Args:
            weights: like those of the blank model.
        """
        return self.blank.replace(network=self.blank.network.replace(weights=weights))

    def _loss(
        self, weights: Any, rows: Any, key: PRNGKeyArray | None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        model, x = self.model(weights), self.inputs[rows]
        seen = x
        if key is not None:
            scale = self.noise * self.blank.input_scale
            seen = x + scale * jax.random.normal(key, x.shape, x.dtype)
        latent = model.encode(seen)
        outputs = model.heads(latent)
        parts = {
            task.name: task_loss(task, outputs[task.name], self.labels[task.name][rows], model)
            for task in model.tasks
        }
        total = sum(self.weights[name] * part for name, part in parts.items())
        if model.decodes:
            error = (model.decode(latent) - x) / self.blank.input_scale
            parts["reconstruction"] = jnp.mean(error**2)
            total = total + self.reconstruction * parts["reconstruction"]
        return jnp.asarray(total), parts


def task_loss(task: Task, output: Array, labels: Array, model: MultiTaskModel) -> Scalar:
    """Return the mean loss over the labels that are not missing; 0 if all are missing.

    Args:
        task: of numbers or of classes.
        output: of the model for the task, shape (n, width) or (n, classes).
        labels: numbers, NaN where missing, or classes, −1 where missing.
        model: holds the scales of the tasks.
    """
    if task.classes:
        there = labels >= 0
        chosen = jnp.where(there, labels, 0)[:, None]
        terms = -jnp.take_along_axis(jax.nn.log_softmax(output), chosen, 1)[:, 0]
    else:
        there = ~jnp.isnan(labels)
        width = 1.0 if task.bounds is None else task.bounds[1] - task.bounds[0]
        scale = model.scales.get(task.name, jnp.asarray(width))
        terms = ((output.reshape(labels.shape) - jnp.where(there, labels, 0)) / scale) ** 2
    return jnp.sum(jnp.where(there, terms, 0)) / jnp.maximum(jnp.sum(there), 1)


def fit(
    inputs: Any,
    labels: Mapping[str, Any],
    *,
    columns: Sequence[str] | None = None,
    network: Mapping[str, Any] | None = None,
    training: TrainingConfig | None = None,
    weights: Mapping[str, float] | None = None,
    reconstruction: float = 1.0,
    noise: float = 0.0,
    held_out: float = 0.15,
    batch: int = 64,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    time_limit: float | None = None,
) -> Fitted:
    """Train a model on a table.

    Args:
        inputs: descriptors, shape (N, D).
        labels: by task: floating numbers, shape (N,) or (N, width), NaN where missing; or classes,
            shape (N,), of text or whole numbers from 0, −1 where missing. None, "" and NaN are
            missing in both.
        columns: names of the descriptors; by default x0, x1, …
        network: sizes, see `MultiTaskConfig`, and "numbers" for tasks with bounds.
        training: see `TrainingConfig`; by default 2,000 steps of Adam.
        weights: of the tasks' losses; 1 where not given.
        reconstruction: weight of the decoder's loss.
        noise: added to the inputs in training, in their standard deviations.
        held_out: share of the rows that are kept for validation.
        batch: rows of a step.
        progress: draw a progress bar on stderr.
        checkpoint: as for `refinejax.training.train`.
        time_limit: as for `refinejax.training.train` [s].

    Returns:
        The model, its training and its configuration.

    Raises:
        ValueError: for descriptors that are no finite table, labels of another length or infinite,
            a task without labels, with one class only or classes that never occur, or a setting
            that does not fit; names it.
    """
    task, config = plan(
        inputs, labels, columns=columns, network=network, weights=weights,
        reconstruction=reconstruction, noise=noise, held_out=held_out, batch=batch,
        seed=0 if training is None else training.seed,
    )  # fmt: skip
    settings = training or TrainingConfig(steps=2000, learning_rate=3e-3, weight_decay=1e-3)
    trained = train(task, settings, checkpoint, progress=progress, time_limit=time_limit)
    return Fitted(task.model(trained.weights), trained, config)


def plan(
    inputs: Any,
    labels: Mapping[str, Any],
    *,
    columns: Sequence[str] | None,
    network: Mapping[str, Any] | None,
    weights: Mapping[str, float] | None,
    reconstruction: float,
    noise: float,
    held_out: float,
    batch: int,
    seed: int,
) -> tuple[MultiTask, dict[str, Any]]:
    """Return the training task, and the configuration of the model.

    Args:
        inputs: as for `fit`.
        labels: as for `fit`.
        columns: as for `fit`.
        network: as for `fit`.
        weights: as for `fit`.
        reconstruction: as for `fit`.
        noise: as for `fit`.
        held_out: as for `fit`.
        batch: as for `fit`.
        seed: of the first weights and of the rows held out.

    Raises:
        ValueError: as `fit`.
    """
    check_settings("", batch, held_out, reconstruction, noise)
    table = check_data(inputs, "inputs", 4, "input")
    sizes = dict(network or {})
    read = {name: read_labels(name, values, len(table)) for name, values in labels.items()}
    names = columns if columns is not None else [f"x{i}" for i in range(table.shape[1])]
    if len(names) != table.shape[1]:
        raise ValueError(f"columns: expected {table.shape[1]} names, got {len(names)}")
    numbers = {name: values.shape[1] for name, (values, known) in read.items() if not known}
    classes = {name: list(known) for name, (_, known) in read.items() if known}
    given = sizes.pop("numbers", {})
    unknown = sorted(set(given) - set(numbers))
    if unknown:
        raise ValueError(f"network.numbers: {unknown[0]!r} is no task of numbers")
    config = {"columns": list(names), **sizes, "numbers": {**numbers, **given}, "classes": classes}
    tasks = read_tasks(config["numbers"], classes)
    config = json.loads(json.dumps(config))
    unknown = sorted(set(weights or {}) - {task.name for task in tasks})
    if unknown:
        raise ValueError(f"weights: {unknown[0]!r} is no task; there are: {', '.join(labels)}")
    for name, weight in (weights or {}).items():
        if not 0 <= weight < np.inf:
            raise ValueError(f"weights: {name!r}: expected a number of 0 or more, got {weight!r}")
    blank = standardized(build_multitask(config, jax.random.key(seed)), table, read)
    order = np.random.default_rng(seed).permutation(len(table))
    kept = min(max(round(held_out * len(table)), 1), len(table) - 1)
    task = MultiTask(
        blank=blank,
        inputs=jnp.asarray(table, float),
        labels={name: jnp.asarray(values) for name, (values, _) in read.items()},
        rows=jnp.asarray(order[kept:]),
        held_out=jnp.asarray(order[:kept]),
        weights={task.name: float((weights or {}).get(task.name, 1.0)) for task in tasks},
        reconstruction=reconstruction,
        noise=noise,
        batch=batch,
    )
    return task, config


def standardized(
    model: MultiTaskModel, table: np.ndarray, labels: Mapping[str, tuple[np.ndarray, Any]]
) -> MultiTaskModel:
    """Return the model with the units of a table.

    Args:
        model: with any units.
        table: descriptors, shape (N, D).
        labels: by task: values, and the classes if there are any.
    """
    std = table.std(0)
    means, scales = {}, {}
    for name in model.means:
        values = labels[name][0]
        means[name] = jnp.asarray(np.nanmean(values, 0), float)
        spread = np.nanstd(values, 0)
        scales[name] = jnp.asarray(np.where(spread > 0, spread, 1.0), float)
    return model.replace(
        input_mean=jnp.asarray(table.mean(0), float),
        input_scale=jnp.asarray(np.where(std > 0, std, 1.0), float),
        covariance=jnp.asarray(np.cov(table.T).reshape(table.shape[1], -1), float),
        lower=jnp.asarray(table.min(0), float),
        upper=jnp.asarray(table.max(0), float),
        means=means,
        scales=scales,
    )


def check_settings(
    where: str, batch: int, held_out: float, reconstruction: float, noise: float
) -> None:
    """Check the settings of a training on a table.

    Args:
        where: prefix of names in errors.
        batch: rows of a step.
        held_out: share of the rows that are kept for validation.
        reconstruction: weight of the decoder's loss.
        noise: added to the inputs, in their standard deviations.

    Raises:
        ValueError: names what does not fit, after ``where``.
    """
    check_positive(f"{where}batch", batch, "1 row")
    if not 0 < held_out < 1:
        raise ValueError(f"{where}held_out: expected a share between 0 and 1, got {held_out!r}")
    for name, value in (("reconstruction", reconstruction), ("noise", noise)):
        if not 0 <= value < np.inf:
            raise ValueError(f"{where}{name}: expected 0 or more, got {value!r}")
