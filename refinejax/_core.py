"""The vocabulary of refinejax: objectives, states, refiners, results, statuses and stopping rules.

A refiner moves ``params`` (any pytree of floating arrays) so that an objective, a scalar function
of them, decreases. Everything here is written for one sample; a batch is ``jax.vmap`` of it.
"""

import abc
import enum
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from refinejax._trees import as_pytree, offer

Params = TypeVar("Params")
Scalar = Float[Array, ""]


class Status(enum.IntEnum):
    """How the refinement of one sample ended. Negative: not usable as converged."""

    RUNNING = 0
    CONVERGED_GRAD = 1
    CONVERGED_LOSS = 2
    CONVERGED_STEP = 3
    TARGET_REACHED = 4
    STALLED = 5
    MAX_STEPS = 6
    TIME_LIMIT = 7
    STOPPED = 8
    NONFINITE_START = -1
    NONFINITE = -2
    SINGULAR = -3
    DIVERGED = -4

    @property
    def converged(self) -> bool:
        """Whether a stopping rule was met (one of the three tolerances, or the target loss)."""
        return Status.CONVERGED_GRAD <= self <= Status.TARGET_REACHED

    def explain(self) -> str:
        """Meaning, likely cause and remedy, in a sentence or two."""
        return _EXPLANATIONS[self]


_EXPLANATIONS = {
    Status.RUNNING: "Still running: no stopping rule was met so far.",
    Status.CONVERGED_GRAD: "Converged: the (projected) gradient is below `Stop.gradient`.",
    Status.CONVERGED_LOSS: "Converged: the last step no longer lowered the loss by more than "
    "`Stop.loss` of it. If the loss is still high, this is a local minimum: use a better start "
    "or Restarts.",
    Status.CONVERGED_STEP: "Converged: the last step changed the params by less than `Stop.step` "
    "of their size.",
    Status.TARGET_REACHED: "The loss fell to `Stop.target` or below.",
    Status.STALLED: "No better loss for `Stop.patience` steps. Likely a learning rate too large to "
    "settle, or the noise floor: lower or decay the learning rate, or use L-BFGS. Of a population: "
    "the loss is flat where it looks, or its median no longer falls: a larger `std` or `regrow`.",
    Status.MAX_STEPS: "All steps were used before a stopping rule was met: allow more, or use a "
    "method with faster convergence.",
    Status.TIME_LIMIT: "The time limit came first; params are the best seen until then.",
    Status.STOPPED: "Interrupted; params are the best seen until then. Run again with the same "
    "`checkpoint` folder to go on.",
    Status.NONFINITE_START: "The loss is NaN or infinite at the initial params: check the start, "
    "the observation and the forward model there.",
    Status.NONFINITE: "The loss or its gradient kept turning NaN or infinite, however small the "
    "step; params are the best finite point. Add bounds, or mend the forward model.",
    Status.SINGULAR: "The equations for a step have no solution: the data do not determine some "
    "direction of the params. Fix or regularize it. Of a population: its covariance has become "
    "longer than its dtype resolves; scale the params, or use float64.",
    Status.DIVERGED: "The loss grew far beyond where it began; params are the best seen. Lower the "
    "learning rate. Of a population: it spreads without end; is there a minimum? Add bounds.",
}


@runtime_checkable
class Objective(Protocol):
    """What is minimized: a scalar function of the params, whose data are pytree leaves.

    A plain function or lambda serves as it is. An object may also offer, by duck typing:

    - ``residual(params) -> PyTree``: for least squares, ``loss = mean(residual²)``;
    - ``normal(params) -> Normal``: its own normal equations (see `problems.normal`), and
      ``normal_along(params, basis)``, the same as a function of z in params + basis·z;
    - ``curvature(params) -> Callable``: products with their matrix, for many params;
    - ``bounds -> (lower, upper) | None``: pytrees like the params (or broadcasting to them), which
      no refiner leaves;
    - ``rescale() -> Coordinates``: the coordinates in which it wants to be refined;
    - ``map_problem(change) -> Objective``: of an objective in such coordinates, itself with the
      problem it was made from replaced by ``change(problem)``; the params keep their meaning;
    - ``reorder -> bool``: that sums in it may be reordered by the compiler (fast math on CPU), as
      it holds no compensated arithmetic such as x − k·A − k·B;
    - ``batch_axes() -> PyTree``: for the batch engine, 0 or None for each leaf, as ``in_axes``;
    - ``key_ids -> tuple``: for the batch engine, whole numbers that are folded into the key of a
      sample in place of its number in the batch, so that its draws do not depend on its company.
    """

    def __call__(self, params: Any, /) -> Scalar:
        """Return the loss at ``params``."""
        ...


