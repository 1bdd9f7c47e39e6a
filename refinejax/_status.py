"""How the refinement of a sample ended: statuses and their explanations."""

import enum
from typing import Any


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
        return bool(have_converged(self))

    def explain(self) -> str:
        """Meaning, likely cause and remedy, in a sentence or two."""
        return _EXPLANATIONS[self]


def have_converged(status: Any) -> Any:
    """Return where a stopping rule was met, see `Status.converged`.

    Args:
        status: a status or an array of statuses, of NumPy or JAX.
    """
    return (status >= Status.CONVERGED_GRAD) & (status <= Status.TARGET_REACHED)


_EXPLANATIONS = {
    Status.RUNNING: "Still running: no stopping rule was met so far.",
    Status.CONVERGED_GRAD: "Converged: the (projected) gradient, measured without unit, is below "
    "`Stop.gradient`.",
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
    "direction of the params. Fix or regularize it. At the start: no param has an effect there "
    "(all derivatives are 0); begin elsewhere, or if the model has steps, rounds or counts, use "
    "`differentiable=False`. Of a population: its covariance has become "
    "longer than its dtype resolves; scale the params, or use float64.",
    Status.DIVERGED: "The loss grew far beyond where it began; params are the best seen. Lower the "
    "learning rate. Of a population: it spreads without end; is there a minimum? Add bounds.",
}
