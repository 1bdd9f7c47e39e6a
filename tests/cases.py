"""Every refiner and every problem, each once: the rows and columns of the laws.

A new refiner is one line in ``REFINERS``: the refiner, the steps within which it reaches the
optimum of every problem, and whether one can differentiate through its steps. A new problem is one
entry in ``PROBLEMS``; scale it so that its curvature is at most about 1.5 in the coordinates of
refinement, then one learning rate suits all.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from scipy.optimize import lsq_linear

import refinejax as rj
from refinejax import (
    Continuation,
    Evolution,
    GaussNewton,
    Gradient,
    InverseProblem,
    LevenbergMarquardt,
    ParameterSpace,
    RandomSearch,
    Refiner,
    Restarts,
    Sequential,
    Stop,
    wrapped_difference,
)
from refinejax.learned import DampingConfig, LearnedUpdate
from refinejax.networks import Network
from refinejax.refiners import BFGS, BIPOP, Memetic
from refinejax.refiners.population.strategies import NAMES


class Case(NamedTuple):
    """A refiner and what it promises.

    Attributes:
        refiner: the refiner.
        steps: within which it reaches the optimum of every problem.
        differentiable: whether `run` can be differentiated in reverse.
        tolerance: share of the initial excess of the loss over the optimum that may remain.
        skip: names of problems it is not made for.
        quick: names of problems on which all laws are tested without ``-m slow`` too.
        brief: name of the problem on which those laws are that one compiled program can tell.
    """

    refiner: Refiner
    steps: int
    differentiable: bool = False
    tolerance: float = 1e-5
    skip: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    brief: str = "corner"


class Problem(NamedTuple):
    """An objective with a known optimum.

    Attributes:
        objective: what is minimized.
        start: initial params.
        optimum: the params of least loss.
        data: name of a field of ``objective`` that can be exchanged for new data; or None.
        stop: rules by which a run ends at the optimum, where the default ones end it before.
    """

    objective: Any
    start: Any
    optimum: Any
    data: str | None = None
    stop: Stop | None = None


class Descent(nnx.Module):
    """A network for any number of params: a step along the gradient, and how many there were."""

    def __init__(self):
        self.rate = nnx.Param(jnp.array(0.5))

    def begin(self):
        return jnp.zeros((), self.rate.dtype)

    def __call__(self, reading, hidden):
        return -self.rate * jnp.exp(reading.loss) * reading.gradient, hidden + 1


CMA = Evolution("cma_es", std=0.3)
SGD = Gradient(optax.sgd, {"learning_rate": 0.5})
MOMENTUM = Gradient(optax.sgd, {"learning_rate": 0.2, "momentum": 0.9})
ADAM = Gradient(optax.adam, {"learning_rate": 0.02})
LBFGS = Gradient(optax.lbfgs)
LM = LevenbergMarquardt()
SQUARES = ("quadratic", "rosenbrock", "nested")  # have no residual
FLOORS = ("rosenbrock", "valley")  # flat: where one arrives near the optimum, the gradient ends it


def eased(objective, t=0.0):
    """The objective with its numbers a fifth larger at first."""
    return jax.tree.map(lambda x: x * (1.2 - 0.2 * t), objective)


REFINERS = {
    "sgd": Case(SGD, 40_000, differentiable=True),
    "momentum": Case(MOMENTUM, 10_000, differentiable=True),
    "adam": Case(ADAM, 5_000, differentiable=True, quick=("nested",)),
    "lbfgs": Case(LBFGS, 100, quick=("rosenbrock",)),
    "bfgs": Case(BFGS(), 200, quick=("rosenbrock",)),
    "lm": Case(LM, 100, differentiable=True, skip=SQUARES, quick=("face",), brief="face"),
    "lm-geodesic": Case(
        LevenbergMarquardt(acceleration=True), 100, differentiable=True, skip=SQUARES
    ),
    "lm-free": Case(LevenbergMarquardt(largest=0), 200, skip=SQUARES),
    "gauss-newton": Case(GaussNewton(share=0.3), 100, differentiable=True, skip=SQUARES),
    "learned-damping": Case(
        DampingConfig()(jax.random.key(0)), 200, differentiable=True, skip=SQUARES
    ),
    "learned-update": Case(
        LearnedUpdate(Network.of(Descent())),
        40_000,
        differentiable=True,
        quick=("face",),
        brief="face",
    ),
    "random": Case(RandomSearch(std=0.2), 5_000, differentiable=True, quick=("corner",)),
    "cma": Case(CMA, 1_000, quick=("corner",)),
    "bipop": Case(Evolution("cma_es", population_size=6, std=0.3, regrow=BIPOP(2)), 4_000),
    "de": Case(Evolution("de", std=0.5), 1_000),
    "ga": Case(Evolution("ga", std=0.5), 5_000, tolerance=1e-3, skip=FLOORS),
    "memetic": Case(Memetic(CMA, LBFGS, period=5), 1_000),
    "cma-lbfgs": Case(Sequential(CMA, LBFGS, steps=10), 100),
    "adam-lbfgs": Case(Sequential(ADAM, LBFGS, steps=10), 100),
    "random-lbfgs": Case(Sequential(RandomSearch(), LBFGS, steps=10), 100),
    "restarts-lbfgs": Case(Restarts(LBFGS, n=3, std=0.2), 100),
    "restarts-adam": Case(
        Restarts(ADAM, n=3, std=0.2), 5_000, differentiable=True, quick=("corner",)
    ),
    "screened-adam": Case(
        Restarts(ADAM, n=7, std=0.2, keep=2, coarse=eased, screen=2),
        5_000,
        differentiable=True,
        skip=FLOORS,
    ),
    "continuation-lbfgs": Case(Continuation(LBFGS, eased, steps=8), 200, skip=("valley",)),
    "continuation-lm": Case(
        Continuation(LM, eased, steps=6),
        200,
        differentiable=True,
        skip=(*SQUARES, "valley"),
    ),
}


OTHERS = ("quadratic", "rosenbrock", "nested", "valley", "decay", "ramp", "face")
# The spread of these is the same in all generations, and small: else they come only so near.
FIXED = ("ARS", "ASEBO", "ESMC", "HillClimbing", "Open_ES", "SimpleGA", "SimulatedAnnealing")
# Made for many params, LM-MA-ES learns noise of two, the more so the more candidates.
SIZES = {"LM_MA_ES": 4}
# The σ of all groups may have vanished before the corner is reached.
TOLERANCES = {"GESMR_GA": 1e-2}
REFINERS |= {
    name: Case(
        Evolution(name, population_size=SIZES.get(name), std=0.03 if name in FIXED else 0.3),
        steps=4_000,
        tolerance=TOLERANCES.get(name, 1e-5),
        skip=OTHERS,
    )
    for name in NAMES
    if name not in ("CMA_ES", "DifferentialEvolution", "de", "ga")  # they are above
}


def quadratic(params):
    """Condition 100."""
    return jnp.sum(jnp.array([1.0, 0.1, 0.01]) * (params - jnp.array([1.0, -0.5, 2.0])) ** 2)


def rosenbrock(params):
    """Rosenbrock's valley, a thousandth as steep."""
    x, y = params
    return 1e-3 * ((1 - x) ** 2 + 100 * (y - x**2) ** 2)


