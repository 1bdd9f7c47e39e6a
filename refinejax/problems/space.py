"""A box of parameters, with names and units."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from refinejax._checks import check_params
from refinejax._trees import Bounds, project
from refinejax.problems.bounds import read_bound, round_bounds

_NO_RANGE = 1e18  # a range as wide as this means none


class ParameterSpace(struct.PyTreeNode):
    """Bounds of params, and for an array of them names and units.

    A problem with a space is refined within its bounds, in coordinates in which every range is
    about 1 long, so that one learning rate or one spread of starts suits all parameters.

    Attributes:
        names: one for each entry of the last axis; or () where params are some other pytree.
        lower: lower bounds, like the params of one sample, in ``units``; −∞ where there is none.
        upper: upper bounds, of the same form; ∞ where there is none.
        units: for display.
    """

    names: tuple[str, ...] = struct.field(pytree_node=False)
    lower: PyTree
    upper: PyTree
    units: tuple[str, ...] = struct.field(pytree_node=False, default=())

    @classmethod
    def create(
        cls,
        names: Sequence[str],
        lower: PyTree,
        upper: PyTree,
        units: Sequence[str] | None = None,
    ) -> "ParameterSpace":
        """Build a space and check it.

        Args:
            names: one for each entry of the params, or none for params that are no array.
            lower: lower bounds, a pytree like the params of one sample, in their units; −∞ or None
                for none.
            upper: upper bounds, alike; ∞ or None for none. A param whose bounds are equal is fixed.
            units: one for each name, such as "µm"; default none.

        Returns:
            The space.

        Raises:
            ValueError: if lengths differ, two names are the same, a lower bound is above its upper
                bound, or two that differ are one in float32.
        """
        names = tuple(names)
        units = ("",) * len(names) if units is None else tuple(units)
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(
                f"names: {twice!r} is there twice, in {names}; every param needs a name of its own "
                "(what two params share is one param, which the forward model uses twice)"
            )
        lower, upper = read_bound(lower, "lower", -np.inf), read_bound(upper, "upper", np.inf)
        if names:
            sizes = {"lower": np.shape(lower), "upper": np.shape(upper), "units": (len(units),)}
            for name, shape in sizes.items():
                if shape != (len(names),):
                    raise ValueError(
                        f"{name}: expected shape ({len(names)},), one for each of names {names}, "
                        f"got {shape}"
                    )
        lower, upper = round_bounds(lower, upper, names)
        return cls(names, check_params(lower, "lower"), check_params(upper, "upper"), units)

    @property
    def bounds(self) -> Bounds:
        """(lower, upper)."""
        return self.lower, self.upper

    @property
    def scale(self) -> PyTree:
        """The power of two nearest to each range; 1 where the range is infinite or 0.

        A range above 10¹⁸ is infinite too: it was written for none.

        Powers of two make `to_scaled` and `from_scaled` exact in floating point: nothing is lost on
        the way, the bounds stay bounds, and the start comes back bit by bit.
        """

        def nearest(low: Array, high: Array) -> Array:
            width = high - low
            finite = (width < _NO_RANGE) & (width > 0)
            exponent = jnp.round(jnp.log2(jnp.where(finite, width, 1))).astype(jnp.int32)
            return jnp.ldexp(jnp.ones_like(width), exponent)  # exp2 is off by some ulp

        return jax.tree.map(nearest, self.lower, self.upper)

    def to_scaled(self, params: PyTree) -> PyTree:
        """Divide by `scale`, after clipping to the bounds.

        Args:
            params: params of one sample, in their units.

        Returns:
            The scaled params, without unit.
        """
        return jax.tree.map(lambda p, s: p / s.astype(p.dtype), self.clip(params), self.scale)

    def from_scaled(self, scaled: PyTree) -> PyTree:
        """Multiply by `scale`: the inverse of `to_scaled`, exactly.

        Args:
            scaled: scaled params, without unit.

        Returns:
            The params in their units.
        """
        return jax.tree.map(lambda u, s: u * s.astype(u.dtype), scaled, self.scale)

    def to_unit(self, params: PyTree) -> PyTree:
        """Map [lower, upper] to [0, 1]. Needs finite bounds.

        Args:
            params: params, in their units.

        Returns:
            Numbers without unit, 0 at the lower and 1 at the upper bound.
        """
        return jax.tree.map(
            lambda p, low, high: ((p - low) / jnp.where(high > low, high - low, 1)).astype(
                jnp.result_type(p)
            ),
            params,
            self.lower,
            self.upper,
        )

    def from_unit(self, unit: PyTree) -> PyTree:
        """Return params in [lower, upper] from [0, 1]; numbers outside [0, 1] are clipped.

        Args:
            unit: numbers without unit, 0 at the lower and 1 at the upper bound.

        Returns:
            The params in their units, within the bounds.
        """
        params = jax.tree.map(
            lambda u, low, high: (low + u * (high - low)).astype(jnp.result_type(u)),
            unit,
            self.lower,
            self.upper,
        )
        return self.clip(params)

    def clip(self, params: PyTree) -> PyTree:
        """Return the params, those outside moved onto the bounds. NaN stays NaN.

        Args:
            params: params, in their units.

        Returns:
            The params within the bounds.
        """
        return project(jax.tree.map(jnp.asarray, params), self.bounds)

    def contains(self, params: PyTree) -> Bool[Array, ""]:
        """Whether all params of one sample are within the bounds.

        Args:
            params: params of one sample, in their units.
        """
        inside = jax.tree.map(
            lambda p, low, high: jnp.all((p >= low) & (p <= high)), params, self.lower, self.upper
        )
        return jnp.all(jnp.stack(jax.tree.leaves(inside)))

    def sample(self, key: PRNGKeyArray, n: int) -> PyTree:
        """Draw ``n`` points uniformly; leading axis n. Needs finite bounds.

        Args:
            key: PRNG key.
            n: how many.

        Returns:
            The points, in the units of the params.
        """
        leaves, structure = jax.tree.flatten(self.lower)
        keys = jax.tree.unflatten(structure, list(jax.random.split(key, len(leaves))))
        unit = jax.tree.map(
            lambda k, low: jax.random.uniform(k, (n, *low.shape), low.dtype), keys, self.lower
        )
        return self.from_unit(unit)

    def as_dict(self, params: Float[Array, "*b n"]) -> dict[str, Array]:
        """Name the entries of the last axis.

        Args:
            params: params, of shape (…, n).

        Returns:
            For each name an array of shape (…).

        Raises:
            ValueError: if there are not as many as names.
        """
        params = jnp.asarray(params)
        if not self.names or params.shape[-1:] != (len(self.names),):
            raise ValueError(
                f"params: expected a last axis of {len(self.names)} ({', '.join(self.names)}), "
                f"got shape {params.shape}"
            )
        return {name: params[..., i] for i, name in enumerate(self.names)}
