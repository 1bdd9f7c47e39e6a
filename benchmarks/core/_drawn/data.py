"""From a case to arrays: what the library is given, and the same in float64 without units."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.core._drawn.cases import FRAMES, Case, Frame
from benchmarks.core._drawn.models import FORMULAS, TIMES, Formula


class Drawn(NamedTuple):
    """The numbers of a case, float64, B samples of m observations and n params.

    Attributes:
        observed: in its unit, (B, m); NaN where nothing was observed.
        sigma: standard deviations that are given to the fit, (B, m), or None.
        unit: of the observations, as the reference divides by it.
        scale: of each param, (n,).
        truth: (B, n), in units.
        start: (B, n), in units.
        lower: (n,), in units; or None.
        upper: (n,).
        hidden: True where a mask or a NaN hides what was observed, (B, m).
    """

    observed: np.ndarray
    sigma: np.ndarray | None
    unit: float
    scale: np.ndarray
    truth: np.ndarray
    start: np.ndarray
    lower: np.ndarray | None
    upper: np.ndarray | None
    hidden: np.ndarray


def make(case: Case) -> Drawn:
    """Draw the numbers of a case; the same each time."""
    rng = np.random.default_rng(case.seed)
    frame = FRAMES[case.frame]
    formula, count = FORMULAS[frame.model], max(case.samples, 1)
    unit, scale = _units(case, frame, formula)
    low, high = np.array(formula.low, float), np.array(formula.high, float)
    truth = rng.uniform(low, high, (count, len(low)))
    start = _starts(rng, case, formula, truth)
    values = np.stack([formula.value(np, p, TIMES) for p in truth])
    observed = values + case.spread * rng.normal(size=values.shape)
    hidden = _hidden(rng, case, len(low), observed.shape)
    if case.missing == "infinite":
        observed = np.where(hidden, np.inf, observed)
        hidden = np.zeros_like(hidden)
    sigma = _sigma(rng, case, frame, observed.shape)
    lower, upper = (None, None)
    if frame.bounded:
        lower, upper = (bound * scale for bound in _bounds(case, formula, truth))
        if case.bounds == "numbers":  # one for all params, whatever their units
            lower, upper = np.full_like(lower, lower.min()), np.full_like(upper, upper.max())
    return Drawn(
        observed=observed * unit,
        sigma=None if sigma is None else sigma * unit,
        unit=unit,
        scale=scale,
        truth=truth * scale,
        start=start * scale,
        lower=lower,
        upper=upper,
        hidden=hidden,
    )


def _units(case: Case, frame: Frame, formula: Formula) -> tuple[float, np.ndarray]:
    """Return the unit of the observations and those of the params.

    A model without a place for units has those that follow from the unit of the observations.
    """
    if frame.form in ("context", "object"):
        return case.unit, np.array(case.scales[: len(formula.low)])
    return case.unit, np.where(formula.amplitudes, case.unit, 1.0)


def _starts(rng: Any, case: Case, formula: Formula, truth: np.ndarray) -> np.ndarray:
    near = truth + np.array(formula.near, float) * rng.uniform(-1, 1, truth.shape)
    if case.start == "truth":
        return truth
    if case.start == "shared":
        return np.broadcast_to(np.mean([formula.low, formula.high], axis=0), truth.shape).copy()
    if case.start in ("zero", "far") and formula.linear:
        return np.zeros_like(truth) if case.start == "zero" else 1e3 * near
    if case.start == "outside":
        return truth + 2 * np.array(formula.near, float) if formula.linear else near
    if case.start == "NaN":
        near[0, 0] = np.nan
    return near


def _hidden(rng: Any, case: Case, size: int, shape: tuple[int, int]) -> np.ndarray:
    hidden = np.zeros(shape, bool)
    if case.missing in ("some", "mask"):
        return rng.uniform(size=shape) < 0.2
    if case.missing == "all of one":
        hidden[-1] = True
    if case.missing == "few":  # fewer than params
        hidden[-1, size - 1 :] = True
    if case.missing == "infinite":
        hidden[-1, 3] = True
    return hidden


def _sigma(rng: Any, case: Case, frame: Frame, shape: tuple[int, int]) -> np.ndarray | None:
    if frame.noise == "none":
        return None
    size = {"pixels": (1, shape[1]), "samples": (shape[0], 1), "all": shape}[frame.noise]
    sigma = max(case.spread, 1e-3) * rng.uniform(0.5, 2.0, size)
    special = {"true": sigma[0, 0], "zero": 0.0, "infinite": np.inf}
    sigma[0, 0] = special[case.said]
    return np.broadcast_to(sigma, shape)


def _bounds(case: Case, formula: Formula, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.array(formula.low, float), np.array(formula.high, float)
    reach = np.maximum(np.array(formula.near, float), 0.1)
    lower, upper = low - reach, high + reach
    if not formula.linear:  # the times of an exponential, the width of a peak: above 0
        lower = np.maximum(lower, 0.1 * low) if np.all(low > 0) else np.where(low > 0, 0.1, lower)
    if case.bounds == "huge":
        return np.full_like(low, -1e20), np.full_like(high, 1e20)
    if case.bounds == "infinite":
        return np.full_like(low, -np.inf), np.full_like(high, np.inf)
    if case.bounds in ("one-sided", "with None"):
        upper = np.full_like(high, np.inf)
    if case.bounds == "tight":
        upper[-1] = truth[:, -1].min() - 0.05
        lower[-1] = min(lower[-1], upper[-1] - 0.5)
    if case.bounds == "equal":
        lower[0] = upper[0] = truth[0, 0]
    if case.bounds == "inverted":
        lower, upper = upper, lower
    return lower, upper


def as_arrays(kind: str, dtype: str, values: np.ndarray, hidden: np.ndarray | None = None) -> Any:
    """Return values in one of the ways that people hold them.

    Args:
        kind: a word of `ARRAYS`.
        dtype: of the arrays, but for lists and "float64".
        values: float64.
        hidden: where to hide values by a mask, with a wrong number beneath; or None.
    """
    array = np.array(values, dtype)
    if hidden is not None:
        return np.ma.masked_array(np.where(hidden, 7 * array.flat[0], array), hidden)
    if kind == "list":
        return array.tolist()
    if kind == "jax":
        return jnp.asarray(array)
    if kind == "big-endian":
        return array.astype(array.dtype.newbyteorder(">"))
    if kind == "strided" and array.ndim:
        return np.repeat(array, 2, axis=-1)[..., ::2]
    if kind == "float64":
        return values
    array.flags.writeable = kind != "read-only"
    return array


def as_given(case: Case, drawn: Drawn) -> Drawn:
    """Return what a fit can know: observations and starts as rounded to the dtype."""
    frame = FRAMES[case.frame]

    def rounded(values: np.ndarray) -> np.ndarray:
        return values if case.arrays == "float64" else values.astype(frame.dtype).astype(float)

    return drawn._replace(observed=rounded(drawn.observed), start=rounded(drawn.start))


def leading(case: Case, tree: Any) -> Any:
    """Drop the sample axis where the case is one sample."""
    return tree if case.samples else jax.tree.map(lambda leaf: leaf[0], tree)
