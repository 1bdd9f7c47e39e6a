"""The algorithms of evosax by name, some mended: the only importer of evosax.

Where evosax 0.3 computes something else than the method of that name, ours is in its place.
"""

from typing import Any

import evosax.algorithms as catalog
import jax
import jax.numpy as jnp
import numpy as np
import optax
from evosax.algorithms.base import EvolutionaryAlgorithm as Algorithm
from evosax.algorithms.distribution_based.asebo import ASEBO
from evosax.algorithms.distribution_based.base import DistributionBasedAlgorithm as FromMean
from evosax.algorithms.distribution_based.cma_es import CMA_ES
from evosax.algorithms.distribution_based.gradientless_descent import GradientlessDescent
from evosax.algorithms.distribution_based.iamalgam_full import iAMaLGaM_Full
from evosax.algorithms.distribution_based.iamalgam_univariate import iAMaLGaM_Univariate
from evosax.algorithms.distribution_based.lm_ma_es import LM_MA_ES
from evosax.algorithms.distribution_based.ma_es import MA_ES
from evosax.algorithms.distribution_based.rm_es import Rm_ES
from evosax.algorithms.distribution_based.xnes import xNES
from evosax.algorithms.population_based.gesmr_ga import GESMR_GA
from evosax.algorithms.population_based.mr15_ga import MR15_GA
from evosax.algorithms.population_based.mr15_ga import Params as MutationParams
from evosax.core.fitness_shaping import identity_fitness_shaping_fn as as_they_are
from evosax.core.fitness_shaping import weights_fitness_shaping_fn as as_weights
from flax import struct
from jaxtyping import Array, PRNGKeyArray

from refinejax.refiners.population.ranks import Order
from refinejax.refiners.population.regrowth import CMAParameters

__all__ = ["ALGORITHMS", "CMA_ES", "Algorithm", "FromMean", "as_weights", "mended", "weigh"]


class SafeCMA(CMA_ES):
    """CMA-ES as evosax has it, but for two things.

    Its decomposition follows the scale of C: evosax adds 1e-8 to each eigenvalue in every
    generation and cuts them off there, which a C of condition 1e6 feels; here the floor is ε times
    the largest. And its learning rates are those of the tutorial's later edition, of pycma too
    (`CMAParameters`): a few per cent fewer generations. With the same numbers, evosax's trajectory
    is the same to rounding.
    """

    @property
    def _default_params(self) -> Any:
        size = self.population_size
        return CMAParameters(size, self.num_dims)(size, super()._default_params)

    def _ask(self, key: PRNGKeyArray, state: Any, params: Any) -> tuple[Array, Any]:
        symmetric = (state.C + state.C.T) / 2
        # of half precision there is no decomposition
        wide = symmetric.astype(jnp.promote_types(symmetric.dtype, jnp.float32))
        values, B = (part.astype(symmetric.dtype) for part in jnp.linalg.eigh(wide))
        floor = jnp.finfo(values.dtype).eps * values[-1]
        D = jnp.sqrt(jnp.maximum(values, jnp.maximum(floor, jnp.finfo(values.dtype).tiny)))
        z = jax.random.normal(key, (self.population_size, self.num_dims))
        steps = (z * D) @ B.T  # Eqs. (38), (39)
        return state.mean + state.std * steps, state.replace(C=symmetric, B=B, D=D)


class MatrixAdaptation(MA_ES):
    """MA-ES: the best candidates have the largest weights in its matrix too.

    evosax hands weights to z in the order they were drawn. Reference: Beyer and Sendhoff (2017),
    "Simplify your covariance matrix adaptation evolution strategy", Eq. (M11).
    """

    def _tell(self, key: Any, population: Any, fitness: Any, state: Any, params: Any) -> Any:
        # What comes as fitness are the weights, one for each candidate.
        return super()._tell(key, population, fitness, state, params.replace(weights=fitness))


