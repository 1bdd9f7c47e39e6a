"""Which of a few wavelengths a lens was measured at.

All five params times c > 0 give the same phase: a lens that explains a map at one wavelength does
so at every other, scaled by their ratio, as long as it is then within the ranges. What tells the
wavelengths apart is therefore nothing but the ranges: in units of the wavelength, those of each are
another box, and a map tells two wavelengths apart only where the lens, or any lens on another rung
of the ladder that explains the map, lies in the one and not in the other.

One fit at any wavelength thus serves for all. By its linearization (see `cascade.rungs`) every
wavelength has a cost, which is the cost of the best rung within its box. A wavelength whose box
bends the lens is fitted again, and only while its cost by linearization is the least.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from refinejax.apps.metalens.cascade.rungs import choose, ladder
from refinejax.apps.metalens.cascade.scale import OTHERS, REFERENCE, WAVELENGTH
from refinejax.apps.metalens.problem import exact_problem
from refinejax.batch import BatchResult
from refinejax.physics.metalens.lens import LOWER, UPPER

_EQUAL = 1e-3  # log-likelihoods that differ by less are the same

Refit = Callable[[np.ndarray, np.ndarray], BatchResult]


def nearest_line(wavelength: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Return the line nearest to each wavelength; the first for one that is NaN.

    Args:
        wavelength: shape (B,) [µm]; NaN for none.
        lines: wavelengths, shape (L,) [µm].
    """
    apart = np.abs(np.asarray(wavelength, float)[:, None] - lines)
    return lines[np.argmin(np.nan_to_num(apart, nan=np.inf), axis=1)]


def choose_lines(
    maps: np.ndarray, found: BatchResult, lines: np.ndarray, near: np.ndarray, refit: Refit
) -> BatchResult:
    """Return the lenses at the wavelengths that explain the maps best.

    Args:
        maps: shape (B, N, N) [rad].
        found: lenses (B, 4) [µm] at the reference wavelength, within the ranges of any line.
        lines: the wavelengths, shape (L,) [µm].
        near: shape (B, 5) [µm]: where several lines fit the same, the lens nearest to it is taken.
        refit: numbers of some samples and their params (n, 5) → the fit at their wavelengths, with
            params (n, 5).

    Returns:
        ``found`` with params (B, 5), and margins of the "rung" at the wavelength and of the "line".
    """
    tries = _Tries(maps, found, lines, near)
    for _ in lines:
        best = tries.best()
        rows = np.flatnonzero(~tries.fitted[best, tries.all])
        if not len(rows):
            break
        tries.put(rows, best[rows], refit(rows, tries.params[best[rows], rows]))
    return tries.result()


class _Tries:
    """Fits and costs of B maps at L lines, each array of shape (L, B, ...).

    Attributes:
        cost: least difference to the log-likelihood of the best fit without ranges.
        params: the lens, moved into the ranges.
        fitted: whether it is a fit, and its cost not only a bound.
        loss, status, rung: of the lens, with the margin of its rung.
    """

    def __init__(
        self, maps: np.ndarray, found: BatchResult, lines: np.ndarray, near: np.ndarray
    ) -> None:
        count = len(maps)
        self.found, self.near, self.all = found, near, np.arange(count)
        self.known = np.isfinite(found.margins["rung"])
        self.rungs = ladder(exact_problem(maps, np.full(count, REFERENCE)), found.params)
        shape = (len(lines), count)
        self.cost, self.rung = np.full(shape, np.inf), np.full(shape, np.nan)
        self.fitted = np.zeros(shape, bool)
        self.params = np.empty((*shape, len(LOWER)), found.params.dtype)
        self.loss, self.status = (np.tile(x, (len(lines), 1)) for x in (found.loss, found.status))
        self.steps, self.counts = found.steps.copy(), found.counted()
        for i, line in enumerate(lines):
            self._try(i, line)

    def _try(self, i: int, line: float) -> None:
        lower, upper = (np.array(end)[OTHERS] for end in (LOWER, UPPER))
        scale = line / REFERENCE
        choice = choose(self.rungs, lower / scale, upper / scale)
        there = self.found.params * scale
        inside = np.all((there >= lower) & (there <= upper), axis=1)
        self.fitted[i] = inside & (choice.rung == 0) & self.known
        lens = np.where(self.fitted[i][:, None], there, np.clip(choice.lens * scale, lower, upper))
        self.params[i] = np.insert(lens, WAVELENGTH, line, axis=1)
        self.cost[i] = np.where(self.known, choice.cost, np.inf)
        self.rung[i] = np.where(self.known, choice.margin, np.nan)

    def best(self) -> np.ndarray:
        """Return the line of the least cost for each map; of several, the lens nearest to near."""
        width = np.array(UPPER) - np.array(LOWER)
        apart = np.sum(((self.params - self.near) / width) ** 2, axis=-1)
        with np.errstate(invalid="ignore"):
            ties = (self.cost <= self.cost.min(axis=0) + _EQUAL) | np.isinf(self.cost.min(axis=0))
        return np.argmin(np.where(ties, np.nan_to_num(apart, nan=np.inf), np.inf), axis=0)

    def put(self, rows: np.ndarray, lines: np.ndarray, fit: BatchResult) -> None:
        """Take fits at some lines."""
        at = lines, rows
        self.params[at], self.loss[at], self.status[at] = fit.params, fit.loss, fit.status
        self.rung[at], self.fitted[at] = fit.margins["rung"], True
        self.steps[rows] += fit.steps
        self.counts[rows] += fit.counted()
        excess = (fit.loss - self.rungs.least[rows]) / self.rungs.unit[rows]
        known = self.known[rows]
        # nothing is known: the nearest line, fitted once, and no other
        self.cost[at] = np.where(known, np.fmax(excess, self.cost[at]), -np.inf)

    def result(self) -> BatchResult:
        """Put the result together."""
        best = self.best()
        at = best, self.all
        others = np.where(np.arange(len(self.cost))[:, None] == best, np.inf, self.cost).min(axis=0)
        margin = np.where(self.known, others - np.where(self.known, self.cost[at], 0), np.nan)
        return replace(
            self.found.with_counts(self.counts),
            params=self.params[at],
            loss=self.loss[at],
            status=self.status[at],
            steps=self.steps,
            margins={"rung": self.rung[at], "line": margin},
        )
