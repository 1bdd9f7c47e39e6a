"""Forward models that predict each pixel from its coordinates alone."""

from collections.abc import Callable
from typing import Any

from flax import struct
from jaxtyping import Array, PyTree

from refinejax._trees import as_pytree


class Pointwise(struct.PyTreeNode):
    """A forward model given pixel by pixel: ``Pointwise(function, (u, v))``.

    Predicts function(params, *coordinates), or with a context function(params, context,
    *coordinates). The function must be elementwise in the coordinates: the prediction at a pixel
    depends on no other pixel. Then loss, gradient and normal equations are sums over pixels that
    are formed in one pass, without a Jacobian in memory, and a coarse grid is a slice of the
    coordinates.

    Attributes:
        function: elementwise in the coordinates; static unless it is a pytree.
        coordinates: arrays that broadcast to the shape of the observation.
        reorder: whether the compiler may reorder the arithmetic, which makes sums over pixels
            several times faster on CPU. Say so unless the function or the difference relies on the
            order of additions; static.
    """

    function: Callable[..., Array]
    coordinates: tuple[PyTree, ...] = ()
    reorder: bool = struct.field(pytree_node=False, default=False)

    def __post_init__(self) -> None:
        """Let a plain function stand for a pytree."""
        object.__setattr__(self, "function", as_pytree(self.function))

    def __call__(self, *args: Any) -> Array:
        """Return the prediction at all coordinates."""
        return self.function(*args, *self.coordinates)