class LimitedMemory(LM_MA_ES):
    """LM-MA-ES: weights as in `MatrixAdaptation`, and rates that are shares in few dimensions too.

    c_c = λ/(4^i n) is above 1 where λ > n, and evosax takes the root of c_c(2 − c_c) all the same.
    It remains a method for many params: with few, its directions are mostly noise.
    Reference: Loshchilov, Glasmachers and Beyer (2017), arXiv:1705.06693, Algorithm 1.
    """

    @property
    def _default_params(self) -> Any:
        numbers: Any = super()._default_params
        return numbers.replace(c_c=jnp.minimum(numbers.c_c, 1))

    def _tell(self, key: Any, population: Any, fitness: Any, state: Any, params: Any) -> Any:
        return super()._tell(key, population, fitness, state, params.replace(weights=fitness))


class RankM(Rm_ES):
    """Rm-ES: σ follows how the losses of a generation rank among those of the last.

    evosax ranks their weights, which are the same in every generation, so that σ only falls.
    Reference: Li and Zhang (2018), "A simple yet efficient evolution strategy for large-scale
    black-box optimization", IEEE Trans. Evol. Comp. 22, 637–646, Eqs. (11) to (14).
    """

    def __init__(self, population_size: int, solution: Any) -> None:
        super().__init__(population_size, solution, fitness_shaping_fn=as_they_are)

    @property
    def _default_params(self) -> Any:
        numbers: Any = super()._default_params
        return numbers.replace(std_min=0.0)

    def _tell(self, key: Any, population: Any, fitness: Any, state: Any, params: Any) -> Any:
        weights = weigh(population, fitness, state, params)
        after = super()._tell(key, population, weights, state, params)
        count = self.num_elites
        elites = jnp.sort(fitness)[:count]
        ranks = Order(jnp.concatenate([state.fitness_elites_sorted, elites])).ranks()
        gain = jnp.dot(params.weights[:count], ranks[:count] - ranks[count:]) / count
        gain = jnp.where(state.generation_counter == 0, 0, gain - params.q_star)
        rate = (1 - params.c_std) * state.cumulative_rank_rate + params.c_std * gain
        return after.replace(
            std=self.update_std(state.std, rate, params),
            cumulative_rank_rate=rate,
            fitness_elites_sorted=elites,
        )


class Natural(xNES):
    """XNES: its matrix turns, by a matrix exponential.

    evosax multiplies elements by exponentials, so that a diagonal matrix remains diagonal.
    Reference: Glasmachers et al. (2010), "Exponential natural evolution strategies", Algorithm 1.
    """

    def _ask(self, key: PRNGKeyArray, state: Any, params: Any) -> tuple[Array, Any]:
        z = jax.random.normal(key, (self.population_size, self.num_dims))
        return state.mean + state.std * z @ state.B.T, state.replace(z=z)

    def _tell(self, key: Any, population: Any, fitness: Any, state: Any, params: Any) -> Any:
        after = super()._tell(key, population, fitness, state, params)
        eye = jnp.eye(self.num_dims)
        slope = jnp.einsum("i,ij,ik->jk", fitness, state.z, state.z) - jnp.sum(fitness) * eye
        shape = slope - jnp.trace(slope) / self.num_dims * eye
        return after.replace(B=state.B @ jax.scipy.linalg.expm(0.5 * params.lr_B * shape))