class Coordinates(struct.PyTreeNode):
    """An objective in the coordinates to refine it in, and the way there and back.

    Attributes:
        objective: the objective as a function of the coordinates of refinement.
        encode: from params to coordinates of refinement.
        decode: from coordinates of refinement to params.
    """

    objective: Any
    encode: Callable[[Any], Any] = struct.field(pytree_node=False)
    decode: Callable[[Any], Any] = struct.field(pytree_node=False)


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


class Refiner(struct.PyTreeNode, abc.ABC):
    """A method of refinement. A pytree: its numbers are leaves, its functions and sizes static.

    ``init`` and ``step`` are pure, can be jitted, vmapped and (for most refiners) differentiated.
    The other methods tell the drivers what only the refiner knows; their defaults suit a refiner
    that knows nothing of the kind.
    """

    @abc.abstractmethod
    def init(self, objective: Any, params: Params, key: PRNGKeyArray) -> State[Params]:
        """Evaluate ``objective`` at ``params`` and set up the memory."""

    @abc.abstractmethod
    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Take one step. Structure, shapes and dtypes are those of ``init``."""

    def optimality(self, objective: Any, state: State) -> Scalar:
        """What `Stop.gradient` bounds at ``state``; infinite where unknown."""
        del objective
        return jnp.full((), jnp.inf, state.loss.dtype)

    def progress(self, before: State, after: State) -> tuple[Scalar, Scalar]:
        """Relative decrease of the loss and relative length of the step, for `Stop`.

        Infinite where they say nothing of convergence: a step refused, or a method whose loss
        goes up and down.
        """
        del before
        unknown = jnp.full((), jnp.inf, after.loss.dtype)
        return unknown, unknown

    def status(self, state: State) -> Int[Array, ""]:
        """The refiner's own `Status`; ``RUNNING`` as long as it can go on."""
        del state
        return jnp.int32(Status.RUNNING)

    def in_last_stage(self, state: State) -> Bool[Array, ""]:
        """Whether the driver's tolerances and patience apply (a chain waits for its last stage)."""
        del state
        return jnp.bool_(True)

    def with_stop(self, stop: "Stop") -> "Refiner":
        """Return the refiner with the driver's rules, for those that run others inside."""
        del stop
        return self


class Stop(struct.PyTreeNode):
    """When to stop. ``None``: a default that follows the dtype. A negative number: never by this.

    Attributes:
        gradient: largest component of the projected gradient (default ε^⅔); for least squares the
            largest cosine between the residual and a column of J, which has no unit.
        loss: relative decrease of the loss in a step (default 8 ε).
        step: length of a step relative to the params (default ε).
        target: stop once the loss is at or below this (default: never).
        patience: steps without a better loss (default 100). "Better" is by more than ``loss``.
        divergence: stop once the loss exceeds the first loss times this (default 1e6).
    """

    gradient: Any = None
    loss: Any = None
    step: Any = None
    target: Any = None
    patience: Any = None
    divergence: Any = None

    @classmethod
    def never(cls, *, target: float | None = None) -> "Stop":
        """Take all steps, whatever happens (but for a ``target``, if one is given)."""
        return cls(-1.0, -1.0, -1.0, target, -1, -1.0)

    def resolve(self, dtype: Any) -> "Stop":
        """Fill in the defaults for ``dtype``, so that every field is an array."""
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
        status: a `Status` as an integer array.
        state: the last state (in the coordinates of refinement), from which steps can go on.
        trace: what was recorded at the start and after each step; None where nothing was.
    """

    params: Params
    loss: Scalar
    initial_loss: Scalar
    steps: Int[Array, ""]
    status: Int[Array, ""]
    state: State[Params]
    trace: Any = None


def as_objective(objective: Any) -> Any:
    """Make ``objective`` a pytree: plain callables are wrapped, pytrees stay as they are.

    Raises:
        ValueError: if it cannot be called.
    """
    if not callable(objective):
        raise ValueError(
            f"objective: expected a function of the params, got {type(objective).__name__}; "
            "pass a callable that returns a scalar loss"
        )
    return as_pytree(objective)


def coordinates(objective: Any) -> Coordinates:
    """Return the coordinates in which ``objective`` is refined: its own choice, or the params."""
    rescale = offer(objective, "rescale")
    return rescale() if rescale is not None else Coordinates(objective, _same, _same)


def _same(params: Any) -> Any:
    return params


def map_problem(objective: Any, change: Callable[[Any], Any]) -> Any:
    """Apply ``change`` to the problem as its user wrote it; see ``map_problem`` of `Objective`."""
    inside = offer(objective, "map_problem")
    return change(objective) if inside is None else inside(change)
