"""Sinusoid regression: the first test of few-shot learning."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from refinejax._core import Problem, Scalar
from refinejax.tasks.distribution import Number

REACH = 5.0  # inputs are in [−5, 5]


class SinusoidTask(struct.PyTreeNode):
    """Points of one sinusoid.

    Attributes:
        support: (x, y) to learn from, each of shape (k,).
        query: (x, y) to be judged by, each of shape (q,).
    """

    support: tuple[Float[Array, " k"], Float[Array, " k"]]
    query: tuple[Float[Array, " q"], Float[Array, " q"]]


class Regression(Problem):
    """Mean squared error of a network of one input and one output, ``mean((net(x) − y)²)``.

    Attributes:
        inputs: x, shape (k,).
        outputs: y, shape (k,).
    """

    inputs: Float[Array, " k"]
    outputs: Float[Array, " k"]

    def __call__(self, params: Any) -> Scalar:
        """Return the loss."""
        return jnp.mean((network(params, self.inputs) - self.outputs) ** 2)


class Sinusoids(struct.PyTreeNode):
    """y = a·sin(x − φ), with a in [0.1, 5], φ in [0, π], x in [−5, 5], all uniform.

    The regression of Finn et al. (2017, arXiv:1703.03400, §5.1), without noise, fitted by a network
    with two hidden layers of 40 rectified linear units. Params are ``{"body": [layers], "head":
    layer}``, each layer with a "kernel" (m, n) and a "bias" (n,).

    Attributes:
        amplitude: least and largest a.
        phase: least and largest φ.
        shots: k; static.
        queries: q; static.
        hidden: widths; static.
    """

    amplitude: tuple[Number, Number] = (0.1, 5.0)
    phase: tuple[Number, Number] = (0.0, jnp.pi)
    shots: int = struct.field(pytree_node=False, default=10)
    queries: int = struct.field(pytree_node=False, default=10)
    hidden: tuple[int, ...] = struct.field(pytree_node=False, default=(40, 40))

    def sample(self, key: PRNGKeyArray) -> SinusoidTask:
        """Draw a sinusoid and points of it."""
        one, two, three = jax.random.split(key, 3)
        a, phase = (
            low + (high - low) * jax.random.uniform(k)
            for k, (low, high) in ((one, self.amplitude), (two, self.phase))
        )
        count = self.shots + self.queries
        x = jax.random.uniform(three, (count,), minval=-REACH, maxval=REACH)
        y = a * jnp.sin(x - phase)
        k = self.shots
        return SinusoidTask((x[:k], y[:k]), (x[k:], y[k:]))

    def objective(self, task: SinusoidTask) -> Regression:
        """Return the loss on the support set."""
        return Regression(*task.support)

    def query(self, task: SinusoidTask) -> Regression:
        """Return the loss on the query set."""
        return Regression(*task.query)

    def initial(self, task: SinusoidTask, key: PRNGKeyArray) -> dict[str, Any]:
        """Return random weights: kernels by Glorot and Bengio (2010), biases 0."""
        del task
        sizes = list(itertools.pairwise((1, *self.hidden, 1)))
        keys = jax.random.split(key, len(sizes))
        layers = [_layer(*pair) for pair in zip(keys, sizes, strict=True)]
        return {"body": layers[:-1], "head": layers[-1]}


def network(params: dict[str, Any], x: Float[Array, " k"]) -> Float[Array, " k"]:
    """Apply the layers, with rectified linear units between them.

    Args:
        params: {"body": layers, "head": layer}.
        x: inputs, shape (k,).

    Returns:
        Outputs, shape (k,).
    """
    h = x[:, None]
    for layer in params["body"]:
        h = jax.nn.relu(h @ layer["kernel"] + layer["bias"])
    return (h @ params["head"]["kernel"] + params["head"]["bias"])[:, 0]


def _layer(key: PRNGKeyArray, sizes: tuple[int, int]) -> dict[str, Array]:
    kernel = jax.nn.initializers.glorot_normal()(key, sizes, jnp.float32)
    return {"kernel": kernel, "bias": jnp.zeros(sizes[1])}
