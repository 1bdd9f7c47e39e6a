"""Networks of update rules: an LSTM on gradients, one on Adam's directions, and a perceptron."""

import math
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from refinejax.learned.rule import Seen
from refinejax.networks.mlp import MLP

Carry = tuple[Float[Array, "n h"], Float[Array, "n h"]]
_ZERO = 1e-30


class Rate(nnx.Module):
    """α, fixed or learned: a factor on steps."""

    def __init__(self, rate: float, learned: bool) -> None:
        self.fixed = rate
        self.log = nnx.Param(jnp.log(jnp.float32(rate))) if learned else None

    def __call__(self) -> Array:
        """Return α."""
        return jnp.float32(self.fixed) if self.log is None else jnp.exp(self.log[...])


class Gates(nnx.Module):
    """A long short-term memory with one product for all gates; forget gates begin open.

    Args:
        inputs: width of the input.
        width: of the memory.
        rngs: for the initial weights.
    """

    def __init__(self, inputs: int, width: int, *, rngs: nnx.Rngs) -> None:
        self.width = width
        self.linear = nnx.Linear(inputs + width, 4 * width, rngs=rngs)
        bias = jnp.zeros(4 * width).at[width : 2 * width].set(1.0)
        self.linear.bias = nnx.Param(bias)

    def begin(self, n: int) -> Carry:
        """Return zeros for n params."""
        zeros = jnp.zeros((n, self.width))
        return zeros, zeros

    def __call__(self, carry: Carry, x: Float[Array, "n i"]) -> tuple[Carry, Float[Array, "n h"]]:
        """Return the memory and the output."""
        c, h = carry
        into, forget, new, out = jnp.split(self.linear(jnp.concatenate([x, h], axis=1)), 4, axis=1)
        c = jax.nn.sigmoid(forget) * c + jax.nn.sigmoid(into) * jnp.tanh(new)
        h = jax.nn.sigmoid(out) * jnp.tanh(c)
        return (c, h), h


