"""Where the batch engine gets its samples from: arrays (in memory or mapped), or a stream."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from refinejax._checks import check_count, check_params
from refinejax._core import Problem
from refinejax._gate import read_problem, read_tree
from refinejax._lane import UNLIMITED
from refinejax._marks import Session, mark
from refinejax._narrowing import check_integers
from refinejax._problem import FunctionProblem
from refinejax._trees import structure_hash
from refinejax.batch.layout import Layout


class Samples(NamedTuple):
    """Some samples: leaves of their problems and of their params, numbers, and what went before.

    ``steps`` were taken in earlier stages, and ``initial_loss`` is where those began (NaN: none).

    Attributes:
        data: leaves of their problems.
        params: leaves of their params.
        ids: numbers of the samples, shape (n,).
        steps: taken in earlier stages.
        initial_loss: where the first of those began; NaN for none.
    """

    data: list[np.ndarray]
    params: list[np.ndarray]
    ids: np.ndarray
    steps: np.ndarray
    initial_loss: np.ndarray


class Source(Protocol):
    """Hands out samples until there are none left."""

    def take(self, count: int) -> Samples | None:
        """Return at most ``count`` samples, or None if there are no more."""
        ...


class ArraySource:
    """Samples ``ids`` of arrays with a leading sample axis. Reads only what it hands out."""

    def __init__(
        self,
        data: list[Any],
        params: list[Any],
        ids: np.ndarray,
        steps: np.ndarray,
        initial_loss: np.ndarray,
    ) -> None:
        self.data, self.params, self.steps, self.initial_loss = data, params, steps, initial_loss
        self.ids = np.asarray(ids, np.int32)
        self.position = 0

    def take(self, count: int) -> Samples | None:
        """Return the next samples."""
        ids = self.ids[self.position : self.position + count]
        self.position += len(ids)
        if not len(ids):
            return None
        data = [_rows(leaf, ids) for leaf in self.data]
        params = [_rows(leaf, ids) for leaf in self.params]
        return Samples(data, params, ids, self.steps[ids], self.initial_loss[ids])


def _rows(leaf: Any, ids: np.ndarray) -> np.ndarray:
    if ids[-1] - ids[0] == len(ids) - 1:  # a slice of a mapped file reads less than an index
        return np.asarray(leaf[ids[0] : ids[-1] + 1])
    return np.asarray(leaf[ids])


class StreamChunk(NamedTuple):
    """A part of a stream.

    Attributes:
        data, params: leaves with a leading sample axis.
        rows: which samples are to be refined.
        first: number of the first sample within the stream.
    """

    data: list[Any]
    params: list[Any]
    rows: np.ndarray
    first: int


class StreamSource:
    """Samples of an iterator of chunks, which are read when they are needed."""

    def __init__(self, chunks: Iterator[StreamChunk]) -> None:
        self.chunks = chunks
        self.chunk: ArraySource | None = None
        self.first = 0

    def take(self, count: int) -> Samples | None:
        """Return samples of the chunk at hand, or of the next."""
        samples = None if self.chunk is None else self.chunk.take(count)
        while samples is None:
            found = next(self.chunks, None)
            if found is None:
                return None
            size, self.first = len(found.params[0]), found.first
            loss = np.full(size, np.nan, np.result_type(*found.params))
            steps = np.zeros(size, np.int32)
            self.chunk = ArraySource(found.data, found.params, found.rows, steps, loss)
            samples = self.chunk.take(count)
        return samples._replace(ids=samples.ids + np.int32(self.first))


def describe(
    problem: Problem, axes: Any, count: int, marks: Session | None = None
) -> tuple[Layout, list[Any]]:
    """Sort the leaves of a problem into those of a sample and those of all.

    Args:
        problem: a pytree whose own leaves have a leading axis of ``count``.
        axes: a pytree prefix of 0 and None, or None for the problem's own choice (else: every
            leaf that is not a single number belongs to a sample).
        count: the number of samples.
        marks: the session in which functions are marked, so that their content counts; by default
            the session of the call.

    Returns:
        The layout, and all leaves of the problem.

    Raises:
        ValueError: names a leaf whose leading axis is not ``count``.
    """
    check_integers(problem, "problem")
    problem, axes = mark(read_problem(problem), marks), mark(axes, marks)
    paths, structure = jax.tree_util.tree_flatten_with_path(problem)
    if axes is None:
        axes = problem.batch_axes()
    elif isinstance(problem, FunctionProblem) and not isinstance(axes, FunctionProblem):
        axes = FunctionProblem(axes)  # they were given for the function
    for axis in jax.tree.leaves(axes):
        if not isinstance(axis, int) or axis != 0:
            raise ValueError(f"axes: expected 0 (of a sample) or None (of all), got {axis!r}")
    try:
        flags = jax.tree.map(
            lambda axis, part: jax.tree.map(lambda _: axis is not None, part),
            axes,
            problem,
            is_leaf=lambda axis: axis is None,
        )
    except ValueError as error:
        raise ValueError(f"axes: not a prefix of the problem's structure: {error}") from error
    flags = jax.tree.leaves(flags)
    for (path, leaf), own in zip(paths, flags, strict=True):
        if own and np.shape(leaf)[:1] != (count,):
            name = "problem" + jax.tree_util.keystr(path)
            raise ValueError(
                f"{name}: expected a leading axis of {count}, one entry a sample, got shape "
                f"{np.shape(leaf)}; if all samples share it, say so with axes="
            )
    layout = Layout(structure, tuple(flags), bool(problem.reorder), structure_hash(problem))
    return layout, [x for _, x in paths]


def count_samples(params: Any) -> int:
    """Return the length of the leading axis that all leaves of ``params`` share.

    Args:
        params: of the samples, with a leading sample axis.

    Raises:
        ValueError: if there is none, or it is empty.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    if not leaves:
        raise ValueError("params: expected arrays with a leading sample axis, got an empty pytree")
    counts = {np.shape(leaf)[0] if np.ndim(leaf) else None for _, leaf in leaves}
    if len(counts) != 1 or None in counts:
        shapes = {"params" + jax.tree_util.keystr(path): np.shape(leaf) for path, leaf in leaves}
        raise ValueError(f"params: expected one leading sample axis in every leaf, got {shapes}")
    count = counts.pop()
    if not count:
        raise ValueError("params: empty batch; there is nothing to refine")
    assert count is not None
    return count


def host(params: Any) -> Any:
    """Make every leaf a floating NumPy array of a dtype that JAX uses.

    Args:
        params: a pytree of arrays, of lists of numbers, or of what can be made an array.

    Returns:
        The params as NumPy arrays.

    Raises:
        ValueError: names a leaf that is no array of real numbers.
    """

    def convert(path: Any, leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf)
        if not np.issubdtype(leaf.dtype, np.floating) and leaf.dtype != jnp.bfloat16:
            check_params(leaf, "params" + jax.tree_util.keystr(path))
        return np.asarray(leaf, jax.dtypes.canonicalize_dtype(leaf.dtype))

    return jax.tree_util.tree_map_with_path(convert, read_tree(params, "params", lists=False))


def check_steps(max_steps: Any) -> int:
    """Return it as an int that 32 bits hold.

    Args:
        max_steps: a whole number of 0 or more.
    """
    check_count("max_steps", max_steps)
    return min(int(max_steps), UNLIMITED)
