"""Search from rows of starts × samples: in rounds, where there are constraints."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from refinejax._core import Refiner, Stop
from refinejax.apps.latent.checks import check_begun
from refinejax.apps.latent.constraints import ROUNDS, Multipliers, violation
from refinejax.apps.latent.found import Found, SearchPath, put
from refinejax.apps.latent.method import SearchMethod
from refinejax.apps.latent.objective import LatentObjective, Report
from refinejax.apps.latent.result import (
    CandidateLosses,
    LatentResult,
    ModelAnswers,
    SampleScores,
    ranking,
)
from refinejax.apps.latent.rows import changed, each, placed
from refinejax.apps.latent.settings import Search
from refinejax.apps.latent.starts import begin_row, weight_factors
from refinejax.batch.pipeline import BatchJob, Pipeline


@dataclass(frozen=True)
class Rounds:
    """How to search; `run` does it, within a pipeline that has been entered.

    Attributes:
        pipeline: in which the rounds are run.
        method: the refiner, and the most steps of a start.
        stop: when a start is done.
        key: a PRNG key.
        search: how the search goes.
        trajectory: whether to record what the model says after each step.
    """

    pipeline: Pipeline
    method: SearchMethod
    stop: Stop
    key: Any
    search: Search
    trajectory: bool

    @property
    def size(self) -> int:
        """Rows of one call of a compiled function."""
        return self.pipeline.execution.lanes or 1

    def run(
        self,
        objective: LatentObjective,
        ids: np.ndarray,
        scale: np.ndarray,
        columns: tuple[str, ...],
    ) -> LatentResult:
        """Search from every start of every sample.

        Args:
            objective: of the samples, with a leading axis of B.
            ids: numbers of the samples, shape (B,).
            scale: of the descriptors, shape (D,).
            columns: names of the quantities asked for.

        Returns:
            Candidates for each sample.
        """
        objective = placed(objective)
        sample = AsItCame(*each(LatentObjective.sample, objective, self.size))
        objective = objective.replace(start=(objective.start[0], sample.latent))
        rows = self._rows(objective, ids)
        key_data = jax.random.key_data(self.key)
        std = jnp.asarray(self.search.std, sample.latent.dtype)
        starts = each(begin_row, rows, self.size, common=(key_data, std))
        first: Report = each(LatentObjective.report, rows, self.size, rows=(starts,))
        if objective.over == "input":
            check_begun(objective.start[0], first.place.input[:: self.search.restarts])
        found = self._refined(rows, self._weighted(rows, key_data), starts)
        return self._result(rows, sample, first, found, scale, columns)

    def _rows(self, objective: LatentObjective, ids: np.ndarray) -> LatentObjective:
        """Return the objective of every start of every sample."""
        starts = self.search.restarts
        rows = changed(objective, lambda leaf: np.repeat(leaf, starts, axis=0))
        own = np.tile(np.arange(starts, dtype=np.int32), len(ids))
        return rows.replace(key_ids=(np.repeat(ids, starts), own))

    def _weighted(self, rows: LatentObjective, key_data: Any) -> LatentObjective:
        """Return the objective with weights drawn anew, where trade-offs are wanted."""
        if not self.search.tradeoffs:
            return rows
        factors = each(weight_factors, rows, self.size, common=(key_data,))
        return rows.replace(
            targets=tuple(
                one.replace(weight=one.weight * factors[:, i]) for i, one in enumerate(rows.targets)
            )
        )

    def _refined(
        self, rows: LatentObjective, searched: LatentObjective, starts: np.ndarray
    ) -> Found:
        """Refine every row, in rounds where there are constraints."""
        equal = _equal(rows)
        multipliers = Multipliers.begin(len(starts), len(equal), starts.dtype)
        found = Found.nothing(starts)
        open_ = np.arange(len(starts))
        for number in range(ROUNDS if len(equal) else 1):
            state = searched.replace(
                multipliers=multipliers.values, stiffness=multipliers.stiffness
            )
            state = changed(state, lambda leaf, open_=open_: leaf[open_])
            params, steps, status = self._round(state, starts[open_], found, open_, number)
            starts = put(starts, open_, params)
            mine = changed(rows, lambda leaf, open_=open_: leaf[open_])
            report: Any = each(LatentObjective.report, mine, self.size, rows=(params,))
            found.add(open_, report, steps, status, equal)
            if not len(equal) or self.pipeline.early is not None:
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
        self,
        state: LatentObjective,
        starts: np.ndarray,
        found: Found,
        open_: np.ndarray,
        number: int,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Refine some rows once, as a stage of the pipeline."""
        steps = self.method.max_steps
        job = BatchJob(self.method.refiner, state, starts, steps, key=self.key, stop=self.stop)
        result = self.pipeline.run(job, f"round {number + 1}" if state.constraints else "")
        if self.trajectory:
            common = (self._with_stop(starts), jax.random.key_data(self.key))
            path = each(
                SearchPath(steps), state, self.size, rows=(starts, result.steps), common=common
            )
            found.add_path(path, open_)
        return result.params, result.steps, result.status

    def _with_stop(self, starts: np.ndarray) -> Refiner:
        return self.method.refiner.with_stop(self.stop.resolve(starts.dtype))

    def _result(
        self,
        rows: LatentObjective,
        sample: "AsItCame",
        first: Report,
        found: Found,
        scale: np.ndarray,
        columns: tuple[str, ...],
    ) -> LatentResult:
        def by_sample(leaf: Any) -> np.ndarray:
            return np.reshape(leaf, (len(sample.loss), self.search.restarts, *np.shape(leaf)[1:]))

        last: Any = jax.tree.map(by_sample, found.report)
        begun: Any = jax.tree.map(by_sample, first)
        losses = _losses(rows, last, begun)
        path, measures = found.path(), _measures(rows.closeness)
        return LatentResult(
            optimized_input=last.place.input,
            optimized_target=last.columns,
            columns=columns,
            losses=losses,
            sample=SampleScores(
                sample.columns, sample.loss, violation(sample.excess, _equal(rows))
            ),
            answers=ModelAnswers(
                latent=last.place.latent,
                prediction=last.outputs,
                roundtrip=last.returned,
                gap=np.max(np.abs(last.direct - last.columns), axis=-1, initial=0),
                std=last.std,
            ),
            distances={name: last.distances[..., i] for i, name in enumerate(measures)},
            steps=by_sample(found.steps),
            status=by_sample(found.status),
            best=np.argmin(ranking(losses.roundtrip, losses.violation), axis=1),
            trajectory=None if path is None else by_sample(path),
            scale=scale,
            seconds=self.pipeline.seconds,
            method=self.method.reason,
        )


class AsItCame(NamedTuple):
    """Latents, losses and answers of the samples as they came, see `LatentObjective.sample`.

    Attributes:
        latent: shape (B, Z).
        loss: shape (B,).
        excess: of the constraints, shape (B, m).
        columns: shape (B, T).
    """

    latent: np.ndarray
    loss: np.ndarray
    excess: np.ndarray
    columns: np.ndarray


def _losses(rows: LatentObjective, last: Any, begun: Any) -> CandidateLosses:
    """Return the losses of candidates, of reports at the end and at the start."""
    weight = float(rows.alignment)
    return CandidateLosses(
        targets=last.losses,
        roundtrip=last.score,
        total=last.score + weight * last.misalignment,
        initial=begun.score + weight * begun.misalignment,
        violation=violation(last.excess, _equal(rows)),
    )


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
