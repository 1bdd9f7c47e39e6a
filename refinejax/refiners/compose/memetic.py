"""A population whose best members learn."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from refinejax._checks import check_some
from refinejax._core import Evaluations, Params, Refiner, State, Status, Stop
from refinejax._lane import UNLIMITED, Lane, advance, rules_for, start, total_evaluations
from refinejax._trees import select
from refinejax.refiners.population.evolution import Evolution


class MemeticMemory(struct.PyTreeNode):
    """What `Memetic` remembers.

    Attributes:
        population: the state of the evolution.
        learners: the local refinements under way, a `Lane` with leading axis ``best``.
        age: steps since they began.
        spent: evaluations so far.
    """

    population: State
    learners: Lane
    age: Int[Array, ""]
    spent: Evaluations


class Memetic(Refiner):
    """Generations of a population, and local steps from the best few of them, side by side.

    Every ``period`` steps a local refinement by ``local`` starts from each of the ``best``
    candidates of the generation. After ``period`` steps, or when all have ended, their best points
    replace as many candidates of the population (Lamarckian learning; see `Evolution.generation`).
    The result is the best of all points. A step thus costs the same on every lane: a generation and
    ``best`` local steps.

    It ends when the population does; ``target`` and the number of steps are the driver's.

    Reference: Moscato (1989), "On evolution, search, optimization, genetic algorithms and martial
    arts: towards memetic algorithms", Caltech C3P 826.

    Attributes:
        evolution: the population; without ``regrow``.
        local: the method of the local refinements.
        best: how many local refinements; below the population's size; static.
        period: steps of each local refinement.

    Raises:
        ValueError: if ``best`` is below 1, or the population regrows.
    """

    evolution: Evolution
    local: Refiner
    best: int = struct.field(pytree_node=False, default=2)
    period: Any = 10
    positive: ClassVar[tuple[str, ...]] = ("period",)

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_some("best", self.best, "candidates")
        if isinstance(self.evolution, Evolution) and self.evolution.regrow is not None:
            raise ValueError(
                "evolution: expected a population of one size; leave out regrow, or put "
                "Sequential(Evolution(..., regrow=...), local) in place of Memetic"
            )

    @property
    def uses_derivatives(self) -> bool:
        """Whether the local method does."""
        return self.local.uses_derivatives

    def init(self, objective: Any, params: Params, key: PRNGKeyArray) -> State[Params]:
        """Start the population; the start itself is the first learner, and all others."""
        first, second = jax.random.split(key)
        population = self.evolution.init(objective, params, first)
        flat, _ = ravel_pytree(population.params)
        points = jnp.broadcast_to(flat, (self.best, flat.size))
        learners = self._take(objective, population.params, points, second)
        spent = total_evaluations((learners,)).plus(self.evolution.evaluations(None, population))
        memory = MemeticMemory(population, learners, jnp.int32(0), spent)
        return State(population.params, population.loss, memory)

    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Take a step of each learner, and one of the population."""
        memory: MemeticMemory = state.memory
        grow, take = jax.random.split(key)
        rules = self._rules(state.params)
        before = memory.learners
        learners = jax.vmap(lambda lane: advance(self.local, objective, rules, lane))(before)
        age = memory.age + 1
        over = (age >= self.period) | jnp.all(~learners.running)
        injected = jax.vmap(lambda p: ravel_pytree(p)[0])(learners.best_params)
        population, x, losses = self.evolution.generation(
            objective, memory.population, grow, (injected, over)
        )
        # New ones start from the best candidates, those that were injected left out.
        count = losses.shape[0] - self.best
        own = jnp.where(jnp.isfinite(losses[:count]), losses[:count], jnp.inf)
        chosen = x[jnp.argsort(own)[: self.best]]
        fresh = self._take(objective, state.params, chosen, take)
        kept = select(over, fresh, learners)
        spent = memory.spent.plus(self.evolution.evaluations(memory.population, population))
        spent = spent.plus(total_evaluations((learners,)).minus(total_evaluations((before,))))
        spent = spent.plus(total_evaluations((fresh,)).where(over))
        after = MemeticMemory(population, kept, jnp.where(over, 0, age), spent)
        return self._best(state, population, learners, after)

    def _best(self, state: State, population: State, learners: Lane, after: MemeticMemory) -> State:
        """Return the best of where it was, the population and the learners."""
        ended = state.memory.population.memory.status != Status.RUNNING
        index = jnp.argmin(jnp.where(jnp.isnan(learners.best_loss), jnp.inf, learners.best_loss))
        params, loss = state.params, state.loss
        learner = jax.tree.map(lambda leaf: leaf[index], learners.best_params)
        others = ((population.params, population.loss), (learner, learners.best_loss[index]))
        for other, value in others:
            better = (value < loss) | jnp.isnan(loss)
            params = select(better, other, params)
            loss = jnp.where(better, value, loss)
        moved = State(params, loss.astype(state.loss.dtype), after)
        return select(ended, state, moved)

    def _take(
        self, objective: Any, params: Any, points: Float[Array, "b n"], key: PRNGKeyArray
    ) -> Lane:
        """Start a learner from each point."""
        unravel = ravel_pytree(params)[1]
        rules = self._rules(params)
        keys = jax.random.split(key, self.best)
        return jax.vmap(lambda x, k: start(self.local, objective, rules, unravel(x), k, UNLIMITED))(
            points, keys
        )

    def _rules(self, params: Any) -> Stop:
        return rules_for(self.evolution.stop, params)

    def with_stop(self, stop: Stop) -> "Memetic":
        """Let learners and population end by the driver's rules too."""
        return self.replace(
            evolution=self.evolution.with_stop(stop), local=self.local.with_stop(stop)
        )

    def evaluations(self, before: State | None, after: State) -> Evaluations:
        """Return the evaluations of the population and of the local refinements."""
        spent: Evaluations = after.memory.spent
        return spent if before is None else spent.minus(before.memory.spent)

    def in_last_stage(self, state: State) -> Bool[Array, ""]:
        """Never: it ends when the population does."""
        del state
        return jnp.bool_(False)

    def status(self, state: State) -> Int[Array, ""]:
        """How the population has ended."""
        memory: MemeticMemory = state.memory
        return memory.population.memory.status
