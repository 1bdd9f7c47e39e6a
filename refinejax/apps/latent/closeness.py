"""How far a candidate is from what a model has seen: it knows nothing of the rest.

Each measure gives a distance for a point; a penalty weight·max(0, distance − limit)² is added to
the loss, and the distance is reported. Made by `fit` from training data, the limit is what 95 % of
the data are within.
"""

import abc
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from refinejax._checks import check_positive
from refinejax._core import Scalar
from refinejax._trees import as_pytree

SPACES = ("input", "latent")
_QUANTILE = 0.95


class Closeness(struct.PyTreeNode, abc.ABC):
    """A distance of a point from the data, or from the start.

    All have the fields ``weight``, of the penalty, ``limit``, the distance that costs nothing, and
    ``space``, "input" or "latent".

    Raises:
        ValueError: for another space.
    """

    name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Check."""
        space = _fields(self).space
        if space not in SPACES:
            raise ValueError(f"space: expected one of {', '.join(SPACES)}, got {space!r}")

    @abc.abstractmethod
    def distance(self, point: Float[Array, " n"], start: Float[Array, " n"]) -> Scalar:
        """Return how far the point is.

        Args:
            point: shape (n,).
            start: of the same sample, shape (n,).
        """

    def penalty(self, distance: Scalar) -> Scalar:
        """Return weight·max(0, distance − limit)².

        Args:
            distance: of a point.
        """
        return _fields(self).weight * jnp.maximum(self.excess(distance), 0) ** 2

    def excess(self, distance: Scalar) -> Scalar:
        """Return distance − limit: as a constraint, 0 or less.

        Args:
            distance: of a point.
        """
        return distance - _fields(self).limit


def _fields(closeness: Any) -> Any:
    """Return it as what has the fields that every subclass declares, in an order of its own."""
    return closeness


class Mahalanobis(Closeness):
    """d = √((x − μ)ᵀ Σ⁻¹ (x − μ)/n), about 1 for data that are normally distributed.

    Attributes:
        mean: μ, shape (n,).
        whitener: W with Wᵀ W = Σ⁻¹, shape (n, n).
        limit: the d that costs nothing.
        weight: of the penalty.
        space: "input" or "latent"; static.
    """

    mean: Float[Array, " n"]
    whitener: Float[Array, "n n"]
    limit: Any = 1.5
    weight: Any = 1.0
    space: str = struct.field(pytree_node=False, default="input")
    name: ClassVar[str] = "mahalanobis"

    @classmethod
    def fit(
        cls, data: Any, *, shrinkage: float = 1e-3, weight: float = 1.0, space: str = "input"
    ) -> "Mahalanobis":
        """Take mean and covariance of data.

        Args:
            data: shape (N, n), of more than one row.
            shrinkage: share of the variances' mean that is added to the diagonal of the
                correlation matrix, for columns that depend on each other.
            weight: of the penalty.
            space: where the data are from.

        Returns:
            The distance, with a limit that 95 % of the data are within.

        Raises:
            ValueError: for data that are no finite table, or an unknown space.
        """
        data = check_data(data, "data", 2, space)
        return cls.of_moments(
            data.mean(0), np.cov(data.T).reshape(data.shape[1], -1), shrinkage, weight, space
        ).limited(data)

    @classmethod
    def of_moments(
        cls, mean: Any, covariance: Any, shrinkage: float = 1e-3, weight: float = 1.0,
        space: str = "input", limit: float = 1.5,
    ) -> "Mahalanobis":  # fmt: skip
        """Build from μ and Σ.

        Args:
            mean: shape (n,).
            covariance: shape (n, n).
            shrinkage: share of the diagonal that is mixed in.
            weight: of the loss.
            space: "input" or "latent".
            limit: the distance that costs nothing.

        Returns:
            The distance.
        """
        mean, covariance = np.asarray(mean, float), np.asarray(covariance, float)
        std = np.sqrt(np.maximum(np.diag(covariance), 0))
        std = np.where(std > 0, std, 1.0)
        correlation = covariance / np.outer(std, std)
        lower = np.linalg.cholesky(
            (1 - shrinkage) * correlation + shrinkage * np.eye(len(mean)) + 1e-9 * np.eye(len(mean))
        )
        whitener = np.linalg.inv(lower) / std
        return cls(jnp.asarray(mean, float), jnp.asarray(whitener, float), limit, weight, space)

    def limited(self, data: np.ndarray) -> "Mahalanobis":
        """Return it with the limit that 95 % of the data are within.

        Args:
            data: shape (N, n).
        """
        scaled = (data - np.asarray(self.mean)) @ np.asarray(self.whitener).T
        distances = np.sqrt(np.mean(scaled**2, axis=1))
        return self.replace(limit=float(np.quantile(distances, _QUANTILE)))

    def distance(self, point: Array, start: Array) -> Scalar:
        """Return d."""
        del start
        scaled = self.whitener.astype(point.dtype) @ (point - self.mean.astype(point.dtype))
        return _norm(scaled)


class Neighbors(Closeness):
    """Mean distance to the k nearest rows of data, each column in units of its spread.

    Attributes:
        data: shape (N, n), divided by ``scale``.
        scale: shape (n,).
        limit: the distance that costs nothing.
        weight: of the penalty.
        k: how many neighbors; static.
        space: "input" or "latent"; static.
    """

    data: Float[Array, "N n"]
    scale: Float[Array, " n"]
    limit: Any
    weight: Any = 1.0
    k: int = struct.field(pytree_node=False, default=5)
    space: str = struct.field(pytree_node=False, default="input")
    name: ClassVar[str] = "neighbors"

    @classmethod
    def fit(
        cls, data: Any, *, k: int = 5, weight: float = 1.0, space: str = "input"
    ) -> "Neighbors":
        """Keep the data; the limit is what 95 % of them are from their own neighbors.

        Args:
            data: shape (N, n), of more than k rows.
            k: how many neighbors.
            weight: of the penalty.
            space: where the data are from.

        Returns:
            The distance, with a limit that 95 % of the data are within.

        Raises:
            ValueError: for data that are no finite table or have too few rows, or an unknown space.
        """
        check_positive("k", k, "1 neighbor")
        data = check_data(data, "data", int(k) + 1, space)
        std = data.std(0)
        scale = np.where(std > 0, std, 1.0)
        scaled = jnp.asarray(data / scale, float)
        made = cls(scaled, jnp.asarray(scale, float), np.inf, weight, k, space)
        # A row of the data is its own nearest neighbor, at 0: k + 1 of them, 0 left out.
        wider = made.replace(k=k + 1)
        rows = jnp.asarray(data, float)
        own = jax.lax.map(lambda row: wider.distance(row, row), rows, batch_size=64)
        limit = float(np.quantile(np.asarray(own) * (k + 1) / k, _QUANTILE))
        return made.replace(limit=limit)

    def distance(self, point: Array, start: Array) -> Scalar:
        """Return the mean distance, √(mean of squares over columns) each."""
        del start
        difference = self.data.astype(point.dtype) - point / self.scale.astype(point.dtype)
        squares = jnp.mean(difference**2, axis=1)
        nearest = -jax.lax.top_k(-squares, self.k)[0]
        return jnp.mean(_root(nearest))


class TrustRegion(Closeness):
    """Root mean square of (x − start)/scale, in which 1 is one typical spread away.

    Attributes:
        limit: the radius.
        scale: of each column, shape (n,), or a number.
        weight: of the penalty.
        space: "input" or "latent"; static.
    """

    limit: Any
    scale: Any = 1.0
    weight: Any = 1.0
    space: str = struct.field(pytree_node=False, default="input")
    name: ClassVar[str] = "trust_region"

    def distance(self, point: Array, start: Array) -> Scalar:
        """Return the distance from the start."""
        return _norm((point - start) / jnp.asarray(self.scale, point.dtype))


class LogDensity(Closeness):
    """A density of your own: distance −log p(x).

    Attributes:
        function: x → log p, one number; a function (static: define it once) or a pytree.
        limit: −log p that costs nothing.
        weight: of the penalty.
        space: "input" or "latent"; static.
    """

    function: Any
    limit: Any = 0.0
    weight: Any = 1.0
    space: str = struct.field(pytree_node=False, default="input")
    name: ClassVar[str] = "log_density"

    def __post_init__(self) -> None:
        """Let a plain function stand for a pytree."""
        super().__post_init__()
        object.__setattr__(self, "function", as_pytree(self.function))

    def distance(self, point: Array, start: Array) -> Scalar:
        """Return −log p."""
        del start
        return -jnp.reshape(self.function(point), ())


def check_data(data: Any, name: str, least: int, space: str) -> np.ndarray:
    """Return data as a table of finite numbers.

    Args:
        data: shape (N, n).
        name: for messages.
        least: rows needed.
        space: of the points.

    Raises:
        ValueError: if they are none, of too few rows, or of an unknown space.
    """
    table = np.asarray(data, float)
    if table.ndim != 2 or len(table) < least:
        raise ValueError(
            f"{name}: expected a table of {least} rows or more, (N, n), got shape {table.shape}"
        )
    if not np.all(np.isfinite(table)):
        row, column = np.argwhere(~np.isfinite(table))[0]
        raise ValueError(
            f"{name}: row {row}, column {column} is {table[row, column]}; drop or impute such rows"
        )
    if space not in SPACES:
        raise ValueError(f"space: expected one of {', '.join(SPACES)}, got {space!r}")
    return table


def _norm(x: Array) -> Scalar:
    return _root(jnp.mean(x**2))


def _root(square: Array) -> Array:
    """Return the square root, with derivative 0 at 0."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)
