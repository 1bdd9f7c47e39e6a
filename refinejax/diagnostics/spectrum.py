"""The spectrum of noise that is correlated between pixels, estimated from the residual of a fit.

The noise is taken for a sum of white noise and smooth fields of several correlation lengths,

    C(d) = Σ_k θ_k exp(−d²/4ℓ_k²),   θ_k ≥ 0,   ℓ_0 = 0,  ℓ_k = ½, ½√2, 1, … N/4 px

which approximates every isotropic covariance that is one in all dimensions (Schoenberg 1938, Ann.
Math. 39, 811: the mixtures of Gaussians). In the cosine modes ω of the image (DCT-II) each is
nearly diagonal, with power g_k(ω) ∝ exp(−ℓ_k²ω²) of mean 1. The fit takes from the residual what
looks like its params, which is where the smooth noise is: the residual r̂ = (1 − QQᵀ)ε has

    E r̂(ω)² = Σ_k θ_k μ_k(ω),   μ_k = g_k·(1 − 2q) + Q(ω)ᵀ(QᵀG_kQ)Q(ω),   q = |Q(ω)|²

and θ is found by maximum likelihood, −½ Σ_ω (ln μ + r̂²/μ) (Whittle 1953), from these expectations
as in restricted maximum likelihood, with multiplicative updates that never lower it (Févotte and
Idier 2011, Neural Comput. 23, 2421, eq. 4.13 with exponent ½). A window of lags, which is usual
(Newey and West 1987; Conley 1999), sees only the residual: for a correlation of a quarter of the
image it finds next to nothing of what the fit took.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.fft import dctn
from jaxtyping import Array, Bool, Float

_STEPS = 300
_FLOOR = 0.03  # of the mean power: below it lies what cosines leak of fields that do not reflect
_SINGLE = 512  # modes, the longest waves, taken one by one
_GROUPS = 512  # of shorter waves, each with its mean


def check_shape(residual: object) -> tuple[int, ...]:
    """Return the shape of a residual that is one real array, pixels along its last two axes.

    Args:
        residual: the residual, or its shape and dtype.

    Raises:
        ValueError: for several arrays, complex numbers, or a single number.
    """
    leaves = jax.tree.leaves(residual)
    if len(leaves) != 1 or jnp.issubdtype(leaves[0].dtype, jnp.complexfloating):
        raise ValueError("noise: 'correlated' needs an observation that is one array of reals")
    if not leaves[0].shape:
        raise ValueError("noise: 'correlated' needs pixels, but the observation is one number")
    return leaves[0].shape


def middle(
    residual: Float[Array, " m"],
    basis: Float[Array, "k m"],
    seen: Bool[Array, " m"],
    shape: tuple[int, ...],
) -> Float[Array, "k k"]:
    """Return QᵀCQ, with C the covariance of the noise behind a residual.

    Args:
        residual: of the fit, shape (m,); 0 where nothing was observed.
        basis: the columns of Q, shape (k, m); 0 where nothing was observed.
        seen: which pixels were observed, shape (m,).
        shape: of the image; leading axes before the last two are channels of equal noise.

    Returns:
        A matrix of shape (k, k).
    """
    powers, order = _dictionary(shape)
    g = jnp.asarray(powers, residual.dtype)
    modes = _modes(jnp.concatenate([residual[None], basis]), shape)[:, order]
    q = modes[1:]
    # An optimum leaves nothing along Q; before it, the likelihood would take that part for noise.
    along = jnp.matmul(q, modes[0], precision="highest")
    periodogram = (modes[0] - jnp.matmul(along, q, precision="highest")) ** 2
    share = jnp.mean(seen.astype(residual.dtype))
    parts = jnp.einsum("am,km,bm->kab", q, g, q, precision="highest")
    expected = g * (share - 2 * jnp.sum(q**2, axis=0))
    expected += jnp.einsum("am,kab,bm->km", q, parts, q, precision="highest")
    level = jnp.mean(periodogram)
    unit = jnp.where(level > 0, level, 1)
    sizes = jnp.asarray(_sizes(g.shape[1]), g.dtype)
    theta = _mixture(_group(periodogram / unit), _group(expected), sizes, g[:, 0])
    return level * jnp.einsum("k,kab->ab", theta, parts, precision="highest")


def _modes(rows: Array, shape: tuple[int, ...]) -> Array:
    axes = tuple(range(-min(len(shape), 2), 0))
    cosines = dctn(rows.reshape(-1, *shape), axes=axes, norm="ortho")
    return cosines.reshape(rows.shape)


def _dictionary(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the powers g_k of the modes, (K, m), the longest waves first, and that order."""
    pixels = shape[-2:]
    axes = [math.pi * np.arange(n) / n for n in pixels]
    square = sum(w**2 for w in np.meshgrid(*axes, indexing="ij"))
    waves = np.broadcast_to(square, shape).ravel()
    order = np.argsort(waves, kind="stable")
    count = math.floor(2 * math.log2(max(max(pixels) / 2, 1e-3)) + 1e-9)
    lengths = [0.0] + [0.5 * 2 ** (k / 2) for k in range(count + 1)]
    powers = np.exp(-np.square(lengths)[:, None] * waves[order])
    return powers / powers.mean(axis=1, keepdims=True), order


def _mixture(
    periodogram: Array, expected: Array, sizes: Array, longest: Array
) -> Float[Array, " k"]:
    """Return θ ≥ 0 that makes the periodogram (of mean 1) most likely.

    One mode of zero power is added at ω = 0: where the data hardly determine the longest waves, θ ≥
    0 and the skewed likelihood would otherwise overestimate their power.
    """
    periodogram = periodogram + _FLOOR
    expected = jnp.maximum(expected, 0)

    def step(theta: Array, _: None) -> tuple[Array, None]:
        power = theta @ expected + _FLOOR
        rise = expected @ (sizes * periodogram / power**2)
        fall = expected @ (sizes / power) + longest / (theta @ longest + _FLOOR)
        return theta * jnp.sqrt(rise / fall), None

    count = len(expected)
    start = jnp.full((count,), 1 / count, expected.dtype)
    return jax.lax.scan(step, start, None, length=_STEPS)[0]


def _groups(count: int) -> tuple[int, int, int]:
    """Return how many modes stand alone, how many form a group, and how many groups there are."""
    single = min(count, _SINGLE)
    width = max(1, math.ceil((count - single) / _GROUPS))
    return single, width, math.ceil((count - single) / width)


def _group(values: Float[Array, "*b m"]) -> Float[Array, "*b g"]:
    """Average over groups of neighbors, but for the first modes."""
    single, width, groups = _groups(values.shape[-1])
    rest = values[..., single:]
    gap = [(0, 0)] * (values.ndim - 1) + [(0, groups * width - rest.shape[-1])]
    sums = jnp.pad(rest, gap).reshape(*values.shape[:-1], groups, width).sum(axis=-1)
    return jnp.concatenate([values[..., :single], sums / _sizes(values.shape[-1])[single:]], -1)


def _sizes(count: int) -> np.ndarray:
    """Return how many modes are in each of the groups."""
    single, width, groups = _groups(count)
    sizes = np.ones(single + groups)
    sizes[single:] = width
    if groups:
        sizes[-1] = count - single - width * (groups - 1)
    return sizes
