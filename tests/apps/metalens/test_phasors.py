"""What a learned refiner reads of a phase residual, against the definitions written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refinejax import InverseProblem, run
from refinejax.apps.metalens.phasors import Phasors, build_phasor_update
from refinejax.learned import builder


def test_phasors_of_a_ramp():
    u, v = jnp.meshgrid(jnp.arange(17.0), jnp.arange(17.0))
    ramp = 0.4 + 1.1 * u - 0.3 * v
    flat = Phasors(4)(jnp.full((17, 17), 0.4))
    np.testing.assert_allclose(flat[..., 0], np.cos(0.4), atol=3e-4)
    np.testing.assert_allclose(flat[..., 1], np.sin(0.4), atol=3e-4)
    seen = Phasors(4)(ramp - 2 * jnp.pi * jnp.round(ramp / (2 * jnp.pi)))
    expected = [np.cos(1.1), np.sin(1.1), np.cos(0.3), -np.sin(0.3)]
    np.testing.assert_allclose(seen[..., 2:], np.broadcast_to(expected, (4, 4, 4)), atol=3e-4)


def test_phasors_say_what_is_wrong():
    with pytest.raises(ValueError, match="across: expected 1"):
        Phasors(0)
    with pytest.raises(ValueError, match="8 blocks across need 9 pixels"):
        Phasors(8)(jnp.zeros((8, 8)))


def test_an_update_reads_the_residual_map():
    config = {"params": 2, "width": 8, "slope": False, "blocks": 3}
    refiner = build_phasor_update(config, jax.random.key(0))
    problem = InverseProblem(plane, plane(jnp.array([0.3, -0.2])))
    state = refiner.init(problem, jnp.array([0.1, -0.1]), jax.random.key(0))
    np.testing.assert_array_equal(
        state.memory.reading.map, Phasors(3)(problem.residual(jnp.array([0.1, -0.1])))
    )
    with pytest.raises(ValueError, match="has no residual"):
        run(refiner, lambda x: jnp.sum(x**2), jnp.zeros(2), num_steps=1)


def plane(params):
    axis = jnp.linspace(-1, 1, 7)
    return params[0] * axis + params[1] * axis[:, None]


def test_an_update_by_phasors_is_an_architecture_that_is_trained_by_name():
    build = builder("phasor_update", {"params": 2, "width": 8, "slope": False, "blocks": 3})
    assert build == builder("phasor_update", {"width": 8, "params": 2, "slope": False, "blocks": 3})
    assert build(jax.random.key(0)).reads == Phasors(3)
    with pytest.raises(ValueError, match="residual: the residual is read in one way, by 3 blocks"):
        builder("phasor_update", {"params": 2, "blocks": 3, "residual": 4})
    with pytest.raises(ValueError, match="'predictor' makes a Predictor; expected one that makes"):
        builder("predictor", PREDICTOR)


PREDICTOR = {
    "size": 12,
    "block": 6,
    "names": ["a"],
    "lower": [0.0],
    "upper": [1.0],
    "units": ["1"],
    "network": {"widths": [4], "groups": 2, "hidden": 4},
}
