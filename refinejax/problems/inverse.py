"""The inverse problem: a forward model, an observation, and prior knowledge."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, PyTree

from refinejax._core import Coordinates, Problem, Scalar
from refinejax._promotion import standard_promotion
from refinejax._trees import Bounds, as_pytree, broadcast_like
from refinejax.problems.normal import (
    Normal,
    Product,
    Weigh,
    accumulate,
    product,
    square,
)
from refinejax.problems.pointwise import Pointwise
from refinejax.problems.scaled import scaled_coordinates
from refinejax.problems.space import ParameterSpace


class InverseProblem(Problem):
    """Find params whose prediction explains an observation.

    With r = difference(forward(params), observation) / noise, the loss is the mean of r² over the
    pixels that were observed, plus the prior. Under Gaussian noise of standard deviation ``noise``
    it is 2/m times the negative log-likelihood, and about 1 at the truth. With a ``unit`` u all of
    it is divided by u².

    Attributes:
        forward: params → prediction; with ``context``, (params, context) → prediction. A function
            (static; compiled anew where it reads something else) or a pytree with ``__call__``;
            `Pointwise`, where each pixel is predicted from its coordinates.
        observation: pytree of arrays like the prediction. NaN means missing: no weight.
        noise: standard deviation; a number or arrays that broadcast against the observation.
            Infinite means no weight, as if nothing was observed there; where nothing was observed
            it may be anything.
        difference: (prediction, observation) → residual; static. For phases `wrapped_difference`.
        prior: params → a penalty added to the loss; or None.
        space: names, bounds and units of params; or None. With a space the problem is refined
            within its bounds, in its scaled coordinates.
        context: data of this sample that the forward model needs (its wavelength, say).
        scale: the size of a step in each param, like the params, powers of two; the problem is
            refined in params divided by it. None: the scale of the space, if there is one.
        unit: of the residual, a power of two, so that squares of data in any unit are ordinary
            numbers. None: 1.
    """

    forward: Any
    observation: PyTree
    noise: Any = 1.0
    difference: Callable[[Array, Array], Array] = struct.field(
        pytree_node=False, default=jnp.subtract
    )
    prior: Any = None
    space: ParameterSpace | None = None
    context: PyTree = None
    scale: PyTree = None
    unit: Any = None

    def __post_init__(self) -> None:
        """Let plain functions stand for pytrees."""
        object.__setattr__(self, "forward", as_pytree(self.forward))
        object.__setattr__(self, "prior", as_pytree(self.prior))

    def predict(self, params: PyTree) -> PyTree:
        """Return the observation that ``params`` would give.

        Args:
            params: of one sample, a pytree.
        """
        return self.forward(params) if self.context is None else self.forward(params, self.context)

    def residual(self, params: PyTree) -> PyTree:
        """Return difference(prediction, observation) / noise; 0 at missing pixels.

        Raises:
            ValueError: if the prediction does not have the shape of the observation.
        """
        return self.compare(self.predict(params))

    def compare(self, prediction: PyTree) -> PyTree:
        """Return the residual of a prediction: difference / noise; 0 at missing pixels.

        Args:
            prediction: like the observation.

        Raises:
            ValueError: if it does not have the shape of the observation.
        """
        noise = broadcast_like(self.noise, self.observation)
        return jax.tree.map(self._residual, prediction, self.observation, noise)

    def _residual(self, prediction: Array, observation: Array, noise: Array) -> Array:
        _check_shapes(jnp.shape(prediction), jnp.shape(observation))
        seen = _was_seen(observation, noise)
        # The inner `where` keeps NaN out of the derivative as well.
        difference = self.difference(prediction, jnp.where(seen, observation, prediction))
        noise = jnp.where(seen, noise, 1)  # a dead pixel may have noise 0, NaN or infinity
        if self.unit is not None:  # first, as the quotient by the noise may not be a finite number
            noise = noise * self.unit
        return jnp.where(seen, difference / noise.astype(difference.dtype), 0)

    def seen(self) -> PyTree:
        """Return a pytree like the observation, True where a pixel was observed and has weight."""
        noise = broadcast_like(self.noise, self.observation)
        return jax.tree.map(_was_seen, self.observation, noise)

    def weight(self) -> Scalar:
        """Return the number of pixels that were observed and have weight."""
        return jnp.sum(jnp.stack([jnp.sum(leaf) for leaf in jax.tree.leaves(self.seen())]))

    def __call__(self, params: PyTree) -> Scalar:
        """Return the mean squared residual plus the prior."""
        squares = [jnp.sum(jnp.abs(r) ** 2) for r in jax.tree.leaves(self.residual(params))]
        return self.total(jnp.sum(jnp.stack(squares)), params)

    def total(self, penalty: Scalar, params: PyTree) -> Scalar:
        """Return the penalty summed over pixels, as a mean, plus the prior.

        Without any pixel the mean is NaN (nothing is known), or 0 if there is a prior.

        Args:
            penalty: summed over the pixels.
            params: where, for the prior.
        """
        with standard_promotion():  # the number of pixels is an integer
            if self.prior is None:
                return penalty / self.weight()
            return penalty / jnp.maximum(self.weight(), 1) + self._prior(params)

    def _prior(self, params: PyTree) -> Scalar:
        penalty = self.prior(params)
        if jnp.shape(penalty):
            raise ValueError(
                "prior: expected a function that returns a number, got one of shape "
                f"{jnp.shape(penalty)}; add up its terms, as by jnp.sum"
            )
        return penalty if self.unit is None else penalty / self.unit / self.unit

    def normal(self, params: PyTree, basis: Array | None = None) -> Normal:
        """Return the quadratic model of the loss, in flat params (see `problems.normal`).

        With ``basis`` as a function of z, params + basis·z.
        """
        return self.reweighted(params, square, basis)

    @standard_promotion()
    def reweighted(self, params: PyTree, weigh: Weigh, basis: Array | None = None) -> Normal:
        """Return the quadratic model of the loss with another penalty: residual → (ρ, weight).

        Args:
            params: where, of n numbers in all.
            weigh: residuals → (penalty ρ, weight), elementwise.
            basis: T, upper triangular, shape (n, n), for the model as a function of z in params +
                T·z.
        """
        flat, unravel = ravel_pytree(params)
        fused = isinstance(self.forward, Pointwise)
        sums = accumulate(
            lambda x: self.residual(unravel(x)), flat, weigh, pointwise=fused, basis=basis
        )
        if self.prior is None:
            return sums.normal(sums.penalty / self.weight(), self.weight())
        count = jnp.maximum(self.weight(), 1)

        def prior(x: Array) -> Scalar:
            return self._prior(unravel(x))

        known = Normal(prior(flat), jax.grad(prior)(flat), jax.hessian(prior)(flat), 0)
        known = known if basis is None else known.along(basis)
        return jax.tree.map(jnp.add, sums.normal(sums.penalty / count, count), known)

    def curvature(self, params: PyTree) -> Product:
        """Return v → M v for the matrix of `normal`, in flat params."""
        return self.reweighted_curvature(params, square)

    def reweighted_curvature(self, params: PyTree, weigh: Weigh) -> Product:
        """Return v → M v for the matrix of `reweighted`.

        Args:
            params: where, of n numbers in all.
            weigh: residuals → (penalty ρ, weight), elementwise.
        """
        flat, unravel = ravel_pytree(params)
        apply = product(lambda x: self.residual(unravel(x)), flat, weigh)
        if self.prior is None:
            return standard_promotion()(lambda v: 2 / self.weight() * apply(v))
        count = jnp.maximum(self.weight(), 1)
        slope = jax.linearize(jax.grad(lambda x: self._prior(unravel(x))), flat)[1]
        return standard_promotion()(lambda v: 2 / count * apply(v) + slope(v))

    @property
    def bounds(self) -> Bounds | None:
        """(lower, upper) of the space, if there is one."""
        return None if self.space is None else self.space.bounds

    @property
    def reorder(self) -> bool:
        """Whether the forward model says that its arithmetic may be reordered."""
        return isinstance(self.forward, Pointwise) and self.forward.reorder

    def coordinates(self) -> Coordinates:
        """Return params divided by ``scale``, or the space's scaled coordinates."""
        return scaled_coordinates(self, self.space, self.scale)

    def batch_axes(self) -> "InverseProblem":
        """Return 0 for what each sample has of its own, None for what all share.

        Observation, context and scale differ from sample to sample, noise and unit if they are not
        single numbers; forward model, prior and space are shared.

        Raises:
            ValueError: for noise of shape (B,) where the last axis has B pixels too.
        """
        _check_noise(broadcast_like(self.noise, self.observation), self.observation)
        unit = 0 if self.unit is not None and jnp.ndim(self.unit) else None
        noise = jax.tree.map(lambda n: 0 if jnp.ndim(n) else None, self.noise)
        none = jax.tree.map(lambda _: None, (self.forward, self.prior, self.space))
        return self.replace(
            forward=none[0], observation=0, noise=noise, prior=none[1], space=none[2], context=0,
            scale=0, unit=unit,
        )  # fmt: skip


