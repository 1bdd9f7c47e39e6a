"""The networks of `LearnedUpdate`: reading of a point → step of the params."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

_LEAST = 1e-4  # |gradient| of the log of the loss below which only its sign times size is told
_FIRST = 0.1  # factor on the initial weights of the last layer: the first steps are short


class Reader(nnx.Module):
    """Params, gradient and map of the residual → features.

    The gradient enters as its logarithm and its sign (Andrychowicz et al. 2016, arXiv:1606.04474,
    appendix A).

    Args:
        params: n.
        seen: numbers in the map of the residual; 0 without one.
        slope: whether there is a gradient.
        width: of the features.
        rngs: for the initial weights.
    """

    def __init__(self, params: int, seen: int, *, slope: bool, width: int, rngs: nnx.Rngs) -> None:
        self.body = nnx.Linear(params * (3 if slope else 1) + seen + 1, width, rngs=rngs)

    def __call__(self, reading: Any) -> Float[Array, " width"]:
        """Return the features."""
        parts = [reading.params, jnp.atleast_1d(reading.loss / 5)]
        if reading.gradient is not None:
            size = jnp.abs(reading.gradient)
            large = size >= _LEAST
            known = jnp.log(jnp.where(large, size, 1)) / -jnp.log(_LEAST)
            parts.append(jnp.where(large, known, -1))
            parts.append(jnp.where(large, jnp.sign(reading.gradient), reading.gradient / _LEAST))
        parts += [leaf.ravel() for leaf in jax.tree.leaves(reading.map)]
        return self.body(jnp.concatenate(parts))


class Writer(nnx.Linear):
    """Features → step, short at first."""

    def __init__(self, width: int, params: int, *, rngs: nnx.Rngs) -> None:
        scale = nnx.initializers.variance_scaling(_FIRST**2, "fan_in", "truncated_normal")
        super().__init__(width, params, kernel_init=scale, rngs=rngs)


def _two_zeros(width: int, writer: Writer) -> tuple[Array, Array]:
    zeros = jnp.zeros(width, writer.kernel.dtype)
    return zeros, zeros


class ResidualUpdate(nnx.Module):
    """A residual network without memory: blocks h ← h + W₂ silu(W₁ norm(h)) (He et al. 2016).

    Args:
        params, seen, slope, width, rngs: as for `Reader`.
        depth: blocks.
    """

    def __init__(
        self,
        params: int,
        *,
        seen: int = 0,
        slope: bool = True,
        width: int = 128,
        depth: int = 2,
        rngs: nnx.Rngs,
    ) -> None:
        self.reader = Reader(params, seen, slope=slope, width=width, rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(depth)])
        self.first = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(depth)])
        self.second = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(depth)])
        self.writer = Writer(width, params, rngs=rngs)

    def begin(self) -> tuple[()]:
        """Return the hidden state: none."""
        return ()

    def __call__(self, reading: Any, hidden: tuple[()]) -> tuple[Float[Array, " n"], tuple[()]]:
        """Return the step."""
        h = self.reader(reading)
        for norm, first, second in zip(self.norms, self.first, self.second, strict=True):
            h = h + second(jax.nn.silu(first(norm(h))))
        return self.writer(jax.nn.silu(h)), hidden


class LSTMUpdate(nnx.Module):
    """A long short-term memory over the steps (Hochreiter and Schmidhuber 1997).

    Args:
        params, seen, slope, width, rngs: as for `Reader`.
    """

    def __init__(
        self, params: int, *, seen: int = 0, slope: bool = True, width: int = 64, rngs: nnx.Rngs
    ) -> None:
        self.width = width
        self.reader = Reader(params, seen, slope=slope, width=width, rngs=rngs)
        self.cell = nnx.LSTMCell(width, width, rngs=rngs)
        self.writer = Writer(width, params, rngs=rngs)

    def begin(self) -> tuple[Array, Array]:
        """Return the hidden state: zeros."""
        return _two_zeros(self.width, self.writer)

    def __call__(
        self, reading: Any, hidden: tuple[Array, Array]
    ) -> tuple[Float[Array, " n"], tuple[Array, Array]]:
        """Return the step and the hidden state."""
        hidden, h = self.cell(hidden, jax.nn.silu(self.reader(reading)))
        return self.writer(h), hidden


class InferenceMachine(nnx.Module):
    """A recurrent inference machine: two gated recurrent units with layers around them.

    Of params, hidden state and gradient of the log-likelihood, joint over all params (Putzky and
    Welling 2017, arXiv:1706.04008, §3.2; layers in place of their convolutions, as params have no
    neighbors).

    Args:
        params, seen, slope, width, rngs: as for `Reader`.
    """

    def __init__(
        self, params: int, *, seen: int = 0, slope: bool = True, width: int = 64, rngs: nnx.Rngs
    ) -> None:
        self.width = width
        self.reader = Reader(params, seen, slope=slope, width=width, rngs=rngs)
        self.lower = nnx.GRUCell(width, width, rngs=rngs)
        self.between = nnx.Linear(width, width, rngs=rngs)
        self.upper = nnx.GRUCell(width, width, rngs=rngs)
        self.writer = Writer(width, params, rngs=rngs)

    def begin(self) -> tuple[Array, Array]:
        """Return the hidden state: zeros."""
        return _two_zeros(self.width, self.writer)

    def __call__(
        self, reading: Any, hidden: tuple[Array, Array]
    ) -> tuple[Float[Array, " n"], tuple[Array, Array]]:
        """Return the step and the hidden state."""
        lower, h = self.lower(hidden[0], jnp.tanh(self.reader(reading)))
        upper, h = self.upper(hidden[1], jnp.tanh(self.between(h)))
        return self.writer(h), (lower, upper)
