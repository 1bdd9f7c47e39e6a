"""Spectral convolution: a layer that sees the whole image at once."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from refinejax.networks.layers import Conv


class SpectralConv(nnx.Module):
    """A convolution with a kernel given by its lowest modes.

        (K v)(x) = F⁻¹(R · (F v))(x),   (R · (F v))(k)_l = Σ_j R(k)_{l,j} (F v)(k)_j

    (Li et al. 2021, Fourier Neural Operator for Parametric Partial Differential Equations, ICLR,
    eq. 4 and 5) for the modes |k₁| ≤ m, k₁ < m and 0 ≤ k₂ < m; the others are 0, and those of
    k₂ < 0 are the conjugates, as K v is real. F is the discrete Fourier transform of the image.

    Args:
        shape: (H, W, C) of the input.
        outputs: channels.
        modes: m, at most H/2 and W/2 + 1.

    Raises:
        ValueError: for more modes than the image has, or none.
    """

    def __init__(self, shape: tuple[int, int, int], outputs: int, modes: int):
        rows, columns, inputs = shape
        most = min(rows // 2, columns // 2 + 1)
        if not 1 <= modes <= most:
            raise ValueError(
                f"modes: expected 1 to {most} for an image of {rows} × {columns}, got {modes}"
            )
        # real and imaginary part: a network has weights of a real dtype
        size = (2, 2 * modes, modes, inputs, outputs)
        self.kernel = nnx.Param(jnp.full(size, (0.5 / inputs) ** 0.5, jnp.float32))
        self.modes = modes

    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h w d"]:
        """Convolve."""
        m, (rows, columns) = self.modes, x.shape[:2]
        real, imaginary = self.kernel[...].astype(x.dtype)
        spectrum = jnp.fft.rfft2(x, axes=(0, 1))
        low = jnp.concatenate([spectrum[:m, :m], spectrum[-m:, :m]])
        mixed = jnp.einsum("klc,klcd->kld", low, jax.lax.complex(real, imaginary))
        rest = columns // 2 + 1 - m
        top, bottom = (jnp.pad(part, [(0, 0), (0, rest), (0, 0)]) for part in jnp.split(mixed, 2))
        between = jnp.zeros((rows - 2 * m, *top.shape[1:]), mixed.dtype)
        wide = jnp.concatenate([top, between, bottom])
        return jnp.fft.irfft2(wide, s=(rows, columns), axes=(0, 1))


class FourierLayer(nnx.Module):
    """v → σ(W v + K v), W acting on channels (Li et al. 2021, eq. 2); the width stays.

    Args:
        shape: (H, W, C).
        modes: of K, see `SpectralConv`.
    """

    def __init__(self, shape: tuple[int, int, int], modes: int):
        self.local = Conv(shape[-1], shape[-1], 1)
        self.spectral = SpectralConv(shape, shape[-1], modes)

    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        """Apply."""
        return jax.nn.silu(self.local(x) + self.spectral(x))
