"""Populations: CMA-ES and its relatives, genetic algorithms, differential evolution, swarms."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from refinejax._core import Params, Refiner, Scalar, State, Status, Stop
from refinejax._trees import bounds_of, project, select
from refinejax.refiners.population.box import Box
from refinejax.refiners.population.halting import Halting, History
from refinejax.refiners.population.ranks import Order
from refinejax.refiners.population.regrowth import Plan, Regrowth, Sizes
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


class Draft(struct.PyTreeNode):
    """A generation under way, where it takes several steps.

    Attributes:
        z: candidates so far; 0 in rows to come.
        losses: theirs; ∞ in rows to come.
        count: how many there are.
    """

    z: Float[Array, "largest n"]
    losses: Float[Array, " largest"]
    count: Int[Array, ""]


class EvolutionMemory(struct.PyTreeNode):
    """What `Evolution` remembers.

    Attributes:
        strategy_state: of evosax, in coordinates z: candidates are T(center + width·z).
        center, width: of those coordinates, flat.
        best, best_loss: the best candidate so far, flat.
        history: of losses, for the rules by which it ends.
        failures: generations in a row without a finite loss.
        status: how it has ended, or ``RUNNING``.
        plan, draft: of a population that regrows, else None.
    """

    strategy_state: Any
    center: Float[Array, " n"]
    width: Float[Array, " n"]
    best: Float[Array, " n"]
    best_loss: Scalar
    history: History
    failures: Int[Array, ""]
    status: Int[Array, ""]
    plan: Plan | None = None
    draft: Draft | None = None


class Evolution(Refiner):
    """Move a population by one of evosax's strategies; a step is a generation.

    ``Evolution("cma_es")`` samples around the params, and keeps the best point seen. It needs no
    derivatives and looks at no loss but by comparison with others, for most strategies. Whatever a
    strategy's own scale, its coordinates are such that ``std`` is the standard deviation of the
    first generation.

    Bounds: candidates are mapped into the box by `Box`. A candidate whose loss is not finite counts
    as the worst; a generation without a finite one shrinks the distribution around the best point,
    and after ten of them the status is ``NONFINITE``.

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
        hyper: numbers of the strategy and of its optimizer, by the names that evosax and optax give
            them.
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

    def __post_init__(self) -> None:
        """Check what can be checked before the number of params is known."""
        kind = resolve(self.strategy)
        if self.population_size is not None and self.population_size < 1:
            raise ValueError(
                f"population_size: expected 1 or more candidates, got {self.population_size}"
            )
        for std in jax.tree.leaves(self.std):
            if isinstance(std, int | float | np.ndarray) and not np.all(np.asarray(std) > 0):
                raise ValueError(f"std: expected standard deviations above 0, got {std}")
        if self.regrow is not None and not changes_size(kind):
            raise ValueError(
                f"regrow: only CMA-ES can change its population, not {self.strategy!r}; put "
                "Evolution into Restarts for several populations of one size"
            )
        if isinstance(self.hyper, dict):  # transformations of pytrees put other things here
            self._strategy(2)

    def size(self, n: int) -> int:
        """Return how many candidates a step evaluates with n params."""
        if self.population_size is not None:
            return self.population_size
        return default_size(self.strategy, n)

    def _strategy(self, n: int, size: int | None = None) -> Strategy:
        size = self.size(n) if size is None else size
        names = tuple(sorted(self.hyper))
        return build(self.strategy, size, n, self.optimizer, names, self.elite_ratio)

    def _largest(self, n: int) -> int:
        return self.size(n) * (1 if self.regrow is None else 2**self.regrow.doublings)

    def init(self, objective: Any, params: Params, key: PRNGKeyArray) -> State[Params]:
        """Evaluate the start, and the first population where the strategy starts from one."""
        space = _Space(objective, params, self.std)
        n, dtype = space.n, space.dtype
        strategy, (begin, draw) = self._strategy(n), jax.random.split(key)
        numbers, rates = strategy.settle(self.hyper)
        center = space.box.leave(space.start)
        if strategy.starts_from_mean:
            x, losses = space.start[None], objective(params)[None]
            strategy_state = strategy.begin(numbers, rates, begin, dtype)
        else:
            z = jax.random.normal(draw, (self.size(n), n), dtype).at[0].set(0)
            x = space.box.enter(center + space.width * z).at[0].set(space.start)
            losses = space.losses(x)
            order, _ = _rank(losses.astype(dtype))
            strategy_state = strategy.found(numbers, rates, begin, z, order)
        least = _least(losses)
        plan = draft = None
        if self.regrow is not None:
            largest = self._largest(n)
            plan = Plan.first(self.size(n), dtype)
            draft = Draft(
                jnp.zeros((largest, n), dtype), jnp.full((largest,), jnp.inf, dtype), jnp.int32(0)
            )
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
            draft=draft,
        )
        # The start itself, so that the driver knows its loss.
        return State(space.unravel(x[0]), losses[0], memory)

    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Evaluate a generation, or a part of one of a population that regrows."""
        return self.generation(objective, state, key)[0]

    def generation(
        self,
        objective: Any,
        state: State[Params],
        key: PRNGKeyArray,
        guests: tuple[Float[Array, "g n"], Bool[Array, ""]] | None = None,
    ) -> tuple[State[Params], Float[Array, "p n"], Float[Array, " p"]]:
        """Return the state after a step, its candidates (flat) and their losses.

        ``guests``, if they come, take the place of the last candidates (Hansen 2011, "Injecting
        external solutions into CMA-ES", arXiv:1110.4181: no farther from the mean than candidates).
        """
        space = _Space(objective, state.params, self.std)
        memory: EvolutionMemory = state.memory
        strategy = self._strategy(space.n)
        numbers, _ = strategy.settle(self.hyper)
        ask, tell, renew = jax.random.split(key, 3)
        z, strategy_state = strategy.ask(ask, memory.strategy_state, numbers)
        if guests is not None:
            points, come = guests
            called = (jax.vmap(space.box.leave)(points) - memory.center) / memory.width
            count = z.shape[0] - points.shape[0]
            last = jnp.where(come, near(strategy_state, called), z[count:])
            z = jnp.concatenate([z[:count], last])
        x = space.box.enter(memory.center + memory.width * z)
        losses = space.losses(x)
        least = _least(losses)
        better = (losses[least] < memory.best_loss) | jnp.isnan(memory.best_loss)
        better &= jnp.isfinite(losses[least])
        told = memory.replace(
            strategy_state=strategy_state,
            best=jnp.where(better, x[least], memory.best),
            best_loss=jnp.where(better, losses[least], memory.best_loss),
        )
        learn = self._learn if self.regrow is None else self._gather
        after = learn(space, told, z, losses.astype(space.dtype), tell, renew)
        moved = State(space.unravel(told.best), told.best_loss, after)
        return select(memory.status == Status.RUNNING, moved, state), x, losses

    def _learn(
        self,
        space: "_Space",
        memory: EvolutionMemory,
        z: Array,
        losses: Array,
        tell: PRNGKeyArray,
        renew: PRNGKeyArray,
    ) -> EvolutionMemory:
        """Tell the strategy of a generation, and judge."""
        strategy = self._strategy(space.n)
        numbers, rates = strategy.settle(self.hyper)
        order, usable = _rank(losses)
        strategy_state = strategy.tell(tell, z, order, memory.strategy_state, numbers)
        told = self._judge(
            space, memory.replace(strategy_state=strategy_state), z, order, z.shape[0]
        )
        failed = memory.replace(failures=memory.failures + 1)
        if strategy.starts_from_mean:
            failed = failed.replace(
                strategy_state=strategy.begin(numbers, rates, renew, space.dtype),
                center=space.box.leave(memory.best),
                width=memory.width / 2,
            )
        return _give_up(select(usable, told, failed))

    def _gather(
        self,
        space: "_Space",
        memory: EvolutionMemory,
        z: Array,
        losses: Array,
        tell: PRNGKeyArray,
        renew: PRNGKeyArray,
    ) -> EvolutionMemory:
        """Add candidates to the generation under way; when it is complete, learn from it."""
        assert memory.plan is not None
        assert memory.draft is not None
        assert self.regrow is not None
        plan, draft = memory.plan, memory.draft
        finite = jnp.where(jnp.isfinite(losses), losses, jnp.nan)  # as if it had not been drawn
        begin = (draft.count, jnp.int32(0))
        draft = Draft(
            jax.lax.dynamic_update_slice(draft.z, z, begin),
            jax.lax.dynamic_update_slice(draft.losses, finite, begin[:1]),
            draft.count + z.shape[0],
        )
        plan = plan.replace(evaluations=plan.evaluations + z.shape[0])
        memory = memory.replace(plan=plan, draft=draft)
        complete = self._complete(space, memory, tell, renew)
        return select(draft.count >= plan.size, complete, memory)

    def _complete(
        self, space: "_Space", memory: EvolutionMemory, tell: PRNGKeyArray, renew: PRNGKeyArray
    ) -> EvolutionMemory:
        """Learn from a whole generation; start anew where the run has ended."""
        assert memory.plan is not None
        assert memory.draft is not None
        assert self.regrow is not None
        plan, draft, n = memory.plan, memory.draft, space.n
        largest = self._largest(n)
        strategy = self._strategy(n, largest)
        sized = strategy._replace(numbers=Sizes(largest, n)(plan.size, strategy.numbers))
        numbers, rates = sized.settle(self.hyper)
        order, usable = _rank(draft.losses, jnp.arange(largest) < plan.size)
        strategy_state = strategy.tell(tell, draft.z, order, memory.strategy_state, numbers)
        told = self._judge(
            space, memory.replace(strategy_state=strategy_state), draft.z, order, plan.size
        )
        told = told.replace(
            status=jnp.where(
                (told.status == Status.RUNNING) & (plan.evaluations >= plan.limit),
                int(Status.STALLED),
                told.status,
            )
        )
        chosen, begin = jax.random.split(renew)
        fresh = strategy.begin(numbers, rates, begin, space.dtype)
        failed = memory.replace(
            strategy_state=fresh,
            center=space.box.leave(memory.best),
            width=memory.width / 2,
            failures=memory.failures + 1,
        )
        after = _give_up(select(usable, told, failed))
        empty = Draft(jnp.zeros_like(draft.z), jnp.full_like(draft.losses, jnp.inf), jnp.int32(0))
        after = after.replace(draft=empty)
        draw, place = jax.random.split(chosen)
        plan = self.regrow.following(plan, self.size(n), draw)
        again = memory.replace(
            strategy_state=fresh,
            center=self._place(space, place),
            width=space.width * plan.share,
            history=History.blank(n, self.size(n), space.dtype),
            plan=plan,
            draft=empty,
        )
        renewed = (after.status != Status.RUNNING) & (after.status != Status.NONFINITE)
        return select(renewed & (plan.large <= self.regrow.doublings), again, after)

    def _place(self, space: "_Space", key: PRNGKeyArray) -> Array:
        """Draw where a restart begins."""
        assert self.regrow is not None
        one, other = jax.random.split(key)
        low, high = space.box.lower, space.box.upper
        finite = jnp.isfinite(high - low)
        unit = jax.random.uniform(one, low.shape, space.dtype)
        noise = jax.random.normal(other, low.shape, space.dtype)
        near = jnp.clip(space.start + self.regrow.std * space.width * noise, low, high)
        within = jnp.where(finite, low, 0) + unit * jnp.where(finite, high - low, 0)
        return space.box.leave(jnp.where(finite, within, near))

    def _judge(
        self, space: "_Space", memory: EvolutionMemory, z: Array, order: Array, size: Any
    ) -> EvolutionMemory:
        """Bring the history up to date and see whether there is more to find."""
        ordered = Order(order)
        history = memory.history.after(ordered, size)
        rules = (self.stop or Stop()).resolve(space.dtype)
        scale = memory.width / space.width
        resolution = jnp.finfo(space.dtype).eps * jnp.abs(space.start) / space.width
        status = self.halting.status(
            history,
            ordered,
            size,
            scale * candidate_std(memory.strategy_state, z),
            scale * path(memory.strategy_state),
            condition(memory.strategy_state),
            resolution,
            rules,
        )
        return memory.replace(history=history, status=status, failures=jnp.int32(0))

    def with_stop(self, stop: Stop) -> "Evolution":
        """Keep the driver's rules beside its own."""
        return self if self.stop is not None else self.replace(stop=stop)

    def in_last_stage(self, state: State) -> Bool[Array, ""]:
        """Never: it ends by `Halting`."""
        del state
        return jnp.bool_(False)

    def status(self, state: State) -> Int[Array, ""]:
        """How the population has ended."""
        return state.memory.status


class _Space:
    """The params of an objective in flat coordinates; lives within a trace."""

    def __init__(self, objective: Any, params: Any, std: Any) -> None:
        bounds = bounds_of(objective)
        self.start, self.unravel = ravel_pytree(project(params, bounds))
        self.objective, self.n, self.dtype = objective, self.start.size, self.start.dtype
        if jax.tree.structure(std) == jax.tree.structure(params):
            std = ravel_pytree(
                jax.tree.map(lambda s, p: jnp.broadcast_to(s, jnp.shape(p)), std, params)
            )[0]
        self.width = jnp.broadcast_to(jnp.asarray(std, self.dtype), self.start.shape)
        self.box = Box.of(bounds, params, self.width)

    def losses(self, x: Float[Array, "p n"]) -> Float[Array, " p"]:
        """Evaluate candidates."""
        return jax.vmap(lambda row: self.objective(self.unravel(row)))(x)


def _rank(losses: Array, where: Any = True) -> tuple[Array, Bool[Array, ""]]:
    """Return finite losses that rank candidates likewise, and whether any was finite.

    One that is not becomes as much worse than the worst as that is than the best. Those that do not
    count are ∞.
    """
    finite = jnp.isfinite(losses) & where
    worst = jnp.max(jnp.where(finite, losses, -jnp.inf))
    least = jnp.min(jnp.where(finite, losses, jnp.inf))
    usable = jnp.any(finite)
    poor = jnp.where(usable, worst + jnp.maximum(worst - least, 0), 0)
    return jnp.where(where, jnp.where(finite, losses, poor), jnp.inf), usable


def _least(losses: Array) -> Array:
    """Return the index of the least finite loss."""
    return jnp.argmin(jnp.where(jnp.isfinite(losses), losses, jnp.inf))


def _give_up(memory: EvolutionMemory) -> EvolutionMemory:
    hopeless = memory.failures >= _FAILURES
    return memory.replace(status=jnp.where(hopeless, int(Status.NONFINITE), memory.status))