def nested(params):
    """A dict of arrays of two shapes."""
    bend = params["offset"] - jnp.sin(params["slopes"][0])
    return 0.5 * jnp.sum((params["slopes"] - jnp.array([0.4, -0.8])) ** 2) + 0.5 * bend**2


class Box(rj.Problem):
    """Linear least squares in a box: data, ``bounds``, a residual and a call."""

    observation: Any

    @property
    def bounds(self):
        return jnp.array([-1.0, 0.0]), jnp.array([1.0, 2.0])

    def residual(self, params):
        return 3**0.5 * (jnp.array(MATRIX, params.dtype) @ params - self.observation)

    def __call__(self, params):
        return jnp.mean(self.residual(params) ** 2)


class Valley(rj.Problem):
    """`rosenbrock` by its residual, in a dict."""

    bend: Any = 1.0

    def residual(self, params):
        x, y = params["x"], params["y"]
        return {"along": 0.03 * (1 - x), "across": 0.3 * (y - self.bend * x**2)}

    def __call__(self, params):
        return 0.5 * sum(jnp.sum(r**2) for r in self.residual(params).values())


TIMES = np.linspace(0, 4, 16, dtype=np.float32)
PIXELS = np.linspace(-2, 2, 5, dtype=np.float32)
MATRIX = np.array([[0.6, 0.2], [-0.3, 0.5], [0.2, 0.3]])


