"""How far from the arithmetic is a step of Levenberg–Marquardt on a phase map?

A pass forms loss, gradient and Gauss–Newton matrix of a lens (xc, yc, S, focal length) over
64 × 64 pixels. A pixel costs 4 bytes, which come from cache (64 maps are 1 MB), a square root, two
divisions, a rounding, and some 45 additions and multiplications, 30 of them in 15 sums: no sine, no
arctangent. On 8 floats at a time, with two multiply-adds a cycle, that is 35 to 40 cycles for 8
pixels: 1.5 ns a pixel at 3 GHz, 0.8 on 16 at a time. Measured, on the same 64 maps:

- *C*: the same sums by a C compiler (`_one_pass.c`), one thread;
- *pass*: `normal_equations` of 64 maps under `vmap`, as the batch engine forms them;
- *pass along a triangle*: the columns of J·R⁻¹, which `LevenbergMarquardt` forms, so that float32
  is enough: 6 multiply-adds a pixel more;
- *step*: all of a step of `LevenbergMarquardt` with bounds.

CPU time counts all cores together. Needs a C compiler (``cc``).
"""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.evidence import Claim
from benchmarks.harness import Data, Options, environment, race, ratio, spread
from benchmarks.render import Block, Table, machine, multiple, over_seeds, plus_minus
from refinejax import LevenbergMarquardt
from refinejax._compiler import REORDER
from refinejax._core import as_problem
from refinejax.apps.metalens.cascade.scale import OTHERS
from refinejax.apps.metalens.lenses import simulate
from refinejax.apps.metalens.problem import exact_problem
from refinejax.physics.metalens.lens import LOWER, UPPER
from refinejax.problems import InverseProblem, ParameterSpace
from refinejax.problems.normal import normal_equations

SIZE, MAPS = 64, 64
FLAGS = ("-O3", "-march=native", "-ffast-math", "-fno-finite-math-only")
OURS, C = "step", "C"
WORDS = {
    C: "loss, gradient and matrix in C",
    "pass": "`normal_equations`",
    "pass along a triangle": "`normal_equations` along a triangle",
    OURS: "a step of `LevenbergMarquardt`, with bounds",
}


def in_c(folder: Path) -> Any:
    """Compile the pass and load it.

    Raises:
        RuntimeError: if there is no C compiler.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError("this benchmark needs a C compiler: no `cc` was found")
    source, library = Path(__file__).parent / "_one_pass.c", folder / "one_pass.so"
    command = [compiler, *FLAGS, "-shared", "-fPIC", str(source), "-o", str(library), "-lm"]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(library)).one_pass


def setting(seed: int) -> tuple[InverseProblem, np.ndarray]:
    """Return the problem of some maps, and lenses near those that made them."""
    made = simulate(MAPS, SIZE, key=seed)
    low, high = (np.asarray(end, np.float32)[OTHERS] for end in (LOWER, UPPER))
    space = ParameterSpace.create((), low, high)
    lenses = np.clip(made["truth"][:, OTHERS] * np.float32(1 + 1e-5), low, high)
    return exact_problem(made["phase"], made["wavelength"], space), lenses


def by_c(function: Any, problem: InverseProblem, lenses: np.ndarray) -> Callable[[], np.ndarray]:
    """Return the pass in C over the maps of a problem."""
    arrays = [problem.observation, lenses, problem.context, np.zeros((MAPS, 15))]
    arrays = [np.ascontiguousarray(array, np.float32) for array in arrays]
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in arrays]

    def run() -> np.ndarray:
        function(MAPS, SIZE, *pointers)
        return arrays[-1]

    return run


def by_xla(problem: InverseProblem, lenses: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return the passes and the step, compiled."""
    refiner, key = LevenbergMarquardt(), jax.random.key(0)

    @functools.partial(jax.jit, static_argnums=0, compiler_options=REORDER)
    def each(function: Any, turns: Any, wavelength: Any, *rest: Any) -> Any:
        def one(turns: Any, wavelength: Any, *rest: Any) -> Any:
            own = problem.replace(observation=turns, context=wavelength)
            return function(as_problem(own).coordinates().objective, *rest)

        return jax.vmap(one)(turns, wavelength, *rest)

    def begin(objective: Any, lens: Any) -> Any:
        return refiner.init(objective, lens, key)

    def step(objective: Any, state: Any) -> Any:
        return refiner.step(objective, state, key)

    triangles = np.triu(np.random.default_rng(0).normal(size=(MAPS, 4, 4))).astype(np.float32)
    data = jnp.asarray(problem.observation), jnp.asarray(problem.context)
    inner = jax.vmap(as_problem(problem).coordinates().encode)(jnp.asarray(lenses))
    states = each(begin, *data, inner)
    return {
        "pass": functools.partial(each, normal_equations, *data, inner),
        "pass along a triangle": functools.partial(
            each, normal_equations, *data, inner, jnp.asarray(triangles)
        ),
        OURS: functools.partial(each, step, *data, states),
    }


