"""When a population has nothing more to find: the rules of pycma, for any strategy."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from refinejax._core import Scalar, Status, Stop
from refinejax.refiners.population.ranks import Order

_SPARSE = 5  # the long histories keep one generation in so many


class History(struct.PyTreeNode):
    """What the rules look back on, newest first; ∞ where nothing has been yet.

    Attributes:
        best: least loss of each of the last generations.
        long_best, long_median: of one generation in five, for stagnation.
        generations: since the start (or restart).
        first: least loss of the first generation.
        record: least loss since then.
        record_age: generations since it was found.
        flat: generations in a row in which most losses were the same.
    """

    best: Float[Array, " h"]
    long_best: Float[Array, " l"]
    long_median: Float[Array, " l"]
    generations: Int[Array, ""]
    first: Scalar
    record: Scalar
    record_age: Int[Array, ""]
    flat: Int[Array, ""]

    @classmethod
    def blank(cls, n: int, size: int, dtype: Any) -> "History":
        """Return an empty history for populations of ``size`` (or more) in n dimensions.

        Args:
            n: number of params.
            size: the smallest population.
            dtype: of the losses.
        """
        short = _short(n, size)
        long = 2 * math.ceil(_patience(n, size) / (2 * _SPARSE))

        def full(length: int) -> Array:
            return jnp.full((length,), jnp.inf, dtype)

        zero = jnp.int32(0)
        none = jnp.full((), jnp.inf, dtype)
        return cls(full(math.ceil(short)), full(long), full(long), zero, none, none, zero, zero)

    def after(self, order: Order, size: Any) -> "History":
        """Return the history after a generation whose losses are the first ``size`` in order.

        Args:
            order: of the losses of the generation.
            size: how many of them count.
        """
        size = jnp.asarray(size, jnp.int32)
        least, median = order.at(jnp.int32(0)), order.at((size - 1) // 2)
        keep = self.generations % _SPARSE == 0
        better = least < self.record
        same = least >= order.at((3 * size) // 4)
        return self.replace(
            best=_push(self.best, least),
            long_best=jnp.where(keep, _push(self.long_best, least), self.long_best),
            long_median=jnp.where(keep, _push(self.long_median, median), self.long_median),
            generations=self.generations + 1,
            first=jnp.where(self.generations == 0, least, self.first),
            record=jnp.minimum(least, self.record),
            record_age=jnp.where(better, 0, self.record_age + 1),
            flat=jnp.where(same, self.flat + 1, 0),
        )


class Extent(NamedTuple):
    """How far the candidates of a generation are apart, in initial standard deviations.

    Attributes:
        stds: standard deviations along the axes, shape (n,).
        trail: the evolution path, shape (n,); 0 for none.
        condition: of C; 1 where there is none.
        resolution: spacing of floating-point numbers at the params, shape (n,).
    """

    stds: Float[Array, " n"]
    trail: Array
    condition: Array
    resolution: Float[Array, " n"]


class Halting(struct.PyTreeNode):
    """Tolerances by which a population ends. A negative number: never by this.

    They are those of pycma (``CMAOptions``; Hansen, arXiv:1604.00772, appendix B.3), but that
    ``tolfun``, absolute there, is relative to the descent so far: no unit of the loss matters.
    ``tolx`` is in initial standard deviations. Beside them the driver's relative `Stop.loss` and
    `Stop.step` hold, so that a run also ends where its dtype resolves no more.

    Attributes:
        tolfun: range of the losses of the last 10 + 30n/λ best and of a generation, relative to the
            descent from the best of the first generation (``CONVERGED_LOSS``).
        tolx: standard deviation along every axis, and the evolution path (``CONVERGED_STEP``).
        tolconditioncov: condition of C (``SINGULAR``); not beyond 1/ε.
        tolstagnation: generations without a better median; default 100 + 100n^1.5/λ (``STALLED``).
        tolflatfitness: generations in a row of which three quarters of the losses are the same
            (``CONVERGED_LOSS`` after a descent, ``STALLED`` where it was flat all along). Where the
            initial standard deviation is below the spacing of numbers at the params, ``STALLED``.
        tolfacupx: growth of the standard deviation along any axis (``DIVERGED``).
    """

    tolfun: Any = 1e-15
    tolx: Any = 1e-11
    tolconditioncov: Any = 1e14
    tolstagnation: Any = None
    tolflatfitness: Any = 1
    tolfacupx: Any = 1e3

    def status(
        self,
        history: History,
        order: Order,
        size: Any,
        extent: Extent,
        stop: Stop,
    ) -> Int[Array, ""]:
        """Return how the population has ended, or ``RUNNING``.

        Args:
            history: after this generation.
            order: of its losses, of which the first ``size`` count.
            size: of the population.
            extent: of the candidates.
            stop: the driver's rules, resolved.
        """
        stds, trail, condition, resolution = extent
        n, dtype = stds.shape[0], stds.dtype
        least = history.record
        flat = (history.flat > self.tolflatfitness) & (jnp.asarray(self.tolflatfitness) >= 0)
        descent = jnp.maximum(history.first - least, 0)
        tolfun = jnp.maximum(self.tolfun * descent, stop.loss * jnp.abs(least))
        recent = jnp.arange(history.best.shape[0]) < jnp.asarray(_short(n, size))
        last = jnp.where(recent, history.best, history.best[0])
        lately, now = jnp.max(last) - jnp.min(last), order.at(size - 1) - order.at(0)
        still = ((now <= tolfun) & (lately <= tolfun)) | (lately <= 0.1 * tolfun)
        still &= history.generations >= jnp.asarray(_short(n, size))
        still &= jnp.asarray(self.tolfun) >= 0
        tolx = jnp.maximum(self.tolx, stop.step * resolution / jnp.finfo(dtype).eps)
        narrow = jnp.all(stds < tolx) & jnp.all(jnp.abs(trail) < tolx)
        lost = jnp.any(0.2 * stds < resolution / 2)  # adding it would not change the params
        # Where that is so of the standard deviation given, nothing has been found.
        narrow = (narrow | lost) & ~jnp.any(resolution / 2 > 0.2)
        limit = jnp.minimum(self.tolconditioncov, 1 / jnp.finfo(dtype).eps)
        return jnp.select(
            [
                ~jnp.all(jnp.isfinite(stds)),
                still | (flat & (least < history.first)),
                narrow & (jnp.asarray(self.tolx) >= 0),
                (condition > limit) & (limit >= 0),
                flat | (lost & (jnp.asarray(self.tolx) >= 0)),
                self._stagnant(history, n, size),
                jnp.any(stds > self.tolfacupx) & (jnp.asarray(self.tolfacupx) >= 0),
            ],
            [
                jnp.int32(status)
                for status in (
                    Status.DIVERGED,
                    Status.CONVERGED_LOSS,
                    Status.CONVERGED_STEP,
                    Status.SINGULAR,
                    Status.STALLED,
                    Status.STALLED,
                    Status.DIVERGED,
                )
            ],
            jnp.int32(Status.RUNNING),
        )

    def _stagnant(self, history: History, n: int, size: Any) -> Bool[Array, ""]:
        """Whether medians of the newer half of the long histories are no better than the older."""
        patience = _patience(n, size) if self.tolstagnation is None else self.tolstagnation
        half = jnp.floor(jnp.asarray(patience) / (2 * _SPARSE)).astype(jnp.int32)
        half = jnp.clip(half, 1, history.long_best.shape[0] // 2)
        return (
            (history.generations > jnp.maximum(n * (5 + 100 / size), 2 * half * _SPARSE))
            & (history.record_age > jnp.asarray(patience) / 2)
            & _no_better(history.long_median, half)
            & _no_better(history.long_best, half)
            & (jnp.asarray(patience) >= 0)
        )


def _short(n: int, size: Any) -> Any:
    return 10 + 30 * n / size


def _patience(n: int, size: Any) -> Any:
    return 100 + 100 * n**1.5 / size


def _push(values: Array, new: Array) -> Array:
    return jnp.concatenate([new[None], values[:-1]])


def _no_better(values: Array, half: Array) -> Bool[Array, ""]:
    at = jnp.arange(values.shape[0])
    newer = _median(jnp.where(at < half, values, jnp.inf), half)
    older = _median(jnp.where((at >= half) & (at < 2 * half), values, jnp.inf), half)
    return newer >= older


def _median(values: Array, count: Array) -> Array:
    """Return the (lower) median of ``count`` values, the rest being ∞."""
    return jnp.sort(values)[(count - 1) // 2]
