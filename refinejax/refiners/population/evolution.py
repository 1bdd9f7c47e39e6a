"""Populations: CMA-ES and its relatives, genetic algorithms, differential evolution, swarms."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from refinejax._checks import check_some
from refinejax._core import Evaluations, Params, Refiner, State, Status, Stop
from refinejax._trees import select
from refinejax.refiners.population.generations import (
    EvolutionMemory,
    PartialGeneration,
    least_finite,
    rank,
)
from refinejax.refiners.population.halting import Extent, Halting, History
from refinejax.refiners.population.ranks import Order
from refinejax.refiners.population.regrowth import CMAParameters, Regrowth, RegrowthPlan
from refinejax.refiners.population.search_space import SearchSpace
from refinejax.refiners.population.strategies import (
    Strategy,
    build,
    candidate_std,
    changes_size,
    condition,
    default_size,
    near,
    path,
    resolve,
)

_FAILURES = 10  # generations in a row without one finite loss, and it is given up


class Evolution(Refiner):
    """Move a population by one of evosax's strategies; a step is a generation.

    ``Evolution("cma_es")`` samples around the params, and keeps the best point seen. It needs no
    derivatives and looks at no loss but by comparison with others, for most strategies. Whatever a
    strategy's own scale, its coordinates are such that ``std`` is the standard deviation of the
    first generation.

    Candidates are mapped into the bounds by `BoundTransform`. A candidate whose loss is not finite
    counts as the worst; a generation without a finite one shrinks the distribution around the best
    point, and after ten of them the status is ``NONFINITE``.

    It ends by the rules of pycma (`Halting`); with ``regrow`` it then starts anew with another
    population (`IPOP`, `BIPOP`), at each step evaluating ``population_size`` candidates, so that a
    larger generation takes several steps and all samples of a batch take the same time for a step,
    wherever they are. ``Stop.loss`` and ``Stop.step`` hold, ``target`` and the number of steps are
    the driver's; ``Stop.patience`` does not apply.

    References: Hansen, "The CMA evolution strategy: a tutorial", arXiv:1604.00772; Lange, "evosax",
    arXiv:2212.04180; for the others see the strategies in evosax.

    Attributes:
        strategy: a name as evosax writes it, in any case ("cma_es", "sep_cma_es", "snes", "pso"),
            "ga" (`Genetic`), "de", or a class of evosax; static.
        population_size: λ; by default 4 + ⌊3 ln n⌋ for strategies that start from a mean, made
            even, else 10 n within 20 … 100; static.
        std: of the first generation, in the coordinates of refinement: a number, or a pytree like
            the params.
        hyper: numbers of the strategy and of its optimizer, by their names in evosax and optax.
        halting: by which it ends.
        regrow: restarts once it has ended; for "cma_es".
        optimizer: an optax factory, for strategies that have one; static.
        elite_ratio: share of the population that has children, for those that select; static.
        stop: the driver's rules.

    Raises:
        ValueError: for an unknown strategy or number, a population it cannot have, or ``regrow``
            with another strategy than CMA-ES.
    """

    strategy: Any = struct.field(pytree_node=False, default="cma_es")
    population_size: int | None = struct.field(pytree_node=False, default=None)
    std: Any = 0.1
    hyper: dict[str, Any] = struct.field(default_factory=dict)
    halting: Halting = struct.field(default_factory=Halting)
    regrow: Regrowth | None = None
    optimizer: Callable[..., Any] | None = struct.field(pytree_node=False, default=None)
    elite_ratio: float | None = struct.field(pytree_node=False, default=None)
    stop: Stop | None = None
    positive: ClassVar[tuple[str, ...]] = ("std",)

    def __post_init__(self) -> None:
        """Check what can be checked before the number of params is known."""
        kind = resolve(self.strategy)
        if self.population_size is not None:
            check_some("population_size", self.population_size, "candidates")
        for std in jax.tree.leaves(self.std):
            if isinstance(std, int | float | np.ndarray) and not np.all(np.asarray(std) > 0):
                raise ValueError(f"std: expected standard deviations above 0, got {std}")
        if self.regrow is not None and not changes_size(kind):
            raise ValueError(
                f"regrow: only CMA-ES changes its population, not {self.strategy!r}; use Restarts"
            )
        if isinstance(self.hyper, dict):  # transformations of pytrees put other things here
            self._strategy(2)

    def size(self, n: int) -> int:
        """Return how many candidates a step evaluates with n params.

        Args:
            n: number of params.
        """
        if self.population_size is not None:
            return self.population_size
        return default_size(self.strategy, n)

    def _strategy(self, n: int, size: int | None = None) -> Strategy:
        size = self.size(n) if size is None else size
        names = tuple(sorted(self.hyper))
        return build(self.strategy, size, n, self.optimizer, names, self.elite_ratio)

    def _largest(self, n: int) -> int:
        return self.size(n) * (1 if self.regrow is None else 2**self.regrow.doublings)

    @property
    def unit_free(self) -> bool:
        """Yes: only the order of losses counts."""
        return True

    @property
    def uses_derivatives(self) -> bool:
        """No: only losses are compared."""
        return False

    def init(self, objective: Any, params: Params, key: PRNGKeyArray) -> State[Params]:
        """Evaluate the start, and the first population where the strategy starts from one."""
        space = SearchSpace(objective, params, self.std)
        n, dtype = space.n, space.dtype
        strategy, (begin, draw) = self._strategy(n), jax.random.split(key)
        numbers, rates = strategy.settle(self.hyper)
        center = space.transform.leave(space.start)
        if strategy.starts_from_mean:
            x, losses = space.start[None], objective(params)[None]
            strategy_state = strategy.begin(numbers, rates, begin, dtype)
        else:
            z = jax.random.normal(draw, (self.size(n), n), dtype).at[0].set(0)
            x = space.transform.enter(center + space.width * z).at[0].set(space.start)
            losses = space.losses(x)
            order, _ = rank(losses.astype(dtype))
            strategy_state = strategy.found(numbers, rates, begin, z, order)
        least = least_finite(losses)
        plan = partial = None
        if self.regrow is not None:
            plan = RegrowthPlan.first(self.size(n), dtype)
            partial = PartialGeneration.empty(self._largest(n), n, dtype)
        history = History.blank(n, self.size(n), dtype)
        running = jnp.int32(Status.RUNNING)
        memory = EvolutionMemory(
            strategy_state=strategy_state,
            center=center,
            width=space.width,
            best=x[least],
            best_loss=losses[least],
            history=history,
            failures=jnp.int32(0),
            status=running,
            plan=plan,
            partial=partial,
        )
        return State(space.unravel(x[0]), losses[0], memory)  # of the start itself, for the driver

    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Evaluate a generation, or a part of one of a population that regrows."""
        return self.generation(objective, state, key)[0]

    def generation(
        self,
        objective: Any,
        state: State[Params],
        key: PRNGKeyArray,
        injected: tuple[Float[Array, "g n"], Bool[Array, ""]] | None = None,
    ) -> tuple[State[Params], Float[Array, "p n"], Float[Array, " p"]]:
        """Return the state after a step, its candidates (flat) and their losses.

        Args:
            objective: the problem.
            state: before the step.
            key: for the candidates.
            injected: points (g, n), and whether to replace the last candidates by them, not
                farther from the mean than candidates (Hansen 2011, arXiv:1110.4181).
        """
        space = SearchSpace(objective, state.params, self.std)
        memory: EvolutionMemory = state.memory
        strategy = self._strategy(space.n)
        numbers, _ = strategy.settle(self.hyper)
        ask, tell, renew = jax.random.split(key, 3)
        z, strategy_state = strategy.ask(ask, memory.strategy_state, numbers)
        if injected is not None:
            points, present = injected
            inside = (jax.vmap(space.transform.leave)(points) - memory.center) / memory.width
            count = z.shape[0] - points.shape[0]
            last = jnp.where(present, near(strategy_state, inside), z[count:])
            z = jnp.concatenate([z[:count], last])
        x = space.transform.enter(memory.center + memory.width * z)
        losses = space.losses(x)
        least = least_finite(losses)
        better = (losses[least] < memory.best_loss) | jnp.isnan(memory.best_loss)
        better &= jnp.isfinite(losses[least])
        learned = memory.replace(
            strategy_state=strategy_state,
            best=jnp.where(better, x[least], memory.best),
            best_loss=jnp.where(better, losses[least], memory.best_loss),
        )
        learn = self._learn if self.regrow is None else self._gather
        after = learn(space, learned, z, losses.astype(space.dtype), tell, renew)
        moved = State(space.unravel(learned.best), learned.best_loss, after)
        return select(memory.status == Status.RUNNING, moved, state), x, losses

    def evaluations(self, before: State | None, after: State) -> Evaluations:
        """Return the candidates that were evaluated: a population, or the start alone."""
        n = after.memory.best.size
        alone = before is None and self._strategy(n).starts_from_mean
        return Evaluations(1 if alone else self.size(n), 0)

    def _learn(
        self,
        space: SearchSpace,
        memory: EvolutionMemory,
        z: Array,
        losses: Array,
        tell: PRNGKeyArray,
        renew: PRNGKeyArray,
    ) -> EvolutionMemory:
        """Tell the strategy the losses of a generation, and apply the rules of `Halting`."""
        strategy = self._strategy(space.n)
        numbers, rates = strategy.settle(self.hyper)
        order, usable = rank(losses)
        strategy_state = strategy.tell(tell, z, order, memory.strategy_state, numbers)
        learned = self._halt(
            space, memory.replace(strategy_state=strategy_state), z, order, z.shape[0]
        )
        failed = memory.replace(failures=memory.failures + 1)
        if strategy.starts_from_mean:
            fresh = strategy.begin(numbers, rates, renew, space.dtype)
            failed = failed.around_best(fresh, space)
        return _give_up(select(usable, learned, failed))

    def _gather(
        self,
        space: SearchSpace,
        memory: EvolutionMemory,
        z: Array,
        losses: Array,
        tell: PRNGKeyArray,
        renew: PRNGKeyArray,
    ) -> EvolutionMemory:
        """Add candidates to the generation under way; when it is complete, learn from it."""
        assert memory.plan is not None
        assert memory.partial is not None
        assert self.regrow is not None
        plan, partial = memory.plan, memory.partial
        finite = jnp.where(jnp.isfinite(losses), losses, jnp.nan)  # as if it had not been drawn
        begin = (partial.count, jnp.int32(0))
        partial = PartialGeneration(
            jax.lax.dynamic_update_slice(partial.z, z, begin),
            jax.lax.dynamic_update_slice(partial.losses, finite, begin[:1]),
            partial.count + z.shape[0],
        )
        plan = plan.replace(evaluations=plan.evaluations + z.shape[0])
        memory = memory.replace(plan=plan, partial=partial)
        complete = self._complete(space, memory, tell, renew)
        return select(partial.count >= plan.size, complete, memory)

    def _complete(
        self, space: SearchSpace, memory: EvolutionMemory, tell: PRNGKeyArray, renew: PRNGKeyArray
    ) -> EvolutionMemory:
        """Learn from a whole generation; start anew where the run has ended."""
        assert memory.plan is not None
        assert memory.partial is not None
        assert self.regrow is not None
        plan, partial, n = memory.plan, memory.partial, space.n
        largest = self._largest(n)
        strategy = self._strategy(n, largest)
        sized = strategy._replace(numbers=CMAParameters(largest, n)(plan.size, strategy.numbers))
        numbers, rates = sized.settle(self.hyper)
        order, usable = rank(partial.losses, jnp.arange(largest) < plan.size)
        strategy_state = strategy.tell(tell, partial.z, order, memory.strategy_state, numbers)
        learned = self._halt(
            space, memory.replace(strategy_state=strategy_state), partial.z, order, plan.size
        )
        learned = learned.replace(
            status=jnp.where(
                (learned.status == Status.RUNNING) & (plan.evaluations >= plan.limit),
                int(Status.STALLED),
                learned.status,
            )
        )
        chosen, begin = jax.random.split(renew)
        fresh = strategy.begin(numbers, rates, begin, space.dtype)
        failed = memory.replace(failures=memory.failures + 1).around_best(fresh, space)
        after = _give_up(select(usable, learned, failed))
        empty = PartialGeneration.empty(largest, n, space.dtype)
        after = after.replace(partial=empty)
        draw, place = jax.random.split(chosen)
        plan = self.regrow.following(plan, self.size(n), draw)
        again = memory.replace(
            strategy_state=fresh,
            center=space.restart_center(self.regrow.std, place),
            width=space.width * plan.share,
            history=History.blank(n, self.size(n), space.dtype),
            plan=plan,
            partial=empty,
        )
        renewed = (after.status != Status.RUNNING) & (after.status != Status.NONFINITE)
        return select(renewed & (plan.large <= self.regrow.doublings), again, after)

    def _halt(
        self, space: SearchSpace, memory: EvolutionMemory, z: Array, order: Array, size: Any
    ) -> EvolutionMemory:
        """Add a generation to the history and apply the rules of `Halting`."""
        ordered = Order(order)
        history = memory.history.after(ordered, size)
        rules = (self.stop or Stop()).resolve(space.dtype)
        scale = memory.width / space.width
        resolution = jnp.finfo(space.dtype).eps * jnp.abs(space.start) / space.width
        extent = Extent(
            scale * candidate_std(memory.strategy_state, z),
            scale * path(memory.strategy_state),
            condition(memory.strategy_state),
            resolution,
        )
        status = self.halting.status(history, ordered, size, extent, rules)
        return memory.replace(history=history, status=status, failures=jnp.int32(0))

    def with_stop(self, stop: Stop) -> "Evolution":
        """Return it with the driver's rules beside its own."""
        return self if self.stop is not None else self.replace(stop=stop)

    def in_last_stage(self, state: State) -> Bool[Array, ""]:
        """Return False: a population ends by `Halting`."""
        del state
        return jnp.bool_(False)

    def status(self, state: State) -> Int[Array, ""]:
        """Return how the population has ended, or ``RUNNING``."""
        return state.memory.status


def _give_up(memory: EvolutionMemory) -> EvolutionMemory:
    hopeless = memory.failures >= _FAILURES
    return memory.replace(status=jnp.where(hopeless, int(Status.NONFINITE), memory.status))
