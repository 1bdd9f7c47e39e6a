"""What a network sees of a phase map, against the definitions written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refinejax.apps.metalens.features import PhaseFeatures
from refinejax.physics.phase import wrap

features = jax.jit(lambda made, phase: made(phase))
TOLERANCE = 1e-3  # of the fast sine


def phase(size=12, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-np.pi, np.pi, (size, size)), "float32")


def plane(size=12, slope=(0.7, -1.9), bend=0.0):
    i, j = np.indices((size, size))
    return wrap(jnp.asarray(slope[0] * j + slope[1] * i + bend * j**2 / 2, jnp.float32))


def split(channels, names, block):
    """Channels by name."""
    sizes = {"phase": 2 * block**2, "slopes": 4, "curvatures": 4}
    parts, start = {"coordinates": np.asarray(channels[..., :2])}, 2
    for name in names:
        parts[name] = np.asarray(channels[..., start : start + sizes[name]])
        start += sizes[name]
    assert start == channels.shape[-1]
    return parts


ALL = ("phase", "slopes", "curvatures")


@pytest.mark.parametrize("block", [1, 3, 4, 5])
def test_shapes_and_dtypes(block):
    made = PhaseFeatures(ALL, block)
    for dtype in (jnp.float32, jnp.bfloat16):
        seen = jax.eval_shape(made, phase().astype(dtype))
        assert seen.shape == made.shape(12)
        assert seen.dtype == dtype


def test_slopes_are_the_means_of_differences_on_the_circle():
    block, image = 4, phase()
    z = np.exp(1j * np.asarray(image))
    across = np.pad(np.conj(z[:, :-1]) * z[:, 1:], [(0, 0), (0, 1)])
    down = np.pad(np.conj(z[:-1]) * z[1:], [(0, 1), (0, 0)])
    seen = split(features(PhaseFeatures(("slopes",), block), image), ("slopes",), block)["slopes"]
    for place, d in enumerate((across, down)):
        means = d.reshape(3, block, 3, block).mean((1, 3))
        np.testing.assert_allclose(seen[..., 2 * place], means.real, atol=TOLERANCE)
        np.testing.assert_allclose(seen[..., 2 * place + 1], means.imag, atol=TOLERANCE)


def test_pixels_of_a_block_are_all_there():
    block, image = 3, phase()
    seen = split(features(PhaseFeatures(("phase",), block), image), ("phase",), block)["phase"]
    np.testing.assert_allclose(
        np.sort(seen[1, 2, :9]), np.sort(np.cos(image[3:6, 6:9]).ravel()), atol=TOLERANCE
    )
    np.testing.assert_allclose(seen[1, 2, 9:], np.sin(image[3:6, 6:9]).ravel(), atol=TOLERANCE)


def test_where_a_block_is_a_pixel_the_channels_are_those_of_the_image():
    image = phase()
    seen = split(features(PhaseFeatures(("phase",), 1), image), ("phase",), 1)
    np.testing.assert_allclose(seen["phase"][..., 0], np.cos(image), atol=TOLERANCE)
    np.testing.assert_allclose(seen["phase"][..., 1], np.sin(image), atol=TOLERANCE)
    axis = np.linspace(-1, 1, 12)
    np.testing.assert_allclose(
        seen["coordinates"], np.stack(np.meshgrid(axis, axis), -1), atol=1e-6
    )


@pytest.mark.parametrize("slope", [(0.7, -1.9), (4.0, -9.0)])
def test_curvatures_are_those_of_a_bowl_whatever_its_slope(slope):
    bend, block = 0.02, 4
    image = plane(slope=slope, bend=bend)
    seen = split(features(PhaseFeatures(("curvatures",), block), image), ("curvatures",), block)
    uu, uv, vu, vv = np.moveaxis(seen["curvatures"], -1, 0)
    # the last block of a row has a difference less, so that its middle is half a pixel nearer
    np.testing.assert_allclose(uu[:, 0], np.arcsinh(20 * bend * block), rtol=1e-2)
    assert np.all(uu[:, -1] == 0)
    for other in (uv, vu, vv):
        np.testing.assert_allclose(other, 0, atol=0.05)


def test_a_constant_and_whole_turns_are_not_seen():
    made, image = PhaseFeatures(("slopes", "curvatures"), 4), plane(bend=0.03)
    np.testing.assert_allclose(features(made, image + 2.0), features(made, image), atol=0.02)
    np.testing.assert_allclose(features(made, image + 4 * np.pi), features(made, image), atol=1e-3)


def test_missing_pixels_make_slopes_shorter_and_nothing_else():
    made, image = PhaseFeatures(ALL, 4), np.array(plane())
    image[1, 1] = image[5:, 8:] = np.nan
    seen, whole = (split(features(made, jnp.asarray(x)), ALL, 4) for x in (image, plane()))
    assert all(np.isfinite(part).all() for part in seen.values())
    assert np.all(seen["slopes"][2, 2] == 0)
    before, after = whole["slopes"][0, 0, :2], seen["slopes"][0, 0, :2]
    np.testing.assert_allclose(after, before * 14 / 16, atol=TOLERANCE)


@pytest.mark.slow
def test_missing_pixels_have_no_gradient():
    image = phase().at[1, 1].set(jnp.nan)
    slope = jax.grad(lambda x: jnp.sum(features(PhaseFeatures(ALL, 4), x) ** 2))(image)
    assert np.isfinite(slope).all()
    assert slope[1, 1] == 0
    assert slope[0, 0] != 0


@pytest.mark.parametrize(
    ("names", "block", "message"),
    [
        (("slope",), 8, "features: expected some of phase, slopes, curvatures"),
        ((), 8, "features: expected some of"),
        (("slopes",), 0, "block: expected a number of pixels of 1 or more, got 0"),
        (("slopes",), 2.0, r"block: expected a number of pixels of 1 or more, got 2\.0"),
    ],
)
def test_features_that_are_none_are_refused(names, block, message):
    with pytest.raises(ValueError, match=message):
        PhaseFeatures(names, block)


def test_a_map_needs_two_blocks():
    with pytest.raises(ValueError, match="block: expected 2 blocks or more along a side, got 8"):
        PhaseFeatures(("slopes",), 8)(phase())
    assert PhaseFeatures(("curvatures", "phase")).names == ("phase", "curvatures")
