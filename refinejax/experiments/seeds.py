"""All seeds of a small model in one compiled program. The only module here that uses JAX."""

import functools
from collections.abc import Callable, Sequence
from typing import Any


def train_seeds(
    train: Callable[[Any], Any], seeds: Sequence[int], *, at_once: int | None = None
) -> dict[int, Any]:
    """Train every seed at once.

    It equals ``train(jax.random.key(seed))`` for each seed, but for rounding, in one program that
    is compiled once per function and number of seeds.

    Args:
        train: key → pytree of arrays: initial params, params, losses, metrics. A function that JAX
            can trace, defined once: a new closure each time is compiled anew.
        seeds: different integers.
        at_once: how many to train side by side, if memory does not hold all; None: all.

    Returns:
        Seed → the result of ``train``, as NumPy arrays.

    Raises:
        ValueError: for no seeds, or one that appears twice.
    """
    import jax
    import numpy as np

    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: expected one or more, each once, got {list(seeds)!r}")
    if at_once is not None and at_once < 1:
        raise ValueError(f"at_once: expected 1 or more, got {at_once!r}")
    keys = jax.numpy.stack([jax.random.key(seed) for seed in seeds])
    trained = jax.tree.map(np.asarray, _program()(train, at_once, keys))
    return {seed: jax.tree.map(lambda leaf, i=i: leaf[i], trained) for i, seed in enumerate(seeds)}


@functools.cache
def _program() -> Callable[[Callable[[Any], Any], int | None, Any], Any]:
    import jax

    def run(train: Callable[[Any], Any], at_once: int | None, keys: Any) -> Any:
        if at_once is None:
            return jax.vmap(train)(keys)
        return jax.lax.map(train, keys, batch_size=at_once)

    return jax.jit(run, static_argnums=(0, 1))
