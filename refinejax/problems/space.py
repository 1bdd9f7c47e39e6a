"""A box of parameters, with names and units."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from refinejax._checks import check_params
from refinejax._trees import Bounds, project


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
            lower: lower bounds, a pytree like the params of one sample, in their units; −∞ for
                none.
            upper: upper bounds, alike; ∞ for none.
            units: one for each name, such as "µm"; default none.

        Returns:
            The space.

        Raises:
            ValueError: if lengths differ, or a lower bound is not below its upper bound.
        """
        names = tuple(names)
        units = ("",) * len(names) if units is None else tuple(units)
        lower, upper = (jax.tree.map(_floats, bound, is_leaf=_is_list) for bound in (lower, upper))
        if names:
            sizes = {"lower": np.shape(lower), "upper": np.shape(upper), "units": (len(units),)}
            for name, shape in sizes.items():
                if shape != (len(names),):
                    raise ValueError(
                        f"{name}: expected shape ({len(names)},), one for each of names {names}, "
                        f"got {shape}"
                    )
        lower = jax.tree.map(lambda bound: _inward(bound, np.inf), lower)
        upper = jax.tree.map(lambda bound: _inward(bound, -np.inf), upper)
        _check_order(names, lower, upper)
        return cls(names, check_params(lower, "lower"), check_params(upper, "upper"), units)

    @property
    def bounds(self) -> Bounds:
        """(lower, upper)."""
        return self.lower, self.upper

    @property
    def scale(self) -> PyTree:
        """The power of two nearest to each range; 1 where the range is infinite.

        Powers of two make `to_scaled` and `from_scaled` exact in floating point: nothing is lost on
        the way, the bounds stay bounds, and the start comes back bit by bit.
        """

        def nearest(low: Array, high: Array) -> Array:
            width = high - low
            finite = jnp.isfinite(width)
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
            lambda p, low, high: ((p - low) / (high - low)).astype(jnp.result_type(p)),
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


def _floats(bound: Any) -> np.ndarray:
    array = np.asarray(bound)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(float)


def _inward(bound: np.ndarray, toward: float) -> np.ndarray:
    """Round to the dtype that JAX uses without leaving the box."""
    rounded = bound.astype(jax.dtypes.canonicalize_dtype(bound.dtype))
    outside = rounded < bound if toward > 0 else rounded > bound
    return np.where(outside, np.nextafter(rounded, rounded.dtype.type(toward)), rounded)


def _is_list(value: Any) -> bool:
    """Whether it is numbers in brackets; a list of arrays or dicts is a pytree."""
    if not isinstance(value, list | tuple):
        return False
    return not any(isinstance(v, dict) or getattr(v, "shape", ()) for v in value)


def _check_order(names: tuple[str, ...], lower: PyTree, upper: PyTree) -> None:
    def check(path: Any, low: np.ndarray, high: np.ndarray) -> None:
        wrong = ~(low < high)
        if np.any(wrong):
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            name = names[at[0]] if names else jax.tree_util.keystr(path) + str(list(at))
            raise ValueError(f"bounds of {name}: lower {low[at]} is not below upper {high[at]}")

    jax.tree_util.tree_map_with_path(check, lower, upper)
