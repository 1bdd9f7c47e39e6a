"""The search itself: starts, rounds, and what came of them, for rows of starts × samples."""

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from refinejax._core import Refiner, State, Status, Stop
from refinejax._run import run
from refinejax._trees import project
from refinejax.apps.latent.checks import check_begun
from refinejax.apps.latent.constraints import ROUNDS, TOLERANCE, Multipliers, violation
from refinejax.apps.latent.objective import LatentObjective, Report
from refinejax.apps.latent.result import LatentResult, ranking
from refinejax.apps.latent.rows import changed, each, placed
from refinejax.batch import Execution, run_batch

_DRAW = 2**31 - 3  # numbers that no step of a refiner has


@dataclass(frozen=True)
class Search:
    """How to search; `run` does it."""

    refiner: Refiner
    max_steps: int
    reason: str
    stop: Stop
    key: Any
    restarts: int
    std: Any
    tradeoffs: bool
    trajectory: bool
    execution: Execution
    progress: bool
    begun: float
    time_limit: float | None

    @property
    def rows_at_once(self) -> int:
        """Rows of one call of a compiled function."""
        return self.execution.lanes or 1

    def run(
        self,
        objective: LatentObjective,
        ids: np.ndarray,
        scale: np.ndarray,
        columns: tuple[str, ...],
    ) -> LatentResult:
        """Search from every start of every sample."""
        count, R = len(ids), self.restarts
        objective = placed(objective)
        sample = Sample(*each(LatentObjective.sample, objective, self.rows_at_once))
        objective = objective.replace(start=(objective.start[0], sample.latent))
        rows = changed(objective, lambda leaf: np.repeat(leaf, R, axis=0))
        numbers = (np.repeat(ids, R), np.tile(np.arange(R, dtype=np.int32), count))
        rows = rows.replace(key_ids=numbers)
        key_data = jax.random.key_data(self.key)
        std = jnp.asarray(self.std, sample.latent.dtype)
        starts = each(_begin, rows, self.rows_at_once, common=(key_data, std))
        searched = rows
        if self.tradeoffs:
            factors = each(_factors, rows, self.rows_at_once, common=(key_data,))
            weighed = [
                one.replace(weight=one.weight * factors[:, i]) for i, one in enumerate(rows.targets)
            ]
            searched = rows.replace(targets=tuple(weighed))
        first: Report = each(LatentObjective.report, rows, self.rows_at_once, rows=(starts,))
        if objective.over == "input":
            check_begun(objective.start[0], first.place.input[::R])
        found = self._refined(rows, searched, starts)
        return self._result(rows, sample, scale, columns, first, found)

    def _refined(
        self, rows: LatentObjective, searched: LatentObjective, starts: np.ndarray
    ) -> "Found":
        """Refine every row, in rounds where there are constraints."""
        equal = _equal(rows)
        multipliers = Multipliers.begin(len(starts), len(equal), starts.dtype)
        report: Any = None
        found = Found.nothing(starts)
        open_ = np.arange(len(starts))
        for _ in range(ROUNDS if len(equal) else 1):
            state = searched.replace(
                multipliers=multipliers.values, stiffness=multipliers.stiffness
            )
            state = changed(state, lambda leaf, open_=open_: leaf[open_])
            params, steps, status = self._round(state, starts[open_], found, open_)
            starts = put(starts, open_, params)
            mine = changed(rows, lambda leaf, open_=open_: leaf[open_])
            report = each(LatentObjective.report, mine, self.rows_at_once, rows=(params,))
            found.add(open_, report, steps, status, equal)
            if not len(equal) or np.any(np.isin(status, (Status.STOPPED, Status.TIME_LIMIT))):
                break
            excess = np.zeros((len(starts), len(equal)), starts.dtype)
            excess[open_] = report.excess
            done = multipliers.done(excess, equal)[open_]
            after = multipliers.after(excess, equal)
            multipliers = Multipliers(
                *(put(old, open_, new[open_]) for old, new in zip(multipliers, after, strict=True))
            )
            open_ = open_[~done & (status >= 0)]
            if not len(open_):
                break
        return found

    def _round(
        self, state: LatentObjective, starts: np.ndarray, found: "Found", open_: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        left = self.time_limit
        if left is not None:
            left = max(left - (time.monotonic() - self.begun), 0.0)
        result = run_batch(
            self.refiner, state, starts, self.key, max_steps=self.max_steps, stop=self.stop,
            execution=self.execution, progress=self.progress, time_limit=left,
        )  # fmt: skip
        if self.trajectory:
            path = each(
                Path(self.max_steps), state, self.rows_at_once, rows=(starts, result.steps),
                common=(self._with_stop(starts), jax.random.key_data(self.key)),
            )  # fmt: skip
            found.add_path(path, open_)
        return result.params, result.steps, result.status

    def _with_stop(self, starts: np.ndarray) -> Refiner:
        return self.refiner.with_stop(self.stop.resolve(starts.dtype))

    def _result(
        self,
        rows: LatentObjective,
        sample: "Sample",
        scale: np.ndarray,
        columns: tuple[str, ...],
        first: Report,
        found: "Found",
    ) -> LatentResult:
        R = self.restarts

        def by_sample(leaf: Any) -> np.ndarray:
            return np.reshape(leaf, (len(sample.loss), R, *np.shape(leaf)[1:]))

        last: Any = jax.tree.map(by_sample, found.report)
        begun: Any = jax.tree.map(by_sample, first)
        equal = _equal(rows)
        broken = violation(last.excess, equal)
        weight = float(rows.alignment)
        path = found.path()
        return LatentResult(
            optimized_input=last.place.input,
            optimized_target=last.columns,
            initial_score=sample.columns,
            columns=columns,
            latent=last.place.latent,
            prediction=last.outputs,
            roundtrip_prediction=last.returned,
            gap=np.max(np.abs(last.direct - last.columns), axis=-1, initial=0),
            std=last.std,
            losses=last.losses,
            roundtrip_loss=last.score,
            sample_loss=sample.loss,
            sample_violation=violation(sample.excess, equal),
            loss=last.score + weight * last.misalignment,
            initial_loss=begun.score + weight * begun.misalignment,
            violation=broken,
            distances={
                name: last.distances[..., i] for i, name in enumerate(_measures(rows.closeness))
            },
            steps=by_sample(found.steps),
            status=by_sample(found.status),
            best=np.argmin(ranking(last.score, broken), axis=1),
            trajectory=None if path is None else by_sample(path),
            scale=scale,
            seconds=time.monotonic() - self.begun,
            method=self.reason,
        )


class Sample(NamedTuple):
    """What is known of samples as they came, see `LatentObjective.sample`."""

    latent: np.ndarray
    loss: np.ndarray
    excess: np.ndarray
    columns: np.ndarray


@dataclass
class Found:
    """The best of each row so far."""

    report: Any
    steps: np.ndarray
    status: np.ndarray
    paths: list[np.ndarray]

    @classmethod
    def nothing(cls, starts: np.ndarray) -> "Found":
        """Return it before anything was refined."""
        count = len(starts)
        return cls(None, np.zeros(count, np.int32), np.zeros(count, np.int8), [])

    def add(
        self, open_: np.ndarray, report: Report, steps: np.ndarray, status: np.ndarray,
        equal: np.ndarray,
    ) -> None:  # fmt: skip
        """Take what a round has found for the rows in it, where it is better."""
        self.steps[open_] += steps
        self.status[open_] = status
        if self.report is None:
            self.report = report
            return
        before = jax.tree.map(lambda leaf: leaf[open_], self.report)
        better = _better(report, before, equal)
        self.report = jax.tree.map(
            lambda all_, some: put(all_, open_[better], some[better]), self.report, report
        )

    def add_path(self, path: np.ndarray, open_: np.ndarray) -> None:
        """Append what a round has gone through; rows that are not in it stay where they are."""
        if not self.paths:
            self.paths.append(path)
            return
        held = np.repeat(self.paths[-1][:, -1:], path.shape[1], axis=1)
        held[open_] = path
        self.paths.append(held)

    def path(self) -> np.ndarray | None:
        """Return all that rows went through, shape (N, steps, T)."""
        return np.concatenate(self.paths, axis=1) if self.paths else None


def _better(new: Any, old: Any, equal: np.ndarray) -> np.ndarray:
    """Return True where a candidate keeps the constraints at a lower loss, or breaks less."""
    kept, before = violation(new.excess, equal), violation(old.excess, equal)
    first, second = kept <= TOLERANCE, before <= TOLERANCE
    lower = np.where(first & second, new.score < old.score, first | (~second & (kept < before)))
    return lower & np.isfinite(new.score) | ~np.isfinite(old.score)


def put(all_: np.ndarray, index: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Return a copy with some rows replaced."""
    copy = np.array(all_)
    copy[index] = some
    return copy


@dataclass(frozen=True)
class Path:
    """What the model says along a search of a row; equal where the number of steps is."""

    steps: int

    def __call__(
        self, objective: LatentObjective, start: Array, ended: Array, refiner: Refiner, key: Array
    ) -> Float[Array, "steps T"]:
        """Return the columns at the start and after each step; after the last one they stay."""
        own = _own_key(objective, key)
        params = run(refiner, objective, start, own, num_steps=self.steps, record=_params).trace
        columns = jax.lax.map(lambda p: objective.report(p).columns, params)
        return columns[jnp.minimum(jnp.arange(self.steps + 1), ended)]


def _params(state: State) -> Any:
    return state.params


def _own_key(objective: LatentObjective, key: Array) -> Array:
    own = jax.random.wrap_key_data(key)
    for number in objective.key_ids:
        own = jax.random.fold_in(own, number)
    return own


def _begin(objective: LatentObjective, key: Array, std: Array) -> Array:
    """Return where a row starts: the sample itself, or near to it."""
    u = objective.begin(objective.start[0])
    draw = jax.random.fold_in(_own_key(objective, key), _DRAW)
    noise = std * jax.random.normal(draw, u.shape, u.dtype)
    return project(jnp.where(objective.key_ids[1] == 0, u, u + noise), objective.bounds)


def _factors(objective: LatentObjective, key: Array) -> Array:
    """Return factors of the targets' weights, of mean 1, uniform on a simplex; 1 for start 0."""
    draw = jax.random.fold_in(_own_key(objective, key), _DRAW - 1)
    count = len(objective.targets)
    shares = jax.random.exponential(draw, (count,), objective.stiffness.dtype)
    return jnp.where(objective.key_ids[1] == 0, 1, count * shares / jnp.sum(shares))


def _equal(objective: LatentObjective) -> np.ndarray:
    """Return which constraints are equalities."""
    if not objective.constraints:
        return np.zeros(0, bool)
    one = changed(objective, lambda leaf: leaf[0])
    return one.equal()


def _measures(closeness: tuple[Any, ...]) -> list[str]:
    """Return names of the measures, numbered where one comes twice."""
    names: list[str] = []
    for one in closeness:
        again = sum(name.split(" ")[0] == one.name for name in names)
        names.append(f"{one.name} {again + 1}" if again else one.name)
    return names
