"""Truncated backpropagation: cheap, and biased."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray, PyTree

from refinejax._core import Scalar
from refinejax.learned.masked import Masked, masked_gradient
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


class TruncatedUnroll(Estimator):
    """Backpropagation through windows of an episode, the state at their start taken as given.

    Biased: how the meta-params act on later windows is not seen (Wu et al. 2018, arXiv:1803.02021:
    for learning rates the bias is toward small ones). With ``window`` the horizon it is exact.

    Attributes:
        window: steps an update, a divisor of the horizon; static.
        lanes: episodes under way; static.
        parts: of the lanes, each left out as a whole if it is not finite, and its episodes ended;
            static. None: each lane by itself, which keeps a gradient for each.
        clip: longest gradient of a part; longer ones are shortened to it. None: none are.
        mesh: devices over which lanes are divided; static.

    Raises:
        ValueError: for windows that do not divide the horizon, or see no loss, and for parts that
            do not divide the lanes.
    """

    window: int = struct.field(pytree_node=False, default=10)
    lanes: int = struct.field(pytree_node=False, default=32)
    parts: int | None = struct.field(pytree_node=False, default=None)
    clip: Any = None
    mesh: Mesh | None = struct.field(pytree_node=False, default=None)

    def __post_init__(self) -> None:
        """Check the sizes."""
        check_window(self.inner, self.window, self.lanes)
        if self.parts is not None and (self.parts < 1 or self.lanes % self.parts):
            raise ValueError(
                f"parts: expected a divisor of the {self.lanes} lanes, got {self.parts}"
            )

    def begin(self, meta: PyTree, key: PRNGKeyArray) -> Episode:
        """Return lanes whose first episodes end at different times."""

        def one(key: PRNGKeyArray) -> Episode:
            first, second, third = jax.random.split(key, 3)
            lane = new_episode(self.inner, self.window, first, (), ())
            lane = lane.replace(state=self.inner.begin(meta, lane.task, second))
            return stagger(lane, self.window, third)

        return over_devices(jax.vmap(one)(jax.random.split(key, self.lanes)), self.mesh)

    def update(
        self, meta: PyTree, memory: Episode, key: PRNGKeyArray
    ) -> tuple[Scalar, PyTree, Episode, Metrics]:
        """Advance all lanes by a window; begin new tasks where episodes have ended."""
        keys = jax.random.split(key, self.lanes)
        lanes = jax.vmap(lambda lane, key: renew(self.inner, self.window, lane, key))(memory, keys)
        found, lanes = self._advance(meta, over_devices(lanes, self.mesh), self.parts or self.lanes)
        return found.loss, found.gradient, lanes, {"finite": jnp.mean(found.kept)}

    def __call__(self, meta: PyTree, tasks: PyTree, keys: PRNGKeyArray) -> tuple[Scalar, PyTree]:
        """Return means over the windows of whole episodes, all of the horizon."""
        inner = self.inner

        def one(task: Any, key: PRNGKeyArray) -> Episode:
            state = inner.begin(meta, task, key)
            return Episode(task, key, jnp.int32(0), jnp.int32(inner.horizon), state)

        def step(lanes: Episode, _: None) -> tuple[Episode, Any]:
            found, lanes = self._advance(meta, lanes, keys.shape[0])
            return lanes, (found.loss, found.gradient)

        windows = inner.horizon // self.window
        found = jax.lax.scan(step, jax.vmap(one)(tasks, keys), length=windows)[1]
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), found)

    def _advance(self, meta: PyTree, lanes: Episode, parts: int) -> tuple[Masked, Episode]:
        def loss(meta: Any, lane: Episode) -> tuple[Scalar, Any]:
            state, value = run_window(self.inner, meta, lane, lane.state, self.window)
            return value, state

        found = masked_gradient(loss, meta, lanes, parts, self.clip)
        lanes = lanes.replace(state=found.aux)
        return found, jax.vmap(lambda lane, kept: finish(lane, self.window, kept))(
            lanes, found.kept
        )
