"""The types of refinejax: problems, states, refiners, results, statuses and stopping rules.

A refiner moves ``params`` (any pytree of floating arrays) so that a problem, a scalar function of
them, decreases. Everything here is written for one sample; a batch is ``jax.vmap`` of it.
"""

import abc
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from refinejax._evaluations import Evaluations as Evaluations
from refinejax._problem import Coordinates as Coordinates
from refinejax._problem import Problem as Problem
from refinejax._problem import Scalar as Scalar
from refinejax._problem import as_problem as as_problem
from refinejax._problem import bounds_of as bounds_of
from refinejax._status import Status as Status

Params = TypeVar("Params")


class State(struct.PyTreeNode, Generic[Params]):
    """Where a refiner stands. Always ``loss == objective(params)``.

    Attributes:
        params: the current params.
        loss: the objective there, a scalar.
        memory: what the refiner remembers; private to it.
    """

    params: Params
    loss: Scalar
    memory: Any


class Stage(NamedTuple):
    """One of the refiners that follow each other in `Refiner.stages`.

    Attributes:
        refiner: the method.
        stop: the rules by which it ends; None for the driver's.
        steps: the most steps in it; None for as many as the driver allows.
    """

    refiner: "Refiner"
    stop: "Stop | None" = None
    steps: Any = None


