"""Maps from numbers without constraints to params that keep constraints.

Each has ``forward``, from the unknown u to x, and ``inverse``, to a u that leads to x or as near to
it as the map comes. Both have the length of x, so that they can be put together by `Columns`.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float

_EDGE = 1e-4  # of a range, or of a whole: params nearer to an end begin that far from it
_BEHIND = 0.5  # how far logits of absent elements are below the least of those present


class Transform(Protocol):
    """A map onto the params that are allowed; a pytree."""

    def forward(self, u: Float[Array, " n"], /) -> Float[Array, " n"]:
        """Return x, which keeps the constraint whatever u is."""
        ...

    def inverse(self, x: Float[Array, " n"], /) -> Float[Array, " n"]:
        """Return a u with forward(u) = x, or near to it where x is at an edge or outside."""
        ...


class Interval(struct.PyTreeNode):
    """x = lower + (upper − lower)·sigmoid(u): within finite bounds, which are never reached.

    Bounds by projection, which every refiner knows, reach them; this is for what must not.

    Attributes:
        lower: shape (n,) or a number.
        upper: of the same shape.
    """

    lower: Any
    upper: Any

    @classmethod
    def create(cls, lower: Any, upper: Any) -> "Interval":
        """Return the transform onto bounds that have been checked.

        Args:
            lower: lower bounds, shape (n,) or a number.
            upper: upper bounds, of the same shape.

        Raises:
            ValueError: for bounds that are not finite, or the lower one not below the upper one.
        """
        low, high = np.asarray(lower, float), np.asarray(upper, float)
        if not np.all(np.isfinite(low) & np.isfinite(high) & (low < high)):
            raise ValueError(
                f"interval: expected finite bounds, lower below upper, got {lower} and {upper}"
            )
        return cls(jnp.asarray(low, float), jnp.asarray(high, float))

    def forward(self, u: Float[Array, " n"]) -> Float[Array, " n"]:
        """Return x."""
        low, high = jnp.asarray(self.lower, u.dtype), jnp.asarray(self.upper, u.dtype)
        return jnp.clip(low + (high - low) * jax.nn.sigmoid(u), low, high)

    def inverse(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """Return u."""
        low, high = jnp.asarray(self.lower, x.dtype), jnp.asarray(self.upper, x.dtype)
        part = jnp.clip((x - low) / (high - low), _EDGE, 1 - _EDGE)
        return jnp.log(part) - jnp.log1p(-part)


class Positive(struct.PyTreeNode):
    """x = s·log(1 + exp(u)): above 0; for x well above the scale s the same as s·u.

    Attributes:
        scale: s, shape (n,) or a number.
    """

    scale: Any = 1.0

    def forward(self, u: Float[Array, " n"]) -> Float[Array, " n"]:
        """Return x."""
        tiny = jnp.finfo(u.dtype).tiny
        return jnp.maximum(jnp.asarray(self.scale, u.dtype) * jax.nn.softplus(u), tiny)

    def inverse(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """Return u."""
        return _inverse_softplus(x / jnp.asarray(self.scale, x.dtype))


class Ordered(struct.PyTreeNode):
    """x₁ = u₁, xᵢ₊₁ = xᵢ + s·log(1 + exp(uᵢ₊₁)): ascending.

    Attributes:
        scale: s, of the distances.
    """

    scale: Any = 1.0

    def forward(self, u: Float[Array, " n"]) -> Float[Array, " n"]:
        """Return x."""
        steps = Positive(self.scale).forward(u[1:])
        return jnp.concatenate([u[:1], u[:1] + jnp.cumsum(steps)])

    def inverse(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """Return u."""
        return jnp.concatenate([x[:1], Positive(self.scale).inverse(jnp.diff(x))])


class Simplex(struct.PyTreeNode):
    """Amounts of 0 or more with a given sum, a composition: the softmax of the logits u.

    Some amounts may be locked; the others share the rest. Elements that are not allowed, and
    all but the ``most`` of the largest logits, are exactly 0. Which elements are there does not
    change along a gradient; restarts and populations, which move logits past each other, change it.

    Attributes:
        allowed: shape (n,), False for elements that must be 0.
        locked: shape (n,), NaN where free.
        total: the sum of all.
        most: elements that may differ from 0, the locked among them; static.
    """

    allowed: Bool[Array, " n"]
    locked: Float[Array, " n"]
    total: Any = 1.0
    most: int | None = struct.field(pytree_node=False, default=None)

    @classmethod
    def create(
        cls,
        size: int,
        *,
        allowed: Sequence[int] | None = None,
        locked: dict[int, float] | None = None,
        most: int | None = None,
        total: float = 1.0,
    ) -> "Simplex":
        """Return the transform onto amounts that have been checked.

        Args:
            size: n.
            allowed: numbers of the elements that may be there; by default all.
            locked: amounts of elements by number.
            most: how many elements may be there, the locked ones with an amount among them.
            total: the sum.

        Raises:
            ValueError: for a number that is no element's, locked amounts that are negative or leave
                nothing, no free element for the rest, or a sum that is not above 0.
        """
        if not 0 < total < np.inf:
            raise ValueError(f"total: expected a sum above 0, got {total!r}")
        locked = dict(locked or {})
        chosen = set(range(size) if allowed is None else allowed)
        wrong = sorted(i for i in chosen | set(locked) if not 0 <= i < size)
        if wrong:
            raise ValueError(f"simplex: element {wrong[0]} is not within 0 to {size - 1}")
        amounts, left = np.full(size, np.nan), total - sum(locked.values())
        if not all(amount >= 0 for amount in locked.values()) or not left >= 0:
            raise ValueError(f"locked: expected amounts of 0 or more, at most {total} in all")
        for element, amount in locked.items():
            amounts[element] = amount
        free = sorted(chosen - set(locked))
        if not free:
            raise ValueError("allowed: every allowed element is locked, so that nothing is unknown")
        taken = sum(amount > 0 for amount in locked.values())
        room = len(free) if most is None else min(most - taken, len(free))
        if left > 0 and room < 1:
            raise ValueError(
                f"most: {left:g} of {total:g} are left for free elements, and there is room for "
                f"none ({len(free)} allowed, {taken} locked, at most {most}); allow more"
            )
        mask = np.isin(np.arange(size), free)
        return cls(jnp.asarray(mask), jnp.asarray(amounts), total, None if most is None else room)

    def forward(self, u: Float[Array, " n"]) -> Float[Array, " n"]:
        """Return x."""
        there = self._there(u)
        locked = jnp.where(jnp.isnan(self.locked), 0, self.locked).astype(u.dtype)
        left = jnp.asarray(self.total, u.dtype) - jnp.sum(locked)
        share = jax.nn.softmax(jnp.where(there, u, -jnp.inf))
        return jnp.where(there, left * share, locked)

    def _there(self, u: Array) -> Array:
        """Return True for the free elements that are not 0."""
        if self.most is None:
            return self.allowed
        ranks = jnp.argsort(jnp.argsort(-jnp.where(self.allowed, u, -jnp.inf)))
        return self.allowed & (ranks < self.most)

    def inverse(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """Return u, with mean 0 over the elements that are there."""
        amounts = jnp.where(self.allowed, jnp.maximum(x, 0), 0)
        share = amounts / jnp.maximum(jnp.sum(amounts), jnp.finfo(x.dtype).tiny)
        u = jnp.log(jnp.maximum(share, _EDGE))
        there = self.allowed & (share > 0)
        if self.most is not None:
            least = jnp.min(jnp.where(there, u, jnp.inf))
            full = jnp.sum(there) >= self.most
            u = jnp.where(full & ~there, least - _BEHIND, u)
        kept = there | ~jnp.any(there)
        return u - jnp.sum(jnp.where(kept, u, 0)) / jnp.maximum(jnp.sum(kept), 1)


class Columns(struct.PyTreeNode):
    """Transforms of some columns each; the other columns are as they are.

    ``Columns.of(((0, 1, 2), Simplex.create(3)), ((5,), Positive()))``: the first three columns are
    a composition, the sixth is positive.

    Attributes:
        transforms: one for each set of columns.
        columns: their numbers; static.
    """

    transforms: tuple[Any, ...]
    columns: tuple[tuple[int, ...], ...] = struct.field(pytree_node=False)

    @classmethod
    def of(cls, *parts: tuple[Sequence[int], Any]) -> "Columns":
        """Return the transform made of pairs (columns, transform).

        Args:
            parts: pairs (numbers of the columns from 0, transform).

        Raises:
            ValueError: if a column belongs to two, or its number is negative.
        """
        columns = tuple(tuple(int(c) for c in numbers) for numbers, _ in parts)
        flat = [c for numbers in columns for c in numbers]
        if min(flat, default=0) < 0:
            raise ValueError(f"columns: expected numbers from 0, got {min(flat)}")
        twice = sorted({c for c in flat if flat.count(c) > 1})
        if twice:
            raise ValueError(f"columns: column {twice[0]} belongs to more than one transform")
        return cls(tuple(transform for _, transform in parts), columns)

    def forward(self, u: Float[Array, " n"]) -> Float[Array, " n"]:
        """Return x.

        Raises:
            ValueError: for fewer columns than the transforms are about.
        """
        self._check(u)
        for transform, numbers in zip(self.transforms, self.columns, strict=True):
            u = u.at[jnp.array(numbers)].set(transform.forward(u[jnp.array(numbers)]))
        return u

    def inverse(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """Return u.

        Raises:
            ValueError: as `forward`.
        """
        self._check(x)
        for transform, numbers in zip(self.transforms, self.columns, strict=True):
            x = x.at[jnp.array(numbers)].set(transform.inverse(x[jnp.array(numbers)]))
        return x

    def _check(self, x: Array) -> None:
        last = max((max(numbers, default=0) for numbers in self.columns), default=0)
        if last >= x.shape[0]:
            raise ValueError(f"columns: there are 0 to {x.shape[0] - 1}, got {last}")


class PowerOfTwo(struct.PyTreeNode):
    """x = s·u, exactly, as s is a power of two.

    Attributes:
        scale: s, shape (n,).
    """

    scale: Float[Array, " n"]

    @classmethod
    def near(cls, widths: Any) -> "PowerOfTwo":
        """Return the one whose scales are the powers of two nearest to widths.

        Args:
            widths: shape (n,); 1 in place of widths that are not finite and above 0.
        """
        widths = np.asarray(widths, float)
        usable = np.isfinite(widths) & (widths > 0)
        exponents = np.round(np.log2(np.where(usable, widths, 1.0)))
        return cls(jnp.asarray(np.exp2(exponents), float))

    def forward(self, u: Float[Array, " n"]) -> Float[Array, " n"]:
        """Return x."""
        return u * self.scale.astype(u.dtype)

    def inverse(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """Return u."""
        return x / self.scale.astype(x.dtype)


def _inverse_softplus(y: Array) -> Array:
    """Return log(exp(y) − 1), for y of 1e-4 at least."""
    y = jnp.maximum(y, _EDGE)
    return y + jnp.log(-jnp.expm1(-y))
