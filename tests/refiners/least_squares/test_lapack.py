"""LAPACK for stacks: its numbers, its derivatives, and that no call waits for another."""

import os
import re
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from children import call

from refinejax.refiners.least_squares import lapack

SIZE, COUNT = 12, 256  # of a matrix; in a stack that jaxlib 0.10 splits over the threads of XLA


def positive(count, size=SIZE, dtype=np.float32):
    half = np.random.default_rng(0).normal(size=(count, size, 2 * size))
    return (half @ half.transpose(0, 2, 1) / size + 0.1 * np.eye(size)).astype(dtype)


def right(count, size=SIZE, dtype=np.float32):
    return np.random.default_rng(1).normal(size=(count, size)).astype(dtype)


@pytest.mark.parametrize("size", [9, 40])
def test_stacks_have_the_factors_inverses_and_solutions_of_scipy(size):
    matrices, sides = positive(100, size), right(100, size)
    upper = np.asarray(jax.vmap(lapack.factor)(matrices))
    inverse = np.asarray(jax.vmap(lapack.invert)(upper))
    solution = np.asarray(jax.vmap(lapack.solve)(upper, sides))
    for k in range(0, 100, 33):
        exact = scipy.linalg.cholesky(matrices[k].astype(float))
        np.testing.assert_allclose(upper[k], exact, atol=2e-6)
        np.testing.assert_allclose(inverse[k], np.linalg.inv(exact), atol=2e-5)
        expected = scipy.linalg.cho_solve((exact, False), sides[k].astype(float))
        np.testing.assert_allclose(solution[k], expected, rtol=1e-3, atol=1e-4)


def test_a_stack_of_stacks_is_the_stack_and_an_operand_may_be_shared():
    matrices, side = positive(6), right(1)[0]
    upper = jax.vmap(jax.vmap(lapack.factor))(matrices.reshape(2, 3, SIZE, SIZE))
    flat = jax.vmap(lapack.factor)(matrices)
    np.testing.assert_allclose(upper.reshape(flat.shape), flat, rtol=1e-5, atol=1e-6)
    shared = jax.vmap(lapack.solve, in_axes=(0, None))(flat, side)
    each = jax.vmap(lapack.solve)(flat, np.stack([side] * 6))
    np.testing.assert_allclose(shared, each, rtol=1e-5, atol=1e-6)


def test_a_matrix_that_is_not_positive_definite_has_no_factor_and_the_others_have():
    matrices = positive(3)
    matrices[1] *= -1
    upper = np.asarray(jax.vmap(lapack.factor)(matrices))
    assert np.all(np.isnan(upper[1][np.triu_indices(SIZE)]))
    assert np.all(np.isfinite(upper[[0, 2]]))


def test_derivatives_are_finite_differences_forward_and_reverse():
    with jax.enable_x64(True):
        matrices, sides = positive(3, 9, np.float64), right(3, 9, np.float64)

        def total(matrices, sides):
            def one(matrix, side):
                upper = lapack.factor(matrix)
                return jnp.sum(jnp.sin(lapack.invert(upper))) + side @ lapack.solve(upper, side)

            return jnp.sum(jax.vmap(one)(matrices, sides))

        rng = np.random.default_rng(2)
        change = rng.normal(size=matrices.shape)
        along = change + change.transpose(0, 2, 1), rng.normal(size=sides.shape)
        step = 1e-6
        ahead, behind = (
            total(matrices + sign * step * along[0], sides + sign * step * along[1])
            for sign in (1, -1)
        )
        expected = (ahead - behind) / (2 * step)
        forward = jax.jvp(total, (matrices, sides), along)[1]
        slopes = jax.grad(total, argnums=(0, 1))(matrices, sides)
        reverse = sum(np.sum(slope * part) for slope, part in zip(slopes, along, strict=True))
        np.testing.assert_allclose(forward, expected, rtol=1e-6)
        np.testing.assert_allclose(reverse, expected, rtol=1e-6)


CALLS = {"factor": "potrf", "invert": "trsm", "solve": "trsm"}


@pytest.mark.parametrize("name", CALLS)
def test_no_call_gets_a_batch_that_jaxlib_splits(name):
    arrays = (positive(COUNT), right(COUNT))[: 2 if name == "solve" else 1]
    text = jax.jit(jax.vmap(getattr(lapack, name))).lower(*arrays).as_text()
    lines = [line for line in text.splitlines() if f"{CALLS[name]}_ffi" in line]
    assert lines
    sizes = {
        int(first) if rest else 1
        for line in lines
        for first, rest in re.findall(rf"tensor<(?:(\d+)x)?({SIZE}x(?:{SIZE}|1)x)f32>", line)
    }
    work = {"factor": SIZE**3 / 3, "invert": SIZE**3, "solve": SIZE**2}[name]
    assert max(sizes) * work <= 2**17


def solve_at_once():
    if hasattr(os, "sched_setaffinity"):  # XLA makes as many threads as there are cores
        os.sched_setaffinity(0, range(os.cpu_count()))
    matrices = positive(COUNT)

    def body(_, matrices):
        parts = [jax.vmap(lapack.factor)(matrices * (1 + k)) for k in range(4)]
        return matrices + 1e-9 * sum(jnp.sum(jax.vmap(lapack.invert)(part)) for part in parts)

    program = jax.jit(lambda matrices: jax.lax.fori_loop(0, 1000, body, matrices))
    threads = [threading.Thread(target=lambda: np.asarray(program(matrices))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("done", flush=True)


def test_calls_from_several_threads_do_not_wait_for_each_other():
    assert call(solve_at_once) == "done\n"
