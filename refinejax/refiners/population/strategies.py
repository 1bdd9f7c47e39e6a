"""Strategies of evolution by name.

All work in coordinates z of their own, in which the initial distribution is N(0, I): whatever a
strategy's default spread is, a unit of z is a standard deviation of the user's.
"""

import difflib
import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from refinejax.refiners.population.algorithms import (
    ALGORITHMS,
    CMA_ES,
    Algorithm,
    FromMean,
    as_weights,
    mended,
    weigh,
)


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


NAMES = tuple(ALGORITHMS)
STRATEGIES = {_plain(name): kind for name, kind in ALGORITHMS.items()}
# Their default is a learning rate of 1e-3 units of std: they would hardly move.
_CRAWLERS = tuple(ALGORITHMS[name] for name in ("ARS", "ASEBO", "ESMC", "Open_ES"))
_RATE = {"learning_rate": 0.1}
_MIRRORED = (*_CRAWLERS, ALGORITHMS["CR_FM_NES"], ALGORITHMS["PGPE"])


class Strategy(NamedTuple):
    """An algorithm of evosax for populations of a size in n dimensions.

    Attributes:
        algorithm: with ``ask`` and ``tell``.
        numbers: its default parameters (a dataclass of evosax's).
        rates: numbers of its optimizer, where it has one.
    """

    algorithm: Any
    numbers: Any
    rates: dict[str, float]

    @property
    def starts_from_mean(self) -> bool:
        """Whether it starts from a mean; else from a population with losses."""
        return isinstance(self.algorithm, FromMean)

    def settle(self, hyper: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return (parameters, numbers of the optimizer) with ``hyper`` in place of defaults.

        Args:
            hyper: numbers by name, of the strategy or its optimizer.
        """
        own = {k: v for k, v in hyper.items() if hasattr(self.numbers, k)}
        rates = self.rates | {k: v for k, v in hyper.items() if k in self.rates}
        return self.numbers.replace(**own), rates

    def begin(self, numbers: Any, rates: dict[str, Any], key: PRNGKeyArray, dtype: Any) -> Any:
        """Return the state of a strategy that starts from a mean, at z = 0."""
        mean = jnp.zeros(self.algorithm.num_dims, dtype)
        return self._with(self.algorithm.init(key, mean, numbers), rates, dtype)

    def found(
        self, numbers: Any, rates: dict[str, Any], key: PRNGKeyArray, z: Array, losses: Array
    ) -> Any:
        """Return the state of a strategy that starts from a population, with its losses.

        Args:
            numbers: parameters of the strategy.
            rates: numbers of its optimizer.
            key: for the start.
            z: the first population, shape (p, n).
            losses: shape (p,).
        """
        return self._with(self.algorithm.init(key, z, losses, numbers), rates, z.dtype)

    def _with(self, state: Any, rates: dict[str, Any], dtype: Any) -> Any:
        """Put the optimizer's numbers where it looks for them, and give all leaves one dtype."""
        if rates:
            inner = state.opt_state
            numbers = {k: jnp.asarray(v, inner.hyperparams[k].dtype) for k, v in rates.items()}
            state = state.replace(opt_state=inner._replace(hyperparams=numbers))
        return jax.tree.map(lambda leaf: _settled(leaf, dtype), state)

    def ask(self, key: PRNGKeyArray, state: Any, numbers: Any) -> tuple[Float[Array, "p n"], Any]:
        """Return candidates and the state.

        Args:
            key: for the candidates.
            state: of the strategy.
            numbers: its parameters.
        """
        z, after = self.algorithm.ask(key, state, numbers)
        return z.astype(_dtype(state)), _like(after, state)

    def tell(self, key: PRNGKeyArray, z: Array, losses: Array, state: Any, numbers: Any) -> Any:
        """Return the state after a generation.

        Args:
            key: for random choices.
            z: candidates, shape (p, n).
            losses: shape (p,).
            state: of the strategy.
            numbers: its parameters.
        """
        with warnings.catch_warnings():  # evosax's ClipUp, of PGPE, calls an older name of optax's
            warnings.filterwarnings("ignore", "optax.global_norm", DeprecationWarning)
            return _like(self.algorithm.tell(key, z, losses, state, numbers)[0], state)


def candidate_std(state: Any, z: Float[Array, "p n"]) -> Float[Array, " n"]:
    """Return the standard deviation of candidates along each axis.

    Of the distribution where the strategy has a covariance, else of the candidates.

    Args:
        state: of the strategy.
        z: candidates, shape (p, n).
    """
    matrix = getattr(state, "C", None)
    if matrix is None or getattr(state, "std", None) is None or jnp.ndim(state.std):
        return jnp.std(z, axis=0)
    variance = jnp.diagonal(matrix) if matrix.ndim == 2 else matrix
    return state.std * jnp.sqrt(jnp.maximum(variance, 0))


def path(state: Any) -> Array:
    """Return σ·p_c, the evolution path, of strategies that have one; else 0.

    Args:
        state: of the strategy.
    """
    trail = getattr(state, "p_c", None)
    return jnp.zeros(()) if trail is None else state.std * trail


def near(state: Any, z: Float[Array, "p n"]) -> Float[Array, "p n"]:
    """Return points pulled toward the mean, to where candidates of CMA-ES are; others as they are.

    The length of C^−½(z − m)/σ is cut at √n + 2n/(n + 2) (Hansen 2011, arXiv:1110.4181, Eq. 3).

    Args:
        state: of the strategy.
        z: points, shape (p, n).
    """
    if getattr(state, "B", None) is None or getattr(state, "D", None) is None:
        return z
    n = z.shape[1]
    y = (z - state.mean) / state.std
    length = jnp.linalg.norm((y @ state.B) / state.D, axis=1, keepdims=True)
    return state.mean + state.std * y * jnp.minimum(1, (n**0.5 + 2 * n / (n + 2)) / length)


def condition(state: Any) -> Array:
    """Return the condition number of C of strategies that decompose it; else 1.

    Args:
        state: of the strategy.
    """
    axes = getattr(state, "D", None)
    if axes is None or axes.ndim != 1:
        return jnp.ones(())
    return (jnp.max(axes) / jnp.min(axes)) ** 2


def resolve(strategy: Any) -> type[Algorithm]:
    """Return the class that a name stands for.

    Args:
        strategy: a name, or a class of evosax.

    Raises:
        ValueError: for an unknown name, or something else than a strategy.
    """
    if inspect.isclass(strategy) and issubclass(strategy, Algorithm):
        return mended(strategy)
    found = STRATEGIES.get(_plain(strategy)) if isinstance(strategy, str) else None
    if found is None:
        by_plain = {_plain(name): name for name in NAMES}
        close = difflib.get_close_matches(_plain(str(strategy)), by_plain, 1)
        hint = f" (did you mean {by_plain[close[0]]!r}?)" if close else ""
        raise ValueError(
            f"strategy: expected one of {', '.join(NAMES)}, or a class of evosax, got "
            f"{strategy!r}{hint}"
        )
    return found


def _title(kind: type[Algorithm]) -> str:
    return next((name for name in NAMES if ALGORITHMS[name] is kind), kind.__name__)


def changes_size(kind: type[Algorithm]) -> bool:
    """Return whether it is CMA-ES proper, whose populations may change size between generations.

    Args:
        kind: a class of evosax.
    """
    return issubclass(kind, CMA_ES) and kind._tell is CMA_ES._tell


def default_size(strategy: Any, n: int) -> int:
    """Return the population of a strategy in n dimensions, if none is asked for.

    4 + ⌊3 ln n⌋ for those that start from a mean (Hansen, arXiv:1604.00772, Eq. 48), or the next
    even number where they mirror their candidates, or 10√n where they fit a whole covariance to
    them; for the others ten times n within 20 … 100, and one more where the best stays beside
    groups of one size.

    Args:
        strategy: a name, or a class of evosax.
        n: number of params.
    """
    kind = resolve(strategy)
    if kind is ALGORITHMS["iAMaLGaM_Full"]:
        return max(int(10 * n**0.5), 6)
    if issubclass(kind, FromMean):
        size = 4 + int(3 * np.log(n))
        return size + size % 2 * issubclass(kind, _MIRRORED)
    return min(max(10 * n, 20), 100) + issubclass(kind, ALGORITHMS["GESMR_GA"])


@functools.lru_cache(maxsize=256)
def build(
    strategy: Any,
    population_size: int,
    n: int,
    optimizer: Callable[..., Any] | None,
    hyper: tuple[str, ...],
    elite_ratio: float | None,
) -> Strategy:
    """Return a strategy, built once: evosax compiles anew for every instance.

    ``hyper`` are the names of the numbers that will be set, its own or its optimizer's.

    Args:
        strategy: a name, or a class of evosax.
        population_size: λ.
        n: number of params.
        optimizer: an optax factory; None for the strategy's own.
        hyper: names of the numbers that will be set.
        elite_ratio: share of the population that has children; None for the default.

    Raises:
        ValueError: for a population that the strategy cannot have, or what it has no use for.
    """
    kind = resolve(strategy)
    with jax.ensure_compile_time_eval():  # else its constants would be tracers
        algorithm = _make(kind, population_size, n)
        own = vars(algorithm.default_params)
        rates = _rates(kind, optimizer, [name for name in hyper if name not in own])
        if rates is not None:
            factory = optax.adam if optimizer is None else optimizer
            algorithm.optimizer = optax.inject_hyperparams(factory)(**rates)
        elif optimizer is not None:
            raise ValueError(f"optimizer: {_title(kind)} has none; leave it out")
        elif unknown := [name for name in hyper if name not in own]:
            known = ", ".join(own) or "none"
            raise ValueError(
                f"hyper: {_title(kind)} has no number {unknown[0]!r}; it has {known}, and with "
                "optimizer=, if it has one, the numbers of that"
            )
        if elite_ratio is not None:
            if not 0 < elite_ratio <= 1:
                raise ValueError(f"elite_ratio: expected a share in (0, 1], got {elite_ratio}")
            algorithm.elite_ratio = elite_ratio
        return Strategy(algorithm, algorithm.default_params, rates or {})


def _make(kind: type[Any], population_size: int, n: int) -> Any:
    shaping = inspect.signature(kind.__init__).parameters.get("fitness_shaping_fn")
    weighs = shaping is not None and shaping.default is as_weights
    try:
        return kind(population_size, np.zeros(n), **{"fitness_shaping_fn": weigh} if weighs else {})
    except AssertionError as why:
        raise ValueError(
            f"population_size: {_title(kind)} cannot have {population_size} ({why})"
        ) from None


def _rates(kind: type[Any], optimizer: Any, names: list[str]) -> dict[str, float] | None:
    """Return the numbers of the optimizer, to be set; None where the strategy's own stays."""
    if "optimizer" not in inspect.signature(kind.__init__).parameters:
        return None
    if optimizer is None and not issubclass(kind, _CRAWLERS):
        return None
    return dict.fromkeys(names, 0.0) or dict(_RATE)


def _dtype(state: Any) -> Any:
    floats = [x.dtype for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.result_type(*floats)


def _settled(leaf: Any, dtype: Any) -> Array:
    leaf = jnp.asarray(leaf)
    return leaf.astype(dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype)


def _like(after: Any, before: Any) -> Any:
    return jax.tree.map(lambda new, old: jnp.asarray(new).astype(old.dtype), after, before)
