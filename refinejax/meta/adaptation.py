"""Learning to begin: params from which a few steps on a task go far."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import PRNGKeyArray, PyTree

from refinejax._core import Problem, Refiner, Scalar, State, as_problem
from refinejax.meta.inner import FirstOrder
from refinejax.tasks.distribution import judge


class Learner(struct.PyTreeNode):
    """Meta-params of an `Adaptation`: where to begin, and how to go on.

    Attributes:
        params: at the start of every task.
        refiner: whose numbers are learned too; None where it is given.
    """

    params: PyTree
    refiner: Any = None


class Restricted(Problem):
    """An objective as a function of some entries of a mapping of params, the others being fixed.

    Attributes:
        objective: of all params.
        fixed: the entries that stay.
    """

    objective: Any
    fixed: dict[str, Any]

    def __call__(self, params: dict[str, Any]) -> Scalar:
        """Return the loss."""
        return self.objective({**self.fixed, **params})


class Proximal(Problem):
    """f(x) + ½λ‖x − x₀‖².

    Attributes:
        objective: f.
        center: x₀.
        strength: λ.
    """

    objective: Any
    center: PyTree
    strength: Any

    def __call__(self, params: PyTree) -> Scalar:
        """Return the loss."""
        away = jax.tree.map(lambda x, y: jnp.sum((x - y) ** 2), params, self.center)
        return self.objective(params) + self.strength / 2 * sum(jax.tree.leaves(away))


class Adaptation(struct.PyTreeNode):
    """Train params to begin at (an `InnerLoop`; meta-params: `Learner`).

    From them a refiner takes a few steps on the objective of a task, its support set; what counts
    is ``tasks.query(task)`` where it ends (Finn et al. 2017, arXiv:1703.03400, eq. 1).

    Attributes:
        tasks: distribution of tasks; the first params are its ``initial``.
        refiner: takes the steps; its numbers are not trained.
        weights: of the losses after each step, shape (horizon,), as in MAML++ (Antoniou et al.
            2019, arXiv:1810.09502, eq. 3); None: the last one alone counts.
        anneal: steps of a training in which weights move, linearly, to the last loss alone; 0: they
            stay as they are.
        proximal: λ of a term ½λ‖x − x₀‖² that keeps steps near the start; None for none.
        learned: params → refiner whose numbers are trained, in place of ``refiner``; static.
        adapts: names of the entries of the params (a mapping) that the refiner may move; () for
            all of any pytree; static.
        horizon: steps; static.
        second_order: differentiate the gradients of the objective too; static.

    Raises:
        ValueError: for horizons below 1, without either of ``refiner`` and ``learned``, or with
            ``anneal`` but no weights; in ``begin``, for another number of weights than steps.
    """

    tasks: Any
    refiner: Refiner | None = None
    weights: Any = None
    anneal: int = struct.field(pytree_node=False, default=0, kw_only=True)
    proximal: Any = None
    learned: Callable[[Any], Refiner] | None = struct.field(pytree_node=False, default=None)
    adapts: tuple[str, ...] = struct.field(pytree_node=False, default=())
    horizon: int = struct.field(pytree_node=False, default=1)
    second_order: bool = struct.field(pytree_node=False, default=True)

    def __post_init__(self) -> None:
        """Check."""
        if self.horizon < 1:
            raise ValueError(f"horizon: expected 1 step or more, got {self.horizon}")
        if (self.refiner is None) == (self.learned is None):
            raise ValueError("refiner: expected either a refiner or learned=, which makes one")
        if self.anneal < 0 or (self.anneal and self.weights is None):
            raise ValueError(
                f"anneal: expected a number of training steps, beside weights=, got {self.anneal}"
            )

    def at(self, step: Any) -> "Adaptation":
        """Return the loop at a step of the training: its weights are annealed.

        Args:
            step: of the training, from 0.
        """
        if not self.anneal:
            return self
        weights = jnp.asarray(self.weights, float)
        weights = weights / jnp.sum(weights)
        last = jnp.zeros_like(weights).at[-1].set(1)
        share = jnp.clip(jnp.asarray(step, weights.dtype) / self.anneal, 0, 1)
        return self.replace(weights=weights + share * (last - weights))

    @property
    def shortest(self) -> None:
        """None: all adaptations take as many steps."""
        return

    @property
    def whole(self) -> bool:
        """Whether the loss after each step counts."""
        return self.weights is not None

    def init(self, key: PRNGKeyArray) -> Learner:
        """Return the first params of a task, and the refiner where it is learned."""
        one, two = jax.random.split(key)
        params = self.tasks.initial(self.tasks.sample(one), two)
        part = self._part(params)
        return Learner(params, None if self.learned is None else self.learned(part))

    def sample(self, key: PRNGKeyArray) -> PyTree:
        """Draw a task."""
        return self.tasks.sample(key)

    def begin(self, meta: Learner, task: PyTree, key: PRNGKeyArray) -> tuple[State, PyTree]:
        """Evaluate the start on the support set; also returns the params that stay."""
        if self.weights is not None and jnp.shape(self.weights) != (self.horizon,):
            raise ValueError(
                f"weights: expected one for each of the {self.horizon} steps, got shape "
                f"{jnp.shape(self.weights)}"
            )
        one, two = jax.random.split(key)
        fixed = self._rest(meta.params)
        objective = self._objective(meta, task, fixed, one)
        return self._refiner(meta).init(objective, self._part(meta.params), two), fixed

    def advance(
        self, meta: Learner, task: PyTree, state: tuple[State, PyTree], key: PRNGKeyArray
    ) -> tuple[State, PyTree]:
        """Take a step on the support set."""
        one, two = jax.random.split(key)
        inner, fixed = state
        objective = self._objective(meta, task, fixed, one)
        return self._refiner(meta).step(objective, inner, two), fixed

    def loss(self, meta: Learner, task: PyTree, state: tuple[State, PyTree], count: Any) -> Scalar:
        """Return the weighted loss on the query set."""
        del meta
        value = self.score(task, state)
        if self.weights is None:
            return value
        weights = jnp.asarray(self.weights, value.dtype)
        return value * weights[count] * self.horizon / jnp.sum(weights)

    def score(self, task: PyTree, state: tuple[State, PyTree]) -> Scalar:
        """Return the loss on the query set."""
        return judge(self.tasks, task)(self.adapted(state))

    def adapted(self, state: tuple[State, PyTree]) -> PyTree:
        """Return the params at which the refiner is.

        Args:
            state: of the loop.
        """
        inner, fixed = state
        return {**fixed, **inner.params} if self.adapts else inner.params

    def _refiner(self, meta: Learner) -> Refiner:
        refiner = self.refiner if self.learned is None else meta.refiner
        if refiner is None:
            raise ValueError("meta: expected a Learner with a refiner, as learned= is given")
        return refiner

    def _objective(self, meta: Learner, task: PyTree, fixed: PyTree, key: PRNGKeyArray) -> Any:
        objective = as_problem(self.tasks.objective(task)).draw(key)
        if self.adapts:
            objective = Restricted(objective, fixed)
        if self.proximal is not None:
            objective = Proximal(objective, self._part(meta.params), self.proximal)
        return objective if self.second_order else FirstOrder(objective)

    def _part(self, params: PyTree) -> PyTree:
        if not self.adapts:
            return params
        if not isinstance(params, Mapping):
            raise ValueError(
                f"adapts: expected params that are a mapping with {', '.join(self.adapts)}, got "
                f"{type(params).__name__}"
            )
        lacking = [name for name in self.adapts if name not in params]
        if lacking:
            raise ValueError(f"adapts: the params have no {lacking[0]!r}, but {', '.join(params)}")
        return {name: params[name] for name in self.adapts}

    def _rest(self, params: PyTree) -> PyTree:
        if not self.adapts:
            return ()
        return {name: value for name, value in params.items() if name not in self.adapts}


def adapt(inner: Adaptation, meta: Learner, task: PyTree, key: PRNGKeyArray) -> PyTree:
    """Return the params after all steps of an adaptation.

    Args:
        inner: the loop.
        meta: meta-params.
        task: the task.
        key: of the start and the steps.
    """
    first, run = jax.random.split(key)
    state = inner.begin(meta, task, first)

    def body(state: Any, key: PRNGKeyArray) -> tuple[Any, None]:
        return inner.advance(meta, task, state, key), None

    state, _ = jax.lax.scan(body, state, jax.random.split(run, inner.horizon))
    return inner.adapted(state)