class LSTMRule(nnx.Module):
    """Two layers of LSTM on the logarithm and sign of each entry of the gradient.

    Andrychowicz et al. (2016, arXiv:1606.04474), §2.1 and appendix A: (log|g|/p, sign g) where
    |g| ≥ e⁻ᵖ, else (−1, eᵖg); the step is α times a linear function of the last layer.

    Args:
        width: of the layers.
        layers: how many.
        p: see above.
        rate: α.
        learn_rate: whether it is learned.
        rngs: for the initial weights.
    """

    def __init__(
        self,
        width: int = 20,
        layers: int = 2,
        *,
        p: float = 10.0,
        rate: float = 0.1,
        learn_rate: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        self.p = p
        sizes = [2] + [width] * (layers - 1)
        self.cells = nnx.List([Gates(size, width, rngs=rngs) for size in sizes])
        self.last = nnx.Linear(width, 1, rngs=rngs)
        self.rate = Rate(rate, learn_rate)

    def begin(self, n: int) -> list[Carry]:
        """Return the memory of n params."""
        return [cell.begin(n) for cell in self.cells]

    def __call__(self, seen: Seen, hidden: list[Carry]) -> tuple[Float[Array, " n"], list[Carry]]:
        """Return steps and memory."""
        h, after = through(self.cells, hidden, compress(seen.gradient, self.p))
        return self.rate() * self.last(h)[:, 0], after


def through(
    cells: Iterable[Gates], carries: Sequence[Carry], h: Float[Array, "n h"]
) -> tuple[Float[Array, "n h"], list[Carry]]:
    """Return the output of the last layer, and the new hidden states.

    Args:
        cells: layers in their order.
        carries: hidden state of each layer.
        h: input of the first layer, shape (n, h).
    """
    after = []
    for cell, carry in zip(cells, carries, strict=True):
        carry, h = cell(carry, h)
        after.append(carry)
    return h, after


def compress(gradient: Float[Array, " n"], p: float) -> Float[Array, "n 2"]:
    """Return logarithm and sign (Andrychowicz et al. 2016, appendix A).

    Args:
        gradient: shape (n,).
        p: |g| below exp(−p) is told by g·exp(p) instead of its logarithm.
    """
    size = jnp.abs(gradient)
    large = size >= math.exp(-p)
    known = jnp.log(jnp.where(large, size, 1)) / p
    first = jnp.where(large, known, -1.0)
    second = jnp.where(large, jnp.sign(gradient), math.exp(p) * gradient)
    return jnp.stack([first, second], axis=1)


class RNNprop(nnx.Module):
    """Two layers of LSTM on Adam's and RMSprop's direction: steps do not depend on units of f.

    Lv et al. (2017, arXiv:1703.03633), §4.2: m̃ = m̂/(√v̂ + ε) and g̃ = g/(√v̂ + ε) go through a
    layer with exponential linear units, the LSTM, and a linear layer; the step is α·tanh of that.

    Args:
        width: of the layers.
        layers: of LSTM.
        decay: β₁ = β₂.
        rate: α.
        learn_rate: whether it is learned.
        rngs: for the initial weights.
    """

    def __init__(
        self,
        width: int = 20,
        layers: int = 2,
        *,
        decay: float = 0.95,
        rate: float = 0.1,
        learn_rate: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        self.decay = decay
        self.first = nnx.Linear(2, width, rngs=rngs)
        self.cells = nnx.List([Gates(width, width, rngs=rngs) for _ in range(layers)])
        self.last = nnx.Linear(width, 1, rngs=rngs)
        self.rate = Rate(rate, learn_rate)

    def begin(self, n: int) -> tuple[Array, Array, list[Carry]]:
        """Return m, v and the memory of n params."""
        return jnp.zeros(n), jnp.zeros(n), [cell.begin(n) for cell in self.cells]

    def __call__(
        self, seen: Seen, hidden: tuple[Array, Array, list[Carry]]
    ) -> tuple[Float[Array, " n"], tuple[Array, Array, list[Carry]]]:
        """Return steps and memory."""
        m, v, carries = hidden
        g, b = seen.gradient, self.decay
        m, v = b * m + (1 - b) * g, b * v + (1 - b) * g**2
        debias = 1 - b ** (seen.taken + 1)
        size = root(v / debias)
        h = jax.nn.elu(self.first(jnp.stack([m / debias / size, g / size], axis=1)))
        h, after = through(self.cells, carries, h)
        return self.rate() * jnp.tanh(self.last(h)[:, 0]), (m, v, after)


class MLPRule(nnx.Module):
    """A perceptron on what many optimizers keep: momenta, second moments, params, and time.

    Metz et al. (2020, arXiv:2009.11243, appendix D) without features of whole tensors: params x,
    gradient g, momenta m of several decays, each with and without division by the root of second
    moments v, and v^(−½), all scaled to a mean square of 1 over the leaf, and tanh(t/s) of the
    steps t for several s. Of its outputs a and b the step is −α·a·exp(b/10).

    Args:
        hidden: widths.
        decays: of momenta and second moments.
        times: s.
        rate: α.
        learn_rate: whether it is learned.
        rngs: for the initial weights.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (32, 32),
        *,
        decays: Sequence[float] = (0.5, 0.9, 0.99),
        times: Sequence[float] = (1, 3, 10, 30, 100, 300, 1000),
        rate: float = 0.01,
        learn_rate: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        self.decays, self.times = tuple(decays), tuple(times)
        inputs = 2 + 4 * len(self.decays) + len(self.times)
        self.net = MLP(inputs, hidden, 2, last=0.1, rngs=rngs)
        self.rate = Rate(rate, learn_rate)

    def begin(self, n: int) -> tuple[Array, Array]:
        """Return m and v of n params, for each decay."""
        zeros = jnp.zeros((n, len(self.decays)))
        return zeros, zeros

    def __call__(
        self, seen: Seen, hidden: tuple[Array, Array]
    ) -> tuple[Float[Array, " n"], tuple[Array, Array]]:
        """Return steps and memory.

        Raises:
            ValueError: if the params are not given.
        """
        if seen.params is None:
            raise ValueError("params: this rule reads them; call update(updates, state, params)")
        m, v = hidden
        b, g = jnp.asarray(self.decays), seen.gradient[:, None]
        m, v = b * m + (1 - b) * g, b * v + (1 - b) * g**2
        debias = 1 - b ** (seen.taken + 1)
        size = root(v / debias)
        unscaled = [seen.params[:, None], g, m, 1 / size]
        features = [m / debias / size, g / size, *(x / _spread(x) for x in unscaled)]
        times = jnp.tanh(seen.taken / jnp.asarray(self.times))
        features.append(jnp.broadcast_to(times, (g.shape[0], times.size)))
        a, b = self.net(jnp.concatenate(features, axis=1)).T
        return -self.rate() * a * jnp.exp(b / 10), (m, v)


def root(square: Array) -> Array:
    """Return √square plus a tiny number, whose derivative at 0 is finite.

    Args:
        square: numbers of 0 or more.
    """
    return jnp.sqrt(square + _ZERO) + 1e-12


def _spread(x: Float[Array, "n k"]) -> Float[Array, " k"]:
    """Return the root mean square over the entries."""
    return jnp.sqrt(jnp.mean(x**2, axis=0) + _ZERO)
