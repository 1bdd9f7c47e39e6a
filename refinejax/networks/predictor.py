"""A network that predicts params within bounds, and how far they may be off."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from refinejax._trees import Bounds, as_pytree
from refinejax.networks.network import Network
from refinejax.problems.space import ParameterSpace

_PRIOR = math.log(1 / 12)  # log variance of a uniform distribution of width 1
_LOG_VARIANCES = (2 * math.log(1e-4), 2 * math.log(1.0))


class OutputSpace(NamedTuple):
    """A `ParameterSpace` of plain numbers: what a predictor does not learn; static.

    Attributes:
        names: of the params.
        lower: bounds.
        upper: bounds.
        units: for display.
    """

    names: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    units: tuple[str, ...]

    @property
    def space(self) -> ParameterSpace:
        """The space."""
        return ParameterSpace.create(*self)


class Moments(NamedTuple):
    """Normal distributions in unit coordinates, in which the bounds are 0 and 1.

    Attributes:
        mean: μ; not within bounds.
        log_variance: log σ².
    """

    mean: Float[Array, "*m n"]
    log_variance: Float[Array, "*m n"]


class Prediction(NamedTuple):
    """A prediction from one observation.

    Attributes:
        params: within the bounds.
        std: standard deviation of each param, in its unit.
    """

    params: Float[Array, " n"]
    std: Float[Array, " n"]


class Predictor(struct.PyTreeNode):
    """Observation → params and their uncertainty; a pytree, all of whose leaves are learned.

    The network gives means and log variances (or means alone, beside log variances that are the
    same for all observations) in the unit coordinates of the bounds. They are not squeezed into the
    bounds, where a sigmoid would have no gradient: a squared error or a likelihood is the one of
    a plain regression. Only the prediction that is returned is clipped; it is not the mean of a
    truncated distribution, as a mean that was learned from params within the bounds knows of them.

    An ensemble is a leading axis of the weights: a mixture of normal distributions of equal weight
    (Lakshminarayanan et al. 2017, Simple and Scalable Predictive Uncertainty Estimation Using Deep
    Ensembles, §2.4).

    Attributes:
        network: (features, context) → outputs; weights with a leading axis of members.
        log_variance: shape (members, n), for a network that gives means alone; or None.
        features: observation → what the network is given; a function, or a pytree without leaves.
        box: names and bounds of the params; static.
    """

    network: Network
    log_variance: Float[Array, "m n"] | None
    features: Any
    box: OutputSpace = struct.field(pytree_node=False)

    def __post_init__(self) -> None:
        """Let a plain function stand for a pytree."""
        object.__setattr__(self, "features", as_pytree(self.features))

    @property
    def space(self) -> ParameterSpace:
        """Names, bounds and units of the params."""
        return self.box.space

    @property
    def members(self) -> int:
        """How many networks there are."""
        return len(jax.tree.leaves(self.network)[0])

    def moments(self, observation: Any, context: Array | None = None) -> Moments:
        """Return what each member says, shape (members, n), in unit coordinates.

        In float32 at least: to an observation of half precision, too, belong precise params.

        Args:
            observation: of one sample.
            context: what else is known, shape (k,), for a network that was built for it; about 1.
        """
        seen = self.features(observation)
        outputs = jax.vmap(lambda network: network(seen, context))(self.network)
        outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
        size = len(self.box.names)
        mean = outputs[:, :size] + jnp.asarray(0.5, outputs.dtype)
        free = outputs[:, size:] if self.log_variance is None else self.log_variance
        return Moments(mean, _bounded(free + jnp.asarray(_PRIOR, outputs.dtype)))

    def predict(self, observation: Any, context: Array | None = None) -> Prediction:
        """Return mean and standard deviation of the mixture, clipped to the bounds.

        Args:
            observation: of one sample.
            context: as in `moments`.
        """
        whole = mixture(self.moments(observation, context))
        params = self.space.from_unit(whole.mean)
        width = (self.space.upper - self.space.lower).astype(params.dtype)
        return Prediction(params, width * jnp.exp(0.5 * whole.log_variance))

    def __call__(self, observation: Any, context: Array | None = None) -> Float[Array, " n"]:
        """Return the params, within the bounds. Arguments as in `moments`."""
        return self.predict(observation, context).params

    def sample(
        self,
        key: PRNGKeyArray,
        observation: Any,
        n: int,
        context: Array | None = None,
        bounds: Bounds | None = None,
    ) -> Float[Array, "s n"]:
        """Draw params to start from: from the mixture, within the bounds.

        Members take turns, beginning with a random one, so that few draws are spread over many
        members. Each is a normal distribution about its mean, moved into the bounds, truncated to
        them: no probability piles up on a bound.

        Args:
            key: for the draws.
            observation: of one sample.
            n: how many.
            context: as in `moments`.
            bounds: (lower, upper) of the draws, where they are narrower than those of the box.
        """
        pick, draw = jax.random.split(key)
        moments = self.moments(observation, context)
        first = jax.random.randint(pick, (), 0, self.members)
        turn = (first + jnp.arange(n)) % self.members
        std = jnp.exp(0.5 * moments.log_variance)[turn]
        low, high = (self.space.to_unit(bound) for bound in bounds or self.space.bounds)
        low, high = (jnp.clip(end, 0, 1).astype(std.dtype) for end in (low, high))
        mean = jnp.clip(moments.mean, low, high)[turn]
        ends = (low - mean) / std, (high - mean) / std
        noise = jax.random.truncated_normal(draw, *ends, mean.shape, mean.dtype)
        return self.space.from_unit(jnp.clip(mean + std * noise, low, high))


def mixture(moments: Moments) -> Moments:
    """Return mean and log variance of a mixture of equal weights, over the leading axis.

        μ* = mean(μ),   σ*² = mean(σ² + μ²) − μ*² = mean(σ²) + mean((μ − μ*)²)

    (Lakshminarayanan et al. 2017, §2.4; the second form has no cancellation.)

    Args:
        moments: of each member, with a leading axis.
    """
    mean = jnp.mean(moments.mean, 0)
    inside = jnp.mean(jnp.exp(moments.log_variance), 0)
    return Moments(mean, jnp.log(inside + jnp.mean((moments.mean - mean) ** 2, 0)))


def _bounded(log_variance: Array) -> Array:
    """Keep standard deviations between 1e-4 and 1 of a range, smoothly (Chua et al. 2018, A.1)."""
    low, high = (jnp.asarray(x, log_variance.dtype) for x in _LOG_VARIANCES)
    below = high - jax.nn.softplus(high - log_variance)
    return low + jax.nn.softplus(below - low)
