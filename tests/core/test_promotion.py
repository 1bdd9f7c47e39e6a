"""Whoever forbids promotion of dtypes and ranks in their own code can call the package."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import refinejax as rj

T = np.linspace(0, 1, 8, dtype=np.float32)
START = np.float32([0.5, 1.0])


def line(params):
    return params[0] + params[1] * T


@pytest.mark.parametrize("method", ["lm", "adam", "cma_es"])
def test_strict_promotion_changes_nothing(method):
    arguments = line, line(np.float32([0.3, 2.0])), START
    expected = rj.refine(*arguments, method=method, max_steps=3)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        found = rj.refine(*arguments, method=method, max_steps=3)
        errors = found.covariance().std
        with pytest.raises(Exception, match="no available implicit dtype promotion"):
            jnp.ones(2, jnp.float32) + jnp.ones(2, jnp.int32)  # the caller's rules are as before
    np.testing.assert_array_equal(found.params, expected.params)
    np.testing.assert_array_equal(errors, expected.covariance().std)
    with jax.numpy_rank_promotion("raise"), pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((2, 3)) + jnp.ones(3)


def test_a_problem_can_be_called_where_promotion_is_forbidden():
    problem = rj.problems.InverseProblem(line, line(np.float32([0.3, 2.0])), noise=0.1)
    product = rj.problems.normal.curvature(problem, START)
    expected = problem(START), jax.grad(problem)(START), problem.normal(START), product(START)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        product = rj.problems.normal.curvature(problem, START)
        found = problem(START), jax.grad(problem)(START), problem.normal(START), product(START)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
