"""The outcome of a batch."""

import copy
import os
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from refinejax._core import Status
from refinejax._equal import EqualByValue
from refinejax._status import have_converged
from refinejax.batch.saved import read_result, write_result

if TYPE_CHECKING:
    from refinejax.diagnostics import Covariance, Fit, GoodnessOfFit, Identifiability

DECISIVE = 3.0  # odds of 20 : 1, which Kass and Raftery (1995, JASA 90, 773) call strong


def count_statuses(status: np.ndarray) -> dict[str, int]:
    """Return how often each status is there, by its name, the most frequent first.

    Args:
        status: codes of `Status`, any shape.
    """
    values, numbers = np.unique(status, return_counts=True)
    order = np.argsort(-numbers, kind="stable")
    return {Status(int(values[i])).name: int(numbers[i]) for i in order}


@dataclass(frozen=True, repr=False, eq=False)
class BatchResult(EqualByValue):
    """The outcome of each sample, in the order of the input.

    Two are equal (``==``) if all values are, NaN equal to NaN; wall time and problem do not count.
    A pickle holds all but the problem.

    Attributes:
        params: the best params seen, each leaf with a leading sample axis (NumPy).
        loss: the objective there, shape (B,); never above ``initial_loss``.
        initial_loss: the objective at the start, shape (B,); NaN for samples not begun.
        steps: steps taken, shape (B,).
        status: `Status` of each sample as int8, shape (B,).
        evaluations: of the objective, shape (B,), those of starts that were only ranked and of
            fits from other starts included; None where they were not counted, like the next.
        derivative_evaluations: those with a gradient or a Jacobian, shape (B,).
        at_bound: like params, True where a bound is active; None without bounds.
        std: standard errors, like params; None if they were not computed.
        seconds: wall time, with compilation.
        method: what was used, and why.
        notes: limits of what the answers say, in words.
        margins: for each discrete choice that was made (name → shape (B,)), the log of the odds of
            what was chosen against the best alternative: the difference of their log-likelihoods.
            Below 0 the alternative fits better; below `DECISIVE` the data do not decide; NaN where
            nothing is known.
        trace: the best loss so far of the first K samples at the start and after each step, shape
            (K, T + 1); None unless asked for. NaN where an earlier run has finished the sample.
        fit: the problem, for `covariance` and the like; `refine` puts it there. Neither saved nor
            pickled.
    """

    params: Any
    loss: np.ndarray
    initial_loss: np.ndarray
    steps: np.ndarray
    status: np.ndarray
    evaluations: np.ndarray | None = None
    derivative_evaluations: np.ndarray | None = None
    at_bound: Any = None
    std: Any = None
    seconds: float = field(default=float("nan"), compare=False)
    method: str = ""
    notes: tuple[str, ...] = ()
    margins: dict[str, np.ndarray] = field(default_factory=dict)
    trace: np.ndarray | None = None
    fit: "Fit | None" = field(default=None, compare=False)

    def __len__(self) -> int:
        """Return the number of samples (1 for a single one)."""
        return int(self.status.size)

    @property
    def converged(self) -> np.ndarray:
        """True where a stopping rule was met."""
        return have_converged(self.status)

    def counted(self) -> np.ndarray:
        """Return the evaluations of values and of derivatives, shape (B, 2).

        Raises:
            ValueError: if they were not counted.
        """
        if self.evaluations is None or self.derivative_evaluations is None:
            raise ValueError("evaluations: this result does not hold how many there were")
        return np.stack([self.evaluations, self.derivative_evaluations], axis=-1)

    def with_counts(self, counts: np.ndarray) -> "BatchResult":
        """Return the result with other numbers of evaluations.

        Args:
            counts: of values and of derivatives, shape (B, 2).
        """
        return replace(self, evaluations=counts[..., 0], derivative_evaluations=counts[..., 1])

    def where(self, status: Status | str | int) -> np.ndarray:
        """Return the numbers of the samples with this status, named or as a `Status`.

        Args:
            status: a `Status`, or its name.

        Raises:
            ValueError: for a name that is no status.
        """
        if isinstance(status, str):
            try:
                status = Status[status.upper()]
            except KeyError:
                names = ", ".join(s.name for s in Status)
                raise ValueError(f"status: {status!r} is none of {names}") from None
        return np.flatnonzero(self.status == int(status))

    def counts(self) -> dict[str, int]:
        """Return how many samples ended in each status, most frequent first."""
        return count_statuses(self.status)

    def undecided(self, choice: str) -> np.ndarray:
        """Return True where the margin of a choice is below `DECISIVE`; not where it is NaN.

        Args:
            choice: name of the choice.

        Raises:
            ValueError: for a choice that was not made.
        """
        if choice not in self.margins:
            made = ", ".join(self.margins) or "none"
            raise ValueError(f"choice: {choice!r} was not made; expected one of: {made}")
        return np.asarray(self.margins[choice]) < DECISIVE

    def summary(self) -> str:
        """Return a few lines: losses before and after, statuses, and what they mean."""
        share = 100 * float(np.mean(self.converged)) if len(self) else 0.0
        lines = [
            f"{len(self)} samples, {share:.1f} % converged, {self.seconds:.2f} s",
            f"  loss   before {_quantiles(self.initial_loss)}   after {_quantiles(self.loss)}",
            f"  steps  {_quantiles(self.steps, '.0f')}",
        ]
        if self.at_bound is not None:
            active = [np.any(_flat(leaf, self.status), axis=1) for leaf in _leaves(self.at_bound)]
            lines.append(f"  at a bound: {int(np.sum(np.any(active, axis=0)))} samples")
        for name in self.margins:
            number = int(np.sum(self.undecided(name)))
            values = _quantiles(self.margins[name])
            lines.append(f"  margin of the {name} {values}   not decided: {number} samples")
        for name, number in self.counts().items():
            lines.append(f"  {number:>8}  {name:<15} {Status[name].explain()}")
        if self.method:
            lines.append(f"  method: {self.method}")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def __repr__(self) -> str:
        """Return the summary."""
        return f"BatchResult({self.summary()})"

    def squeeze(self) -> "BatchResult":
        """Drop the sample axis of a batch of one.

        Raises:
            ValueError: if there is more than one sample.
        """
        if len(self) != 1:
            raise ValueError(f"squeeze: expected a batch of one sample, got {len(self)}")
        first = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)  # noqa: E731
        fields = (
            "params",
            "loss",
            "initial_loss",
            "steps",
            "evaluations",
            "derivative_evaluations",
            "status",
            "at_bound",
            "std",
            "margins",
            "trace",
        )
        return replace(self, **{name: first(getattr(self, name)) for name in fields})

    def covariance(self, *, noise: str = "white") -> "Covariance":
        """Return covariances, standard errors and intervals of the params.

        Args:
            noise: "white", "known" or "correlated": see `refinejax.diagnostics.covariance`.

        Raises:
            ValueError: if the result does not hold its problem, as after `load`; for "known" if
                no noise was given to `refine`; and as there.
        """
        return self._ask("covariance", noise)

    def identifiability(self) -> "Identifiability":
        """Return which directions of the params the data do not determine, and say so in words.

        Raises:
            ValueError: if the result does not hold its problem, as after `load`; and as
                `refinejax.diagnostics.identifiability`.
        """
        return self._ask("identifiability")

    def goodness_of_fit(self) -> "GoodnessOfFit":
        """Return chi-square and p-value for noise of the size that was given.

        Raises:
            ValueError: if the result does not hold its problem, as after `load`; if no noise was
                given to `refine`; and as `refinejax.diagnostics.goodness_of_fit`.
        """
        return self._ask("goodness_of_fit")

    def _ask(self, question: str, *args: Any) -> Any:
        if self.fit is None:
            raise ValueError(
                f"{question}: this result does not hold the problem that it answers (only those of "
                "`refine` do, until saved or pickled, and not for a black box); use "
                f"refinejax.diagnostics.{question}(problem, result.params)"
            )
        single = self.status.ndim == 0
        params = jax.tree.map(lambda p: np.asarray(p)[None] if single else p, self.params)
        answer = getattr(self.fit, question)(params, *args)
        return answer.squeeze() if single else answer

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an ``.npz`` file: ``params`` (or ``params[...]`` for each leaf) and the rest.

        Margins are ``margin_NAME``. Numbers of a dtype that NumPy does not know, such as bfloat16,
        are written as float32; ``dtypes`` says which. The problem is not written.

        Written under a temporary name and renamed, so that a file that exists is whole.

        Args:
            path: of the file.
        """
        write_result(path, {field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "BatchResult":
        """Read what `save` wrote. Params other than a single array come as a flat dict.

        Args:
            path: of the file.

        Returns:
            The result, without its problem.

        Raises:
            OSError: if there is no such file, or it cannot be opened.
            ValueError: if the file is damaged, or not written by `save`; names missing fields.
        """
        return cls(**read_result(path))

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields that are pickled: not the problem, whose functions may have no name."""
        return {**self.__dict__, "fit": None}

    def __copy__(self) -> "BatchResult":
        """Return a copy that holds the same arrays and problem."""
        return replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> "BatchResult":
        """Return a copy with arrays of its own; the problem is the same."""
        state: dict[str, Any] = copy.deepcopy(self.__getstate__(), memo)
        state["fit"] = self.fit
        return type(self)(**state)


def _leaves(tree: Any) -> list[np.ndarray]:
    return jax.tree.leaves(tree)


def _flat(leaf: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.reshape(leaf, (max(like.size, 1), -1))


def _quantiles(values: np.ndarray, form: str = ".3g") -> str:
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not values.size:
        return "—"
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return f"{middle:{form}} [{low:{form}}–{high:{form}}]"
