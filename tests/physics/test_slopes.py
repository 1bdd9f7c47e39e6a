"""Slopes of wrapped phase maps, and lenses from them, against derivatives taken otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refinejax import Pointwise
from refinejax.physics import metalens
from refinejax.physics.metalens.slopes import lens_from_slopes
from refinejax.physics.slopes import Blocks, block_phasors, circle, expand, slopes
from refinejax.problems.phase import (
    free_piston,
    held_piston,
    piston,
    slope_problem,
    turn_problem,
)

SIZE = 40


def grid(size=SIZE):
    axis = np.linspace(-0.5, 0.5, size)
    return np.meshgrid(axis, axis)


def bowl(slope, curvature, size=SIZE):
    """A map with slope [turns a pixel] and curvature [turns a pixel across the window]."""
    u, v = grid(size)
    uu, uv, vv = curvature
    turns = slope[0] * u + slope[1] * v + (uu * u**2 + 2 * uv * u * v + vv * v**2) / 2
    turns = turns * (size - 1)
    return jnp.asarray(turns - np.round(turns), jnp.float32)


@pytest.mark.parametrize("size", range(6, 300, 7))
def test_blocks_lie_within_the_map_and_leave_out_little(size):
    blocks = Blocks.of(size)
    assert 5 <= blocks.across <= 9
    assert 0 <= blocks.first <= blocks.across
    covered = blocks.across * blocks.width
    assert size - 1 - covered < blocks.across
    along, pixels = (np.array(blocks.middles(differences=d)) for d in (True, False))
    np.testing.assert_allclose(np.diff(along), blocks.span)
    np.testing.assert_allclose(along - pixels, 0.5 / (size - 1))
    assert abs(along.mean()) <= 1 / (size - 1)


def test_a_map_of_few_pixels_has_no_blocks():
    with pytest.raises(ValueError, match="size: expected 6 pixels or more, got 5"):
        Blocks.of(5)


def test_circle_is_sine_and_cosine_to_within_noise():
    turns = np.linspace(-3, 3, 1001)
    sine, cosine = circle(jnp.asarray(turns, jnp.float32))
    np.testing.assert_allclose(sine, np.sin(2 * np.pi * turns), atol=3e-4)
    np.testing.assert_allclose(cosine, np.cos(2 * np.pi * turns), atol=3e-4)


@pytest.mark.parametrize("slope", [(0.1, -0.2), (0.45, 0.49), (0.8, -1.3)])
def test_slopes_are_those_of_a_plane_but_for_whole_turns(slope):
    blocks = Blocks.of(SIZE)
    found = [slopes(p) for p in block_phasors(bowl(slope, (0, 0, 0)), blocks)]
    for component, known in zip(found, slope, strict=True):
        np.testing.assert_allclose(component, known - round(known), atol=1e-4)


@pytest.mark.parametrize("slope", [(0.1, -0.2), (0.8, -1.3)])
def test_the_expansion_is_that_of_a_bowl_also_where_slopes_are_aliased(slope):
    blocks, curvature = Blocks.of(SIZE), (0.9, -0.35, 0.4)
    shape = expand(*block_phasors(bowl(slope, curvature), blocks), blocks)
    offset = shape.slope - np.array(slope)
    np.testing.assert_allclose(offset, np.round(offset), atol=0.02)  # blocks are not centered
    np.testing.assert_allclose(shape.curvature, curvature, rtol=2e-3)


def test_missing_pixels_have_no_weight_and_missing_blocks_no_slope():
    blocks, slope = Blocks.of(SIZE), (0.3, -0.1)
    turns = np.array(bowl(slope, (0.2, 0.1, 0.3)))
    turns[:12, :20] = np.nan
    turns[30, 30] = np.nan
    across, down = block_phasors(jnp.asarray(turns), blocks)
    assert np.isnan(slopes(across)[0, 0])
    assert np.isfinite(slopes(across)[-3:]).all()
    shape = expand(across, down, blocks)
    np.testing.assert_allclose(shape.curvature, (0.2, 0.1, 0.3), atol=0.01)


def lenses(count, seed=0):
    rng = np.random.default_rng(seed)
    low, high = np.array(metalens.LOWER), np.array(metalens.UPPER)
    params = rng.uniform(low, high, (count, 5))
    return np.delete(params, 3, axis=1), params[:, 3]


def test_the_closed_form_is_exact_for_the_derivatives_of_a_lens():
    with jax.enable_x64(True):

        def turns(point, lens, length):
            return metalens.turns_at(lens, length, point[0], point[1])

        for lens, length in zip(*lenses(50), strict=True):
            middle = jnp.zeros(2)
            slope = jax.grad(turns)(middle, lens, length)
            bend = jax.hessian(turns)(middle, lens, length)
            curvature = jnp.stack([bend[0, 0], bend[0, 1], bend[1, 1]])
            found = lens_from_slopes(slope, curvature, length, 40.0)
            np.testing.assert_allclose(found.lens, lens, rtol=1e-6)
            assert found.misfit < 1e-9 * np.abs(curvature).max()
            wrong = lens_from_slopes(slope + 63, curvature, length, 400.0)
            assert wrong.misfit > 1e-3 * np.abs(curvature).max()


def test_slopes_too_steep_for_any_lens_are_never_plausible():
    guess = lens_from_slopes(jnp.array([90.0, 60.0]), jnp.array([1.0, 0.1, 1.0]), 0.5, 40.0)
    assert np.isinf(guess.misfit)
    assert np.isfinite(guess.lens).all()


def test_curvatures_of_no_lens_and_a_window_on_the_axis_give_a_finite_lens():
    for slope, curvature in [((5.0, 3.0), (-1.0, 0.2, -1.0)), ((0.0, 0.0), (2.0, 0.0, 2.0))]:
        guess = lens_from_slopes(jnp.array(slope), jnp.array(curvature), 0.5, 40.0)
        assert np.isfinite(guess.lens).all()


def test_turns_are_the_phase_over_two_pi():
    u, v = metalens.pixel_grid(8)
    for lens, length in zip(*lenses(5), strict=True):
        lens = jnp.asarray(lens, jnp.float32)
        known = metalens.phase(jnp.insert(lens, 3, length), 8) / (2 * np.pi)
        np.testing.assert_allclose(metalens.turns_at(lens, length, u, v), known, rtol=1e-5)


def tilt(params, u, v):
    """A phase that is not a lens."""
    return params[0] * u + params[1] * v + params[2] * (u**2 + v**2)


AXIS = jnp.linspace(-0.5, 0.5, SIZE)
MODEL = Pointwise(tilt, (AXIS[None], AXIS[:, None]))
TRUTH = jnp.array([30.0, -12.0, 9.0])


def observed(shift=0.0):
    turns = MODEL(TRUTH) + shift
    return turns - jnp.round(turns)


def test_the_slopes_of_any_model_fit_those_of_its_map():
    blocks = Blocks.of(SIZE)
    known = tuple(slopes(p) for p in block_phasors(observed(0.3), blocks))
    problem = slope_problem(MODEL, known, blocks)
    assert problem(TRUTH) < 1e-8
    assert problem(TRUTH + 2.0) > 1e-3
    aliased = TRUTH + jnp.array([SIZE - 1.0, 0, 0])
    assert problem(aliased) < 1e-8


def test_a_free_piston_takes_up_a_constant():
    problem = turn_problem(MODEL, observed(0.3))
    assert problem(TRUTH) == pytest.approx((2 * np.pi * 0.3) ** 2, rel=1e-3)
    assert piston(problem, TRUTH) == pytest.approx(0.3, abs=1e-4)
    assert free_piston(problem)((TRUTH, jnp.float32(0.3))) < 1e-6
    assert held_piston(problem, 0.3)(TRUTH) < 1e-6
    assert held_piston(problem, 1.3)(TRUTH) < 1e-6
