"""Constraints kept by an augmented Lagrangian, and by how much they are not.

A target that has a limit is a constraint where it is given as one; so is a closeness, and a
function of the input. With multipliers λ and a stiffness ρ, g ≤ 0 adds (max(0, λ + ρg)² − λ²)/2ρ to
the loss, and h = 0 adds λh + ρh²/2 (Nocedal and Wright 2006, Numerical Optimization, eq. 17.36 and
17.65). After each round λ becomes max(0, λ + ρg), or λ + ρh, and ρ grows where a violation has not
shrunk.
"""

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from refinejax._core import Scalar
from refinejax._trees import as_pytree

ROUNDS = 10
TOLERANCE = 1e-3  # of a violation, in units of the targets' scales
_STIFFNESS, _GROWTH, _STIFFEST = 10.0, 4.0, 1e4
_SHRUNK = 0.25


class InputConstraint(struct.PyTreeNode):
    """What must hold of a function of the input: `Inequality` or `Equality`.

    Attributes:
        function: x → one number or several; a function (static: define it once) or a pytree.
        equality: whether it must be 0, and not only 0 or below.
    """

    function: Any
    equality: ClassVar[bool]

    def __post_init__(self) -> None:
        """Let a plain function stand for a pytree."""
        object.__setattr__(self, "function", as_pytree(self.function))

    def at(self, x: Float[Array, " n"]) -> Float[Array, " g"]:
        """Return the numbers of the function.

        Args:
            x: an input, shape (D,).
        """
        return jnp.ravel(self.function(x))


class Inequality(InputConstraint):
    """g(x) ≤ 0 for a function of the input.

    Attributes:
        function: x → one number or several; a function (static: define it once) or a pytree.
    """

    equality: ClassVar[bool] = False


class Equality(InputConstraint):
    """h(x) = 0 for a function of the input.

    Attributes:
        function: x → one number or several; a function (static: define it once) or a pytree.
    """

    equality: ClassVar[bool] = True


class Multipliers(NamedTuple):
    """Where the method of multipliers stands, for many rows.

    Attributes:
        values: λ, shape (N, m).
        stiffness: ρ, shape (N,).
        violation: at the end of the last round, shape (N,).
    """

    values: np.ndarray
    stiffness: np.ndarray
    violation: np.ndarray

    @classmethod
    def begin(cls, count: int, size: int, dtype: Any) -> "Multipliers":
        """Return λ = 0 for m constraints of N rows."""
        return cls(
            np.zeros((count, size), dtype),
            np.full(count, _STIFFNESS, dtype),
            np.full(count, np.inf, dtype),
        )

    def after(self, excess: np.ndarray, equal: np.ndarray) -> "Multipliers":
        """Return what the next round begins with.

        Args:
            excess: g and h where the round ended, shape (N, m).
            equal: True for those that must be 0, shape (m,).
        """
        excess = np.where(np.isfinite(excess), excess, 0)
        moved = self.values + self.stiffness[:, None] * excess
        beyond = violation(excess, equal)
        stiffer = np.minimum(_GROWTH * self.stiffness, _STIFFEST)
        shrunk = beyond <= np.maximum(_SHRUNK * self.violation, TOLERANCE / 10)
        return Multipliers(
            np.where(equal, moved, np.maximum(moved, 0)).astype(self.values.dtype),
            np.where(shrunk, self.stiffness, stiffer).astype(self.stiffness.dtype),
            beyond,
        )

    def done(self, excess: np.ndarray, equal: np.ndarray) -> np.ndarray:
        """Return True for rows that need no further round, shape (N,).

        Those are kept, and either not pressed upon or with nothing that a multiplier holds.

        Args:
            excess: of the constraints, shape (..., m).
            equal: True for equalities, shape (m,).
        """
        slack = np.where(equal, excess, np.maximum(excess, -self.values / self.stiffness[:, None]))
        return np.max(np.abs(slack), axis=1, initial=0) <= TOLERANCE


def violation(excess: np.ndarray, equal: np.ndarray) -> np.ndarray:
    """Return the largest of max(0, g) and |h|, over the last axis.

    Args:
        excess: of the constraints, shape (..., m).
        equal: True for equalities, shape (m,).
    """
    return np.max(np.where(equal, np.abs(excess), np.maximum(excess, 0)), axis=-1, initial=0)


def augmented(excess: Array, equal: Any, multipliers: Array, stiffness: Scalar) -> Scalar:
    """Return what constraints add to the loss.

    Args:
        excess: of the constraints, shape (..., m).
        equal: True for equalities, shape (m,).
        multipliers: λ, shape (m,).
        stiffness: μ, a number.
    """
    moved = multipliers + stiffness * excess
    kept = jnp.where(equal, moved, jnp.maximum(moved, 0))
    return jnp.sum(kept**2 - multipliers**2) / (2 * stiffness)
