"""The problem and the recipe of `adam_tto`: maps with off starts, Adam and L-BFGS on them."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from refinejax import Gradient, InverseProblem, ParameterSpace, Refiner, Stop, refine, run_batch
from refinejax.physics.metalens.lens import LOWER, NAMES, UPPER, channels, phase

SIZE, SOLVED, EXACT = 64, 1e-3, 2e-3
ERRORS = (1e-4, 1e-3, 1e-2, 5e-2)
RATES = (1e-2, 1e-3, 1e-4, 1e-5)
LOW, WIDTH = np.array(LOWER), np.array(UPPER) - np.array(LOWER)
FREE = {"five": (0, 1, 2, 3, 4), "known": (0, 1, 2, 4)}  # columns of params; without wavelength


class Batch(NamedTuple):
    """Samples: truth and normalized starts (B, 5), wrapped phase (B, n, n), both float64."""

    truth: np.ndarray
    unit: np.ndarray
    maps: np.ndarray

    @property
    def observed(self) -> np.ndarray:
        """The channels, float32 (B, 2, n, n)."""
        return np.stack([np.cos(self.maps), np.sin(self.maps)], axis=1).astype(np.float32)


class Recipe(NamedTuple):
    """Adam, its (peak) learning rate, and how many steps."""

    schedule: str
    rate: float
    steps: int

    @property
    def refiner(self) -> Refiner:
        """The same as a refiner."""
        if self.schedule == "constant":
            return Gradient(optax.adam, {"learning_rate": self.rate})
        return Gradient(cosine_adam, {"peak": self.rate, "steps": self.steps})


def cosine_adam(peak: Any, steps: int) -> optax.GradientTransformation:
    """Adam whose learning rate falls from its peak to 0 along a cosine."""
    return optax.adam(optax.cosine_decay_schedule(peak, steps))


def phase64(params: np.ndarray, size: int = SIZE) -> np.ndarray:
    """The unwrapped phase in float64 with NumPy, apart from the code that is measured."""
    xc, yc, side, wavelength, focal = (p[:, None, None] for p in params.astype(np.float64).T)
    axis = np.linspace(-0.5, 0.5, size)
    r2 = (xc + side * axis[None, :]) ** 2 + (yc + side * axis[:, None]) ** 2
    return 2 * math.pi / wavelength * (np.sqrt(r2 + focal**2) - focal)


def make_batch(error: float, free: str, count: int, seed: int) -> Batch:
    """Draw truths over the full ranges, and starts off by ``error`` of the range."""
    random = np.random.default_rng(seed)
    truth = random.uniform(size=(count, 5))
    moved = np.clip(truth + error * random.standard_normal((count, 5)), 0, 1)
    columns = list(FREE[free])
    unit = truth.copy()
    unit[:, columns] = moved[:, columns]
    params = LOW + truth * WIDTH
    return Batch(params, unit, np.angle(np.exp(1j * phase64(params))))


def judge(batch: Batch, params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return loss and residual RMSE [rad] of each sample, in float64."""
    difference = np.angle(np.exp(1j * (phase64(params) - batch.maps)))
    loss = np.mean(1 - np.cos(difference), axis=(1, 2))  # ½((Δcos)² + (Δsin)²), over pixels
    return loss, np.sqrt(np.mean(difference**2, axis=(1, 2)))


def five(unit: Array) -> Array:
    """Channels at normalized params."""
    return channels(_params(unit), SIZE)


def known(unit: Array, wavelength: Array) -> Array:
    """Channels at normalized params without the wavelength."""
    xc, yc, side, focal = unit
    whole = (wavelength - LOWER[3]) / (UPPER[3] - LOWER[3])
    return channels(_params(jnp.stack([xc, yc, side, whole, focal])), SIZE)


def _params(unit: Array) -> Array:
    return jnp.asarray(LOW, unit.dtype) + unit * jnp.asarray(WIDTH, unit.dtype)


def adam(batch: Batch, free: str, recipe: Recipe) -> np.ndarray:
    """Refine by the recipe with the batch engine; return params (B, 5)."""
    problem, starts = recipe_problem(batch, free)
    return denormalize(batch, free, engine(problem, starts, recipe))


def recipe_problem(batch: Batch, free: str) -> tuple[InverseProblem, np.ndarray]:
    """Return the normalized problem and its starts."""
    starts = batch.unit[:, list(FREE[free])].astype(np.float32)
    if free == "five":
        return InverseProblem(five, batch.observed), starts
    wavelength = batch.truth[:, 3].astype(np.float32)
    return InverseProblem(known, batch.observed, context=wavelength), starts


def engine(problem: InverseProblem, starts: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Take all steps of the recipe; return the best normalized params."""
    stop = Stop.never()
    return run_batch(recipe.refiner, problem, starts, max_steps=recipe.steps, stop=stop).params


def denormalize(batch: Batch, free: str, unit: np.ndarray) -> np.ndarray:
    """Put normalized params back into µm, with the wavelength if it was known."""
    whole = batch.unit.copy()
    whole[:, list(FREE[free])] = unit
    return LOW + whole * WIDTH


def lbfgs(batch: Batch, free: str) -> np.ndarray:
    """Refine through `refine`, L-BFGS by its defaults; return params (B, 5)."""
    columns = list(FREE[free])
    lower, upper = np.array(LOWER)[columns], np.array(UPPER)[columns]
    space = ParameterSpace.create([NAMES[c] for c in columns], lower, upper)
    params = LOW + batch.unit * WIDTH
    result = refine(
        phase_five if free == "five" else phase_known,
        batch.maps.astype(np.float32),
        params[:, columns].astype(np.float32),
        bounds=space,
        context=None if free == "five" else batch.truth[:, 3].astype(np.float32),
        difference="wrapped",
        method="lbfgs",
    )
    params[:, columns] = result.params
    return params


def phase_five(params: Array) -> Array:
    """Phase at all five params."""
    return phase(params, SIZE)


def phase_known(params: Array, wavelength: Array) -> Array:
    """Phase at the params without the wavelength."""
    xc, yc, side, focal = params
    return phase(jnp.stack([xc, yc, side, wavelength, focal]), SIZE)
