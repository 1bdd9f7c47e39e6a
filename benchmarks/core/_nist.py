"""The nonlinear regression problems of NIST's StRD: data, starts and certified values.

The files in ``data/nist`` are NIST's own (https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml;
public domain), the models are given in their headers.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

FOLDER = Path(__file__).parent / "data" / "nist"


class Regression(NamedTuple):
    """A problem and its certified solution.

    Attributes:
        model: (params, x) → prediction of y.
        x: predictors, shape (m,) or (2, m).
        y: responses, shape (m,).
        starts: two starts, shape (2, n).
        params: certified, shape (n,).
        sum_of_squares: certified.
    """

    model: Callable[[Any, Any], Any]
    x: np.ndarray
    y: np.ndarray
    starts: np.ndarray
    params: np.ndarray
    sum_of_squares: float


def load(name: str) -> Regression:
    """Read a problem."""
    lines = (FOLDER / f"{name}.dat").read_text().splitlines()
    values = [
        re.findall(r"=(.*)", line)[0].split() for line in lines if re.match(r"\s+b\d+ =", line)
    ]
    values = np.array(values, float)
    squares = next(line.split(":")[1] for line in lines if "Residual Sum of Squares" in line)
    begin = [i for i, line in enumerate(lines) if line.startswith("Data:")][-1] + 1
    table = np.array([line.split() for line in lines[begin:] if line.strip()], float).T
    y, x = table[0], table[1:] if len(table) > 2 else table[1]
    y = np.log(y) if name == "Nelson" else y
    return Regression(MODELS[name], x, y, values[:, :2].T, values[:, 2], float(squares))


def digits(found: np.ndarray, certified: np.ndarray) -> float:
    """Return the number of correct digits of the worst param (log relative error)."""
    error = np.max(np.abs(np.asarray(found, float) - certified) / np.abs(certified))
    return -np.log10(max(error, 1e-16)) if np.isfinite(error) else -np.inf


def exponentials(b, x):
    return b[0] * jnp.exp(-b[1] * x) + b[2] * jnp.exp(-b[3] * x) + b[4] * jnp.exp(-b[5] * x)


def gaussians(b, x):
    first = b[2] * jnp.exp(-((x - b[3]) ** 2) / b[4] ** 2)
    second = b[5] * jnp.exp(-((x - b[6]) ** 2) / b[7] ** 2)
    return b[0] * jnp.exp(-b[1] * x) + first + second


def cubics(b, x):
    above = b[0] + x * (b[1] + x * (b[2] + x * b[3]))
    return above / (1 + x * (b[4] + x * (b[5] + x * b[6])))


def quadratics(b, x):
    return (b[0] + x * (b[1] + x * b[2])) / (1 + x * (b[3] + x * b[4]))


def chwirut(b, x):
    return jnp.exp(-b[0] * x) / (b[1] + b[2] * x)


def saturation(b, x):
    return b[0] * (1 - jnp.exp(-b[1] * x))


def seasons(b, x):
    def wave(period, cosine, sine):
        angle = 2 * jnp.pi * x / period
        return cosine * jnp.cos(angle) + sine * jnp.sin(angle)

    return b[0] + wave(12, b[1], b[2]) + wave(b[3], b[4], b[5]) + wave(b[6], b[7], b[8])


MODELS = {
    "Bennett5": lambda b, x: b[0] * (b[1] + x) ** (-1 / b[2]),
    "BoxBOD": saturation,
    "Chwirut1": chwirut,
    "Chwirut2": chwirut,
    "DanWood": lambda b, x: b[0] * x ** b[1],
    "ENSO": seasons,
    "Eckerle4": lambda b, x: b[0] / b[1] * jnp.exp(-0.5 * ((x - b[2]) / b[1]) ** 2),
    "Gauss1": gaussians,
    "Gauss2": gaussians,
    "Gauss3": gaussians,
    "Hahn1": cubics,
    "Kirby2": quadratics,
    "Lanczos1": exponentials,
    "Lanczos2": exponentials,
    "Lanczos3": exponentials,
    "MGH09": lambda b, x: b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3]),
    "MGH10": lambda b, x: b[0] * jnp.exp(b[1] / (x + b[2])),
    "MGH17": lambda b, x: b[0] + b[1] * jnp.exp(-x * b[3]) + b[2] * jnp.exp(-x * b[4]),
    "Misra1a": saturation,
    "Misra1b": lambda b, x: b[0] * (1 - (1 + b[1] * x / 2) ** -2),
    "Misra1c": lambda b, x: b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5),
    "Misra1d": lambda b, x: b[0] * b[1] * x / (1 + b[1] * x),
    "Nelson": lambda b, x: b[0] - b[1] * x[0] * jnp.exp(-b[2] * x[1]),
    "Rat42": lambda b, x: b[0] / (1 + jnp.exp(b[1] - b[2] * x)),
    "Rat43": lambda b, x: b[0] / (1 + jnp.exp(b[1] - b[2] * x)) ** (1 / b[3]),
    "Roszman1": lambda b, x: b[0] - b[1] * x - jnp.arctan(b[2] / (x - b[3])) / jnp.pi,
    "Thurber": cubics,
}
