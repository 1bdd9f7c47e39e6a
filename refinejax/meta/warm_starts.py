"""Starts from tasks that are solved: those of the nearest neighbors, as far as that pays."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from refinejax._checks import check_seconds
from refinejax._deadline import Deadline
from refinejax._progress import ProgressBar

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_ALL_SIGNS, _DRAWS = 12, 4096  # up to so many tasks all signs are tried, else so many draws
Judge = Callable[[PyTree, int], Any]


class WarmStarts(struct.PyTreeNode):
    """Moves a cold start toward what solved similar tasks: x₀ + w·(Σ aᵢxᵢ − x₀).

    The sum is over the nearest neighbors in the space of features, each divided by its standard
    deviation; aᵢ falls with the inverse of the distance (Shepard 1968), so that a task met before
    has its own solution. Solutions of other sizes lend what they share with the start: of each leaf
    the block of indices that both have; the rest of the start stays.

    Made by `fit_warm_starts`.

    Attributes:
        features: of the solved tasks, in units of their standard deviations, shape (n, d).
        scale: those deviations, shape (d,).
        solutions: leaves of shape (n, …), padded to the largest.
        known: where the padded solutions are known, the same structure.
        weight: w; 0 is the cold start.
        gain: mean of held-out losses from cold starts minus that from these.
        gain_error: its standard error.
        neighbors: how many; static.
    """

    features: Float[Array, "n d"]
    scale: Float[Array, " d"]
    solutions: PyTree
    known: PyTree
    weight: Any
    gain: Any
    gain_error: Any
    neighbors: int = struct.field(pytree_node=False, default=5)

    def __call__(self, features: Float[ArrayLike, " d"], cold: PyTree) -> PyTree:
        """Return where to begin on a task, of the shapes of ``cold``; map it over a batch.

        Args:
            features: of the task, shape (d,).
            cold: where one would begin without.

        Raises:
            ValueError: for features of another width, or params of another structure.
        """
        found = jnp.asarray(features, self.features.dtype)
        if found.shape != self.scale.shape:
            raise ValueError(
                f"features: expected shape {self.scale.shape}, as of the solved tasks, got "
                f"{found.shape}; one task at a time (jax.vmap for many)"
            )
        check_alike("cold", cold, self.solutions)
        nearest, shares = neighbors(self.features, found / self.scale, self.neighbors)

        def move(start: Any, solved: Array, known: Array) -> Array:
            start = jnp.asarray(start)
            block = tuple(slice(0, size) for size in start.shape)
            solved, known = (_fit(x[nearest][:, *block], start.shape) for x in (solved, known))
            parts = jnp.where(known, jnp.expand_dims(shares, range(1, 1 + start.ndim)), 0)
            total = jnp.sum(parts, axis=0)
            mean = jnp.sum(parts * solved, axis=0) / jnp.where(total > 0, total, 1)
            moved = start + self.weight * (mean - start)
            return jnp.where(total > 0, moved, start).astype(start.dtype)

        return jax.tree.map(move, cold, self.solutions, self.known)


def fit_warm_starts(
    features: Float[ArrayLike, "n d"],
    solutions: Sequence[PyTree],
    cold: Sequence[PyTree],
    judge: Judge,
    *,
    neighbors: int = 5,
    weights: Sequence[float] = WEIGHTS,
    level: float = 0.025,
    progress: bool = False,
    time_limit: float | None = None,
) -> WarmStarts:
    """Choose by held-out gain how far starts are to be moved to the solutions of similar tasks.

    Each solved task in turn is held out: its start comes from the others. The weight with the least
    mean loss is taken if its gain over cold starts is significant: if the differences task by task,
    with their signs at random, would make the best of all weights look as good with a chance of
    at most ``level`` (Fisher's test of symmetry, by the largest statistic: Westfall & Young 1993);
    at the default level that takes 6 tasks or more. Otherwise the weight is 0 and starts stay cold.
    So transfer that does not pay is seldom made. The gain that is reported is of the tasks that
    chose the weight, and as such on the high side.

    Args:
        features: numbers known of each solved task beforehand, shape (n, d).
        solutions: of each, pytrees of the same structure; sizes of leaves may differ.
        cold: where each would begin without help, like its solution.
        judge: ``judge(start, i)`` → loss of task ``i`` begun at ``start``: at once, or after a few
            steps of a refiner. A weight by which a task that was finite from its cold start is lost
            is not taken.
        neighbors: how many are averaged.
        weights: to choose from; 0 is always among them.
        level: of the test, above 0 and below 1.
        progress: draw a progress bar on stderr, a step for each task held out.
        time_limit: seconds after which no further task is held out (Ctrl-C does the same): the
            weight is chosen by those that were, and all solutions are used. None for no limit.

    Returns:
        The warm starts.

    Raises:
        ValueError: for fewer than 3 tasks or as many neighbors as tasks, features that are not
            finite, lists that do not match, or another level.
    """
    check_seconds("time_limit", time_limit)
    if not 0 < level < 1:
        raise ValueError(f"level: expected a chance between 0 and 1, got {level!r}")
    known = _features(features, len(solutions), len(cold), neighbors)
    check_all_alike(solutions, cold)
    deviations = known.std(axis=0)
    scale = jnp.asarray(np.where(deviations > 0, deviations, 1))
    padded, where = _stack(solutions)
    scaled = jnp.asarray(known) / scale
    warm = WarmStarts(scaled, scale, padded, where, 0.0, 0.0, 0.0, neighbors)
    tried = np.array(sorted({0.0, *(float(w) for w in weights)}))
    losses = np.empty((0, len(tried)))
    bar = ProgressBar("holding out", len(cold), shown=progress)
    with Deadline(time_limit) as deadline, bar:
        for i, start in enumerate(cold):
            if deadline.status() is not None:
                break
            row = [float(judge(_held_out(warm, i, known[i], start, w), i)) for w in tried]
            losses = np.vstack([losses, row])
            bar.draw(i + 1, "")
    weight, gain, error = choose(tried, losses, level)
    return warm.replace(weight=weight, gain=gain, gain_error=error)


def choose(
    weights: np.ndarray, losses: np.ndarray, level: float = 0.025
) -> tuple[float, float, float]:
    """Return the weight with the least mean loss, its gain over weight 0, and the standard error.

    Args:
        weights: shape (k,), 0 among them.
        losses: of each task and weight, shape (n, k). Tasks that are lost from their cold start say
            nothing; weights that lose another one are not taken.
        level: of the test that the gain is above 0; if it is not, weight 0 and no gain.
    """
    cold = int(np.argmin(np.abs(weights)))
    there = np.isfinite(losses[:, cold])
    usable = np.all(np.isfinite(losses[there]), axis=0)
    gains = losses[there][:, [cold]] - losses[there][:, usable]
    if len(gains) < 2:  # also where the time was up at once
        return 0.0, 0.0, float("nan")
    best = int(np.argmax(gains.mean(axis=0)))
    error = float(gains[:, best].std(ddof=1) / np.sqrt(len(gains)))
    if not _chance(gains, best) <= level:
        return 0.0, 0.0, error
    return float(weights[usable][best]), float(gains[:, best].mean()), error


def _chance(gains: np.ndarray, best: int) -> float:
    """Return how often, with signs at random, the best of all weights is as good as that one."""
    count = len(gains)
    if count <= _ALL_SIGNS:
        signs = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
    else:
        signs = np.random.default_rng(0).choice([-1, 1], (_DRAWS, count))
        signs[0] = 1
    lengths = np.sqrt(np.sum(gains**2, axis=0))
    scores = signs @ (gains / np.where(lengths > 0, lengths, 1))
    seen = np.sum(gains[:, best]) / max(lengths[best], np.finfo(float).tiny)
    return float(np.mean(scores.max(axis=1) >= seen - 1e-12))


def neighbors(
    features: Float[Array, "n d"], point: Float[Array, " d"], count: int
) -> tuple[Array, Array]:
    """Return the indices of the nearest, shape (count,), and their shares, whose sum is 1.

    Args:
        features: shape (n, d).
        point: shape (d,).
        count: how many; static.
    """
    squared = jnp.sum((features - point) ** 2, axis=1)
    nearest = jnp.argsort(squared)[:count]
    distance = jnp.sqrt(squared[nearest])
    met = distance <= 1e-6
    inverse = jnp.where(jnp.any(met), met, 1 / jnp.where(met, 1, distance))
    return nearest, inverse / jnp.sum(inverse)


@jax.jit
def _held_out(warm: WarmStarts, i: Any, features: Any, start: PyTree, weight: Any) -> PyTree:
    apart = warm.features.at[i].set(jnp.inf)  # farther than all others
    return warm.replace(features=apart, weight=weight)(features, start)


def _fit(block: Array, shape: tuple[int, ...]) -> Array:
    """Pad a block with zeros (or False) to a larger shape."""
    widths = [(0, 0), *((0, n - m) for n, m in zip(shape, block.shape[1:], strict=True))]
    return jnp.pad(block, widths)


def _stack(solutions: Sequence[PyTree]) -> tuple[PyTree, PyTree]:
    """Return leaves padded to the largest and stacked, and where they are known."""

    def padded(*leaves: Any) -> tuple[Array, Bool[Array, "..."]]:
        arrays = [np.asarray(leaf) for leaf in leaves]
        shape = tuple(max(sizes) for sizes in zip(*(a.shape for a in arrays), strict=True))
        values = np.zeros((len(arrays), *shape), np.result_type(*arrays))
        known = np.zeros(values.shape, bool)
        for i, array in enumerate(arrays):
            block = (i, *(slice(0, size) for size in array.shape))
            values[block], known[block] = array, np.isfinite(array)
        return jnp.asarray(np.where(known, values, 0)), jnp.asarray(known)

    pairs = jax.tree.map(padded, *solutions)
    outer = jax.tree.structure(solutions[0])
    return jax.tree.transpose(outer, jax.tree.structure((0, 0)), pairs)


def _features(features: Any, solved: int, cold: int, count: int) -> np.ndarray:
    known = np.asarray(features, float)
    if known.ndim != 2 or len(known) != solved or cold != solved:
        raise ValueError(
            f"features: expected shape (n, d) with n solutions and n cold starts, got shape "
            f"{known.shape}, {solved} and {cold}"
        )
    if not np.all(np.isfinite(known)):
        raise ValueError("features: expected finite numbers; leave out tasks that have none")
    if solved < 3 or not 1 <= count < solved:
        raise ValueError(
            f"neighbors: expected 1 to n − 1 of 3 solved tasks or more, got {count} of {solved}"
        )
    return known


def check_all_alike(solutions: Sequence[PyTree], cold: Sequence[PyTree]) -> None:
    """Raise `ValueError` unless all have the structure of the first, and leaves as many axes.

    Args:
        solutions: of the tasks.
        cold: their cold starts.

    Raises:
        ValueError: names the one that differs.
    """
    for i, tree in enumerate([*solutions, *cold]):
        name = f"solutions[{i}]" if i < len(solutions) else f"cold[{i - len(solutions)}]"
        check_alike(name, tree, jax.tree.map(lambda x: np.asarray(x)[None], solutions[0]))


def check_alike(name: str, tree: PyTree, stacked: PyTree) -> None:
    """Raise `ValueError` unless params have the structure and axes of stacked ones.

    Args:
        name: of the argument.
        tree: params of one task.
        stacked: params of many.

    Raises:
        ValueError: names what differs.
    """
    here, there = jax.tree.structure(tree), jax.tree.structure(stacked)
    if here != there:
        raise ValueError(f"{name}: expected params like the solutions, {there}, got {here}")
    for one, many in zip(jax.tree.leaves(tree), jax.tree.leaves(stacked), strict=True):
        if jnp.ndim(one) + 1 != jnp.ndim(many):
            raise ValueError(
                f"{name}: expected a leaf with {jnp.ndim(many) - 1} axes, as of the solutions, got "
                f"shape {jnp.shape(one)}; only sizes may differ"
            )
