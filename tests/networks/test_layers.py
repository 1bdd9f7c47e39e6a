"""Layers against their formulas written out, and the networks made of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refinejax._config import read_config
from refinejax.networks import ARCHITECTURES
from refinejax.networks.fourier import FourierLayer, SpectralConv
from refinejax.networks.layers import Conv, GroupNorm, Head
from refinejax.networks.resnet import ResNetConfig

SHAPE = (6, 5, 3)


def image(shape=SHAPE, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize(
    ("kernel", "stride"),
    [
        (3, 1),
        (3, 2),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 2), (2, 1), (5, 3))),
    ],
)
def test_convolution_is_that_of_lax(kernel, stride):
    conv, x = Conv(3, 4, kernel, stride), image((7, 8, 3))
    conv.kernel[...] = image(conv.kernel.shape, 1)
    conv.bias[...] = jnp.arange(4.0)
    known = jax.lax.conv_general_dilated(
        x[None],
        conv.kernel[...],
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[0]
    np.testing.assert_allclose(jax.jit(conv.__call__)(x), known + jnp.arange(4.0), atol=1e-5)


def test_groups_of_channels_have_mean_0_and_variance_1_over_all_pixels():
    y = jax.jit(GroupNorm(6, 2).__call__)(3 * image((4, 5, 6)) + 7)
    groups = np.asarray(y).reshape(4, 5, 2, 3)
    np.testing.assert_allclose(groups.mean((0, 1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(groups.var((0, 1, 3)), 1, rtol=1e-4)


def spectral_by_sums(x, weight, modes):
    """The layer as sums over modes and pixels, in NumPy: each k₂ > 0 stands for −k₂ as well."""
    rows, columns, _ = x.shape
    i, j = np.arange(rows)[:, None], np.arange(columns)[None, :]
    y = np.zeros((rows, columns, weight.shape[-1]))
    for place, k1 in enumerate([*range(modes), *range(-modes, 0)]):
        for k2 in range(modes):
            wave = np.exp(2j * np.pi * (k1 * i / rows + k2 * j / columns))
            mode = np.einsum("ij,ijc->c", np.conj(wave), x) @ weight[place, k2]
            twice = 1 if k2 == 0 or 2 * k2 == columns else 2
            y += twice * np.real(wave[..., None] * mode) / (rows * columns)
    return y


@pytest.mark.parametrize(
    ("shape", "modes"),
    [
        ((8, 4, 2), 3),
        pytest.param((6, 5, 3), 2, marks=pytest.mark.slow),
        pytest.param((6, 8, 3), 3, marks=pytest.mark.slow),
    ],
)
def test_spectral_convolution_is_the_sum_over_its_modes(shape, modes):
    with jax.enable_x64(True):
        layer = SpectralConv(shape, 4, modes)
        layer.kernel[...] = image(layer.kernel.shape).astype("float32")
        x = jnp.asarray(np.random.default_rng(0).normal(size=shape))
        known = np.asarray(layer.kernel[...], float)
        expected = spectral_by_sums(np.asarray(x), known[0] + 1j * known[1], modes)
        np.testing.assert_allclose(jax.jit(layer.__call__)(x), expected, atol=1e-12)


@pytest.mark.slow
def test_a_fourier_layer_moves_with_the_image():
    """Both of its parts commute with cyclic shifts; a convolution with borders does not."""
    layer, x = FourierLayer((6, 8, 2), 2), image((6, 8, 2))
    layer.spectral.kernel[...] = image(layer.spectral.kernel.shape)
    layer = jax.jit(layer.__call__)
    shifted = layer(jnp.roll(x, (2, 3), (0, 1)))
    np.testing.assert_allclose(shifted, jnp.roll(layer(x), (2, 3), (0, 1)), atol=1e-5)
    assert np.abs(shifted - layer(x)).max() > 0.1


def test_more_modes_than_the_image_has_are_refused():
    with pytest.raises(ValueError, match="modes: expected 1 to 3 for an image of 6 × 5, got 4"):
        SpectralConv(SHAPE, 2, 4)


SIZES = {"shape": SHAPE, "outputs": 4, "widths": (4, 8), "groups": 2, "hidden": 8}


@functools.cache
def builder(name, **more):
    """Weights from a key; compiled as a whole, not layer by layer."""
    return jax.jit(lambda key: ARCHITECTURES[name]({**SIZES, **more}, key))


def build(name, seed=0, **more):
    return builder(name, **more)(jax.random.key(seed))


apply = jax.jit(lambda network, x, context: network(x, context))
together = jax.jit(jax.vmap(lambda network, x, context: network(x, context), (None, 0, None)))
slopes = jax.jit(jax.grad(lambda n, x, context: jnp.sum(n(x, context) ** 2), (0, 1)))

FEW = [
    ("resnet", {"modes": 2, "pool": "mean", "context": 2, "widths": (4,)}),
    ("unet", {"widths": (2, 4)}),
]
MANY = [
    ("resnet", {}),
    ("resnet", {"depth": 2}),
    ("resnet", {"stem_stride": 2, "stem_kernel": 5}),
    ("unet", {"modes": 1, "pool": "mean", "context": 2, "widths": (4, 4, 8)}),
]


@pytest.mark.parametrize(
    ("name", "more"), [*FEW, *(pytest.param(*case, marks=pytest.mark.slow) for case in MANY)]
)
def test_networks_from_images_to_numbers(name, more):
    network, context = build(name, **more), jnp.ones(2) if "context" in more else None
    batch = jnp.stack([image(), 2 * image(), image(seed=1)])
    alone = [apply(network, x, context) for x in batch]
    assert alone[0].shape == (4,)
    assert alone[0].dtype == jnp.float32
    np.testing.assert_allclose(together(network, batch, context), alone, atol=2e-6)
    half = jax.eval_shape(apply, network, batch[0].astype(jnp.bfloat16), context)
    assert half.dtype == jnp.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize(("name", "more"), [*FEW, *MANY])
def test_each_weight_and_each_pixel_has_a_say(name, more):
    network, context = build(name, **more), jnp.ones(2) if "context" in more else None
    grad, pixels = slopes(network, image(), context)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grad):
        assert np.any(leaf), jax.tree_util.keystr(path)
    assert np.all(np.any(pixels, -1))


@pytest.mark.slow
def test_gradients_are_those_of_differences():
    network = build("resnet", modes=2)
    with jax.enable_x64(True):
        network = jax.tree.map(lambda w: w.astype(float), network)
        loss = jax.jit(lambda n, x: jnp.sum(n(x) ** 2))
        x, direction = image().astype(float), image(seed=3).astype(float)
        slope = jax.jvp(lambda x: loss(network, x), (x,), (direction,))[1]
        ahead, behind = (loss(network, x + h * direction) for h in (1e-5, -1e-5))
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=1e-6)
        reverse = jnp.vdot(jax.grad(loss, 1)(network, x), direction)
        np.testing.assert_allclose(reverse, slope, rtol=1e-8)


def test_the_key_gives_the_weights():
    made = [jax.tree.leaves(build("unet", seed)) for seed in (0, 0, 1)]
    assert all(np.array_equal(a, b) for a, b in zip(made[0], made[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(made[0], made[2], strict=True))


def test_kernels_are_drawn_with_one_over_the_root_of_the_fan_in_and_nothing_else_is():
    network = build("unet", widths=(8, 16), hidden=32, context=2)
    found = jax.tree_util.tree_leaves_with_path(network.weights)
    for path, leaf in found:
        name = jax.tree_util.keystr(path)
        if "kernel" in name:
            gain = 0.1 if "last" in name else 1
            spread = np.prod(leaf.shape[:-1]) ** 0.5 * np.std(leaf) / gain
            assert abs(spread - 1) < 4 / np.sqrt(2 * leaf.size), name
        else:
            assert np.all(leaf == ("scale" in name)), name
    first = [np.ravel(leaf)[0] for path, leaf in found if "kernel" in jax.tree_util.keystr(path)]
    assert len(set(first)) == len(first)


def test_convolutions_are_products():
    """Those of XLA are slow within a loop on CPU, and with a batch of weights."""
    network = jax.eval_shape(builder("resnet"), jax.random.key(0))
    step = jax.make_jaxpr(slopes)(network, jnp.zeros(SHAPE), None)
    assert "dot_general" in str(step)
    assert "conv_general_dilated" not in str(step)


def test_the_context_is_asked_for():
    head = Head(3, 2, 4, 1)
    head = jax.jit(head.__call__)
    assert head(jnp.ones(3), jnp.ones(2)) != head(jnp.ones(3), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"context: expected shape \(2,\), got None"):
        head(jnp.ones(3), None)
    with pytest.raises(ValueError, match=r"context: expected none, got \(1,\)"):
        Head(3, 0, 4, 1)(jnp.ones(3), jnp.ones(1))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"width": 3}, "network.width: no such key; did you mean widths"),
        ({"widths": (4, 9)}, "widths: expected one or more multiples of groups = 2, got"),
        ({"widths": ()}, "widths: expected one or more multiples"),
        ({"widths": [4, "8"]}, r"network\.widths: expected an integer, got '8'"),
        ({"widths": 4}, r"network\.widths: expected a list of int, got 4"),
        ({"shape": [6, 5]}, r"network\.shape: expected a list of 3 int, got \(6, 5\)"),
        ({"shape": (6, 0, 3)}, r"shape: expected \(H, W, C\) of 1 or more each"),
        ({"kernel": 0}, "kernel: expected 1 or more, got 0"),
        ({"kernel": True}, r"network\.kernel: expected an integer, got True"),
        ({"pool": "max"}, "pool: expected one of flatten, mean, got 'max'"),
    ],
)
@pytest.mark.parametrize("name", ["resnet", "unet"])
def test_configs_that_do_not_fit_are_refused(name, more, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(builder(name, **_hashable(more)), jax.random.key(0))


def _hashable(more):
    return {key: tuple(value) if isinstance(value, list) else value for key, value in more.items()}


def test_missing_keys_are_named():
    with pytest.raises(ValueError, match=r"network\.outputs: missing; the keys are shape, outputs"):
        read_config(ResNetConfig, {"shape": SHAPE}, "network")
