"""How many problems of the standard sets are solved: NIST's and Moré and Wild's.

**NIST**: both starts of 27 regressions; right are six digits of every param in float64, three in
float32. **Moré and Wild**, float64: solved is f₀ − f ≥ (1 − τ)(f₀ − f_L) with τ = 1e-7 (their
eq. 2.1), f_L the least sum of squares that is known or that any method here finds; exact, which
asks for more where f₀ is large, is f ≤ (1 + 1e-6) f_L + 1e-10.

**With bounds**: SciPy's `lm` without bounds goes from the start x₀ to some x*. The box reaches from
x₀ half the way to x* in every other param (the optimum is cut off), twice the way in the rest, and
once the way to the other side. A way shorter than a tenth of |x₀|, or 0.1, is taken to be that,
upward.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.core import _more_wild, _nist
from benchmarks.harness import note
from benchmarks.peers.least_squares import BOUNDED, UNBOUNDED, Bounds, Method, optimistix, scipy

MOST = 500
TAU = 1e-7
DIGITS = {"float64": 6, "float32": 3}


def nist(quick: bool) -> list[dict[str, Any]]:
    """Return, for each method and dtype, the digits from each start."""
    methods = {(name, MOST): method for name, method in UNBOUNDED.items() if "trf" not in name}
    if "optimistix LM" in UNBOUNDED:
        methods["optimistix LM", 10 * MOST] = optimistix
    names = ["Misra1a"] if quick else list(_nist.MODELS)
    rows = []
    for dtype, wanted in DIGITS.items():
        note(f"NIST, {dtype}")
        found: dict[tuple[str, int], dict[str, list[float | None]]] = {key: {} for key in methods}
        every = _each(lambda name, dtype=dtype: _digits(name, dtype, methods), names)
        for name, ends in zip(names, every, strict=True):
            for key, digits in ends.items():
                found[key][name] = digits
        rows += [_nist_row(key, dtype, wanted, digits) for key, digits in found.items()]
        jax.clear_caches()  # thousands of programs would use up the memory maps of the process
    return rows


def _digits(
    name: str, dtype: str, methods: Mapping[tuple[str, int], Method]
) -> dict[tuple[str, int], list[float | None]]:
    known = _nist.load(name)
    with jax.enable_x64(dtype == "float64"):
        x, y = (jnp.asarray(array, dtype) for array in (known.x, known.y))

        def residual(params: jax.Array) -> jax.Array:
            return known.model(params, x) - y

        starts = known.starts.astype(dtype)
        ends = {
            key: [method(residual, start, None, key[1]).params for start in starts]
            for key, method in methods.items()
        }
    return {
        key: [_number(_nist.digits(params, known.params)) for params in found]
        for key, found in ends.items()
    }


def _nist_row(
    key: tuple[str, int], dtype: str, wanted: int, digits: dict[str, list[float | None]]
) -> dict[str, Any]:
    each = [(name, i + 1, d) for name, both in digits.items() for i, d in enumerate(both)]
    failed = [f"{name} {start}" for name, start, d in each if d is None or d < wanted]
    return {
        "method": key[0],
        "steps": key[1],
        "dtype": dtype,
        "digits_wanted": wanted,
        "of": len(each),
        "right": len(each) - len(failed),
        "failed": failed,
        "digits": digits,
    }


def more_wild(quick: bool) -> dict[str, Any]:
    """Return each method's count, without bounds and with, and every problem."""
    problems = _more_wild.problems()
    problems = problems[6:10:3] if quick else problems
    data: dict[str, Any] = {"tau": TAU, "steps": MOST}
    for key, methods, box in (("unbounded", UNBOUNDED, None), ("bounded", BOUNDED, box_of)):
        note(f"Moré and Wild, {key}")
        rows = _each(lambda p, methods=methods, box=box: _race(p, methods, box), problems)
        jax.clear_caches()
        data[key] = {"summary": [_summary(name, rows) for name in methods], "problems": rows}
    return data


def _each(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Map in threads: most of the time goes into compilation, and none is timed."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, items))


def box_of(problem: _more_wild.Problem) -> Bounds:
    """Return the box of a problem (see above)."""
    with jax.enable_x64(True):
        there = scipy("lm", "jac")(problem.residual, problem.start, None, MOST).params
    way = there - problem.start
    shortest = 0.1 * np.maximum(1, np.abs(problem.start))
    ahead = np.where(np.abs(way) < shortest, shortest, way)  # upward where there is no way
    share = np.where(np.arange(len(way)) % 2 == 0, 0.5, 2.0)
    ends = problem.start + share * ahead, problem.start - ahead
    return np.minimum(*ends), np.maximum(*ends)


def _race(
    problem: _more_wild.Problem,
    methods: Mapping[str, Method],
    box: Callable[[_more_wild.Problem], Bounds] | None,
) -> dict[str, Any]:
    with jax.enable_x64(True):
        bounds = None if box is None else box(problem)
        found = {
            name: method(problem.residual, problem.start, bounds, MOST)
            for name, method in methods.items()
        }
    sums = {name: _more_wild.sum_of_squares(problem, end.params) for name, end in found.items()}
    first, least = _more_wild.sum_of_squares(problem, problem.start), min(sums.values())
    if box is None and least > 1.01 * problem.least + 1e-8:  # no method reached the known minimum
        least = problem.least
    return {
        "problem": problem.name,
        "at_start": first,
        "least": least,
        "bounds": None if bounds is None else [side.tolist() for side in bounds],
        "methods": {
            name: {
                "sum": _number(total),
                "solved": first - total >= (1 - TAU) * (first - least),
                "exact": total <= (1 + 1e-6) * least + 1e-10,
                "steps": found[name].steps,
                "status": found[name].status,
            }
            for name, total in sums.items()
        },
    }


def _summary(method: str, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    own = {row["problem"]: row["methods"][method] for row in rows}
    return {
        "method": method,
        "of": len(own),
        "solved": sum(row["solved"] for row in own.values()),
        "exact": sum(row["exact"] for row in own.values()),
        "failed": [name for name, row in own.items() if not row["solved"]],
        "inexact": [name for name, row in own.items() if not row["exact"]],
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
