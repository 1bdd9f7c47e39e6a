"""Problems to be minimized, with defaults for all optional methods."""

import abc
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from refinejax._trees import Bounds, as_pytree

Scalar = Float[Array, ""]


def _default(value: Any) -> Any:
    """Return ``value``, as of any type: subclasses override it by a field or by a property."""
    return value


class Problem(struct.PyTreeNode, abc.ABC):
    """A scalar function of the params that is to be minimized.

    A plain function serves too: it is wrapped in a `FunctionProblem`. Derive from this class where
    there is more to say. Its data (observations, weights) are pytree leaves, functions and sizes
    are static fields. Only ``__call__`` is required; a default of None means "not known".

    Attributes:
        bounds: (lower, upper), pytrees like the params or numbers that broadcast to them, which no
            refiner leaves; default None. A property, a class attribute, or a field, which comes
            after those without default; so are the next two.
        reorder: whether the compiler may reorder sums (fast math on CPU): not where the problem
            holds compensated arithmetic such as x − k·A − k·B; default False.
        key_ids: whole numbers that the batch engine folds into a sample's key in place of its
            number in the batch; default (): its number.
    """

    bounds = _default(None)
    reorder = _default(False)
    key_ids = _default(())

    @abc.abstractmethod
    def __call__(self, params: Any, /) -> Scalar:
        """Return the loss at ``params``."""

    def residual(self, params: Any, /) -> PyTree:
        """Return the residuals, real or complex, with loss = mean(|residual|²); or None."""
        del params
        return None

    def normal(self, params: Any, /, basis: Float[Array, "n n"] | None = None) -> Any:
        """Return the quadratic model of the loss (a `problems.Normal`); None: from `residual`.

        With ``basis`` T, upper triangular, as a function of z in params + T·z.
        """
        del params, basis
        return None

    def curvature(self, params: Any, /) -> Callable[[Array], Array] | None:
        """Return v → M·v, flat, with M the matrix of `normal`; None: from `residual`."""
        del params
        return None

    def coordinates(self) -> "Coordinates":
        """Return the coordinates in which to refine; by default the params themselves."""
        return Coordinates(self, _same, _same)

    def map_problem(self, change: Callable[[Any], Any]) -> "Problem":
        """Return ``change(problem)``, of the problem as its user wrote it, in these coordinates."""
        return as_problem(change(self))

    def batch_axes(self) -> Any:
        """Return 0 for each leaf that belongs to a sample, None for each that all share.

        A pytree prefix, as ``in_axes`` of ``jax.vmap``. By default single numbers are shared.
        """
        return jax.tree.map(lambda leaf: 0 if np.ndim(leaf) else None, self)

    def draw(self, key: PRNGKeyArray) -> "Problem":
        """Return the problem with another minibatch of its data; by default itself."""
        del key
        return self


class FunctionProblem(Problem):
    """A function of the params as a `Problem`; a callable pytree keeps its leaves.

    Attributes:
        function: params → loss; a plain function is wrapped in ``jax.tree_util.Partial``.
    """

    function: Any

    def __call__(self, params: Any, /) -> Scalar:
        """Return function(params)."""
        return self.function(params)

    def map_problem(self, change: Callable[[Any], Any]) -> Problem:
        """Return ``change(function)`` as a problem."""
        return as_problem(change(self.function))


class Coordinates(struct.PyTreeNode):
    """A problem in the coordinates to refine it in, and the way there and back.

    Attributes:
        objective: the problem as a function of the coordinates of refinement.
        encode: from params to coordinates of refinement.
        decode: from coordinates of refinement to params.
    """

    objective: Any
    encode: Callable[[Any], Any] = struct.field(pytree_node=False)
    decode: Callable[[Any], Any] = struct.field(pytree_node=False)


def as_problem(objective: Any) -> Problem:
    """Return ``objective`` as a `Problem`: plain callables are wrapped, problems stay as they are.

    Raises:
        ValueError: if it cannot be called, or has a method of `Problem` without deriving from it.
    """
    if isinstance(objective, Problem):
        return objective
    if not callable(objective):
        raise ValueError(
            f"objective: expected a function of the params, got {type(objective).__name__}; "
            "pass a callable that returns a scalar loss"
        )
    inside = objective.func if isinstance(objective, jax.tree_util.Partial) else objective
    if isinstance(inside, Problem) and not jax.tree.leaves(objective):
        return inside
    if found := [name for name in _ABILITIES if hasattr(inside, name)]:
        raise ValueError(
            f"objective: {type(inside).__name__} has {found[0]!r}, but does not derive from "
            "refinejax.Problem; let it, or pass a plain function of the params"
        )
    return FunctionProblem(as_pytree(objective))


_ABILITIES = (
    "residual", "normal", "curvature", "bounds", "coordinates", "map_problem", "reorder",
    "batch_axes", "key_ids", "draw",
)  # fmt: skip


def bounds_of(objective: Any) -> Bounds | None:
    """Return (lower, upper) of a problem or function; None without bounds."""
    return as_problem(objective).bounds


def _same(params: Any) -> Any:
    return params
