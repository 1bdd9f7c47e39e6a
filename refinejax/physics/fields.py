"""Smooth random fields, and checks of the numbers that noise is made of."""

import math
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import random
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

Number: TypeAlias = float | Array  # an array of shape (), traced or not

# the ranges that numbers may be required to lie in, NaN in none of them
_RANGES = {
    "finite and ≥ 0": lambda x: 0 <= x < math.inf,
    "> 0": lambda x: x > 0,
    "between 0 and 1": lambda x: 0 <= x <= 1,
}


def gaussian_field(
    key: Key[Array, ""],
    shape: tuple[int, ...],
    correlation: Number,
    dtype: DTypeLike = float,
) -> Float[Array, "rows columns"]:
    """A smooth Gaussian random field, of mean 0 and standard deviation 1 at every pixel.

    White noise convolved with a Gaussian kernel whose standard deviation is the correlation length
    ℓ, the borders reflecting (d c b a | a b c d | d c b a). Away from them two pixels at distance d
    are correlated by the kernel convolved with itself,

        ⟨g(x)·g(x + d)⟩ = exp(−d²/4ℓ²),

    0.78 at d = ℓ. Reflection doubles the variance at a border, so each row of the kernel is
    normalized, in closed form: every pixel has variance 1 in expectation.

    Computed in the cosine modes of the image (DCT-II), which reflecting convolution multiplies by
    exp(−(ℓω)²/2), ω = πk/n, and in which white noise is white. So it is exact for every ℓ, traced
    or not, above the size of the image too; ℓ = 0 is white noise, ℓ → ∞ a constant.

    Args:
        key: the field.
        shape: (rows, columns).
        correlation: ℓ [px].
        dtype: of the field.

    Returns:
        The field, of that shape and dtype.

    Raises:
        ValueError: correlation is negative or not finite.
    """
    check_numbers("finite and ≥ 0", correlation=correlation)
    white = random.normal(key, shape, dtype)
    rows, columns = (_smoother(size, correlation, dtype) for size in shape)
    # the fast, coarse products of accelerators would make the field differ between devices
    return jnp.einsum("ik,kl,jl->ij", rows, white, columns, precision="highest")


def _smoother(size: int, correlation: Number, dtype: DTypeLike) -> Float[Array, "n n"]:
    """From the modes of one axis to its pixels, damped, with rows of norm 1."""
    mode = jnp.arange(size)
    # cos has the period 4n in (2i + 1)k: reduced as integers, the argument loses no digits
    turns = (2 * mode[:, None] + 1) * mode % (4 * size)
    basis = jnp.cos(turns.astype(dtype) * (math.pi / (2 * size)))
    damping = jnp.exp(-0.5 * (correlation * mode * (math.pi / size)) ** 2)
    damping = damping.at[0].multiply(math.sqrt(0.5))  # the constant mode has twice the norm
    weights = (basis * damping).astype(dtype)
    return weights / jnp.linalg.norm(weights, axis=1, keepdims=True)


def check_numbers(range_name: str, **numbers: Number) -> None:
    """Check the numbers known before tracing; arrays are data, and placeholders no numbers.

    Args:
        range_name: of `_RANGES`, such as "> 0".
        numbers: by name.

    Raises:
        ValueError: for a number outside of the range; names it.
    """
    for name, number in numbers.items():
        known = isinstance(number, int | float | np.number) and not isinstance(number, bool)
        if known and not _RANGES[range_name](number):
            raise ValueError(f"{name} must be {range_name}, got {number}")


def check_names(argument: str, names: tuple[str, ...], valid: tuple[str, ...]) -> None:
    """Check that names are known.

    Args:
        argument: in the error.
        names: as given.
        valid: the known names.

    Raises:
        ValueError: names the unknown and the known ones.
    """
    unknown = [name for name in names if name not in valid]
    if unknown:
        raise ValueError(
            f"{argument}: unknown {', '.join(map(repr, unknown))}; valid are {', '.join(valid)}"
        )
