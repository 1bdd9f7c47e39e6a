"""Unrolled shrinkage for sparse recovery: LISTA, LISTA-CPSS, ALISTA, as refiners."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PRNGKeyArray

from refinejax._core import Refiner, State
from refinejax.tasks.sparse import Lasso

KINDS = ("lista", "cpss", "alista")


class Shrinkage(Refiner):
    """Layers x ← η(x + …, θ_k), each step a layer with weights of its own; the last one stays.

    For a `Lasso`, with a ``matrix`` A and an ``observation`` b = Ax + noise. By ``kind``

    - "lista": η(W_k b + S_k x) (Gregor and LeCun 2010, eq. 5);
    - "cpss": η(x + W_kᵀ(b − Ax)) (LISTA-CPSS: Chen et al. 2018, arXiv:1808.10038, eq. 11 and 13);
    - "alista": η(x + γ_k Wᵀ(b − Ax)), W from A without training, see `analytic` (Liu et al. 2019,
      ICLR, eq. 6 and 8).

    η shrinks toward 0 by θ_k, but for the largest entries: a share p·k of them, at most P, in layer
    k = 1 … (support selection; 0 for none, as in LISTA).

    Attributes:
        first: W_k (K, n, m), W_k (K, m, n), or γ_k (K,); trained.
        second: S_k (K, n, n) of "lista"; else None; trained.
        thresholds: θ_k, shape (K,); trained.
        fixed: W (m, n) of "alista", not trained, with its gradient stopped; else None.
        kind: static.
        share: p; static.
        most: P; static.

    Raises:
        ValueError: for another kind; in ``init``, for an objective without A or b.
    """

    first: Float[Array, "K ..."]
    second: Any
    thresholds: Float[Array, " K"]
    fixed: Any = None
    kind: str = struct.field(pytree_node=False, default="lista")
    share: float = struct.field(pytree_node=False, default=0.0)
    most: float = struct.field(pytree_node=False, default=0.0)

    def __post_init__(self) -> None:
        """Check."""
        if self.kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")

    @property
    def uses_derivatives(self) -> bool:
        """A layer needs the matrix, and no derivative."""
        return False

    def init(self, objective: Any, params: Any, key: PRNGKeyArray) -> State:
        """Evaluate the loss."""
        del key
        if not isinstance(objective, Lasso):
            raise ValueError(
                "objective: expected one with a matrix and an observation, a Lasso of "
                f"tasks.sparse, got {type(objective).__name__}"
            )
        return State(params, objective(params), jnp.int32(0))

    def step(self, objective: Any, state: State, key: PRNGKeyArray) -> State:
        """Apply a layer."""
        del key
        layers = self.thresholds.shape[0]
        k = jnp.minimum(state.memory, layers - 1)
        moved = self._linear(k, objective, state.params)
        params = shrink(moved, self.thresholds[k], jnp.minimum(self.share * (k + 1), self.most))
        return State(params, objective(params), jnp.minimum(state.memory + 1, layers))

    def _linear(self, k: Int[Array, ""], objective: Any, x: Array) -> Array:
        A, b, weights = objective.matrix, objective.observation, self.first[k]
        if self.kind == "lista":
            return weights @ b + self.second[k] @ x
        rest = b - A @ x
        if self.kind == "cpss":
            return x + weights.T @ rest
        return x + weights * (jax.lax.stop_gradient(self.fixed).T @ rest)


def shrinkage(
    kind: str,
    matrix: Float[Array, "m n"],
    layers: int,
    *,
    weight: float = 0.1,
    share: float = 0.0,
    most: float = 0.0,
) -> Shrinkage:
    """Return untrained layers, which take the steps of ISTA (with its W in place of A, "alista").

    Args:
        kind: "lista", "cpss" or "alista".
        matrix: A.
        layers: K.
        weight: λ of the lasso, by which the first thresholds go: λ/L, L = ‖A‖².
        share: p, entries more in each layer that are not shrunk, as a share.
        most: P, the largest such share.
    """
    matrix = jnp.asarray(matrix)
    length = 1.001 * jnp.linalg.norm(matrix, ord=2) ** 2
    thresholds = jnp.full((layers,), weight / length, matrix.dtype)
    second = fixed = None
    if kind == "lista":
        first = jnp.tile(matrix.T / length, (layers, 1, 1))
        whole = jnp.eye(matrix.shape[1]) - matrix.T @ matrix / length
        second = jnp.tile(whole, (layers, 1, 1))
    elif kind == "alista":
        first, fixed = jnp.ones(layers, matrix.dtype), analytic(matrix)
    else:
        first = jnp.tile(matrix / length, (layers, 1, 1))
    return Shrinkage(first, second, thresholds, fixed, kind, share, most)


def shrink(x: Float[Array, " n"], threshold: Any, free: Any) -> Float[Array, " n"]:
    """Return sign(x)·max(|x| − θ, 0), a share ``free`` of the largest entries staying as they are.

    Chen et al. (2018), eq. 12; as there, what stays must be above θ too.

    Args:
        x: shape (n,).
        threshold: θ; below 0 it counts as 0.
        free: share of the entries, the largest, that are not shrunk, from 0 to 1.
    """
    size = jnp.abs(x)
    threshold = jnp.maximum(threshold, 0)
    shrunk = jnp.sign(x) * jnp.maximum(size - threshold, 0)
    order = jnp.sort(jax.lax.stop_gradient(size))
    n = x.size
    cut = order[jnp.clip(n - jnp.floor(free * n).astype(int), 0, n - 1)]
    stays = (size >= cut) & (size > threshold) & (free * n >= 1)
    return jnp.where(stays, x, shrunk)


def analytic(matrix: Float[Array, "m n"]) -> Float[Array, "m n"]:
    """Return W with the least ‖WᵀA‖_F among those with w_iᵀa_i = 1 (Liu et al. 2019, eq. 16).

    In closed form w_i = (AAᵀ)⁻¹a_i / (a_iᵀ(AAᵀ)⁻¹a_i).

    Args:
        matrix: A, shape (m, n).
    """
    solved = jnp.linalg.solve(matrix @ matrix.T, matrix)
    return solved / jnp.sum(solved * matrix, axis=0)
