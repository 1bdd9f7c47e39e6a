"""The same refiner from several starts."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree

from refinejax._checks import check_count, check_some
from refinejax._core import (
    Evaluations,
    Params,
    Refiner,
    Scalar,
    State,
    Status,
    Stop,
    as_problem,
    bounds_of,
)
from refinejax._lane import UNLIMITED, Lane, advance, rules_for, start, total_evaluations
from refinejax._trees import as_pytree, project


class Restarts(Refiner):
    """Refine from several starts at once and keep the best: the start itself, and others around it.

    The others are x + std·N(0, I), projected on the bounds. Each ends by its own stopping rules,
    and the whole when the last has ended; a loss at or below the driver's ``target`` ends all.

    With ``keep``, many starts are drawn and few refined: all n − 1 are ranked by their loss, and
    the best keep − 1 are refined beside the start itself. The ranking may be by a cheaper problem,
    and after a few steps on it::

        Restarts(LevenbergMarquardt(), n=64, keep=4, coarse=lambda problem: thinned(problem, 16))

    It is done in ``init``, ``keep`` starts at a time, so that it needs no more memory than the
    steps; it counts among the evaluations of the result, not among its steps.

    References: Rinnooy Kan and Timmer (1987), Stochastic global optimization methods, Math.
    Programming 39, 27–78, and Boender et al. (1982), Math. Programming 22, 125–140 (multistart;
    reduction of the sample to its best, with ``screen`` their concentration).

    Attributes:
        refiner: the method.
        n: how many starts; static.
        std: standard deviation of the starts, in the coordinates of refinement: a number, or a
            pytree like the params.
        stop: ends each start; by default the driver's rules.
        keep: how many of the starts are refined, the start itself among them; by default all.
            Static.
        coarse: objective → the objective to rank by, of the same params; by default the objective
            itself. It gets the problem as its user wrote it, also where it is refined in the scaled
            coordinates of a space. A function (static: a new lambda compiles anew) or a pytree with
            ``__call__``.
        screen: steps of the refiner that each start takes on that objective before it is ranked; it
            is then refined from the best point of them. Static.

    Raises:
        ValueError: if ``n`` is below 1, ``keep`` not within 1 … n, ``screen`` below 0, ``coarse``
            not callable; or if ``coarse`` or ``screen`` is given without ``keep``.
    """

    refiner: Refiner
    n: int = struct.field(pytree_node=False, default=8)
    std: Any = 0.1
    stop: Stop | None = None
    keep: int | None = struct.field(pytree_node=False, default=None)
    coarse: Callable[[Any], Any] | None = None
    screen: int = struct.field(pytree_node=False, default=0)

    def __post_init__(self) -> None:
        """Check the numbers; let a plain function stand for a pytree."""
        check_some("n", self.n, "starts")
        for std in jax.tree.leaves(self.std):
            if isinstance(std, int | float | np.ndarray) and not np.all(np.asarray(std) >= 0):
                raise ValueError(f"std: expected standard deviations of 0 or more, got {std}")
        if self.keep is not None and self.keep not in range(1, self.n + 1):
            raise ValueError(f"keep: expected 1 to n = {self.n} starts, got {self.keep}")
        check_count("screen", self.screen)
        if self.coarse is not None and not callable(self.coarse):
            raise ValueError(
                f"coarse: expected a function objective -> objective, got {self.coarse!r}"
            )
        if self.keep is None and (self.screen or self.coarse is not None):
            name = "screen" if self.coarse is None else "coarse"
            raise ValueError(
                f"keep: expected the number of starts to refine beside {name}, got None"
            )
        object.__setattr__(self, "coarse", as_pytree(self.coarse))

    @property
    def uses_derivatives(self) -> bool:
        """Whether the refiner does."""
        return self.refiner.uses_derivatives

    def init(self, objective: Any, params: Params, key: PRNGKeyArray) -> State[Params]:
        """Draw the starts, choose those to refine, and evaluate them."""
        key, draw = jax.random.split(key)
        starts, screening = self._draw(objective, params, draw), Evaluations(0, 0)
        if self.keep is not None:
            key, look = jax.random.split(key)
            starts, screening = self._choose(objective, starts, look, self.keep)
        count = len(jax.tree.leaves(starts)[0])
        rules = self._rules(params)
        lanes = jax.vmap(lambda p, k: start(self.refiner, objective, rules, p, k, UNLIMITED))(
            starts, jax.random.split(key, count)
        )
        lanes = _counted(lanes, screening)
        # The start itself, so that the driver knows its loss; or the best, where it is NaN.
        return _state(lanes, jnp.where(jnp.isfinite(lanes.best_loss[0]), 0, _best(lanes)))

    def _draw(self, objective: Any, params: Any, key: PRNGKeyArray) -> PyTree:
        """Return n starts, the start itself first."""
        flat, unravel = ravel_pytree(params)
        width = self.std
        if jax.tree.structure(width) == jax.tree.structure(params):
            width = ravel_pytree(
                jax.tree.map(lambda s, p: jnp.broadcast_to(s, jnp.shape(p)), width, params)
            )[0]
        noise = jax.random.normal(key, (self.n, flat.size), flat.dtype).at[0].set(0)
        bounds = bounds_of(objective)
        offsets = jnp.asarray(width, flat.dtype) * noise
        return jax.vmap(lambda n: project(unravel(flat + n), bounds))(offsets)

    def _choose(
        self, objective: Any, starts: PyTree, key: PRNGKeyArray, keep: int
    ) -> tuple[PyTree, Evaluations]:
        """Return ``keep`` starts, the start itself and the best of the others, and the cost."""
        if keep == 1:
            return jax.tree.map(lambda leaf: leaf[:1], starts), Evaluations(0, 0)
        problem = as_problem(objective)
        coarse = problem if self.coarse is None else problem.map_problem(self.coarse)
        rules = self._rules(jax.tree.map(lambda leaf: leaf[0], starts))

        def look(one: tuple[Any, PRNGKeyArray]) -> tuple[Any, Scalar, Evaluations]:
            if not self.screen:
                return one[0], coarse(one[0]), Evaluations(jnp.int32(1), jnp.int32(0))
            lane = start(self.refiner, coarse, rules, *one, UNLIMITED)
            lane = jax.lax.scan(
                lambda lane, _: (advance(self.refiner, coarse, rules, lane), None),
                lane,
                length=self.screen,
            )[0]
            return lane.best_params, lane.best_loss, lane.evaluations

        others = jax.tree.map(lambda leaf: leaf[1:], starts)
        keys = jax.random.split(key, self.n - 1)
        moved, losses, counts = jax.lax.map(look, (others, keys), batch_size=keep)
        best = jnp.argsort(jnp.where(jnp.isnan(losses), jnp.inf, losses))[: keep - 1]
        chosen = jax.tree.map(lambda s, m: jnp.concatenate([s[:1], m[best]]), starts, moved)
        return chosen, jax.tree.map(functools.partial(jnp.sum, dtype=jnp.int32), counts)

    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Take one step from every start that is still running."""
        del key  # each lane carries its own
        rules = self._rules(state.params)
        lanes = jax.vmap(lambda lane: advance(self.refiner, objective, rules, lane))(state.memory)
        return _state(lanes, _best(lanes))

    def _rules(self, params: Any) -> Stop:
        return rules_for(self.stop, params)

    def with_stop(self, stop: Stop) -> "Restarts":
        """Let the starts end by the driver's rules, if there are none of their own."""
        own = stop if self.stop is None else self.stop
        return self.replace(refiner=self.refiner.with_stop(own), stop=own)

    def evaluations(self, before: State | None, after: State) -> Evaluations:
        """Return the evaluations of all starts that are running, and of the screening."""
        total = total_evaluations((after.memory,))
        return total if before is None else total.minus(total_evaluations((before.memory,)))

    def in_last_stage(self, state: State) -> Bool[Array, ""]:
        """Never: the starts are judged one by one."""
        del state
        return jnp.bool_(False)

    def status(self, state: State) -> Int[Array, ""]:
        """How the best start ended, once all have."""
        lanes: Lane = state.memory
        ended = jnp.all(lanes.status != Status.RUNNING)
        return jnp.where(ended, lanes.status[_best(lanes)], int(Status.RUNNING))


def _counted(lanes: Lane, screening: Evaluations) -> Lane:
    """Return the lanes with the evaluations of the screening added to those of the first."""
    counts = jax.tree.map(lambda c, more: c.at[0].add(more), lanes.evaluations, screening)
    return lanes.replace(evaluations=counts)


def _best(lanes: Lane) -> Int[Array, ""]:
    return jnp.argmin(jnp.where(jnp.isnan(lanes.best_loss), jnp.inf, lanes.best_loss))


def _state(lanes: Lane, index: Array) -> State:
    params = jax.tree.map(lambda leaf: leaf[index], lanes.best_params)
    return State(params, lanes.best_loss[index], lanes)