def decay(params):
    """a·exp(−bt)."""
    return params[0] * jnp.exp(-params[1] * TIMES)


def ramp(params):
    """A plane of phase over 5 × 5 pixels."""
    return params[0] * PIXELS + params[1] * PIXELS[:, None]


def line(params):
    """The map of `Box`."""
    return jnp.array(MATRIX, params.dtype) @ params


def _decay() -> Problem:
    truth, start = np.array([1.3, 0.7], np.float32), np.array([0.8, 1.2], np.float32)
    observation = np.array(truth[0] * np.exp(-truth[1] * TIMES))
    observation[[0, 5, 6]] = np.nan
    space = ParameterSpace.create(("a", "b"), [0.0, 0.0], [2.0, 2.0])
    problem = InverseProblem(decay, jnp.asarray(observation), space=space)
    return Problem(problem, start, truth, "observation")


def _ramp() -> Problem:
    truth, start = np.array([2.0, -1.4], np.float32), np.array([1.6, -1.1], np.float32)
    turned = np.asarray(ramp(truth))
    observation = (turned + np.pi) % (2 * np.pi) - np.pi
    space = ParameterSpace.create(("gx", "gy"), [1.4, -2.0], [2.4, -1.0])
    problem = InverseProblem(
        ramp, jnp.asarray(observation), noise=1.5, difference=wrapped_difference, space=space
    )
    return Problem(problem, start, truth, "observation")


def _face() -> Problem:
    observation = np.array([1.5, 0.1, 0.4])
    space = ParameterSpace.create(("x", "y"), [-1.0, 0.0], [1.0, 2.0])
    optimum = lsq_linear(MATRIX, observation, space.bounds, tol=1e-14).x
    problem = InverseProblem(line, jnp.asarray(observation, jnp.float32), space=space)
    return Problem(problem, np.array([-0.5, 1.5], np.float32), optimum, "observation")


def _corner() -> Problem:
    observation = np.array([1.0, -2.0, 0.0])
    optimum = lsq_linear(MATRIX, observation, ([-1, 0], [1, 2]), tol=1e-14).x
    objective = Box(jnp.asarray(observation, jnp.float32))
    return Problem(objective, np.array([-0.5, 1.5], np.float32), optimum, "observation")


SMALL = Stop(gradient=1e-7)  # in a curved valley a gradient is small far from the end
PROBLEMS = {
    "quadratic": Problem(quadratic, np.zeros(3, np.float32), np.array([1.0, -0.5, 2.0])),
    "rosenbrock": Problem(
        rosenbrock, np.array([-1.2, 1.0], np.float32), np.array([1.0, 1.0]), stop=SMALL
    ),
    "nested": Problem(
        nested,
        {"slopes": np.zeros(2, np.float32), "offset": np.float32(1)},
        {"slopes": np.array([0.4, -0.8]), "offset": np.sin(0.4)},
    ),
    "valley": Problem(
        Valley(),
        {"x": np.full(1, -1.2, np.float32), "y": np.float32(1)},
        {"x": np.ones(1), "y": np.float64(1)},
        stop=SMALL,
    ),
    "decay": _decay(),
    "ramp": _ramp(),
    "face": _face(),
    "corner": _corner(),
}
