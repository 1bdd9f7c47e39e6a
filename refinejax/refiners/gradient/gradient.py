"""Any optax optimizer as a refiner."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from refinejax._core import Evaluations, Params, Refiner, Scalar, State, bounds_of
from refinejax._trees import Bounds, all_finite, pressing, project, select
from refinejax.refiners.convergence import (
    count_nonfinite,
    free_gradient_norm,
    gradient_status,
    relative_gradient,
    relative_length,
    smoothed_progress,
)
from refinejax.refiners.gradient.loss_unit import divided, loss_unit


class GradientMemory(struct.PyTreeNode):
    """What `Gradient` remembers.

    Attributes:
        grad: the gradient at the current params.
        largest: the largest component of all gradients so far.
        unit: of the loss, in which a quasi-Newton method works; else 1.
        optimizer: the optax state.
        scale: a factor on the updates; below 1 after steps that ended in NaN.
        nonfinite: steps in a row that were rejected because they ended in NaN or infinity.
        stuck: line searches in a row that found nothing better.
        last_progress: relative decrease and step length of late (see `progress`), shape (2,).
        evaluations: of the last step; None without a line search, whose number varies.
    """

    grad: PyTree
    largest: Scalar
    unit: Scalar
    optimizer: Any
    scale: Scalar
    nonfinite: Int[Array, ""]
    stuck: Int[Array, ""]
    last_progress: Float[Array, "2"]
    evaluations: Evaluations | None


class Gradient(Refiner):
    """Refine with an optax optimizer: ``Gradient(optax.adam, {"learning_rate": 1e-2})``.

    The factory and its numbers are kept apart, and the optimizer is built inside the trace, so that
    new numbers do not recompile, and so that one can ``vmap`` over them or differentiate with
    respect to them. Optimizers with a line search (``optax.lbfgs``) get what they need, and what
    the line search has evaluated is not evaluated again.

    Bounds are kept by projection. First-order optimizers are projected after each step. With a line
    search, params at a bound whose gradient points outward are held there during the step, and the
    search follows the projected path (two-metric projection, Bertsekas 1982, eq. 31–36, with the
    quasi-Newton memory restarted whenever the set of held params changes).

    A step that ends in NaN or infinity is rejected: the memory is reset and the next step is half
    as long. After 30 rejections in a row the status is ``NONFINITE``.

    Attributes:
        factory: makes the optax transformation; static.
        numbers: keyword arguments of the factory that are arrays, pytrees of them, or floats.
        options: keyword arguments that must be static. Entries of
            ``numbers`` that are a bool, int, str, None or a function are moved here.

    Raises:
        ValueError: if the factory is not callable, or has no argument of a name in ``numbers``.
    """

    factory: Callable[..., optax.GradientTransformation] = struct.field(pytree_node=False)
    numbers: Mapping[str, Any] = struct.field(default_factory=dict)
    options: tuple[tuple[str, Any], ...] | None = struct.field(pytree_node=False, default=None)

    def __post_init__(self) -> None:
        """Sort the arguments into numbers and options, once."""
        if self.options is not None:
            return
        if not callable(self.factory):
            raise ValueError(
                f"factory: expected an optax factory such as optax.adam, got {self.factory!r}; "
                "pass the function itself, its arguments as the second argument of Gradient"
            )
        if not isinstance(self.numbers, Mapping):
            raise ValueError(
                "numbers: expected a dict of keyword arguments of the factory, such as "
                f'{{"learning_rate": 1e-2}}, got {self.numbers!r}'
            )
        static = {name: value for name, value in self.numbers.items() if _is_static(value)}
        numbers = {name: value for name, value in self.numbers.items() if name not in static}
        object.__setattr__(self, "numbers", numbers)
        object.__setattr__(self, "options", tuple(sorted(static.items())))
        try:
            self.optimizer()
        except TypeError as error:
            raise ValueError(f"numbers: {error}") from error

    @property
    def unit_free(self) -> bool:
        """Of ``optax.lbfgs`` alone: a learning rate has a unit."""
        return self.factory is optax.lbfgs

    def optimizer(self) -> optax.GradientTransformationExtraArgs:
        """Build the optax transformation from the factory and its arguments."""
        made = self.factory(**self.numbers, **dict(self.options or ()))
        return optax.with_extra_args_support(made)

    def init(self, objective: Any, params: Params, key: PRNGKeyArray) -> State[Params]:
        """Evaluate loss and gradient (2 passes of the forward model)."""
        del key
        start: Any = project(params, bounds_of(objective))
        loss, grad = jax.value_and_grad(objective)(start)
        optimizer = self.optimizer().init(start)
        once = Evaluations(jnp.int32(1), jnp.int32(1))
        memory = GradientMemory(
            grad=grad,
            largest=optax.tree.norm(grad, ord=jnp.inf).astype(loss.dtype),
            unit=self._unit(grad, optimizer, loss),
            optimizer=optimizer,
            scale=jnp.ones((), loss.dtype),
            nonfinite=jnp.int32(0),
            stuck=jnp.int32(0),
            last_progress=jnp.full((2,), jnp.inf, loss.dtype),
            evaluations=None if _line_search(optimizer) is None else once,
        )
        return State(start, loss, memory)

    def _unit(self, grad: Any, optimizer: Any, loss: Scalar) -> Scalar:
        one = jnp.ones((), loss.dtype)
        return loss_unit(grad).astype(loss.dtype) if _is_quasi_newton(optimizer) else one

    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Take one optimizer step and evaluate loss and gradient there."""
        del key
        searching = _line_search(state.memory.optimizer) is not None
        bounds = bounds_of(objective)
        if not searching:
            after = self._accept_or_reject(state, *self._descend(objective, state, bounds))
        elif bounds is None:
            after = self._accept_or_reject(state, *self._search(objective, state))
        else:
            found = self._search_within(objective, state, bounds)
            after = self._accept_or_reject(state, *found)
        norm = optax.tree.norm(after.memory.grad, ord=jnp.inf)
        largest = jnp.maximum(state.memory.largest, norm.astype(state.loss.dtype))
        return after.replace(memory=after.memory.replace(largest=largest))

    def _descend(self, objective: Any, state: State, bounds: Bounds | None) -> tuple[State, Any]:
        """Take a plain step: update, project, evaluate."""
        moved, optimizer = self._update(objective, state, state.memory.grad, state.memory.optimizer)
        params = project(moved, bounds)
        loss, grad = jax.value_and_grad(objective)(params)
        return State(params, loss, state.memory.replace(grad=grad, optimizer=optimizer)), None

    def _search(self, objective: Any, state: State) -> tuple[State, Any]:
        """Take a step by line search and use what the search has evaluated."""
        memory = state.memory
        params, optimizer = self._update(objective, state, memory.grad, memory.optimizer)
        found, count = _line_search(optimizer), _searched(optimizer)
        if found.grad is None:
            loss, grad = jax.value_and_grad(objective)(params)
            count = count.plus(Evaluations(1, 1))
        else:
            loss = found.value * memory.unit
            grad = jax.tree.map(lambda g: g * memory.unit.astype(g.dtype), found.grad)
        memory = memory.replace(grad=grad, optimizer=optimizer, evaluations=count)
        return State(params, loss, memory), None

    def _search_within(self, objective: Any, state: State, bounds: Bounds) -> tuple[State, Any]:
        """Search along the projected path, with the params held that press against a bound."""
        memory = state.memory
        held = pressing(state.params, memory.grad, bounds)
        grad = jax.tree.map(lambda g, h: jnp.where(h, 0, g), memory.grad, held)

        def path(params: Any) -> Any:
            inside = project(params, bounds)
            return jax.tree.map(lambda x, p, h: jnp.where(h, p, x), inside, state.params, held)

        moved, optimizer = self._update(
            lambda params: objective(path(params)), state, grad, memory.optimizer
        )
        params = path(moved)
        loss, grad = jax.value_and_grad(objective)(params)
        changed = _differ(held, pressing(params, grad, bounds))
        count = _searched(optimizer).plus(Evaluations(1, 1))
        memory = memory.replace(grad=grad, optimizer=optimizer, evaluations=count)
        return State(params, loss, memory), changed

    def _update(self, objective: Any, state: State, grad: Any, optimizer: Any) -> tuple[Any, Any]:
        value, searching = state.loss, _line_search(optimizer) is not None
        if _is_quasi_newton(optimizer):
            unit = state.memory.unit
            value = value / unit
            grad = jax.tree.map(lambda g: g / unit.astype(g.dtype), grad)
            objective = divided(objective, unit)
        updates, optimizer = self.optimizer().update(
            grad, optimizer, state.params, value=value, grad=grad, value_fn=_finite(objective)
        )
        if not searching:  # a line search finds its length itself
            updates = optax.tree.scale(state.memory.scale, updates)
        return optax.apply_updates(state.params, updates), optimizer

    def _accept_or_reject(
        self, before: State, after: State, restart: Bool[Array, ""] | None
    ) -> State:
        """Reject a step into NaN; reset the memory where it no longer fits."""
        memory: GradientMemory = after.memory
        fresh = self.optimizer().init(before.params)
        finite = jnp.isfinite(after.loss) & all_finite(memory.grad)
        reset = ~finite if restart is None else ~finite | restart
        stuck = memory.stuck
        if _line_search(memory.optimizer) is not None:
            better = after.loss < before.loss
            stuck = jnp.where(better, 0, memory.stuck + finite)  # NaN is no sign of a minimum
            reset |= ~better
        # Halved steps end below the resolution of the params: not moving is no way out of NaN.
        moved = _differ(after.params, before.params)
        fine = finite & (moved | (memory.nonfinite == 0))
        scale = jnp.where(fine, jnp.minimum(2 * memory.scale, 1), memory.scale / 2)
        kept = select(
            finite,
            State(after.params, after.loss, memory.grad),
            State(before.params, before.loss, before.memory.grad),
        )
        memory = GradientMemory(
            grad=kept.memory,
            largest=memory.largest,
            unit=memory.unit,
            optimizer=select(reset, _cast_like(fresh, memory.optimizer), memory.optimizer),
            scale=scale,
            nonfinite=count_nonfinite(fine, memory.nonfinite),
            stuck=stuck,
            last_progress=smoothed_progress(
                before.memory.last_progress, _progress(before, after), after.loss < before.loss
            ),
            evaluations=memory.evaluations,
        )
        return State(kept.params, kept.loss, memory)

    def evaluations(self, before: State | None, after: State) -> Evaluations:
        """Return one, with its gradient; of a step with a line search, those of the search."""
        counted: Evaluations | None = after.memory.evaluations
        return Evaluations(1, 1) if counted is None else counted

    def optimality(self, objective: Any, state: State) -> Scalar:
        """Return the largest free component of the gradient without unit (`relative_gradient`)."""
        norm = free_gradient_norm(objective, state.params, state.memory.grad)
        norm = norm.astype(state.loss.dtype)
        return relative_gradient(norm, state.memory.largest, state.loss, state.params)

    def progress(self, before: State, after: State) -> tuple[Scalar, Scalar]:
        """Decrease and step of a line search; a plain optimizer's loss may rise and fall by turns.

        One short step says little in a narrow valley. What counts is the largest of late, each step
        back by a quarter: 8 short ones in a row after a decrease of a tenth. A search that finds
        nothing better has the memory reset; if steepest descent then finds nothing either, the
        decrease is 0.
        """
        if _line_search(after.memory.optimizer) is None:
            return super().progress(before, after)
        decrease, length = after.memory.last_progress
        return jnp.where(after.memory.stuck > 1, 0, decrease), length

    def status(self, state: State) -> Int[Array, ""]:
        """Return ``NONFINITE`` after 30 steps in a row that ended in NaN or infinity.

        ``SINGULAR`` where no gradient but 0 has been seen.
        """
        return gradient_status(state.memory.nonfinite, state.memory.largest, state.loss)


