"""How many lanes fit into memory, by what the compiled program says it needs."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from refinejax._checks import as_key, check_refiner
from refinejax._core import Refiner, Stop, as_problem
from refinejax._gate import check_outside_traces
from refinejax._marks import door, mark
from refinejax.batch.lanes import Rows, Rules, cycle, cycle_reordered, shapes
from refinejax.batch.layout import Layout
from refinejax.batch.plan import LanePlan, fit_memory, make_plan, parse_bytes
from refinejax.batch.sources import count_samples, describe, host
from refinejax.batch.stages import rules_of, stages_of


@door
def lanes_within(
    memory_limit: str | float, refiner: Refiner, problem: Any, params: Any, *, axes: Any = None
) -> int:
    """Return the number of lanes that `run_batch` would choose for a ``memory_limit``.

    Args:
        memory_limit: as for `run_batch`.
        refiner: as for `run_batch`.
        problem: as for `run_batch`.
        params: as for `run_batch`.
        axes: as for `run_batch`.

    Raises:
        ValueError: if it is too small for a single lane.
    """
    check_refiner(refiner)
    check_outside_traces("lanes_within", problem, params)
    problem, params = as_problem(problem), host(params)
    count = count_samples(params)
    layout, leaves = describe(problem, axes, count)
    data, shared = layout.split(leaves)
    starts, structure = jax.tree.flatten(params)
    rules = Stop().resolve(jnp.result_type(*[leaf.dtype for leaf in starts]))
    common = rules_of(stages_of(mark(refiner), rules)[0], as_key(None), 1, shared)
    plan = make_plan(None, count, None)
    program = Program(common, layout, structure, data, starts)
    return fit_lanes(program, plan, memory_limit, count).lanes


class Program(NamedTuple):
    """The batch that a compiled program is for.

    Attributes:
        rules: common to all samples.
        layout: which leaves of the problem belong to a sample.
        structure: pytree structure of the params.
        data: leaves of the problem that belong to samples.
        starts: leaves of the params.
    """

    rules: Rules
    layout: Layout
    structure: Any
    data: list[Any]
    starts: list[np.ndarray]


def fit_lanes(program: Program, plan: LanePlan, limit: str | float, count: int | None) -> LanePlan:
    """Return the plan with the most lanes whose compiled program needs no more memory than that.

    Args:
        program: the program to compile.
        plan: where to begin.
        limit: bytes on each device, or text such as "30GB".
        count: number of samples, if known.

    Returns:
        The number of lanes, and the devices.

    Raises:
        ValueError: if the limit is too small for a lane, or the backend tells no sizes.
    """
    rules, layout, structure, data, starts = program

    def measure(plan: LanePlan) -> int:
        def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
            dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
            return jax.ShapeDtypeStruct((plan.group, *leaf.shape[1:]), dtype)

        number = jax.ShapeDtypeStruct((plan.group,), jnp.int32)
        params = jax.tree.unflatten(structure, [abstract(leaf) for leaf in starts])
        loss = jax.ShapeDtypeStruct((plan.group,), jnp.result_type(*[x.dtype for x in starts]))
        rows = Rows(params, [abstract(leaf) for leaf in data], number, number, loss)
        lanes = shapes(rules, rows, layout=layout, count=plan.lanes)
        one = np.int32(1)
        compiled = cycle_reordered if layout.reorder else cycle
        lowered = compiled.lower(rules, lanes, rows, one, one, layout=layout, mesh=plan.mesh)
        sizes = lowered.compile().memory_analysis()
        if sizes is None:
            raise ValueError(
                "memory_limit: this backend does not say how much memory a program needs; "
                "give Execution(lanes=...) instead"
            )
        total = sizes.argument_size_in_bytes + sizes.output_size_in_bytes
        return int(total + sizes.temp_size_in_bytes - sizes.alias_size_in_bytes)

    return fit_memory(measure, parse_bytes(limit), plan, count)