class FullModel(iAMaLGaM_Full):
    """iAMaLGaM: candidates come from N(m, c·C), and c is its multiplier.

    evosax draws from N(m, C + I), which never narrows, and gives c to the shift alone; and its c
    grows where better candidates are far in roots of C, however large c is already.

    Reference: Bosman, Grahl and Thierens (2013), "Benchmarking parameter-free AMaLGaM on functions
    with and without noise", Evol. Comp. 21, 445–469.
    """

    def _ask(self, key: PRNGKeyArray, state: Any, params: Any) -> tuple[Array, Any]:
        draw, shift = jax.random.split(key)
        z = jax.random.normal(draw, (self.population_size, self.num_dims))
        x = state.mean + state.std * self._colored(z, state.C)
        return self.anticipated_mean_shift(shift, x, state.c_mult, state.mean_shift, params), state

    def _tell(self, key: Any, population: Any, fitness: Any, state: Any, params: Any) -> Any:
        after = super()._tell(key, population, fitness, state, params)
        return after.replace(std=jnp.sqrt(after.c_mult))

    def standard_deviation_ratio(
        self, improvement_mask: Any, elites: Any, C: Any, mean: Any
    ) -> Any:
        """Return how far from the mean better elites lie on average, in standard deviations.

        Args:
            improvement_mask: True for elites that are better than the best so far.
            elites: the best candidates.
            C: covariance, or variances.
            mean: of the distribution.
        """
        average = improvement_mask @ elites / jnp.maximum(jnp.sum(improvement_mask), 1)
        return jnp.max(jnp.abs(self._white(average - mean, C)))

    def adaptive_variance_scaling(
        self, any_improvement: Array, sdr: Array, c_mult: Array, nis_counter: Array, params: Any
    ) -> tuple[Array, Array]:
        """Return c and the generations without improvement; ``sdr`` is in roots of C.

        Args:
            any_improvement: whether a candidate was better.
            sdr: from `standard_deviation_ratio`.
            c_mult: the multiplier c.
            nis_counter: generations without improvement.
            params: of the strategy.
        """
        wide = sdr / jnp.sqrt(c_mult)
        return super().adaptive_variance_scaling(any_improvement, wide, c_mult, nis_counter, params)

    def _colored(self, z: Array, C: Array) -> Array:
        return z @ jnp.linalg.cholesky(C).T

    def _white(self, y: Array, C: Array) -> Array:
        return jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(C), y, lower=True)


class UnivariateModel(FullModel):
    """`FullModel` with the variances alone."""

    _init = iAMaLGaM_Univariate._init
    update_cov = iAMaLGaM_Univariate.update_cov

    def _colored(self, z: Array, C: Array) -> Array:
        return z * jnp.sqrt(C)

    def _white(self, y: Array, C: Array) -> Array:
        return y / jnp.sqrt(C)


class Subspace(ASEBO):
    """ASEBO, scaled so that its first generation is N(0, I); evosax's is N(0, I/n)."""

    def __init__(self, population_size: int, solution: Any, optimizer: Any = None) -> None:
        scale = float(np.sqrt(np.size(solution)))
        optimizer = optax.adam(1e-3) if optimizer is None else optimizer
        super().__init__(population_size, solution, 1, optimizer, optax.constant_schedule(scale))


class Descent(GradientlessDescent):
    """Gradientless descent: radii from a standard deviation down to a thousandth in a generation.

    evosax's fall by 2^−⅕ from one candidate to the next, so that few candidates have no small ones.
    Reference: Golovin et al. (2020), "Gradientless descent", arXiv:1911.06317, Algorithm 1.
    """

    @property
    def _default_params(self) -> Any:
        least, steps = 1e-3, max(self.population_size - 1, 1)
        numbers: Any = super()._default_params
        return numbers.replace(
            radius_min=least, radius_max=1.0, radius_decay=steps / float(np.log2(1 / least))
        )


class Groups(GESMR_GA):
    """GESMR: the best stays, and about √(p − 1) groups of the others have a σ each.

    evosax has one group by default, of whose σ none is selected. Reference: Kumar et al. (2022),
    "Effective mutation rate adaptation through group elite selection", arXiv:2204.04817.
    """

    def __init__(self, population_size: int, solution: Any) -> None:
        others = population_size - 1
        few = range(2, int(np.sqrt(max(others, 0))) + 1)
        groups = max((k for k in few if others % k == 0), default=0)
        assert groups, "one more than a number with divisors, for groups of one size: 21, 51"
        super().__init__(population_size, solution, groups)


