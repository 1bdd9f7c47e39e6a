"""Restarts of a population that has ended, by IPOP and BIPOP, and CMA-ES of a size that changes."""

import abc
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from refinejax._core import Scalar


class RegrowthPlan(struct.PyTreeNode):
    """The run that is on, and what the next one depends on.

    Attributes:
        size: λ, in candidates.
        share: σ of this run over the first σ.
        runs: how many have ended.
        large: how often λ has doubled.
        evaluations: of this run.
        limit: at which it ends at the latest.
        small: whether it is one of BIPOP's small ones.
        spent: evaluations so far in large runs (but the first) and in small ones, shape (2,).
        last_large: evaluations of the last large run.
    """

    size: Int[Array, ""]
    share: Scalar
    runs: Int[Array, ""]
    large: Int[Array, ""]
    evaluations: Int[Array, ""]
    limit: Int[Array, ""]
    small: Bool[Array, ""]
    spent: Int[Array, "2"]
    last_large: Int[Array, ""]

    @classmethod
    def first(cls, size: int, dtype: Any) -> "RegrowthPlan":
        """Return the plan of the first run.

        Args:
            size: λ, in candidates.
            dtype: of the params.
        """
        zero, endless = jnp.int32(0), jnp.int32(2**31 - 1)
        one = jnp.ones((), dtype)
        spent = jnp.zeros(2, jnp.int32)
        return cls(jnp.int32(size), one, zero, zero, zero, endless, jnp.bool_(False), spent, zero)


class Regrowth(struct.PyTreeNode):
    """How a population goes on once it has ended: with which λ and σ, and from where.

    Attributes:
        doublings: λ grows up to 2^doublings times the first, then it is over; static.
        std: where bounds are finite, restarts are uniform within them; else they are normal
            around the best point, with so many initial standard deviations.

    Raises:
        ValueError: if ``doublings`` is below 0.
    """

    doublings: int = struct.field(pytree_node=False, default=6)
    std: Any = 3.0

    def __post_init__(self) -> None:
        """Check the number."""
        if self.doublings < 0:
            raise ValueError(f"doublings: expected 0 or more, got {self.doublings}")

    @abc.abstractmethod
    def following(self, plan: RegrowthPlan, first: int, key: PRNGKeyArray) -> RegrowthPlan:
        """Return the plan of the next run; ``large`` above ``doublings`` where there is none.

        Args:
            plan: of the run that has ended.
            first: the first λ.
            key: for random choices.
        """


class IPOP(Regrowth):
    """Restart with twice the population.

    Reference: Auger and Hansen (2005), "A restart CMA evolution strategy with increasing population
    size", CEC, 1769–1776.

    Attributes and errors are those of `Regrowth`.
    """

    def following(self, plan: RegrowthPlan, first: int, key: PRNGKeyArray) -> RegrowthPlan:
        """Double λ."""
        del key
        return _grown(plan, first)


class BIPOP(Regrowth):
    """Restart with twice the population, or with a small one and a small σ, in turns by budget.

    After Hansen (2009), "Benchmarking a BI-population CMA-ES on the BBOB-2009 function testbed",
    GECCO, 2389–2396: while the small runs have had fewer evaluations than the large ones (but the
    first), the next is small, with λ = λ₀(½ λ_large/λ₀)^{U²}, σ = σ₀·10^{−2U'}, U and U' uniform,
    and half the evaluations of the last large run at most. λ is a whole multiple of λ₀ here, since
    candidates are evaluated λ₀ at a time.

    Attributes and errors are those of `Regrowth`.
    """

    def following(self, plan: RegrowthPlan, first: int, key: PRNGKeyArray) -> RegrowthPlan:
        """Choose the regime by the evaluations each has had."""
        mine = jnp.where(plan.small, jnp.array([0, 1]), jnp.array([1, 0])) * plan.evaluations
        spent = plan.spent + jnp.where(plan.runs > 0, mine, 0).astype(jnp.int32)
        last = jnp.where(plan.small, plan.last_large, plan.evaluations)
        plan = plan.replace(spent=spent, last_large=last)
        draw = jax.random.uniform(key, (2,), plan.share.dtype)
        ratio = (0.5 * 2.0**plan.large) ** (draw[0] ** 2)
        little = plan.replace(
            size=jnp.maximum(jnp.floor(ratio).astype(jnp.int32), 1) * first,
            share=10 ** (-2 * draw[1]),
            runs=plan.runs + 1,
            evaluations=jnp.int32(0),
            limit=last // 2,
            small=jnp.bool_(True),
        )
        use_small = (spent[1] < spent[0]) & (plan.runs > 0)
        return jax.tree.map(lambda a, b: jnp.where(use_small, a, b), little, _grown(plan, first))