def _was_seen(observation: Any, noise: Any) -> Bool[Array, "..."]:
    """Return False where an observation is missing (NaN) or has no weight (infinite noise)."""
    return jnp.broadcast_to(~jnp.isnan(observation) & (noise != jnp.inf), jnp.shape(observation))


def _check_noise(noise: PyTree, observation: PyTree) -> None:
    """Refuse noise that may be one number a sample, or one a pixel."""
    for one, seen in zip(jax.tree.leaves(noise), jax.tree.leaves(observation), strict=False):
        shape, whole = jnp.shape(one), jnp.shape(seen)
        if isinstance(one, int | float) and not one > 0:
            raise ValueError(f"noise: expected standard deviations above 0, got {one}")
        if len(whole) > 1 and shape == whole[:1] == whole[-1:] != (1,):
            raise ValueError(
                f"noise: shape {shape} may mean samples or pixels, which are as many here; "
                f"broadcast it to {whole}"
            )


def _check_shapes(prediction: tuple[int, ...], observation: tuple[int, ...]) -> None:
    """Refuse what would broadcast to something larger than the observation."""
    pairs = zip(prediction[::-1], observation[::-1], strict=False)
    if len(prediction) > len(observation) or any(p not in (1, o) for p, o in pairs):
        raise ValueError(
            f"forward: a prediction of shape {prediction} does not fit the observation of shape "
            f"{observation}"
        )
