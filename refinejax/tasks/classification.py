"""Training of small networks on given data: the task that learned optimizers are for."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int, PRNGKeyArray

from refinejax._core import Problem, Scalar

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}


class Classification(Problem):
    """Mean cross entropy of a network on rows of the data.

    Attributes:
        inputs: all rows, shape (m, d).
        labels: shape (m,).
        rows: those that count, shape (b,).
        pool: rows to draw a minibatch from, shape (p,).
        activation: name; static.
    """

    inputs: Float[Array, "m d"]
    labels: Int[Array, " m"]
    rows: Int[Array, " b"]
    pool: Int[Array, " p"]
    activation: str = struct.field(pytree_node=False, default="relu")

    def __call__(self, params: Sequence[dict[str, Array]]) -> Scalar:
        """Return the loss."""
        h = self.inputs[self.rows]
        for layer in params[:-1]:
            h = ACTIVATIONS[self.activation](h @ layer["kernel"] + layer["bias"])
        logits = h @ params[-1]["kernel"] + params[-1]["bias"]
        labels = self.labels[self.rows]
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    def draw(self, key: PRNGKeyArray) -> "Classification":
        """Return it with another minibatch of the same size.

        Args:
            key: of the rows.
        """
        return self.replace(rows=jax.random.choice(key, self.pool, self.rows.shape))


class MLPTraining(struct.PyTreeNode):
    """Multilayer perceptrons trained on minibatches, judged on rows that are held out.

    A task is a random half of the rows to train on (as a key: no data are copied). For scikit-
    learn's digits, ``inputs = digits.data / 16``.

    Attributes:
        inputs: shape (m, d).
        labels: whole numbers from 0, shape (m,).
        classes: how many; static.
        hidden: widths; static.
        batch: rows of a minibatch; static.
        activation: "relu", "tanh" or "sigmoid"; static.

    Raises:
        ValueError: for an unknown activation.
    """

    inputs: Float[Array, "m d"]
    labels: Int[Array, " m"]
    classes: int = struct.field(pytree_node=False, default=10)
    hidden: tuple[int, ...] = struct.field(pytree_node=False, default=(20,))
    batch: int = struct.field(pytree_node=False, default=32)
    activation: str = struct.field(pytree_node=False, default="relu")

    def __post_init__(self) -> None:
        """Check."""
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation: expected one of {', '.join(ACTIVATIONS)}, got {self.activation!r}"
            )

    def sample(self, key: PRNGKeyArray) -> PRNGKeyArray:
        """Return the key by which rows are shuffled."""
        return key

    def objective(self, task: PRNGKeyArray) -> Classification:
        """Return the loss on the first minibatch; others are drawn of it."""
        rows, _ = self._halves(task)
        return self._loss(rows[: self.batch], rows)

    def query(self, task: PRNGKeyArray) -> Classification:
        """Return the loss on the other half of the rows."""
        _, rows = self._halves(task)
        return self._loss(rows, rows)

    def initial(self, task: PRNGKeyArray, key: PRNGKeyArray) -> list[dict[str, Array]]:
        """Return random weights: kernels normal with variance 1/fan-in, biases 0."""
        del task
        sizes = [self.inputs.shape[1], *self.hidden, self.classes]
        keys = jax.random.split(key, len(sizes) - 1)
        init = jax.nn.initializers.lecun_normal()
        return [
            {"kernel": init(k, (m, n), jnp.float32), "bias": jnp.zeros(n)}
            for k, m, n in zip(keys, sizes[:-1], sizes[1:], strict=True)
        ]

    def _halves(self, key: Any) -> tuple[Array, Array]:
        rows = jax.random.permutation(key, self.inputs.shape[0])
        middle = self.inputs.shape[0] // 2
        return rows[:middle], rows[middle:]

    def _loss(self, rows: Array, pool: Array) -> Classification:
        return Classification(self.inputs, self.labels, rows, pool, self.activation)
