"""A model of descriptors with several tasks: an encoder, heads, and perhaps a decoder."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jaxtyping import Array, Float, PRNGKeyArray

from refinejax._config import read_config
from refinejax.networks.mlp import MLP
from refinejax.networks.network import Network


class Task(NamedTuple):
    """The quantity that one head predicts.

    Attributes:
        name: of the head.
        width: numbers it gives; the number of classes, if it is about classes.
        classes: their names; () for numbers.
        bounds: (least, greatest) of numbers that are bounded, or None.
    """

    name: str
    width: int = 1
    classes: tuple[str, ...] = ()
    bounds: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class MultiTaskConfig:
    """Sizes of a `MultiTaskModel`, and the tables [numbers] and [classes] beside it name its tasks.

    Attributes:
        columns: names of the descriptors.
        latent: Z.
        hidden: widths of the encoder's hidden layers; the decoder has them reversed.
        head: widths of each head's hidden layers.
        decoder: whether there is one.

    Raises:
        ValueError: for widths below 1, or no columns.
    """

    columns: tuple[str, ...]
    latent: int = 8
    hidden: tuple[int, ...] = (64, 64)
    head: tuple[int, ...] = (32,)
    decoder: bool = True

    def __post_init__(self) -> None:
        """Check."""
        if not self.columns or len(set(self.columns)) != len(self.columns):
            raise ValueError(f"columns: expected different names, got {list(self.columns)}")
        if min((self.latent, *self.hidden, *self.head)) < 1:
            raise ValueError("network: expected widths of 1 or more")


class MultiTaskNet(nnx.Module):
    """Perceptrons that share a latent: x → z → each task, and z → x.

    Args:
        config: sizes.
        tasks: what the heads predict.
        rngs: for the initial weights.
    """

    def __init__(self, config: MultiTaskConfig, tasks: tuple[Task, ...], rngs: nnx.Rngs) -> None:
        inputs, latent = len(config.columns), config.latent
        self.encoder = MLP(inputs, config.hidden, latent, rngs=rngs)
        self.heads = nnx.List([MLP(latent, config.head, t.width, rngs=rngs) for t in tasks])
        back = config.hidden[::-1]
        self.decoder = MLP(latent, back, inputs, rngs=rngs) if config.decoder else None

    def encode(self, x: Float[Array, "... n"]) -> Float[Array, "... z"]:
        """Return the latent, each number between −1 and 1.

        Args:
            x: (…, D), standardized.
        """
        return jnp.tanh(self.encoder(x))

    def outputs(self, z: Float[Array, "... z"]) -> list[Array]:
        """Return the output of each head, standardized.

        Args:
            z: (…, Z).
        """
        return [head(z) for head in self.heads]

    def decode(self, z: Float[Array, "... z"]) -> Float[Array, "... n"]:
        """Return the standardized input.

        Args:
            z: (…, Z).

        Raises:
            ValueError: if the model has no decoder.
        """
        if self.decoder is None:
            raise ValueError("decoder: this model has none")
        return self.decoder(z)


class MultiTaskModel(struct.PyTreeNode):
    """Encoder, heads and decoder, and the units of descriptors and numbers.

    Made by `fit`, or with random weights by `build_multitask`. Inputs and numbers are in their own
    units everywhere; of a head of classes the outputs are logits.

    Attributes:
        network: a `MultiTaskNet`.
        input_mean: shape (D,).
        input_scale: shape (D,), standard deviations of the training data.
        covariance: of the training data, shape (D, D).
        lower: least descriptors of the training data, shape (D,).
        upper: greatest, shape (D,).
        means: of each head of numbers without bounds, by name.
        scales: standard deviations of the same heads, by name.
        columns: names of the descriptors; static.
        tasks: what the heads predict; static.
        decodes: whether there is a decoder; static.
    """

    network: Network
    input_mean: Float[Array, " D"]
    input_scale: Float[Array, " D"]
    covariance: Float[Array, "D D"]
    lower: Float[Array, " D"]
    upper: Float[Array, " D"]
    means: dict[str, Array]
    scales: dict[str, Array]
    columns: tuple[str, ...] = struct.field(pytree_node=False)
    tasks: tuple[Task, ...] = struct.field(pytree_node=False)
    decodes: bool = struct.field(pytree_node=False, default=True)

    def __call__(self, x: Float[Array, "... D"]) -> dict[str, Array]:
        """Return the outputs of all heads for an input."""
        return self.heads(self.encode(x))

    def encode(self, x: Float[Array, "... D"]) -> Float[Array, "... z"]:
        """Return the latent of an input.

        Args:
            x: (…, D), in the units of the descriptors.
        """
        scaled = (x - self.input_mean) / self.input_scale
        return self.network.call("encode", scaled.astype(x.dtype))

    def decode(self, z: Float[Array, "... z"]) -> Float[Array, "... D"]:
        """Return the input of a latent.

        Args:
            z: (…, Z).
        """
        return self.input_mean + self.input_scale * self.network.call("decode", z)

    def heads(self, z: Float[Array, "... z"]) -> dict[str, Array]:
        """Return the outputs of all heads for a latent, numbers of width 1 without an axis.

        Args:
            z: (…, Z).
        """
        outputs = self.network.call("outputs", z)
        return {t.name: self._units(t, y) for t, y in zip(self.tasks, outputs, strict=True)}

    def _units(self, task: Task, output: Array) -> Array:
        if task.classes:
            return output
        if task.bounds is not None:
            low, high = task.bounds
            output = low + (high - low) * jax.nn.sigmoid(output)
        else:
            output = self.means[task.name] + self.scales[task.name] * output
        return output[..., 0] if task.width == 1 else output


def build_multitask(config: Mapping[str, Any], key: PRNGKeyArray) -> MultiTaskModel:
    """Return a model with random weights, whose inputs and numbers are taken to be standardized.

    Args:
        config: the keys of `MultiTaskConfig`, and tables "numbers", name → width or {"width",
            "lower", "upper"}, and "classes", name → names of the classes.
        key: for the weights.

    Raises:
        ValueError: names the key that is unknown or does not fit.
    """
    rest = dict(config)
    tasks = read_tasks(rest.pop("numbers", {}), rest.pop("classes", {}))
    read = read_config(MultiTaskConfig, rest, "network")
    count = len(read.columns)
    free = [task for task in tasks if not task.classes and task.bounds is None]
    return MultiTaskModel(
        network=Network.of(MultiTaskNet(read, tasks, nnx.Rngs(params=key))),
        input_mean=jnp.zeros(count),
        input_scale=jnp.ones(count),
        covariance=jnp.eye(count),
        lower=jnp.full(count, -1.0),
        upper=jnp.full(count, 1.0),
        means={task.name: jnp.zeros(task.width) for task in free},
        scales={task.name: jnp.ones(task.width) for task in free},
        columns=read.columns,
        tasks=tasks,
        decodes=read.decoder,
    )


def read_tasks(numbers: Mapping[str, Any], classes: Mapping[str, Any]) -> tuple[Task, ...]:
    """Read the tasks from the two tables of a configuration.

    Args:
        numbers: name → width, or {"width", "lower", "upper"}.
        classes: name → names of the classes.

    Returns:
        The tasks, numbers first.

    Raises:
        ValueError: if there are none, one has two meanings, or one has a single class.
    """
    twice = sorted(set(numbers) & set(classes))
    if twice or not (numbers or classes):
        named = f"{twice[0]!r} is a task of both" if twice else "there is no task"
        raise ValueError(f"numbers, classes: {named}; name each task in one of the two tables")
    tasks = [_numbers(name, entry) for name, entry in numbers.items()]
    for name, names in classes.items():
        names = tuple(str(one) for one in names)
        if len(names) < 2 or len(set(names)) != len(names):
            raise ValueError(
                f"classes.{name}: expected two different classes or more, got {list(names)}"
            )
        tasks.append(Task(name, len(names), names))
    return tuple(tasks)


def _numbers(name: str, entry: Any) -> Task:
    table = dict(entry) if isinstance(entry, Mapping) else {"width": entry}
    width, low, high = table.pop("width", 1), table.pop("lower", None), table.pop("upper", None)
    if table or isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise ValueError(
            f"numbers.{name}: expected a width of 1 or more, with lower and upper for numbers that "
            f"are bounded, got {entry!r}"
        )
    if low is None and high is None:
        return Task(name, width)
    if low is None or high is None or not float(low) < float(high):
        raise ValueError(f"numbers.{name}: expected lower below upper, got {low} and {high}")
    return Task(name, width, (), (float(low), float(high)))