class Refiner(struct.PyTreeNode, abc.ABC):
    """A method of refinement. A pytree: its numbers are leaves, its functions and sizes static.

    ``init`` and ``step`` are pure, can be jitted, vmapped and (for most refiners) differentiated.
    The other methods tell the drivers what only the refiner knows; their defaults suit a refiner
    that knows nothing of the kind. ``uses_derivatives`` is False for methods that work without.

    Attributes:
        positive: names of the attributes that must be above 0, which the drivers check.
    """

    positive: ClassVar[tuple[str, ...]] = ()

    @property
    def uses_derivatives(self) -> bool:
        """Whether the problem must have derivatives."""
        return True

    @property
    def unit_free(self) -> bool:
        """Whether its steps are the same for any multiple of the loss: it has no learning rate."""
        return False

    @abc.abstractmethod
    def init(self, objective: Any, params: Params, key: PRNGKeyArray) -> State[Params]:
        """Evaluate ``objective`` at ``params`` and set up the memory.

        Args:
            objective: a `Problem`, in the coordinates of refinement.
            params: where to start; a pytree of floating arrays.
            key: for random numbers.
        """

    @abc.abstractmethod
    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Take one step. Structure, shapes and dtypes are those of ``init``.

        A step should cost the same on every lane of a batch, since all wait for the slowest. Two
        of the package depend on the data: `Gradient` with a line search, which evaluates as often
        as it must, and least squares within bounds, whose choice of active bounds takes up to
        2n + 3 passes over an n × n matrix, without an evaluation.

        Args:
            objective: as for ``init``.
            state: from ``init`` or the step before.
            key: for random numbers; another one for each step.
        """

    def evaluations(self, before: State | None, after: State) -> Evaluations:
        """Return the evaluations of the step from ``before`` to ``after``; None: of ``init``.

        By default one, with a derivative if the refiner uses derivatives.

        Args:
            before: the state before the step; None for ``init``.
            after: the state after it.
        """
        del before, after
        return Evaluations(1, int(self.uses_derivatives))

    def optimality(self, objective: Any, state: State) -> Scalar:
        """Return the number that `Stop.gradient` bounds; infinite where unknown.

        Args:
            objective: as for ``init``.
            state: where.
        """
        del objective
        return jnp.full((), jnp.inf, state.loss.dtype)

    def progress(self, before: State, after: State) -> tuple[Scalar, Scalar]:
        """Return relative decrease of the loss and relative length of the step, for `Stop`.

        Infinite where they say nothing of convergence: a rejected step, or a method whose loss
        rises and falls by turns.

        Args:
            before: the state before a step.
            after: the state after it.
        """
        del before
        unknown = jnp.full((), jnp.inf, after.loss.dtype)
        return unknown, unknown

    def status(self, state: State) -> Int[Array, ""]:
        """Return the refiner's own `Status`; ``RUNNING`` as long as it can go on.

        Args:
            state: where it stands.
        """
        del state
        return jnp.int32(Status.RUNNING)

    def in_last_stage(self, state: State) -> Bool[Array, ""]:
        """Return whether the driver's tolerances and patience apply (of a chain: at its end).

        Args:
            state: where it stands.
        """
        del state
        return jnp.bool_(True)

    def with_stop(self, stop: "Stop") -> "Refiner":
        """Return the refiner with the driver's rules, for refiners that run others inside.

        Args:
            stop: the rules, resolved.
        """
        del stop
        return self

    def stages(self) -> tuple[Stage, ...]:
        """Return the refiners that the batch engine runs one after the other; by default itself."""
        return (Stage(self),)


class Stop(struct.PyTreeNode):
    """When to stop. ``None``: a default that follows the dtype. A negative number: never by this.

    Attributes:
        gradient: largest component of the gradient, but for params held at bounds, relative to
            |loss|/‖params‖ or a share of the largest gradient so far, see `relative_gradient`
            (default ε^⅔); for least squares the largest cosine between the residual and a column
            of J. Neither has a unit, and a start without slope never counts.
        loss: relative decrease of the loss in a step (default 8 ε).
        step: length of a step relative to the params (default ε).
        target: stop once the loss is at or below this (default: never).
        patience: steps without a better loss (default 100). "Better" is by more than ``loss``.
        divergence: stop once the loss is above the best loss by more than this times the larger of
            |first loss| and |best loss| (default 1e6); never by this while both are 0.
    """

    gradient: Any = None
    loss: Any = None
    step: Any = None
    target: Any = None
    patience: Any = None
    divergence: Any = None

    @classmethod
    def never(cls, *, target: float | None = None) -> "Stop":
        """Return rules that are never met, but for a target if one is given.

        Args:
            target: the loss at or below which a run ends.
        """
        return cls(-1.0, -1.0, -1.0, target, -1, -1.0)

    def resolve(self, dtype: Any) -> "Stop":
        """Return the rules with defaults for ``dtype`` filled in, every field an array.

        Args:
            dtype: of the params.
        """
        eps = jnp.finfo(dtype).eps
        return Stop(
            gradient=_number(self.gradient, eps ** (2 / 3), dtype),
            loss=_number(self.loss, 8 * eps, dtype),
            step=_number(self.step, eps, dtype),
            target=_number(self.target, -jnp.inf, dtype),
            patience=_number(self.patience, 100, jnp.int32),
            divergence=_number(self.divergence, min(1e6, float(jnp.finfo(dtype).max)), dtype),
        )


def _number(value: Any, default: Any, dtype: Any) -> Array:
    # Rounded by JAX: NumPy warns where a number is infinite in float16.
    return jnp.asarray(default if value is None else value).astype(dtype)


class Result(struct.PyTreeNode, Generic[Params]):
    """The outcome for one sample (or, under ``vmap``, for many).

    Attributes:
        params: the best params seen.
        loss: the objective there; never above ``initial_loss``.
        initial_loss: the objective at the start.
        steps: steps taken.
        evaluations: evaluations of the objective, those of starts that were only ranked included.
        derivative_evaluations: evaluations with a gradient or a Jacobian; see `Evaluations`.
        status: a `Status` as an integer array.
        state: the last state (in the coordinates of refinement), from which steps can go on.
        trace: what was recorded at the start and after each step; None where nothing was.
    """

    params: Params
    loss: Scalar
    initial_loss: Scalar
    steps: Int[Array, ""]
    evaluations: Int[Array, ""]
    derivative_evaluations: Int[Array, ""]
    status: Int[Array, ""]
    state: State[Params]
    trace: Any = None
