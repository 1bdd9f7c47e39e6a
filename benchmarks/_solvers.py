"""Least-squares methods behind one signature, for problems of a few params taken one by one.

Each gets residuals as a function of JAX, a start, bounds or None, and the most evaluations of the
residual; each is told to go on to rounding. SciPy gets exact Jacobians by JAX, compiled beforehand.
"""

from collections.abc import Callable
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
FLOAT32 = Stop(gradient=-1.0, loss=-1.0, step=0.0, patience=40)


class Found(NamedTuple):
    """Where a method ended, what it says of it, and how many steps or evaluations it took."""

    params: np.ndarray
    status: str
    steps: int


Method = Callable[[Residual, np.ndarray, Bounds | None, int], Found]


def ours(residual: Residual, start: np.ndarray, bounds: Bounds | None, budget: int) -> Found:
    """`LevenbergMarquardt`; a step is an evaluation of residual and Jacobian."""
    space = None if bounds is None else ParameterSpace.create((), *bounds)
    zeros = jnp.zeros(jax.eval_shape(residual, jnp.asarray(start)).shape, start.dtype)
    result = run_until(
        LevenbergMarquardt(),
        InverseProblem(residual, zeros, space=space),
        jnp.asarray(start),
        max_steps=budget - 1,
        stop=STRICT if start.dtype == np.float64 else FLOAT32,
    )
    return Found(np.asarray(result.params), Status(int(result.status)).name, int(result.steps))


def scipy(method: str, x_scale: Any = 1.0) -> Method:
    """Return SciPy's ``least_squares`` by one of its methods; a failure ends where it began."""

    def solve(residual: Residual, start: np.ndarray, bounds: Bounds | None, budget: int) -> Found:
        from scipy.optimize import least_squares

        value, slope = jax.jit(residual), jax.jit(jax.jacfwd(residual))
        eps = float(np.finfo(start.dtype).eps)
        limits = {} if bounds is None else {"bounds": bounds}
        try:
            with np.errstate(all="ignore"):
                fit = least_squares(
                    lambda x: np.asarray(value(x.astype(start.dtype)), float),
                    start.astype(float),
                    jac=lambda x: np.asarray(slope(x.astype(start.dtype)), float),  # pyright: ignore[reportArgumentType]
                    method=method,  # pyright: ignore[reportArgumentType]
                    x_scale=x_scale,
                    ftol=eps,
                    xtol=eps,
                    gtol=eps,
                    max_nfev=budget,
                    **limits,
                )
        except (ValueError, np.linalg.LinAlgError) as error:  # residuals that are not finite
            return Found(start, str(error), 0)
        return Found(fit.x, str(fit.message), int(fit.nfev))

    return solve


def optimistix(residual: Residual, start: np.ndarray, bounds: Bounds | None, budget: int) -> Found:
    """Optimistix' Levenberg–Marquardt, which knows no bounds."""
    import optimistix as optx  # pyright: ignore[reportMissingImports]  # in the extra `bench`

    del bounds
    eps = float(jnp.finfo(start.dtype).eps)
    solver = optx.LevenbergMarquardt(rtol=eps, atol=eps**2)
    fit = optx.least_squares(
        lambda x, _: residual(x), solver, jnp.asarray(start), max_steps=budget, throw=False
    )
    return Found(np.asarray(fit.value), str(fit.result), int(fit.stats["num_steps"]))
