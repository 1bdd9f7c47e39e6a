"""A neural network as a pytree."""

from typing import Any

from flax import nnx, struct


class Network(struct.PyTreeNode):
    """A flax.nnx module whose weights are leaves and whose structure is static.

    A pure function of its weights: it can be jitted, vmapped, differentiated and averaged like any
    other pytree, and held by a refiner. The module has nothing but `nnx.Param` variables: no batch
    statistics, no dropout in training.

    Attributes:
        weights: pytree of arrays.
        graph: what ``nnx.split`` says of the structure; static.
    """

    weights: Any
    graph: Any = struct.field(pytree_node=False)

    @classmethod
    def of(cls, module: nnx.Module) -> "Network":
        """Split a module into weights and structure.

        Args:
            module: a module of `nnx.Param` variables.

        Returns:
            The network.

        Raises:
            ValueError: if it holds variables other than `nnx.Param`.
        """
        graph, weights, rest = nnx.split(module, nnx.Param, ...)
        others = sorted({type(v).__name__ for _, v in nnx.to_flat_state(rest)})
        if others:
            raise ValueError(
                f"module: expected nnx.Param variables only, {type(module).__name__} also holds "
                f"{', '.join(others)}; use LayerNorm or GroupNorm instead of BatchNorm, and no "
                "Dropout"
            )
        return cls(nnx.to_pure_dict(weights), graph)

    def __call__(self, *args: Any) -> Any:
        """Apply the module."""
        return nnx.merge(self.graph, self.weights, copy=True)(*args)

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the module by its name.

        Args:
            method: its name.
            args: its arguments.

        Returns:
            What the method returns.
        """
        return getattr(nnx.merge(self.graph, self.weights, copy=True), method)(*args)
