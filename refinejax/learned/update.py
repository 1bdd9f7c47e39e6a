"""Refiners whose steps come from a network: of params, gradient and a map of the residual."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from refinejax._core import Params, Refiner, Scalar, State, Status, bounds_of
from refinejax._trees import all_finite, project, select
from refinejax.learned.units import Units, units_of
from refinejax.networks.network import Network
from refinejax.problems.normal import residual_of
from refinejax.refiners.convergence import count_nonfinite, nonfinite_status

_PATIENT = 60  # refusals in a row after which nothing is left of a step


class Reading(struct.PyTreeNode):
    """What a network is told of a point, in the dtype of its weights.

    Attributes:
        params: in units in which the bounds are −1 and 1, shape (n,).
        gradient: of the log of the loss, by those; shape (n,), or None where it is not formed.
        loss: log of the loss.
        map: what ``reads`` returns; or None.
    """

    params: Float[Array, " n"]
    gradient: Any
    loss: Scalar
    map: PyTree


class LearnedUpdateMemory(struct.PyTreeNode):
    """What `LearnedUpdate` remembers.

    Attributes:
        reading: of the params.
        hidden: of the network.
        refused: trials in a row that were refused.
        nonfinite: trials in a row that ended in NaN or infinity.
        last_progress: relative decrease and step length of the last trial.
    """

    reading: Reading
    hidden: PyTree
    refused: Int[Array, ""]
    nonfinite: Int[Array, ""]
    last_progress: Float[Array, "2"]


class LearnedUpdate(Refiner):
    """Steps x ← x + 2⁻ʳ·Δ, where (Δ, h) ← network(reading, h), and r is how often it was refused.

    The update network of learned test-time refinement: it reads the params, the gradient of the
    loss and, where there is one, a map of the residual, and gives the step. With a hidden state h
    (`LSTMUpdate`, `InferenceMachine`) it is a recurrent inference machine (Putzky and Welling 2017,
    arXiv:1706.04008, eq. 8–9); without, one network for all steps (`ResidualUpdate`).

    A trial that does not lower the loss is refused, and the next is half as long: the loss never
    rises, wherever one starts. Steps of a network are not exact: `Sequential(learned,
    LevenbergMarquardt())` goes on to the optimum.

    Attributes:
        network: (reading, hidden) → (Δ, hidden), Δ in the units of ``reading.params``;
            ``network.begin()`` gives the first hidden state.
        reads: how the network reads ``objective.residual(params)``, say `Relative()`; None: it does
            not. Static, and hashable.
        slope: whether the network reads the gradient; static.
        relative: whether steps are in proportion to the root of the loss, Δ = √L·network(…):
            where the residual is linear and the network is told its direction (`Relative`), such a
            network can be exact at any distance from the optimum; static.
        guarded: whether a trial that does not lower the loss is refused; static. In training it is
            not: from a step that is not taken nothing can be learned.

    Raises:
        ValueError: in ``init``, where ``reads`` is given and the objective has no residual.
    """

    network: Network
    reads: Callable[[PyTree], PyTree] | None = struct.field(pytree_node=False, default=None)
    slope: bool = struct.field(pytree_node=False, default=True)
    relative: bool = struct.field(pytree_node=False, default=False)
    guarded: bool = struct.field(pytree_node=False, default=True)

    def init(self, objective: Any, params: Params, key: PRNGKeyArray) -> State[Params]:
        """Evaluate the loss, its gradient and the map of the residual."""
        del key
        inside: Any = project(params, bounds_of(objective))
        loss, reading = self._read(objective, inside, units_of(objective, inside))
        memory = LearnedUpdateMemory(
            reading=reading,
            hidden=self.network.call("begin"),
            refused=jnp.int32(0),
            nonfinite=jnp.int32(0),
            last_progress=jnp.full((2,), jnp.inf, loss.dtype),
        )
        return State(inside, loss, memory)

    def step(self, objective: Any, state: State[Params], key: PRNGKeyArray) -> State[Params]:
        """Try the step of the network; keep it if the loss is lower."""
        del key
        memory: LearnedUpdateMemory = state.memory
        units = units_of(objective, state.params)
        move, hidden = self.network(memory.reading, memory.hidden)
        if self.relative:
            move = move * jnp.exp(0.5 * memory.reading.loss)
        here = units.encode(state.params)
        there = here + (move * 0.5**memory.refused).astype(here.dtype)
        ends: Any = project(units.decode(there), bounds_of(objective))
        loss, reading = self._read(objective, ends, units)
        finite = jnp.isfinite(loss) & all_finite(reading)
        accepted = finite & (loss < state.loss) if self.guarded else finite
        old = (state.params, state.loss, memory.reading, memory.hidden)
        params, loss, reading, hidden = select(accepted, (ends, loss, reading, hidden), old)
        return State(params, loss, self._remember(state, accepted, finite, reading, hidden, loss))

    @property
    def uses_derivatives(self) -> bool:
        """Whether the network reads the gradient."""
        return self.slope

    def _remember(
        self, state: State, accepted: Array, finite: Array, reading: Reading, hidden: Any, loss: Any
    ) -> LearnedUpdateMemory:
        memory: LearnedUpdateMemory = state.memory
        whole = jnp.abs(state.loss)
        decrease = (state.loss - loss) / jnp.where(whole > 0, whole, 1)
        moved = jnp.linalg.norm(jax.lax.stop_gradient(reading.params - memory.reading.params))
        length = moved / jnp.sqrt(1.0 * reading.params.size)
        last_progress = jnp.stack([decrease, length.astype(decrease.dtype)])
        return LearnedUpdateMemory(
            reading=reading,
            hidden=hidden,
            refused=jnp.where(accepted, 0, memory.refused + 1),
            nonfinite=count_nonfinite(finite, memory.nonfinite),
            last_progress=jax.lax.stop_gradient(jnp.where(accepted, last_progress, jnp.inf)),
        )

    def _read(self, objective: Any, params: Any, units: Units) -> tuple[Scalar, Reading]:
        """Evaluate the loss and what the network is told."""
        here = units.encode(params)
        gradient = None
        if self.slope:
            loss, gradient = jax.value_and_grad(lambda x: objective(units.decode(x)))(here)
            gradient = gradient.astype(loss.dtype) / jnp.where(loss > 0, loss, 1)
        else:
            loss = objective(params)
        level = jnp.log(jnp.where(loss > 0, loss, jnp.finfo(loss.dtype).tiny))
        seen = None if self.reads is None else self.reads(residual_of(objective)(params))
        reading = Reading(here, gradient, level, seen)
        dtype = jax.tree.leaves(self.network.weights)[0].dtype
        return loss, jax.tree.map(lambda leaf: leaf.astype(dtype), reading)

    def progress(self, before: State, after: State) -> tuple[Scalar, Scalar]:
        """Relative decrease of the loss, and length of the step relative to the bounds."""
        del before
        decrease, length = after.memory.last_progress
        return decrease, length

    def status(self, state: State) -> Int[Array, ""]:
        """``NONFINITE`` after 30 trials in a row that end in NaN, ``STALLED`` after 60 refusals."""
        memory: LearnedUpdateMemory = state.memory
        stalled = jnp.where(memory.refused >= _PATIENT, Status.STALLED, Status.RUNNING)
        failed = nonfinite_status(memory.nonfinite)
        return jnp.where(failed == Status.RUNNING, stalled, failed).astype(jnp.int32)


def unguarded(refiner: Refiner) -> Refiner:
    """Return a `LearnedUpdate` without its guard, for training; any other refiner unchanged.

    Args:
        refiner: any refiner.
    """
    return refiner.replace(guarded=False) if isinstance(refiner, LearnedUpdate) else refiner
