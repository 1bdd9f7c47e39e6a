"""Two processes with a device each share a batch and both get all of it."""

import socket
import subprocess
import sys

import numpy as np
import pytest
from children import PATIENCE

PROGRAM = """
import sys
import jax
jax.distributed.initialize("127.0.0.1:" + sys.argv[2], 2, int(sys.argv[1]))
import jax.numpy as jnp
import numpy as np
import optax
import refinejax as rj
from jax.sharding import Mesh

t = np.linspace(0, 1, 16, dtype=np.float32)
truth = np.random.default_rng(0).uniform(1, 2, (7, 2)).astype(np.float32)
model = lambda p: p[0] * jnp.exp(-p[1] * t)
problem = rj.InverseProblem(model, np.stack([model(p) for p in truth]))
mesh = Mesh(np.array(jax.devices()), ("all",)) if len(jax.devices()) == 2 else None
assert mesh is not None
refiner = rj.Gradient(optax.lbfgs)
spread = rj.Execution(mesh=mesh)
shared = rj.run_batch(refiner, problem, truth + 0.1, 3, max_steps=50, execution=spread)
alone = rj.run_batch(refiner, problem, truth + 0.1, 3, max_steps=50)
np.testing.assert_array_equal(shared.status, alone.status)
np.testing.assert_array_equal(shared.steps, alone.steps)
np.testing.assert_allclose(shared.params, alone.params, atol=1e-6)
np.savez(sys.argv[3], params=shared.params)
"""


@pytest.mark.slow
def test_processes_share_a_batch_and_all_get_the_whole_result(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    files = [tmp_path / f"{i}.npz" for i in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(i), port, str(files[i])],
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
    first, second = (np.load(file)["params"] for file in files)
    np.testing.assert_array_equal(first, second)
