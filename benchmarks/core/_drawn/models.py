"""The models that cases are drawn for: few and small, because each compiles its own programs.

The formula is written once, in operations that NumPy and JAX share, so that SciPy fits it in
float64. In refinement it is ``unit · formula(params / scale, t)``; the reference sees it without
units.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct

TIMES = np.linspace(-1.0, 1.0, 24)


class Formula(NamedTuple):
    """A family of curves.

    Attributes:
        value: (the module of operations, params, times) → values.
        low: the least truth drawn, one for each param.
        high: the greatest.
        near: how far a start is from the truth at most, for each param.
        amplitudes: which params have the unit of the observation.
        linear: whether in its params, so that any start leads to the one optimum.
    """

    value: Callable[[Any, Any, Any], Any]
    low: tuple[float, ...]
    high: tuple[float, ...]
    near: tuple[float, ...]
    amplitudes: tuple[bool, ...]
    linear: bool = False


def _line(xp: Any, p: Any, t: Any) -> Any:
    del xp
    return p[0] + p[1] * t


def _cubic(xp: Any, p: Any, t: Any) -> Any:
    del xp
    return p[0] + t * (p[1] + t * (p[2] + t * p[3]))


def _decay(xp: Any, p: Any, t: Any) -> Any:
    return p[0] * xp.exp(-p[1] * (t + 1))


def _peak(xp: Any, p: Any, t: Any) -> Any:
    return p[0] * xp.exp(-0.5 * ((t - p[1]) / p[2]) ** 2)


FORMULAS = {
    "line": Formula(_line, (-2, -2), (2, 2), (3, 3), (True, True), linear=True),
    "cubic": Formula(_cubic, (-2,) * 4, (2,) * 4, (3,) * 4, (True,) * 4, linear=True),
    "decay": Formula(_decay, (0.5, 0.5), (2, 2), (0.3, 0.3), (True, False)),
    "peak": Formula(_peak, (0.5, -0.3, 0.3), (2, 0.3, 0.6), (0.3, 0.1, 0.1), (True, False, False)),
}


def line(params: Any) -> Any:
    """Predict a line at `TIMES`."""
    return _line(jnp, params, TIMES.astype(params.dtype))


def decay(params: Any) -> Any:
    """Predict an exponential at `TIMES`."""
    return _decay(jnp, params, TIMES.astype(params.dtype))


def line_of_dict(params: Any) -> Any:
    """Predict a line of named params."""
    return _line(jnp, (params["level"], params["slope"]), TIMES.astype(params["level"].dtype))


def line_in_numpy(params: Any) -> Any:
    """Predict a line by NumPy: a black box."""
    return np.asarray(params)[0] + np.asarray(params)[1] * TIMES


BARE = {"line": line, "decay": decay}


def _in_units(name: str, params: Any, data: Any) -> Any:
    value = FORMULAS[name].value(jnp, params / data["scale"], data["t"])
    return data["unit"] * value


def line_in_context(params: Any, context: Any) -> Any:
    """Predict a line, in the units and at the times of the context."""
    return _in_units("line", params, context)


def cubic_in_context(params: Any, context: Any) -> Any:
    """Predict a cubic, in the units and at the times of the context."""
    return _in_units("cubic", params, context)


def decay_in_context(params: Any, context: Any) -> Any:
    """Predict an exponential, in the units and at the times of the context."""
    return _in_units("decay", params, context)


def peak_in_context(params: Any, context: Any) -> Any:
    """Predict a Gaussian peak, in the units and at the times of the context."""
    return _in_units("peak", params, context)


IN_CONTEXT = {
    "line": line_in_context,
    "cubic": cubic_in_context,
    "decay": decay_in_context,
    "peak": peak_in_context,
}


class InUnits(struct.PyTreeNode):
    """A forward model that holds its times and units: its numbers are leaves.

    Attributes:
        name: of the formula.
        t: times, (m,).
        unit: of the observation.
        scale: of each param, (n,).
    """

    name: str = struct.field(pytree_node=False)
    t: Any
    unit: Any
    scale: Any

    def __call__(self, params: Any) -> Any:
        """Predict the values at the times."""
        return _in_units(self.name, params, {"t": self.t, "unit": self.unit, "scale": self.scale})
