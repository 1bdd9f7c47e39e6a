"""How many of the BBOB functions does CMA-ES solve, with and without restarts?

24 functions in 5 dimensions, two instances each (``coco-experiment``), at most 10,000 evaluations,
solved at 1e-8 above the optimum: the library counts evaluations and decides which are solved. σ =
2, starts uniform in [−4, 4]⁵ and the same for all; ours is bound to [−5, 5]⁵ and restarts within.
Peers: pycma as it comes and with BIPOP, and evosax's CMA-ES as it is. Float64.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from benchmarks.evidence import Claim
from benchmarks.harness import Data, Options, environment, note, spread
from benchmarks.render import Block, Table, over_seeds, plus_minus
from refinejax import Stop, run_until
from refinejax.refiners import BIPOP, IPOP, Evolution

DIMENSION, BUDGET, SIGMA, EDGE = 5, 10_000, 2.0, 5.0
QUICK = "1,3,8,10,15,21"  # functions
Method = Callable[[Any, np.ndarray, int], None]  # (problem, start, seed)


class Current:
    """The problem that is being solved, for a callback that is compiled once for all."""

    problem: Any = None

    def evaluate(self, x: Any) -> np.ndarray:
        """Return the values at candidates, leading axes of x; NaN once the budget is spent."""
        rows = np.asarray(x, float).reshape(-1, DIMENSION)
        left = max(BUDGET - self.problem.evaluations, 0)
        values = [self.problem(row) for row in rows[:left]]
        values += [np.nan] * (len(rows) - len(values))
        return np.asarray(values).reshape(np.shape(x)[:-1])


class Function(struct.PyTreeNode):
    """The current problem within [−5, 5]⁵; each candidate costs an evaluation."""

    current: Current = struct.field(pytree_node=False)

    @property
    def bounds(self) -> tuple[float, float]:
        """(lower, upper)."""
        return -EDGE, EDGE

    def __call__(self, x: jax.Array) -> jax.Array:
        """Ask the problem."""
        shape = jax.ShapeDtypeStruct((), x.dtype)
        return jax.pure_callback(self.current.evaluate, shape, x, vmap_method="broadcast_all")


FUNCTION = Function(Current())


def ours(regrow: Any) -> Method:
    refiner = Evolution("cma_es", std=SIGMA, regrow=regrow)
    steps = BUDGET // refiner.size(DIMENSION)

    def solve(problem: Any, start: np.ndarray, seed: int) -> None:
        FUNCTION.current.problem = problem
        end = run_until(
            refiner, FUNCTION, jnp.asarray(start), seed, max_steps=steps, stop=Stop.never()
        )
        jax.block_until_ready(end.loss)

    return solve


def pycma(bipop: bool) -> Method:
    def solve(problem: Any, start: np.ndarray, seed: int) -> None:
        import cma  # pyright: ignore[reportMissingImports]

        options = {"verbose": -9, "seed": seed, "maxfevals": BUDGET}
        rng = np.random.default_rng(seed)
        if not bipop:
            cma.fmin2(problem, start, SIGMA, options)
            return
        starts = iter([start])
        cma.fmin2(
            problem,
            lambda: next(starts, rng.uniform(-4, 4, DIMENSION)),
            SIGMA,
            options,
            restarts=9,
            bipop=True,
        )

    return solve


def evosax() -> Method:
    """Return evosax's CMA-ES as it is, with the same population and σ."""
    from evosax.algorithms import CMA_ES

    size = Evolution("cma_es").size(DIMENSION)
    algorithm = CMA_ES(size, jnp.zeros(DIMENSION))
    numbers = algorithm.default_params.replace(std_init=SIGMA)

    def solve(problem: Any, start: np.ndarray, seed: int) -> None:
        key = jax.random.key(seed)
        state = algorithm.init(key, jnp.asarray(start), numbers)
        FUNCTION.current.problem = problem
        for _ in range(BUDGET // size):
            key, ask, tell = jax.random.split(key, 3)
            x, state = algorithm.ask(ask, state, numbers)
            values = jnp.asarray(FUNCTION.current.evaluate(x))
            state, _ = algorithm.tell(tell, x, values, state, numbers)

    return solve


def solve_all(method: Method, seed: int, quick: bool) -> list[bool]:
    """Return which problems a method solves."""
    import cocoex  # pyright: ignore[reportMissingImports]

    some = f" function_indices:{QUICK}" if quick else ""
    suite = cocoex.Suite("bbob", "instances:1,2", f"dimensions:{DIMENSION}{some}")
    rng, hits = np.random.default_rng(seed), []
    for index, problem in enumerate(suite):
        method(problem, rng.uniform(-4, 4, DIMENSION), 1000 * seed + index + 1)
        hits.append(bool(problem.final_target_hit))
    return hits


def measure(options: Options) -> dict[str, Any]:
    quick, seeds = options.quick, options.seeds
    # Not the context manager: callbacks run in a thread that would not know of it.
    jax.config.update("jax_enable_x64", True)
    methods: dict[str, Method] = {
        "refinejax CMA-ES": ours(None),
        "refinejax IPOP": ours(IPOP()),
        "refinejax BIPOP": ours(BIPOP()),
        "evosax CMA-ES": evosax(),
        "pycma": pycma(False),
        "pycma BIPOP": pycma(True),
    }
    rows = []
    for name, method in methods.items():
        note(name)
        hits = [solve_all(method, seed, quick) for seed in range(seeds)]
        counts = [sum(some) for some in hits]
        often = np.mean(hits, axis=0).reshape(-1, 2).mean(axis=1)
        rows.append(
            {
                "method": name,
                "of": len(hits[0]),
                "solved": spread(counts),
                "by_function": [round(float(share), 3) for share in often],
            }
        )
    settings = {"seeds": seeds, "quick": quick, "budget": BUDGET, "dimension": DIMENSION}
    return {"environment": environment(), "settings": settings, "rows": rows}


def rows(data: Data) -> Iterator[Block]:
    """Show how many problems each method solves, and how often each function."""
    settings = data["settings"]
    yield Table.of(
        {
            "BBOB": row["method"],
            f"solved of {row['of']}": plus_minus(row["solved"]),
            "share of runs that solve each function, in order": " ".join(
                f"{share:.1f}" for share in row["by_function"]
            ),
        }
        for row in data["rows"]
    )
    yield (
        f"24 functions in {settings['dimension']} dimensions, two instances, at most "
        f"{settings['budget']:,} evaluations, to 1e-8; {over_seeds(settings['seeds'])}."
    )


def claims(data: Data) -> Iterator[Claim]:
    """Claim nothing: shares of the same functions are described, not judged."""
    del data
    return iter(())