@struct.dataclass
class GeneticParams(MutationParams):
    """Those of evosax's MR15_GA, and how much a child takes from its second parent.

    Attributes:
        crossover_rate: share of params that a child takes from its second parent.
    """

    crossover_rate: float


class Genetic(MR15_GA):
    """A genetic algorithm: truncation selection, uniform crossover, normal mutation, elitism.

    Two parents are drawn from the best share (``elite_ratio``) of the population; each param is
    the second's with probability ``crossover_rate``; σ·N(0, 1) is added. Parents and children
    compete, (μ + λ), and σ doubles or halves by the success rule: both as in evosax's MR15_GA,
    which has no crossover and lets every member mutate. Its SimpleGA has crossover, but keeps no
    parent and no σ but the first.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.elite_ratio = 0.5

    @property
    def _default_params(self) -> Any:
        return GeneticParams(**vars(super()._default_params), crossover_rate=0.5)

    def _ask(self, key: PRNGKeyArray, state: Any, params: Any) -> tuple[Array, Any]:
        pick, cross, mutate = jax.random.split(key, 3)
        best = jnp.argsort(state.fitness)
        pairs = jax.random.randint(pick, (2, self.population_size), 0, self.num_elites)
        first, second = state.population[best[pairs]]
        swap = jax.random.bernoulli(cross, params.crossover_rate, first.shape)
        noise = jax.random.normal(mutate, first.shape, first.dtype)
        return jnp.where(swap, second, first) + state.std * noise, state


def weigh(population: Array, losses: Array, state: Any, params: Any) -> Array:
    """Return weights by rank: evosax's ``weights_fitness_shaping_fn``, sooner.

    Args:
        population: not used.
        losses: shape (p,).
        state: not used.
        params: with the weights by rank.
    """
    del population, state
    return params.weights[Order(losses).ranks().astype(jnp.int32)]


# Not here: those that read pickles (LES, LGA, EvoTF_ES, CMAAnchoredLES), that hold several
# distributions at once (SV_CMA_ES, SV_Open_ES), that need an unrolled inner problem (PersistentES,
# NoiseReuseES), that plan their whole course beforehand (DiffusionEvolution), or that draw from a
# function and not around a point (RandomSearch; `refinejax.RandomSearch` does), or that want a
# gradient from elsewhere (GuidedES).
_NAMES = (
    "ARS", "ASEBO", "CMA_ES", "CR_FM_NES", "DES",
    "DifferentialEvolution", "ESMC", "GESMR_GA", "GradientlessDescent", "HillClimbing",
    "iAMaLGaM_Full", "iAMaLGaM_Univariate", "LM_MA_ES", "MA_ES", "MR15_GA",
    "Open_ES", "PGPE", "PSO", "Rm_ES", "SAMR_GA",
    "Sep_CMA_ES", "SimpleES", "SimpleGA", "SimulatedAnnealing", "SNES",
    "xNES",
)  # fmt: skip
_MENDED = {
    ASEBO: Subspace,
    CMA_ES: SafeCMA,
    GESMR_GA: Groups,
    GradientlessDescent: Descent,
    LM_MA_ES: LimitedMemory,
    MA_ES: MatrixAdaptation,
    Rm_ES: RankM,
    iAMaLGaM_Full: FullModel,
    iAMaLGaM_Univariate: UnivariateModel,
    xNES: Natural,
}


def mended(kind: type[Algorithm]) -> type[Algorithm]:
    """Return ours in place of an algorithm of evosax, where there is one.

    Args:
        kind: a class of evosax.
    """
    return _MENDED.get(kind, kind)


ALGORITHMS = {name: mended(catalog.algorithms[name]) for name in _NAMES}
ALGORITHMS |= {"de": ALGORITHMS["DifferentialEvolution"], "ga": Genetic}
