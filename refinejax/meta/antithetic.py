"""Evolution strategies: meta-gradients from pairs of perturbed episodes, without derivatives."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray, PyTree

from refinejax._checks import check_above_zero
from refinejax._core import Scalar
from refinejax._trees import select
from refinejax.learned.masked import Masked, masked_average
from refinejax.meta.estimator import Estimator, Metrics, over_devices
from refinejax.meta.lanes import (
    Episode,
    check_window,
    finish,
    new_episode,
    renew,
    run_window,
    stagger,
)

NOISES = ("accumulated", "kept", "fresh")


class Antithetic(Estimator):
    """Differences between episodes with meta-params θ + ε and θ − ε, on the same tasks and keys.

    Each lane keeps both episodes. In a window with losses L₊ and L₋ its estimate is

        (L₊ − L₋) / (2σ²) · ξ,   ε ~ N(0, σ²),

    where by ``noise`` ξ is: "accumulated", ε drawn anew in each window and ξ the sum of all since
    the episode began (persistent evolution strategies, PES: Vicol et al. 2021, arXiv:2112.13835,
    algorithm 2); "kept", ε drawn once an episode and ξ = ε (noise-reuse evolution strategies, NRES:
    Li et al. 2023, arXiv:2304.12180, algorithm 1); "fresh", ε drawn anew and ξ = ε (truncated
    evolution strategies). The first two are unbiased for the loss smoothed by the noise, whatever
    the window; the last is where the window is the horizon, and else as biased as truncated
    backpropagation. A lane that is lost, in either episode, begins with another task.

    Attributes:
        std: σ.
        clip: longest estimate of a lane; longer ones are shortened to it. None: none are.
        window: steps an update, a divisor of the horizon; static.
        lanes: pairs of episodes under way; static.
        noise: "accumulated", "kept" or "fresh"; static.
        mesh: devices over which lanes are divided; static.

    Raises:
        ValueError: for windows that do not divide the horizon or see no loss, or another noise;
            from `es`, `pes` and `nres` also for a σ that is not above 0.
    """

    std: Any = 0.01
    clip: Any = None
    window: int = struct.field(pytree_node=False, default=10)
    lanes: int = struct.field(pytree_node=False, default=32)
    noise: str = struct.field(pytree_node=False, default="accumulated")
    mesh: Mesh | None = struct.field(pytree_node=False, default=None)

    def __post_init__(self) -> None:
        """Check the sizes."""
        check_window(self.inner, self.window, self.lanes)
        if self.noise not in NOISES:
            raise ValueError(f"noise: expected one of {', '.join(NOISES)}, got {self.noise!r}")

    def begin(self, meta: PyTree, key: PRNGKeyArray) -> Episode:
        """Return lanes whose first episodes end at different times."""

        def one(key: PRNGKeyArray) -> Episode:
            first, second = jax.random.split(key)
            lane = new_episode(self.inner, self.window, first, (), ())
            return stagger(self._start(meta, lane), self.window, second)

        return over_devices(jax.vmap(one)(jax.random.split(key, self.lanes)), self.mesh)

    def update(
        self, meta: PyTree, memory: Episode, key: PRNGKeyArray
    ) -> tuple[Scalar, PyTree, Episode, Metrics]:
        """Advance all lanes by a window; begin new tasks where episodes have ended."""
        one, two = jax.random.split(key)
        keys = jax.random.split(one, self.lanes)
        lanes = jax.vmap(lambda lane, key: renew(self.inner, self.window, lane, key))(memory, keys)
        found, lanes = self._advance(meta, over_devices(lanes, self.mesh), two)
        return found.loss, found.gradient, lanes, {"finite": jnp.mean(found.kept)}

    def __call__(self, meta: PyTree, tasks: PyTree, keys: PRNGKeyArray) -> tuple[Scalar, PyTree]:
        """Return means over the windows of whole episodes, all of the horizon."""

        def one(task: Any, key: PRNGKeyArray) -> Episode:
            length = jnp.int32(self.inner.horizon)
            return self._start(meta, Episode(task, key, jnp.int32(0), length, ()))

        def step(lanes: Episode, key: PRNGKeyArray) -> tuple[Episode, Any]:
            found, lanes = self._advance(meta, lanes, key)
            return lanes, (found.loss, found.gradient)

        lanes = jax.vmap(one)(tasks, keys)
        draws = jax.random.split(jax.random.fold_in(keys[0], 1), self.inner.horizon // self.window)
        found = jax.lax.scan(step, lanes, draws)[1]
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), found)

    def _start(self, meta: PyTree, lane: Episode) -> Episode:
        state = self.inner.begin(meta, lane.task, lane.key)
        return lane.replace(state=(state, state), noise=jax.tree.map(jnp.zeros_like, meta))

    def _advance(self, meta: PyTree, lanes: Episode, key: PRNGKeyArray) -> tuple[Masked, Episode]:
        """Return the means over the finite lanes, and the lanes after the window."""
        keys = jax.random.split(key, lanes.count.shape[0])
        found = masked_average(self._pair, meta, (lanes, keys), self.clip)
        return found, jax.vmap(lambda lane, kept: finish(lane, self.window, kept))(
            found.aux, found.kept
        )

    def _pair(
        self, meta: PyTree, sample: tuple[Episode, PRNGKeyArray]
    ) -> tuple[tuple[Scalar, Episode], PyTree]:
        """Return ((mean loss of both episodes, the lane), the estimate) for one lane."""
        lane, key = sample
        begins = lane.count == 0
        drawn = optax.tree.random_like(key, meta, jax.random.normal)
        shift = optax.tree.scale(self.std, drawn)
        if self.noise == "kept":
            shift = select(begins, shift, lane.noise)
        total = shift
        if self.noise == "accumulated":
            before = jax.tree.map(lambda x: jnp.where(begins, 0, x), lane.noise)
            total = optax.tree.add(before, shift)
        states, losses = zip(
            *(
                run_window(self.inner, moved, lane, state, self.window)
                for moved, state in zip(
                    (optax.tree.add(meta, shift), optax.tree.sub(meta, shift)),
                    lane.state,
                    strict=True,
                )
            ),
            strict=True,
        )
        scale = (losses[0] - losses[1]) / (2 * self.std**2)
        estimate = jax.tree.map(lambda x, m: (scale * x).astype(m.dtype), total, meta)
        total = jax.tree.map(lambda x, m: x.astype(m.dtype), total, meta)
        return ((losses[0] + losses[1]) / 2, lane.replace(state=states, noise=total)), estimate


def es(
    inner: Any,
    *,
    std: Any = 0.01,
    clip: Any = None,
    lanes: int = 32,
    mesh: Mesh | None = None,
) -> Antithetic:
    """Return antithetic evolution strategies over whole episodes: `Antithetic` of one window.

    Args:
        inner: inner loop.
        std: σ of the perturbations, above 0.
        clip: largest norm of a lane's estimate; None: no limit.
        lanes: pairs of episodes.
        mesh: devices over which lanes are divided.

    Returns:
        The estimator.

    Raises:
        ValueError: names the argument that does not fit.
    """
    check_above_zero("std", std, "a standard deviation")
    return Antithetic(inner, std, clip, window=inner.horizon, lanes=lanes, noise="fresh", mesh=mesh)


def pes(
    inner: Any,
    *,
    std: Any = 0.01,
    clip: Any = None,
    window: int = 10,
    lanes: int = 32,
    mesh: Mesh | None = None,
) -> Antithetic:
    """Return persistent evolution strategies (Vicol et al. 2021).

    Args:
        inner: as for `es`.
        std: as for `es`.
        clip: as for `es`.
        window: steps of an update, a divisor of the horizon.
        lanes: pairs of episodes under way.
        mesh: as for `es`.

    Returns:
        The estimator.

    Raises:
        ValueError: names the argument that does not fit.
    """
    check_above_zero("std", std, "a standard deviation")
    return Antithetic(inner, std, clip, window=window, lanes=lanes, noise="accumulated", mesh=mesh)


def nres(
    inner: Any,
    *,
    std: Any = 0.01,
    clip: Any = None,
    window: int = 10,
    lanes: int = 32,
    mesh: Mesh | None = None,
) -> Antithetic:
    """Return noise-reuse evolution strategies (Li et al. 2023).

    Args:
        inner: as for `es`.
        std: as for `es`.
        clip: as for `es`.
        window: as for `pes`.
        lanes: as for `pes`.
        mesh: as for `es`.

    Returns:
        The estimator.

    Raises:
        ValueError: names the argument that does not fit.
    """
    check_above_zero("std", std, "a standard deviation")
    return Antithetic(inner, std, clip, window=window, lanes=lanes, noise="kept", mesh=mesh)