def _progress(before: State, after: State) -> tuple[Scalar, Scalar]:
    """Return the relative decrease of the loss and the relative length of the step."""
    change = optax.tree.sub(after.params, before.params)
    length = relative_length(ravel_pytree(change)[0], ravel_pytree(before.params)[0])
    return (before.loss - after.loss) / jnp.abs(before.loss), length


def _is_static(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | str) or _is_function(value)


def _is_function(value: Any) -> bool:
    leaves = jax.tree.leaves(value)
    return callable(value) and len(leaves) == 1 and leaves[0] is value


def _line_search(optimizer: Any) -> Any:
    """Return the state of a line search that is the last of the chain, or None."""
    while type(optimizer) is tuple and optimizer:
        optimizer = optimizer[-1]
    kinds = (optax.ScaleByZoomLinesearchState, optax.ScaleByBacktrackingLinesearchState)
    return optimizer if isinstance(optimizer, kinds) else None


def _is_quasi_newton(optimizer: Any) -> bool:
    """Return whether an optimizer is L-BFGS with a line search: then no unit of the loss matters.

    The numbers of all other optimizers, a learning rate say, have the unit that their user chose.
    """

    def is_memory(part: Any) -> bool:
        return isinstance(part, optax.ScaleByLBFGSState)

    parts = jax.tree.leaves(optimizer, is_leaf=is_memory)
    return _line_search(optimizer) is not None and any(is_memory(part) for part in parts)


def _searched(optimizer: Any) -> Evaluations:
    """Return what the last line search has evaluated: with gradients, where it keeps them."""
    found = _line_search(optimizer)
    count = jnp.asarray(found.info.num_linesearch_steps, jnp.int32)
    return Evaluations(count, jnp.int32(0) if found.grad is None else count)


def _finite(objective: Any) -> Callable[[Any], Scalar]:
    """Make NaN infinite, so that a line search backs away from it."""

    def value(params: Any) -> Scalar:
        loss = objective(params)
        return jnp.where(jnp.isnan(loss), jnp.inf, loss)

    return value


def _differ(a: PyTree, b: PyTree) -> Bool[Array, ""]:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return jnp.any(jnp.stack([jnp.any(x != y) for x, y in pairs]))


def _cast_like(tree: Any, like: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.asarray(x, jnp.result_type(y)), tree, like)
