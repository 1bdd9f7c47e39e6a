"""Is `Evolution` the CMA-ES of the literature, what do bounds cost, and how far does it get?

1. *Generations* until the loss is 1e-8, beside pycma, on functions of condition 1e6 and
   Rosenbrock's in 5 and 20 dimensions: same starts and σ, eight times ``--seeds`` of them.
2. *Bounds*: evaluations until the loss is within 1e-8 of the optimum, for an ellipsoid of condition
   100 in [−1, 1]⁵ with the optimum inside, on two faces, and in a corner. pycma's two ways beside
   ours, and no bounds.
3. *Rastrigin functions of Open-L2O* (Chen et al., arXiv:2103.12828):
   ½|Ax − b|² − α c·cos(2πx) + αn, with A, b, c normal, α = 10, starts normal; 32 functions. Adam
   and L-BFGS go from the same starts; L-BFGS from a hundred too. The optimum is the best that any
   method finds, CMA-ES with eight times the population and evaluations among them, and for n = 2 a
   grid of [−8, 8]².

Float64.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import Array

from benchmarks.evidence import Claim
from benchmarks.harness import Data, Options, environment, note, spread
from benchmarks.render import Block, Table, over_seeds, plus_minus
from refinejax import Evolution, Execution, Gradient, Restarts, Stop, run_batch, run_until
from refinejax.refiners import BIPOP

SIGMA, MOST = 0.5, 20_000
LANES = 8  # functions at a time: how long the slowest of 32 takes, the others would wait
DONE = 1e-8


def ellipsoid(x: Any) -> Any:
    n = x.shape[0]
    return (10.0 ** (6 * np.arange(n) / (n - 1)) * x**2).sum()


def rosenbrock(x: Any) -> Any:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def discus(x: Any) -> Any:
    return 1e6 * x[0] ** 2 + (x[1:] ** 2).sum()


def cigar(x: Any) -> Any:
    return x[0] ** 2 + 1e6 * (x[1:] ** 2).sum()


FUNCTIONS = {f.__name__: f for f in (ellipsoid, rosenbrock, discus, cigar)}


def agreement(quick: bool, seeds: int) -> list[dict[str, Any]]:
    rows = []
    for n in (5,) if quick else (5, 20):
        for name, function in FUNCTIONS.items():
            note(f"{name}, {n} dimensions")
            rng = np.random.default_rng(n)
            starts = rng.normal(size=(8 * seeds, n)) * (0.1 if name == "rosenbrock" else 1)
            found = generations(function, starts)
            theirs = np.array([pycma(function, s, i + 1)[0] for i, s in enumerate(starts)])
            rows.append(
                {
                    "function": name,
                    "n": n,
                    "ours": spread(list(found[found > 0])),
                    "pycma": spread(list(theirs[theirs > 0])),
                    "of": len(starts),
                }
            )
    return rows


def generations(function: Callable[[Any], Any], starts: np.ndarray) -> np.ndarray:
    """Return the generations until it is done; 0 where it does not get there."""
    stop = Stop.never(target=DONE)
    refiner = Evolution("cma_es", std=SIGMA)

    @jax.jit
    @jax.vmap
    def solve(start: Array, key: Array) -> Any:
        return run_until(refiner, function, start, key, max_steps=MOST, stop=stop)

    end = solve(jnp.asarray(starts), jax.random.split(jax.random.key(1), len(starts)))
    return np.where(np.asarray(end.loss) <= DONE, np.asarray(end.steps), 0)


def pycma(
    function: Callable[[Any], Any],
    start: np.ndarray,
    seed: int,
    target: float = DONE,
    **options: Any,
) -> tuple[int, float]:
    """Return (generations until done or 0, the least loss)."""
    import cma  # pyright: ignore[reportMissingImports]

    options = {"verbose": -9, "seed": seed, "ftarget": target, "maxiter": MOST, **options}
    search = cma.CMAEvolutionStrategy(start, SIGMA, options)
    while not search.stop():
        x = search.ask()
        search.tell(x, [float(function(row)) for row in x])
    done = search.best.f <= target
    return (search.countiter if done else 0), float(search.best.f)


class Bound(struct.PyTreeNode):
    """An ellipsoid of condition 100 around ``center``, in [−edge, edge]⁵."""

    center: Any
    edge: float = struct.field(pytree_node=False, default=1.0)

    @property
    def bounds(self) -> tuple[float, float]:
        """(lower, upper)."""
        return -self.edge, self.edge

    def __call__(self, x: Any) -> Any:
        """Return the loss less that at the optimum in the box."""
        return self.raw(x) - self.raw(self.center.clip(-1, 1))

    def raw(self, x: Any) -> Any:
        """Return the ellipsoid."""
        return (10.0 ** (2 * np.arange(5) / 4) * (x - self.center) ** 2).sum()


OPTIMA = {
    "inside": [0.3, -0.2, 0.1, 0.4, -0.3],
    "on two faces": [1.5, 0.1, -2.0, 0.2, 0.3],
    "in a corner": [1.5, -1.2, 2.0, -1.5, 1.1],
}


def bounds(quick: bool, seeds: int) -> list[dict[str, Any]]:
    import cma  # pyright: ignore[reportMissingImports]

    rows = []
    for where, center in OPTIMA.items():
        note(f"bounds: optimum {where}")
        boxed = Bound(np.array(center))
        starts = np.random.default_rng(0).uniform(-0.8, 0.8, (2 if quick else 8 * seeds, 5))
        size = Evolution("cma_es").size(5)
        handlers = {"pycma transform": cma.BoundTransform, "pycma penalty": cma.BoundPenalty}
        counts = {"ours": generations(boxed, starts)}
        for name, handler in handlers.items():
            options = {"bounds": [-1, 1], "BoundaryHandler": handler}
            found = [pycma(boxed, s, i + 1, **options)[0] for i, s in enumerate(starts)]
            counts[name] = np.array(found)
        if where == "inside":
            counts["ours, no bounds"] = generations(boxed.__call__, starts)
        for name, some in counts.items():
            solved = some > 0
            evaluations = spread(list(size * some[solved])) if solved.any() else None
            share = float(np.mean(solved))
            rows.append({"where": where, "way": name, "evaluations": evaluations, "solved": share})
    return rows


class Rastrigin(struct.PyTreeNode):
    """A function of Open-L2O."""

    A: Any
    b: Any
    c: Any

    def batch_axes(self) -> "Rastrigin":
        """Return that there is one of each for every function."""
        return Rastrigin(0, 0, 0)

    @classmethod
    def draw(cls, n: int, seed: int) -> "Rastrigin":
        """Draw one of the family."""
        rng = np.random.default_rng(seed)
        return cls(rng.normal(size=(n, n)), rng.normal(size=n), rng.normal(size=n))

    def __call__(self, x: Any) -> Any:
        """Return the loss."""
        xp = jnp if isinstance(x, jax.Array) else np
        waves = 10 * (self.c * xp.cos(2 * np.pi * x)).sum()
        return 0.5 * ((self.A @ x - self.b) ** 2).sum() - waves + 10 * x.shape[0]


@functools.cache
def methods(budget: int) -> dict[str, tuple[Any, int]]:
    """Return refiners and steps: populations by their evaluations, and gradients until they end."""
    size = 16
    steps = budget // size
    return {
        "CMA-ES BIPOP": (_bipop(size, 5), steps),
        "Adam": (Gradient(optax.adam, {"learning_rate": 0.1}), 1000),
        "L-BFGS": (Gradient(optax.lbfgs), 200),
        "L-BFGS, 100 starts": (Restarts(Gradient(optax.lbfgs), n=100, std=1.0), 100),
        "long": (_bipop(8 * size, 3), steps),
    }


def _bipop(size: int, doublings: int) -> Evolution:
    return Evolution("cma_es", population_size=size, std=1.0, regrow=BIPOP(doublings))


def rastrigin(quick: bool, seeds: int) -> list[dict[str, Any]]:
    rows = []
    for n, budget in ((2, 10_000), (10, 50_000)):
        budget = budget // 10 if quick else budget
        count = LANES if quick else 32
        ends: dict[str, list[float]] = {}
        for seed in range(seeds):
            note(f"Rastrigin, {n} dimensions, seed {seed}")
            family = [Rastrigin.draw(n, 1000 * seed + k) for k in range(count)]
            starts = np.random.default_rng(seed).normal(size=(count, n))
            found = {name: _ends(name, budget, family, starts, seed) for name in methods(budget)}
            best = np.min(list(found.values()), axis=0)
            del found["long"]
            if n == 2:
                best = np.minimum(best, _ends("L-BFGS", budget, family, _on_grid(family), seed))
            for name, losses in (*found.items(), ("optimum", best)):
                ends.setdefault(name, []).append(float(np.mean(losses)))
        rows += [
            {"n": n, "method": name, "budget": budget, "functions": count, "loss": spread(means)}
            for name, means in ends.items()
        ]
    return rows


def _ends(
    name: str, budget: int, family: list[Rastrigin], starts: np.ndarray, seed: int
) -> np.ndarray:
    refiner, steps = methods(budget)[name]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *family)
    stop = Stop(divergence=-1.0)
    end = run_batch(
        refiner, stacked, starts, seed, max_steps=steps, stop=stop, execution=Execution(lanes=LANES)
    )
    return np.asarray(end.loss)


def _on_grid(family: list[Rastrigin]) -> np.ndarray:
    """Return the best point of a fine grid for each function of two params."""
    axis = np.linspace(-8, 8, 1601)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *family)
    least = jax.jit(lambda f: jnp.argmin(jax.vmap(f)(jnp.asarray(points))))
    return points[np.asarray(jax.lax.map(least, stacked))]


def measure(options: Options) -> dict[str, Any]:
    quick, seeds = options.quick, options.seeds
    with jax.enable_x64(True):
        return {
            "environment": environment(),
            "settings": {"seeds": seeds, "quick": quick},
            "agreement": agreement(quick, seeds),
            "bounds": bounds(quick, seeds),
            "rastrigin": rastrigin(quick, seeds),
        }


def rows(data: Data) -> Iterator[Block]:
    """Show generations beside pycma's, the cost of bounds, and losses on Rastrigin functions."""
    yield Table.of(
        {
            "generations to 1e-8": f"{row['function']}, {row['n']}-D",
            "refinejax": plus_minus(row["ours"]),
            "pycma": plus_minus(row["pycma"]),
            "solved": f"{row['ours']['n']} and {row['pycma']['n']} of {row['of']}",
        }
        for row in data["agreement"]
    )
    yield "Mean ± standard deviation over starts, the same for both; float64."
    yield Table.of(_by_place(data["bounds"]))
    yield "An ellipsoid of condition 100 in [−1, 1]⁵; in parentheses the share solved, %."
    yield Table.of(_by_size(data["rastrigin"]))
    budgets = " and ".join(
        f"{budget:,}" for budget in dict.fromkeys(row["budget"] for row in data["rastrigin"])
    )
    yield (
        f"Means over {data['rastrigin'][0]['functions']} functions, "
        f"{over_seeds(data['settings']['seeds'])}; {budgets} evaluations of the population. "
        "The optimum: the best value known."
    )


def _by_place(found: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    lines: dict[str, dict[str, str]] = {}
    for row in found:
        line = lines.setdefault(row["way"], {"evaluations to 1e-8": row["way"]})
        count = plus_minus(row["evaluations"]) if row["evaluations"] else "none"
        line[f"optimum {row['where']}"] = f"{count} ({100 * row['solved']:.0f})"
    return list(lines.values())


def _by_size(found: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    lines: dict[str, dict[str, str]] = {}
    for row in found:
        line = lines.setdefault(row["method"], {"Rastrigin functions of Open-L2O": row["method"]})
        line[f"loss, n = {row['n']}"] = plus_minus(row["loss"])
    return list(lines.values())


def claims(data: Data) -> Iterator[Claim]:
    """Claim nothing: it shows agreement with the literature, not that one is better."""
    del data
    return iter(())
