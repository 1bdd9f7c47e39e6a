"""Forward models outside JAX: NumPy, a subprocess, a compiled library."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
import numpy as np
from flax import struct


class BlackBox(struct.PyTreeNode):
    """A forward model outside JAX, called through ``jax.pure_callback``.

    One callback serves all candidates of all samples that are under way; it asks the function for
    one after the other, or with ``vectorized`` for all at once. A candidate for which the function
    raises an exception or returns something else than a prediction is NaN, with a warning; the
    others are untouched, also with ``vectorized``, where the call is then repeated one by one, and
    where warnings are errors. Each call gets arrays of its own, which the function may change.

    Attributes:
        function: (params, *context) → prediction, on NumPy arrays; static.
        shapes: pytree structure, shapes and dtypes of a prediction; static.
        vectorized: whether the function takes arrays with a leading axis of candidates, and returns
            such; static.
    """

    function: Callable[..., Any] = struct.field(pytree_node=False)
    shapes: tuple[Any, tuple[tuple[tuple[int, ...], str], ...]] = struct.field(pytree_node=False)
    vectorized: bool = struct.field(pytree_node=False, default=False)
    called_on_host: ClassVar[bool] = True  # so that no compiled program holds what it reads

    @classmethod
    def wrap(
        cls, function: Callable[..., Any], observations: Any, *, vectorized: bool = False
    ) -> "BlackBox":
        """Take the shapes of a prediction from the observations, which have a sample axis.

        Args:
            function: the model: params → prediction, or (params, context) → prediction, in NumPy.
            observations: arrays with a leading sample axis.
            vectorized: whether it takes many candidates along a leading axis.

        Returns:
            The model for one sample, as JAX can call it.
        """
        leaves, structure = jax.tree.flatten(observations)
        dtypes = [jax.dtypes.canonicalize_dtype(leaf.dtype) for leaf in leaves]
        shapes = [(leaf.shape[1:], str(d)) for leaf, d in zip(leaves, dtypes, strict=True)]
        return cls(function, (structure, tuple(shapes)), vectorized)

    def __call__(self, *args: Any) -> Any:
        """Call the function on the host."""
        structure, shapes = self.shapes
        expected = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*pair) for pair in shapes])
        ranks = tuple(np.ndim(leaf) for leaf in jax.tree.leaves(args))
        host = functools.partial(self._host, ranks)
        return jax.pure_callback(host, expected, *args, vmap_method="broadcast_all")

    def _host(self, ranks: tuple[int, ...], *args: Any) -> Any:
        """Evaluate candidates: whatever axes lead are theirs."""
        leaves, structure = jax.tree.flatten(jax.tree.map(np.asarray, args))
        ahead = leaves[0].shape[: leaves[0].ndim - ranks[0]]
        rows = [x.reshape(-1, *x.shape[len(ahead) :]) for x in leaves]
        found = self._predict(jax.tree.unflatten(structure, rows), len(rows[0]))
        expected, shapes = self.shapes
        arrays = [
            part.reshape(*ahead, *shape) for part, (shape, _) in zip(found, shapes, strict=True)
        ]
        return jax.tree.unflatten(expected, arrays)

    def _predict(self, args: Any, count: int) -> list[np.ndarray]:
        """Return the leaves of the predictions for ``count`` candidates."""
        if self.vectorized:
            whole = self._try(args, (count,))
            if not isinstance(whole, Exception):
                return whole
        lead = (1,) if self.vectorized else ()
        outputs = [np.full((count, *s), np.nan, d) for s, d in self.shapes[1]]
        for index, one in enumerate(_each(args, count, keep=self.vectorized)):
            parts = self._try(one, lead)
            if isinstance(parts, Exception):
                _warn(f"forward: {type(parts).__name__}: {parts}; the candidate counts as NaN")
                continue
            for output, part in zip(outputs, parts, strict=True):
                output[index] = part.reshape(output.shape[1:])
        return outputs

    def _try(self, args: Any, lead: tuple[int, ...]) -> list[np.ndarray] | Exception:
        """Call the function; return what it raises, if it does."""
        structure, shapes = self.shapes
        try:
            prediction = self.function(*copied(args))
            leaves = structure.flatten_up_to(prediction)
            return [
                _as(leaf, (*lead, *shape), dtype)
                for leaf, (shape, dtype) in zip(leaves, shapes, strict=True)
            ]
        except Exception as error:
            return error


def copied(args: Any) -> Any:
    """Return the arguments of a call as arrays of its own, which a function may change in place.

    Args:
        args: a pytree of NumPy arrays and numbers.
    """
    return jax.tree.map(lambda leaf: leaf.copy() if hasattr(leaf, "copy") else leaf, args)


def _warn(message: str) -> None:
    """Warn; where warnings are errors, this one is not, since it would end all candidates."""
    with contextlib.suppress(RuntimeWarning):
        warnings.warn(message, RuntimeWarning, stacklevel=3)


def _each(args: Any, count: int, *, keep: bool) -> Iterator[Any]:
    """Yield the arguments of each candidate; ``keep`` its axis."""
    for index in range(count):
        at = slice(index, index + 1) if keep else index
        yield jax.tree.map(lambda leaf, at=at: leaf[at], args)


def _as(leaf: Any, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    array = np.asarray(leaf, dtype)
    if array.shape != shape:
        raise ValueError(f"expected a prediction of shape {shape}, got {array.shape}")
    return array