def compare(function: Any, seed: int, repeats: int) -> dict[str, dict[str, float]]:
    """Return CPU and wall time a pixel of each, and in units of C."""
    problem, lenses = setting(seed)
    peers = {C: by_c(function, problem, lenses), **by_xla(problem, lenses)}
    clocks, found = race(peers, repeats)
    agree(found[C], found["pass"])
    pixels = MAPS * SIZE**2
    return {
        name: {
            "cpu": float(np.median(clock.cpu)) / pixels,
            "wall": clock.run / pixels,
            "cpu_ratio": ratio(clock.cpu, clocks[C].cpu),
        }
        for name, clock in clocks.items()
    }


def agree(sums: np.ndarray, model: Any) -> None:
    """Check the sums of C against the library's, up to the scale of the params.

    Raises:
        RuntimeError: if they differ.
    """
    losses = (2 * np.pi) ** 2 * sums[:, 0] / SIZE**2
    upper = np.triu_indices(4)
    matrix = np.zeros((MAPS, 4, 4))
    matrix[:, *upper] = matrix[:, *upper[::-1]] = sums[:, 5:]
    pairs = [
        (losses, model.loss, 1e-6),
        (scaled(matrix), scaled(np.asarray(model.matrix, float)), 1e-3),
    ]
    if not all(np.allclose(a, b, rtol=1e-2, atol=atol) for a, b, atol in pairs):
        raise RuntimeError("C and XLA find different sums")


def scaled(matrix: np.ndarray) -> np.ndarray:
    """Return matrices with a diagonal of 1."""
    size = np.sqrt(np.diagonal(matrix, axis1=1, axis2=2))
    return matrix / size[:, :, None] / size[:, None, :]


def measure(options: Options) -> dict[str, Any]:
    """Take all measurements."""
    quick, seeds = options.quick, options.seeds
    with tempfile.TemporaryDirectory() as folder:
        function = in_c(Path(folder))
        runs = [compare(function, seed, 20 if quick else 300) for seed in range(seeds)]
    columns = ("cpu", "wall", "cpu_ratio")
    rows = [
        {"what": name, **{key: spread([run[name][key] for run in runs]) for key in columns}}
        for name in runs[0]
    ]
    settings = {"quick": quick, "seeds": seeds, "size": SIZE, "maps": MAPS, "flags": FLAGS}
    return {"environment": environment(), "settings": settings, "rows": rows}


def rows(data: Data) -> Iterator[Block]:
    """Show the time of a pass over the pixels, and of a step, beside the same sums in C."""
    settings = data["settings"]
    yield Table.of(
        {
            "64 × 64 pixels, four unknowns": WORDS[row["what"]],
            "CPU time": multiple(row["cpu_ratio"], unit=row["what"] == C),
            "CPU time a pixel, ns": plus_minus(row["cpu"], factor=1e9),
            "time a pixel, ns": plus_minus(row["wall"], factor=1e9),
        }
        for row in data["rows"]
    )
    yield (
        f"{settings['maps']} maps at once; C by `cc {' '.join(settings['flags'])}`, one thread; "
        f"{machine(data)}, {over_seeds(settings['seeds'])}."
    )


def claims(data: Data) -> Iterator[Claim]:
    """Claim nothing: C is the measure of what the arithmetic costs, not a competitor."""
    del data
    return iter(())
