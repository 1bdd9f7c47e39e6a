"""Networks as pytrees."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from refinejax.networks import Network


class Small(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.last = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.last(jnp.tanh(self.first(x)))


def small(seed=0):
    return Network.of(Small(nnx.Rngs(seed)))


def test_a_network_is_the_module():
    module = Small(nnx.Rngs(0))
    x = jnp.ones(3)
    np.testing.assert_array_equal(Network.of(module)(x), module(x))


def test_new_weights_do_not_trace_again():
    traced = []

    @jax.jit
    def apply(network, x):
        traced.append(1)
        return network(x)

    apply(small(0), jnp.ones(3))
    apply(small(1), jnp.ones(3))
    assert len(traced) == 1


def test_gradients_are_those_of_the_formula():
    def plain(w, x):
        first, last = w["first"], w["last"]
        inside = jnp.tanh(x @ first["kernel"] + first["bias"])
        return jnp.sum((inside @ last["kernel"] + last["bias"]) ** 2)

    network, x = small(), jnp.arange(3.0)
    ours = jax.grad(lambda n: jnp.sum(n(x) ** 2))(network)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        ours.weights,
        jax.grad(plain)(network.weights, x),
    )


def test_optax_and_vmap_take_networks():
    networks = jax.vmap(lambda key: Network.of(Small(nnx.Rngs(key))))(
        jax.random.split(jax.random.key(0), 2)
    )
    assert jax.vmap(lambda n: n(jnp.ones(3)))(networks).shape == (2, 2)
    state = optax.adam(1e-3).init(networks)
    assert jax.tree.structure(state[0].mu) == jax.tree.structure(networks)


def test_other_variables_are_refused():
    with pytest.raises(ValueError, match=r"BatchNorm also holds BatchStat"):
        Network.of(nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"RngCount"):
        Network.of(nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
