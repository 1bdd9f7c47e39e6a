"""The compiled part of the batch engine: a fixed number of lanes that are filled and emptied.

One call of `cycle` admits new samples into empty lanes, steps all lanes until enough of them have
ended, and hands back those that have. Nothing in it knows how many samples there are.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Int, PyTree

from refinejax._checks import check_scalar
from refinejax._compiler import OPTIONS, REORDER
from refinejax._core import Evaluations, Refiner, Status, Stop
from refinejax._lane import Lane, advance, init_key, start
from refinejax._problem import FunctionProblem
from refinejax.batch.layout import Layout, Packed


class Rules(struct.PyTreeNode):
    """Method, stopping rules, key and shared data of all samples.

    Attributes:
        refiner, stop: method and (resolved) stopping rules.
        key: packed; sample i refines with fold_in(key, i).
        max_steps: where each sample ends at the latest.
        stage_steps: most steps in this stage of a `Sequential`.
        shared: leaves of the problem that all samples share.
        stage: "early" or "last" for a stage of a `Sequential`, else ""; static.
        classes: of the refiner, see `structure_hash`; static.
    """

    refiner: Refiner
    stop: Stop
    key: Packed
    max_steps: Array
    stage_steps: Array
    shared: list[Any]
    stage: str = struct.field(pytree_node=False, default="")
    classes: int = struct.field(pytree_node=False, default=0)


class Lanes(struct.PyTreeNode):
    """L samples that are being refined.

    Attributes:
        lane: a `Lane` with a leading axis L, packed.
        data: leaves of the problem, with a leading axis L.
        ids: which sample is in each lane; −1 where none is, shape (L,).
    """

    lane: Packed
    data: list[Array]
    ids: Int[Array, " lanes"]


class Rows(struct.PyTreeNode):
    """Samples to be admitted: up to G of them, the rest of the rows being filler.

    Attributes:
        params: where to start, leading axis G.
        data: leaves of the problem, leading axis G.
        ids: sample numbers, −1 for filler, shape (G,).
        steps: steps taken in earlier stages, shape (G,).
        initial_loss: where the first of those began, shape (G,); NaN where this is the first.
    """

    params: PyTree
    data: list[Any]
    ids: Any
    steps: Any
    initial_loss: Any


class Outcome(struct.PyTreeNode):
    """Samples that have ended, in rows; ``ids`` is −1 in rows without one.

    Attributes:
        ids: numbers of the samples, shape (n,).
        params: of the samples, with a leading sample axis.
        loss: best losses.
        initial_loss: losses at the start.
        steps: taken.
        evaluations: of the objective, values and derivatives.
        status: of each row.
    """

    ids: Int[Array, " rows"]
    params: PyTree
    loss: Array
    initial_loss: Array
    steps: Array
    evaluations: Evaluations
    status: Array


@functools.partial(jax.jit, static_argnames=("layout",))  # traced once, for `blank` and `cycle`
def begin(rules: Rules, rows: Rows, *, layout: Layout) -> Packed:
    """Start the samples of ``rows``.

    Args:
        rules: method, limits, key and shared data.
        rows: the samples.
        layout: which leaves belong to a sample.

    Returns:
        A `Lane` with a leading axis G, packed.
    """

    def one(data: list[Array], params: Any, number: Array, steps: Array, loss: Array) -> Lane:
        problem = layout.join(data, rules.shared)
        key = rules.key.unpack()
        for identity in problem.key_ids or (number,):
            key = jax.random.fold_in(key, identity)
        key = init_key(key, 0) if rules.stage else key  # as `Sequential.init` hands it on
        if isinstance(problem, FunctionProblem):  # the others know what they return
            check_scalar(problem, params)
        space = problem.coordinates()
        inner = space.encode(params)
        # Stages end before 2³¹ − 1 steps in any case; written so that nothing overflows.
        end = jnp.where(
            rules.stage_steps < rules.max_steps - steps,
            steps + jnp.minimum(rules.stage_steps, rules.max_steps),
            rules.max_steps,
        )
        lane = start(rules.refiner, space.objective, rules.stop, inner, key, end, steps=steps)
        if rules.stage == "last":  # `Sequential` takes a step before it checks its last stage
            optimal = lane.status == Status.CONVERGED_GRAD
            lane = lane.replace(
                status=jnp.where(optimal, int(Status.RUNNING), lane.status),
                initial_loss=jnp.where(jnp.isnan(loss), lane.initial_loss, loss),
            )
        return lane

    lanes = jax.vmap(one)(rows.data, rows.params, rows.ids, rows.steps, rows.initial_loss)
    return Packed.pack(lanes)


def shapes(rules: Rules, rows: Rows, *, layout: Layout, count: int) -> Lanes:
    """Return the shapes and dtypes of ``count`` lanes.

    Args:
        rules: method, limits, key and shared data.
        rows: the samples.
        layout: which leaves belong to a sample.
        count: how many.
    """

    def wide(leaf: Any) -> jax.ShapeDtypeStruct:
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
        return jax.ShapeDtypeStruct((count, *leaf.shape[1:]), dtype)

    lane = begin.eval_shape(rules, rows, layout=layout)
    return jax.tree.map(wide, Lanes(lane, rows.data, rows.ids))


def empty(rules: Rules, rows: Rows, *, layout: Layout, count: int) -> Lanes:
    """Return ``count`` empty lanes, as arrays of NumPy.

    Args:
        rules: method, limits, key and shared data.
        rows: the samples.
        layout: which leaves belong to a sample.
        count: how many.
    """
    found = shapes(rules, rows, layout=layout, count=count)
    lanes = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), found)
    return lanes.replace(ids=np.full(count, -1, np.int32))


def _advance(
    rules: Rules,
    lanes: Lanes,
    rows: Rows,
    quota: Array,
    cap: Array,
    *,
    layout: Layout,
    mesh: Mesh | None = None,
) -> tuple[Lanes, Outcome]:
    """Admit ``rows``; step until ``quota`` lanes have ended, or ``cap`` steps; collect up to G.

    With a mesh every device does so with its own lanes and its own rows, without a word to others.
    """
    local = functools.partial(_cycle, layout=layout)
    if mesh is None:
        return local(rules, lanes, rows, quota, cap)
    split, same = P(mesh.axis_names), P()
    spread = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(same, split, split, same, same),
        out_specs=(split, split),
        check_vma=False,
    )
    return spread(rules, lanes, rows, quota, cap)


_compile = functools.partial(
    jax.jit, static_argnames=("layout", "mesh"), donate_argnames=("lanes",)
)
cycle = _compile(_advance, compiler_options=OPTIONS)
cycle_reordered = _compile(_advance, compiler_options=REORDER)


def _cycle(
    rules: Rules, lanes: Lanes, rows: Rows, quota: Array, cap: Array, *, layout: Layout
) -> tuple[Lanes, Outcome]:
    lanes = jax.lax.cond(
        jnp.any(rows.ids >= 0),
        lambda: _admit(rules, layout, lanes, rows),
        lambda: lanes,
    )
    lane = _step(rules, layout, lanes, quota, cap)
    return _collect(layout, rules, lanes.replace(lane=Packed.pack(lane)), rows.ids.shape[0])


def _admit(rules: Rules, layout: Layout, lanes: Lanes, rows: Rows) -> Lanes:
    """Put rows into empty lanes. There must be enough of those."""
    count, size = lanes.ids.shape[0], rows.ids.shape[0]
    vacant = jnp.argsort(lanes.ids >= 0, stable=True)[:size]
    slots = jnp.where(rows.ids >= 0, vacant, count)  # filler goes nowhere
    # Lanes ask for their row: a scatter of whole images costs XLA on CPU tens of steps.
    origin = (
        jnp.full(count, size, jnp.int32)
        .at[slots]
        .set(jnp.arange(size, dtype=jnp.int32), mode="drop")
    )
    admitted = origin < size
    new = Lanes(begin(rules, rows, layout=layout), rows.data, rows.ids)

    def place(all_: Array, some: Any) -> Array:
        chosen = jnp.take(some, origin, axis=0, mode="clip")
        return jnp.where(admitted.reshape((-1,) + (1,) * (all_.ndim - 1)), chosen, all_)

    return jax.tree.map(place, lanes, new)


def _step(rules: Rules, layout: Layout, lanes: Lanes, quota: Array, cap: Array) -> Lane:
    def ended(lane: Lane) -> Bool[Array, " lanes"]:
        return (lanes.ids >= 0) & ~lane.running

    def go_on(carry: tuple[Lane, Array]) -> Bool[Array, ""]:
        lane, count = carry
        running = jnp.any((lanes.ids >= 0) & lane.running)
        return running & (count < cap) & (jnp.sum(ended(lane)) < quota)

    def one(lane: Lane, data: list[Array]) -> Lane:
        objective = layout.join(data, rules.shared).coordinates().objective
        return advance(rules.refiner, objective, rules.stop, lane)

    def body(carry: tuple[Lane, Array]) -> tuple[Lane, Array]:
        lane, count = carry
        return jax.vmap(one)(lane, lanes.data), count + 1

    return jax.lax.while_loop(go_on, body, (lanes.lane.unpack(), jnp.int32(0)))[0]


def _collect(layout: Layout, rules: Rules, lanes: Lanes, size: int) -> tuple[Lanes, Outcome]:
    """Take up to ``size`` lanes that have ended out."""
    ended = (lanes.ids >= 0) & ~lanes.lane.unpack().running
    slots = jnp.argsort(~ended, stable=True)[:size]
    taken = ended[slots]
    outcome = _outcome(layout, rules, jax.tree.map(lambda leaf: leaf[slots], lanes))
    outcome = outcome.replace(ids=jnp.where(taken, outcome.ids, -1))
    ids = lanes.ids.at[jnp.where(taken, slots, lanes.ids.shape[0])].set(-1, mode="drop")
    return lanes.replace(ids=ids), outcome


def _outcome(layout: Layout, rules: Rules, lanes: Lanes) -> Outcome:
    def decode(data: list[Array], params: Any) -> Any:
        return layout.join(data, rules.shared).coordinates().decode(params)

    lane = lanes.lane.unpack()
    params = jax.vmap(decode)(lanes.data, lane.best_params)
    return Outcome(
        ids=lanes.ids,
        params=params,
        loss=lane.best_loss,
        initial_loss=lane.initial_loss,
        steps=lane.steps,
        evaluations=lane.evaluations,
        status=lane.status,
    )


@functools.partial(jax.jit, static_argnames=("layout",))
def snapshot(rules: Rules, lanes: Lanes, *, layout: Layout) -> Outcome:
    """Return all lanes as they are, ended or not.

    Args:
        rules: method, limits, key and shared data.
        lanes: the lanes.
        layout: which leaves belong to a sample.
    """
    return _outcome(layout, rules, lanes)
