"""Least-squares methods behind one signature, for problems of a few params taken one by one.

Each gets residuals as a function of JAX, a start, bounds or None, and the most steps (SciPy: the
most evaluations); each is told to go on to rounding. SciPy gets exact Jacobians by JAX, compiled.
"""

import threading
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from refinejax import InverseProblem, LevenbergMarquardt, ParameterSpace, Status, Stop, run_until

Residual = Callable[[Array], Array]
Bounds = tuple[np.ndarray, np.ndarray]
STRICT = Stop(gradient=-1.0)
# In float32 the loss is level long before the gradient is.
FLOAT32 = Stop(gradient=-1.0, loss=-1.0)

_ONE_AT_A_TIME = threading.Lock()  # MINPACK in SciPy before 1.15 keeps its callbacks in globals


class Found(NamedTuple):
    """The end of a method: params, its own status, and its steps or evaluations."""

    params: np.ndarray
    status: str
    steps: int


Method = Callable[[Residual, np.ndarray, Bounds | None, int], Found]


def refinejax(residual: Residual, start: np.ndarray, bounds: Bounds | None, most: int) -> Found:
    """`LevenbergMarquardt`; a step is an evaluation of residual and Jacobian."""
    space = None if bounds is None else ParameterSpace.create((), *bounds)
    zeros = jnp.zeros(jax.eval_shape(residual, jnp.asarray(start)).shape, start.dtype)
    result = run_until(
        LevenbergMarquardt(),
        InverseProblem(residual, zeros, space=space),
        jnp.asarray(start),
        max_steps=most,
        stop=STRICT if start.dtype == np.float64 else FLOAT32,
    )
    return Found(np.asarray(result.params), Status(int(result.status)).name, int(result.steps))


def scipy(method: str, x_scale: Any = 1.0) -> Method:
    """Return SciPy's ``least_squares`` by one of its methods; an exception ends it at the start."""

    def solve(residual: Residual, start: np.ndarray, bounds: Bounds | None, most: int) -> Found:
        from scipy.optimize import least_squares

        value, slope = jax.jit(residual), jax.jit(jax.jacfwd(residual))
        eps = float(np.finfo(float).eps)
        limits: dict[str, Any] = {} if bounds is None else {"bounds": bounds}
        jax.block_until_ready((value(start), slope(start)))  # compiled outside of the lock
        try:
            with _ONE_AT_A_TIME, np.errstate(all="ignore"):
                fit = least_squares(
                    lambda x: np.asarray(value(x.astype(start.dtype)), float),
                    start.astype(float),
                    jac=lambda x: np.asarray(slope(x.astype(start.dtype)), float),  # pyright: ignore[reportArgumentType]
                    method=method,  # pyright: ignore[reportArgumentType]
                    x_scale=x_scale,
                    ftol=eps,
                    xtol=eps,
                    gtol=eps,
                    max_nfev=most,
                    **limits,
                )
        except (ValueError, np.linalg.LinAlgError) as error:  # residuals that are not finite
            return Found(start, str(error), 0)
        return Found(np.asarray(fit.x), str(fit.message), int(fit.nfev))

    return solve


def optimistix(residual: Residual, start: np.ndarray, bounds: Bounds | None, most: int) -> Found:
    """Optimistix' Levenberg–Marquardt, which knows no bounds."""
    import optimistix as optx  # pyright: ignore[reportMissingImports]  # in the extra `bench`

    del bounds
    eps = float(jnp.finfo(start.dtype).eps)
    fit = optx.least_squares(
        lambda x, _: residual(x),
        optx.LevenbergMarquardt(rtol=eps, atol=eps**2),
        jnp.asarray(start),
        max_steps=most,
        throw=False,
    )
    ended = "" if fit.result == optx.RESULTS.successful else optx.RESULTS[fit.result]
    return Found(np.asarray(fit.value), ended or "successful", int(fit.stats["num_steps"]))


OURS = "refinejax LM"
UNBOUNDED: Mapping[str, Method] = {
    OURS: refinejax,
    "SciPy `lm`": scipy("lm"),
    'SciPy `lm`, `x_scale="jac"`': scipy("lm", "jac"),
    'SciPy `trf`, `x_scale="jac"`': scipy("trf", "jac"),
    **({"optimistix LM": optimistix} if find_spec("optimistix") else {}),
}
BOUNDED: Mapping[str, Method] = {
    OURS: refinejax,
    "SciPy `trf`": scipy("trf"),
    'SciPy `trf`, `x_scale="jac"`': scipy("trf", "jac"),
    "SciPy `dogbox`": scipy("dogbox"),
    'SciPy `dogbox`, `x_scale="jac"`': scipy("dogbox", "jac"),
}
