"""Neural networks (flax.nnx), and how they are held: as pytrees."""

from refinejax.networks.network import Network as Network
