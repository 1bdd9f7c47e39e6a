"""Problems and params as flat lists of arrays, which jit takes fast and knows by structure."""

from typing import Any, NamedTuple

import jax
from flax import struct
from jaxtyping import Array

from refinejax._trees import is_key


class Layout(NamedTuple):
    """Which leaves of a problem belong to a sample and which to all; hashable, so static.

    ``reorder`` is the problem's word that its arithmetic may be reordered (see `Problem`), and
    ``classes`` tells problems apart whose classes are alike (see `structure_hash`).

    Attributes:
        structure: of the problem.
        batched: for each leaf, whether it belongs to a sample.
        reorder: whether the arithmetic may be reordered.
        classes: a hash that tells functions apart.
    """

    structure: Any
    batched: tuple[bool, ...]
    reorder: bool = False
    classes: int = 0

    def join(self, batched: list[Any], shared: list[Any]) -> Any:
        """Put a problem together from its two kinds of leaves.

        Args:
            batched: leaves that belong to samples.
            shared: leaves that all samples share.

        Returns:
            The problem.
        """
        own, common = iter(batched), iter(shared)
        leaves = [next(own) if mine else next(common) for mine in self.batched]
        return jax.tree.unflatten(self.structure, leaves)

    def lasting(self) -> "Layout":
        """Return the layout without ``classes``, a hash that differs between processes."""
        return self._replace(classes=0)

    @property
    def calls_host(self) -> bool:
        """Whether a part of the problem is a function of the user's that runs on the host."""
        return _calls_host(self.structure)

    def split(self, leaves: list[Any]) -> tuple[list[Any], list[Any]]:
        """Take the leaves of a problem apart: (batched, shared).

        Args:
            leaves: of the problem.

        Returns:
            Leaves of a sample, and leaves that all share.
        """
        pairs = list(zip(leaves, self.batched, strict=True))
        return [x for x, mine in pairs if mine], [x for x, mine in pairs if not mine]


def _calls_host(structure: Any) -> bool:
    node = structure.node_data()
    own = node is not None and getattr(node[0], "called_on_host", False)
    return own or any(_calls_host(child) for child in structure.children())


class Packed(struct.PyTreeNode):
    """A pytree in plain arrays: typed keys would keep jit from its fast way of calling.

    Attributes:
        leaves: of the pytree, keys as their data.
        structure: of the pytree; static.
        keys: for each leaf the implementation if it is a key, else None; static.
    """

    leaves: list[Array]
    structure: Any = struct.field(pytree_node=False)
    keys: tuple[Any, ...] = struct.field(pytree_node=False)

    @classmethod
    def pack(cls, tree: Any) -> "Packed":
        """Take a pytree apart.

        Args:
            tree: a pytree of arrays.

        Returns:
            The pytree in plain arrays.
        """
        leaves, structure = jax.tree.flatten(tree)
        keys = tuple(jax.random.key_impl(leaf) if is_key(leaf) else None for leaf in leaves)
        return cls([jax.random.key_data(x) if is_key(x) else x for x in leaves], structure, keys)

    def unpack(self) -> Any:
        """Put the pytree together."""
        pairs = zip(self.leaves, self.keys, strict=True)
        leaves = [
            x if kind is None else jax.random.wrap_key_data(x, impl=kind) for x, kind in pairs
        ]
        return jax.tree.unflatten(self.structure, leaves)
