"""The rules by which JAX combines dtypes and ranks while this package computes."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import jax


@contextmanager
def standard_promotion() -> Iterator[None]:
    """Within the block JAX promotes dtypes and ranks as by default, whatever the caller has set.

    ``jax.numpy_dtype_promotion("strict")`` and ``jax.numpy_rank_promotion("raise")`` are checks for
    the code of the one who sets them; optax and evosax, which refiners are made of, rely on the
    default rules. Nothing is entered where these hold, so that no program is compiled twice.
    """
    config: Any = jax.config  # its options are defined at run time
    with ExitStack() as stack:
        if config.jax_numpy_dtype_promotion != "standard":
            stack.enter_context(jax.numpy_dtype_promotion("standard"))
        if config.jax_numpy_rank_promotion != "allow":
            stack.enter_context(jax.numpy_rank_promotion("allow"))
        yield