def _grown(plan: RegrowthPlan, first: int) -> RegrowthPlan:
    large = plan.large + 1
    fresh = RegrowthPlan.first(first, plan.share.dtype)
    return fresh.replace(
        size=jnp.int32(first) * 2**large,
        runs=plan.runs + 1,
        large=large,
        spent=plan.spent,
        last_large=plan.last_large,
    )


class CMAParameters(struct.PyTreeNode):
    """The parameters of CMA-ES for a population of any size up to a largest one; both static.

    Attributes:
        largest: the largest population.
        n: number of params.
    """

    largest: int = struct.field(pytree_node=False)
    n: int = struct.field(pytree_node=False)

    def __call__(self, size: Any, base: Any) -> Any:
        """Return the parameters for ``size``, which may be traced (Hansen, arXiv:1604.00772v2).

        Weights beyond ``size`` are 0. What does not depend on the size is taken from ``base``,
        evosax's for the largest size. Its c_mu is from the first edition, without the ¼.
        """
        dtype = base.weights.dtype
        tiny = jnp.finfo(dtype).tiny
        n, size = self.n, jnp.asarray(size, dtype)
        rank = jnp.arange(1, self.largest + 1, dtype=dtype)
        raw = jnp.where(rank <= size, jnp.log((size + 1) / 2) - jnp.log(rank), 0)  # Eq. (49)
        parents = rank <= jnp.floor(size / 2)
        up, down = jnp.where(parents, raw, 0), jnp.where(parents, 0, raw)
        mu_eff = jnp.sum(up) ** 2 / jnp.sum(up**2)  # Eq. (8)
        mu_minus = jnp.sum(down) ** 2 / jnp.maximum(jnp.sum(down**2), tiny)  # Table 1
        c_c = (4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n)  # Eq. (56)
        c_1 = 2 / ((n + 1.3) ** 2 + mu_eff)  # Eq. (57)
        c_mu = 2 * (0.25 + mu_eff + 1 / mu_eff - 2) / ((n + 2) ** 2 + mu_eff)
        c_mu = jnp.minimum(1 - c_1 - 1e-8, c_mu)  # Eq. (58)
        share = jnp.minimum(1 + c_1 / c_mu, 1 + 2 * mu_minus / (mu_eff + 2))  # Eqs. (50), (51)
        share = jnp.minimum(share, (1 - c_1 - c_mu) / (n * c_mu))  # Eq. (52)
        gain, drop = jnp.sum(jnp.maximum(raw, 0)), jnp.sum(jnp.maximum(-raw, 0))
        weights = jnp.where(raw >= 0, raw / gain, share * raw / jnp.maximum(drop, tiny))  # Eq. (53)
        c_std = (mu_eff + 2) / (n + mu_eff + 5)  # Eq. (55)
        d_std = 1 + 2 * jnp.maximum(0, jnp.sqrt((mu_eff - 1) / (n + 1)) - 1) + c_std
        fresh = {"weights": weights, "mu_eff": mu_eff, "c_std": c_std, "d_std": d_std}
        fresh |= {"c_c": c_c, "c_1": c_1, "c_mu": c_mu}
        return base.replace(**{name: value.astype(dtype) for name, value in fresh.items()})
